package activator

import "time"

// Weighted fair queueing by start tags: P. Goyal, H. Vin, H. Cheng, "Start-time Fair Queueing", SIGCOMM 1996. A tenant's tag is the virtual
// time at which its next request starts; serving one adds its work, divided by the tenant's weight. The smallest tag is served. Who
// begins to wait starts at the virtual time, so that nobody saves up a claim while idle: then one new request is served before
// the second next of any tenant, however many those have waiting. Start tags rather than finish tags, because work is not known
// before the answer has ended; then the difference is charged (charge), as virtual token counters do (Sheng et al., "Fairness
// in Serving Large Language Models", OSDI 2024).

// Work is what one request asks of a replica, in tokens.
type Work struct {
	// Prompt is an estimate of the prompt's tokens.
	Prompt int64
	// MaxOutput is the most tokens that the answer may have, all choices together. 0: it is not said; below: there are none.
	MaxOutput int64
}

const (
	// firstOutput is how many tokens an answer is expected to have where none was seen.
	firstOutput = 256
	// maxCost bounds what one request can be charged, in tokens: far above any context, and far from overflowing.
	maxCost = 1 << 26

	// tagScale makes tags finer than a token, for the weights' sake. 2^63 of them are 45 years of 100,000 tokens a second.
	tagScale = 1 << 16
	// meanScale makes the mean finer than a token; a new answer has a share of 1/meanShare in it.
	meanScale, meanShare = 16, 8

	// forgetAfter is how long nobody has waited until nobody is behind or ahead any more.
	forgetAfter = time.Minute

	defaultWeight, maxWeight = 1, 1000
)

type lineName struct {
	tenant   string
	priority int8
}

// line is one tenant's part of one level.
type line struct {
	name       lineName
	level      int32
	turn       int32 // the strand whose turn it is; none: nobody waits
	prev, next int32 // among the idle ones
	at         int32 // index in the level's heap; none: nobody waits
	weight     int32
	tag        int64
	entry      uint64 // of two equal tags, that which began to wait first is served first
	// fresh: it has just begun to wait, and has had no more than its share. Its first request goes before those who are owed time because they
	// were charged too much: they may be owed a lot, and it has no part in that.
	fresh bool
	mean  int64 // as queue.mean, of this tenant alone
}

// lineFor finds a request's line, or makes it.
func (q *queue) lineFor(r *Request) int32 {
	name := lineName{r.Tenant, int8(min(max(r.Priority, minPriority), maxPriority))}
	weight := int32(min(max(r.Weight, 0), maxWeight))
	if weight == 0 {
		weight = defaultWeight
	}
	if fi, ok := q.names[name]; ok {
		q.lines[fi].weight = weight // it may have been changed
		return fi
	}
	fi := q.unused
	if fi == none {
		fi = int32(len(q.lines))
		q.lines = append(q.lines, line{})
	} else {
		q.unused = q.lines[fi].next
	}
	q.lines[fi] = line{name: name, level: q.levelFor(name.priority), turn: none, at: none, weight: weight}
	q.names[name] = fi
	q.setIdle(fi)
	return fi
}

func (q *queue) levelFor(priority int8) int32 {
	for i := range q.levels {
		if q.levels[i].priority == priority {
			return int32(i)
		}
	}
	q.levels = append(q.levels, level{priority: priority, oldest: none, newest: none})
	return int32(len(q.levels) - 1)
}

// enter has a line take part, now that somebody waits.
func (q *queue) enter(fi int32, now moment) {
	f := &q.lines[fi]
	l := &q.levels[f.level]
	from := l.virtual
	switch {
	case len(l.heap) > 0: // some may be owed time, because they were charged too much
		from = min(from, q.lines[l.heap[0]].tag)
	case now-l.last >= forgetAfter:
		l.virtual = max(l.virtual, l.highest)
		from = l.virtual
	}
	q.unsetIdle(fi)
	f.fresh = f.tag <= from
	f.tag = max(f.tag, from)
	q.entries++
	f.entry = q.entries
	f.at = int32(len(l.heap))
	l.heap = append(l.heap, fi)
	q.up(l, int(f.at))
}

