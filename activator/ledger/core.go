package ledger

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"pilotlight/activator"
)

// whole is one device in thousandths.
const whole = 1000

// core decides who gets which devices. It does no I/O, reads no clock and starts no goroutine.
type core struct {
	devices []device
	terms   map[string]Terms
	holds   []*hold          // in the order of their grants
	wants   []*want          // in the order of their arrival
	left    map[string]place // of models whose last want was given up, as for a new spec
	log     []event          // what happened to devices, for Ledger's log; read and cleared by it
}

// device is a Device and its condition.
type device struct {
	Device
	condition condition
	since     time.Time // of the condition
	baseline  int64     // what is in use although nobody holds it; −1: not measured yet
	measured  time.Time // when that was last asked
	looks     bool      // Settling: only to see what others have of it by now
	problem   string    // Quarantined: what is wrong, in words for clients
	cause     error     // of the problem, for operators; may be nil
}

// condition is whether a device can be given out.
type condition uint8

const (
	// Usable can be given out.
	Usable condition = iota
	// Settling waits for the memory of those who held it.
	Settling
	// Quarantined has waited too long; it is measured now and then.
	Quarantined
)

var conditionNames = [...]string{"usable", "settling", "quarantined"}

func (c condition) String() string { return conditionNames[c] }

// hold is a replica with devices.
type hold struct {
	who     Replica
	devices []int
	share   int // thousandths of each
	since   time.Time
	look    look
	seen    bool // look was ever seen
	leaving bool // it agreed to leave
	asked   bool // it was asked, and has not answered
	// askAgain is when to ask it again; it was busy.
	askAgain time.Time
}

// want is a replica that waits.
type want struct {
	who    Replica
	terms  Terms
	since  time.Time
	wanted time.Time // when a request last waited for its model
	reason string
}

// place is a place in the queue that was given up.
type place struct {
	since, given time.Time
}

// need is what it takes of each device.
func (t Terms) need() int {
	if t.Share > 0 && t.Count == 1 {
		return min(t.Share, whole)
	}
	return whole
}

func newCore(devices []Device, now time.Time) core {
	c := core{terms: map[string]Terms{}, left: map[string]place{}}
	for _, d := range devices {
		own := device{Device: d, baseline: -1, since: now}
		if d.Kind != "" {
			own.Group = "" // the kind says it
		}
		if d.Measured && !d.Missing {
			own.condition = Settling // until it was measured
		}
		c.devices = append(c.devices, own)
	}
	return c
}

func (c *core) setTerms(model string, t Terms) { c.terms[model] = t }

// reserve enters a newcomer; false: its model asks for nothing.
func (c *core) reserve(who Replica, now time.Time) bool {
	t := c.terms[who.Model]
	if t.Count == 0 {
		return false
	}
	if c.holdOf(who) != nil || c.wantOf(who) != nil {
		panic(fmt.Sprintf("BUG: replica %d of %s reserves devices twice", who.ID, who.Model))
	}
	since := now
	if p, ok := c.left[who.Model]; ok && now.Sub(p.given) < linger {
		since = p.since
	}
	delete(c.left, who.Model)
	c.wants = append(c.wants, &want{who: who, terms: t, since: since, wanted: now})
	return true
}

// giveUp is cancel for one that may come again at once, with another spec: those who wait for its model keep their place.
func (c *core) giveUp(who Replica, now time.Time) {
	if w := c.wantOf(who); w != nil {
		c.left[who.Model] = place{w.since, now}
	}
	c.cancel(who)
}

func (c *core) cancel(who Replica) {
	c.wants = slices.DeleteFunc(c.wants, func(w *want) bool { return w.who == who })
}

// release takes back what a replica held; nothing if it held nothing.
func (c *core) release(who Replica, now time.Time) {
	h := c.holdOf(who)
	if h == nil {
		return
	}
	c.holds = slices.DeleteFunc(c.holds, func(o *hold) bool { return o == h })
	for _, i := range h.devices {
		if d := &c.devices[i]; d.Measured {
			d.become(Settling, now)
		}
	}
}

func (d *device) become(to condition, now time.Time) {
	d.condition, d.since, d.problem, d.cause, d.looks = to, now, "", nil, false
}

// answered is what a replica that was asked to leave has said.
func (c *core) answered(who Replica, leaves bool, now time.Time) {
	h := c.holdOf(who)
	if h == nil {
		return
	}
	h.asked = false
	if leaves {
		h.leaving = true
	} else {
		h.askAgain = now.Add(askPause)
	}
}

// watcher shows the models to the core.
type watcher interface {
	look(Replica) (look, bool)
	demand(model string) int
}

// decision is what is to be done.
type decision struct {
	ends []end
	asks []ask
}