// leave ends a line's part. It is remembered: coming and going settles no debts.
func (q *queue) leave(fi int32) {
	f := &q.lines[fi]
	l := &q.levels[f.level]
	at, end := int(f.at), len(l.heap)-1
	l.heap[at] = l.heap[end]
	q.lines[l.heap[at]].at = int32(at)
	l.heap = l.heap[:end]
	f.at = none
	if at < end {
		q.fix(l, at)
	}
	if end == 0 && cap(l.heap) > 1024 {
		l.heap = nil
	}
	q.setIdle(fi)
	for q.idle > keptLines {
		q.drop(q.idlest)
	}
}

// drop forgets an idle line.
func (q *queue) drop(fi int32) {
	q.unsetIdle(fi)
	delete(q.names, q.lines[fi].name)
	q.lines[fi] = line{next: q.unused, at: none, turn: none}
	q.unused = fi
}

func (q *queue) setIdle(fi int32) {
	q.lines[fi].prev, q.lines[fi].next = q.latest, none
	if q.latest == none {
		q.idlest = fi
	} else {
		q.lines[q.latest].next = fi
	}
	q.latest = fi
	q.idle++
}

func (q *queue) unsetIdle(fi int32) {
	f := &q.lines[fi]
	if f.prev == none {
		q.idlest = f.next
	} else {
		q.lines[f.prev].next = f.next
	}
	if f.next == none {
		q.latest = f.prev
	} else {
		q.lines[f.next].prev = f.prev
	}
	q.idle--
}

// charge corrects what a dispatched request was charged by the difference to what it was (negative: it was less), and learns from a
// whole answer of output tokens (0: nothing is to be learned). The tenant may have been forgotten meanwhile.
func (q *queue) charge(r *Request, difference, output int64) {
	f := &q.lines[q.lineFor(r)]
	l := &q.levels[f.level]
	if f.tag == 0 { // it was forgotten, as were its debts
		f.tag = l.virtual
	}
	q.addTo(f, min(max(difference, -maxCost), maxCost))
	if output > 0 {
		output = min(output, maxCost) * meanScale
		f.mean = blend(f.mean, output)
		q.mean = blend(q.mean, output)
	}
	for q.idle > keptLines {
		q.drop(q.idlest)
	}
}

func blend(mean, seen int64) int64 {
	if mean == 0 {
		return seen
	}
	return max(1, mean+(seen-mean)/meanShare)
}

// addTo moves a line's tag by work.
func (q *queue) addTo(f *line, work int64) {
	f.tag = max(0, f.tag+work*tagScale/int64(f.weight))
	l := &q.levels[f.level]
	l.highest = max(l.highest, f.tag)
	f.fresh = f.fresh && f.tag <= l.virtual
	if f.at != none {
		q.fix(l, int(f.at))
	}
}

// expect is what a request is charged when it is dispatched: its prompt, and the answer that the tenant's earlier ones let expect.
func (q *queue) expect(f *line, w Work) int64 {
	output := int64(firstOutput)
	switch {
	case f.mean > 0:
		output = f.mean / meanScale
	case q.mean > 0:
		output = q.mean / meanScale
	}
	if w.MaxOutput != 0 {
		output = min(output, max(0, w.MaxOutput))
	}
	return min(max(1, max(0, w.Prompt)+output), maxCost)
}

// before is the order of the heap.
func (f *line) before(o *line) bool {
	switch {
	case f.fresh != o.fresh:
		return f.fresh
	case f.tag != o.tag && !f.fresh:
		return f.tag < o.tag
	}
	return f.entry < o.entry
}

func (q *queue) fix(l *level, i int) {
	if !q.down(l, i) {
		q.up(l, i)
	}
}

func (q *queue) up(l *level, i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !q.lines[l.heap[i]].before(&q.lines[l.heap[parent]]) {
			return
		}
		q.swap(l, i, parent)
		i = parent
	}
}

func (q *queue) down(l *level, i int) (moved bool) {
	for {
		least := 2*i + 1
		if least >= len(l.heap) {
			return moved
		}
		if right := least + 1; right < len(l.heap) && q.lines[l.heap[right]].before(&q.lines[l.heap[least]]) {
			least = right
		}
		if !q.lines[l.heap[least]].before(&q.lines[l.heap[i]]) {
			return moved
		}
		q.swap(l, i, least)
		i, moved = least, true
	}
}

func (q *queue) swap(l *level, i, j int) {
	l.heap[i], l.heap[j] = l.heap[j], l.heap[i]
	q.lines[l.heap[i]].at, q.lines[l.heap[j]].at = int32(i), int32(j)
}