// end of a wait: with devices, or with an error.
type end struct {
	who Replica
	err error
}

// ask a replica to leave; yield: although it is busy.
type ask struct {
	who      Replica
	yield    bool
	forModel string
}

// UnfitError is why a replica can never have devices.
type UnfitError struct {
	// Asked and Have are for people: "2 L40s", "4 A10 and 1 H200".
	Asked, Have string
}

func (e *UnfitError) Error() string {
	return fmt.Sprintf("asks for %s, and this machine has %s", e.Asked, e.Have)
}

// IsPermanent is activator's question.
func (e *UnfitError) IsPermanent() bool { return true }

// KeptError is why a replica cannot have devices now, and why waiting for them is of no use: models that always run have them. It is
// told to those who ask only, so that a model which is always to run itself waits for a change.
type KeptError struct {
	// By names the models, for people.
	By string
}

func (e *KeptError) Error() string {
	return "the GPUs that it asks for belong to models that always run: " + e.By
}

// decide gives what is free to those who wait, in their order, and asks for what is not.
func (c *core) decide(now time.Time, w watcher) decision {
	var d decision
	for _, h := range c.holds {
		if seen, ok := w.look(h.who); ok {
			h.look, h.seen = seen, true
		}
	}
	claimed := make([]int, len(c.devices)) // thousandths that somebody earlier in the order waits for
	ahead := ""
	for _, n := range c.ordered() {
		if w.demand(n.who.Model) > 0 || c.missing(n) {
			n.wanted = now
		}
		if !c.fits(n.terms) {
			c.cancel(n.who)
			d.ends = append(d.ends, end{n.who, &UnfitError{Asked: asked(n.terms), Have: c.have(n.terms.Memory > 0)}})
			continue
		}
		if !n.wanted.Equal(now) { // it keeps its place for a while, and takes nothing
			n.reason = "waiting for GPUs: no request waits"
			if now.Sub(n.wanted) >= linger {
				c.cancel(n.who)
				d.ends = append(d.ends, end{n.who, activator.ErrUnwanted})
			}
			continue
		}
		p, ok := c.plan(n, claimed, now)
		if !ok {
			if by := c.heldForGood(n, now); by != "" && w.demand(n.who.Model) > 0 {
				c.cancel(n.who)
				d.ends = append(d.ends, end{n.who, &KeptError{By: by}})
				continue
			}
			n.reason = "waiting for GPUs: " + c.hopelessReason(n, ahead, now)
			continue
		}
		if p.worst == isFree && c.lookAgain(p.devices, now) {
			p.worst = isSettling
		}
		if p.worst == isFree {
			c.grant(n, p.devices, now)
			d.ends = append(d.ends, end{n.who, nil})
			continue
		}
		for _, i := range p.devices {
			claimed[i] += n.terms.need()
		}
		n.reason = "waiting for GPUs: " + c.reason(n, p, now)
		if ahead == "" {
			ahead = n.who.Model
		}
		if p.worst > isDue {
			continue
		}
		for _, v := range p.victims {
			if s := c.standingOf(v, n, now); (s == isIdle || s == isDue) && !v.asked {
				v.asked = true
				d.asks = append(d.asks, ask{v.who, s == isDue, n.who.Model})
			}
		}
	}
	return d
}

// lookAgain has devices measured that nobody holds and nobody has measured for a while: another program may have come. False: none
// needs it.
func (c *core) lookAgain(devices []int, now time.Time) bool {
	again := false
	for _, i := range devices {
		if d := &c.devices[i]; d.Measured && now.Sub(d.measured) > fresh && len(c.on(i)) == 0 {
			d.become(Settling, now)
			d.looks, again = true, true
		}
	}
	return again
}

// ordered are those who wait, next first.
func (c *core) ordered() []*want {
	out := slices.Clone(c.wants)
	slices.SortStableFunc(out, c.before)
	return out
}

// missing: the model has fewer replicas than it always has, so that it needs no request to want one.
func (c *core) missing(n *want) bool {
	have := 0
	for _, h := range c.holds {
		if h.who.Model == n.who.Model && !h.gives() {
			have++
		}
	}
	return have < c.terms[n.who.Model].Keep
}

func (c *core) grant(n *want, devices []int, now time.Time) {
	c.cancel(n.who)
	c.holds = append(c.holds, &hold{who: n.who, devices: devices, share: n.terms.need(), since: now})
}

// reserveNow gives a newcomer what is free, if nobody else waits for anything.
func (c *core) reserveNow(who Replica, now time.Time) error {
	t := c.terms[who.Model]
	if t.Count == 0 {
		return nil
	}
	n := &want{who: who, terms: t, since: now, wanted: now}
	p, ok := c.plan(n, make([]int, len(c.devices)), now)
	if len(c.wants) > 0 || !ok || p.worst != isFree {
		return activator.ErrNoRoom
	}
	c.grant(n, p.devices, now)
	return nil
}

// room is how many replicas of a model reserveNow would give devices to, at most so many.
func (c *core) room(model string, atMost int, now time.Time) int {
	if c.terms[model].Count == 0 {
		return atMost
	}
	trial := *c
	trial.holds = slices.Clone(c.holds)
	n := 0
	for n < atMost && trial.reserveNow(Replica{model, math.MaxUint64 - uint64(n)}, now) == nil {
		n++
	}
	return n
}

// adopt enters a hold that an earlier gateway gave out.
func (c *core) adopt(who Replica, ids []string, share int, now time.Time) error {
	h := &hold{who: who, share: whole, since: now}
	if share > 0 && len(ids) == 1 {
		h.share = min(share, whole)
	}
	for _, id := range ids {
		i := slices.IndexFunc(c.devices, func(d device) bool { return d.ID == id })
		switch {
		case i < 0 || c.devices[i].Missing:
			return fmt.Errorf("the account has no GPU %s", id)
		case slices.Contains(h.devices, i) || c.used(i)+h.share > whole:
			return fmt.Errorf("GPU %s is somebody else's", c.devices[i].Label)
		}
		h.devices = append(h.devices, i)
	}
	if len(h.devices) > 0 {
		slices.Sort(h.devices)
		c.holds = append(c.holds, h)
	}
	for _, i := range h.devices { // what is in use is its own, and has to come back
		c.devices[i].baseline = max(0, c.devices[i].baseline)
	}
	return nil
}

// on are the holders of a device.
func (c *core) on(i int) []*hold {
	var out []*hold
	for _, h := range c.holds {
		if slices.Contains(h.devices, i) {
			out = append(out, h)
		}
	}
	return out
}

func (c *core) holdOf(who Replica) *hold {
	for _, h := range c.holds {
		if h.who == who {
			return h
		}
	}
	return nil
}

func (c *core) wantOf(who Replica) *want {
	for _, w := range c.wants {
		if w.who == who {
			return w
		}
	}
	return nil
}

// placement is Ledger.Placement's.
func (c *core) placement(who Replica) (Placement, bool) {
	h := c.holdOf(who)
	if h == nil {
		return Placement{}, false
	}
	var p Placement
	for _, i := range h.devices {
		p.Devices = append(p.Devices, c.devices[i].Device)
	}
	if h.share < whole {
		p.Share = h.share
		others := 0
		for _, o := range c.on(h.devices[0]) {
			if o != h {
				others += o.share
			}
		}
		p.Left = whole - others
		p.Reserved = max(0, c.devices[h.devices[0]].baseline)
	}
	return p, true
}

// fits: it would get its devices if nobody else had any.
func (c *core) fits(t Terms) bool {
	for _, g := range c.groups(t) {
		if len(g) >= t.Count {
			return true
		}
	}
	return false
}

// groups are the sets of devices that a replica's may come from.
func (c *core) groups(t Terms) [][]int {
	type key struct{ kind, group string }
	byKey := map[key]int{}
	var out [][]int
	for i, d := range c.devices {
		if d.Missing || t.Kind != "" && d.Kind != t.Kind || t.Count > 1 && d.Alone || d.Memory > 0 && d.Memory < t.Memory {
			continue
		}
		k := key{d.Kind, d.Group}
		if t.Count == 1 {
			k = key{} // any will do
		}
		at, ok := byKey[k]
		if !ok {
			at = len(out)
			byKey[k] = at
			out = append(out, nil)
		}
		out[at] = append(out[at], i)
	}
	return out
}

func asked(t Terms) string {
	kind := t.Kind
	if kind == "" {
		kind = "GPUs of one kind"
		if t.Count == 1 {
			kind = "GPU"
		}
	}
	text := fmt.Sprintf("%d %s", t.Count, kind)
	if t.Memory > 0 {
		text += fmt.Sprintf(" with %s at least for its weights", gib(t.Memory))
	}
	return text
}

// have lists the devices by kind, and by size.
func (c *core) have(sizes bool) string {
	counts := map[string]int{}
	var names []string
	for _, d := range c.devices {
		name := d.Kind
		if name == "" {
			name = "of another kind"
		}
		if d.Missing {
			name += " that nvidia-smi does not show"
		}
		if sizes && d.Memory > 0 {
			name += " of " + gib(d.Memory)
		}
		if counts[name]++; counts[name] == 1 {
			names = append(names, name)
		}
	}
	for i, name := range names {
		names[i] = fmt.Sprintf("%d %s", counts[name], name)
	}
	return strings.Join(names, " and ")
}
