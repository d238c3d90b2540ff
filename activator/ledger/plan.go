package ledger

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"pilotlight/activator"
)

// plan is a way to give a newcomer its devices.
type plan struct {
	devices []int
	victims []*hold  // that must leave before
	worst   standing // of them, and of the devices
	cost    float64  // of bringing the victims back
}

// plan finds the nearest and cheapest way, among devices that nobody earlier in the order waits for. A device that is free and fits
// best is taken first, then those whose holders are nearest to leaving. False: what is pinned, kept, claimed or out of order
// leaves too few.
func (c *core) plan(n *want, claimed []int, now time.Time) (plan, bool) {
	var best plan
	found := false
	for _, group := range c.groups(n.terms) {
		p, ok := c.planIn(group, n, claimed, now)
		if ok && (!found || p.worst < best.worst || p.worst == best.worst && p.cost < best.cost) {
			best, found = p, true
		}
	}
	return best, found
}

func (c *core) planIn(group []int, n *want, claimed []int, now time.Time) (plan, bool) {
	var p plan
	left := slices.Clone(group)
	for range n.terms.Count {
		at := -1
		var next plan
		for k, i := range left {
			o, ok := c.clear(i, n, claimed[i], p.victims, now)
			if ok && (at < 0 || c.nearer(o, next)) {
				at, next = k, o
			}
		}
		if at < 0 {
			return plan{}, false
		}
		p.devices = append(p.devices, left[at])
		p.victims = append(p.victims, next.victims...)
		p.worst = max(p.worst, next.worst)
		p.cost += next.cost
		left = slices.Delete(left, at, at+1)
	}
	c.spare(&p, group, n, claimed, now)
	slices.Sort(p.devices)
	return p, true
}

// spare drops victims without whom it works as well: one was taken for one of its devices, and another then freed more.
func (c *core) spare(p *plan, group []int, n *want, claimed []int, now time.Time) {
	for _, v := range slices.Clone(p.victims) {
		others := slices.DeleteFunc(slices.Clone(p.victims), func(h *hold) bool { return h == v })
		without := plan{victims: others}
		for _, i := range group {
			o, ok := c.clear(i, n, claimed[i], others, now)
			if ok && len(o.victims) == 0 && len(without.devices) < n.terms.Count {
				without.devices = append(without.devices, i)
				without.worst = max(without.worst, o.worst)
			}
		}
		if len(without.devices) == n.terms.Count && without.worst <= p.worst {
			for _, h := range others {
				without.cost += h.cost(now)
			}
			*p = without
		}
	}
}

// nearer compares two ways to clear a device. Of free ones the fuller is taken, so that whole ones stay for those who need them;
// of others the one that moves less; and before all that one whose memory no other program has.
func (c *core) nearer(a, b plan) bool {
	switch {
	case a.worst != b.worst:
		return a.worst < b.worst
	case a.cost != b.cost:
		return a.cost < b.cost
	}
	if x, y := c.devices[a.devices[0]].others(), c.devices[b.devices[0]].others(); x != y {
		return x < y
	}
	if x, y := shares(a.victims), shares(b.victims); x != y {
		return x < y
	}
	return c.used(a.devices[0]) > c.used(b.devices[0])
}

func shares(holds []*hold) int {
	n := 0
	for _, h := range holds {
		n += h.share
	}
	return n
}

func (c *core) used(i int) int {
	n := 0
	for _, h := range c.on(i) {
		n += h.share
	}
	return n
}

// clear is how a newcomer gets its part of a device. gone leave anyhow by the same plan.
func (c *core) clear(i int, n *want, claimed int, gone []*hold, now time.Time) (plan, bool) {
	p := plan{devices: []int{i}}
	d := &c.devices[i]
	switch d.condition {
	case Quarantined:
		return p, false
	case Settling:
		p.worst = isSettling
	}
	free := whole - claimed
	holders := c.on(i)
	for _, h := range holders {
		free -= h.share
	}
	for _, h := range holders {
		if slices.Contains(gone, h) {
			free += h.share
			p.worst = max(p.worst, c.standingOf(h, n, now))
		}
	}
	holders = slices.DeleteFunc(holders, func(h *hold) bool { return slices.Contains(gone, h) })
	slices.SortStableFunc(holders, func(a, b *hold) int {
		if x, y := c.standingOf(a, n, now), c.standingOf(b, n, now); x != y {
			return int(x) - int(y)
		}
		if x, y := a.cost(now), b.cost(now); x != y {
			if x < y {
				return -1
			}
			return 1
		}
		return 0
	})
	for _, h := range holders {
		if free >= n.terms.need() {
			break
		}
		s := c.standingOf(h, n, now)
		if s == isFixed {
			break
		}
		free += h.share
		p.victims = append(p.victims, h)
		p.worst = max(p.worst, s)
		if s != isLeaving {
			p.cost += h.cost(now)
		}
	}
	// Engines that start on one device at the same time misjudge what memory is free, and so does one that starts while another
	// leaves. Only shares can.
	if slices.ContainsFunc(holders, func(h *hold) bool { return !slices.Contains(p.victims, h) && c.standingOf(h, n, now) == isStarting }) {
		beside := isBeside
		if len(p.victims) > 0 {
			beside = isStarting
		}
		p.worst = max(p.worst, beside)
	}
	return p, free >= n.terms.need()
}

// reason says what a plan waits for.
func (c *core) reason(n *want, p plan, now time.Time) string {
	var parts []string
	for _, v := range p.victims {
		parts = append(parts, c.holder(v, c.standingOf(v, n, now)))
	}
	if len(parts) > 0 {
		text := "held by " + some(parts)
		if p.worst == isStarting && !slices.ContainsFunc(p.victims, func(h *hold) bool { return c.standingOf(h, n, now) == isStarting }) {
			text += ", and another start on the same GPU goes first"
		}
		return text
	}
	for _, i := range p.devices {
		if d := &c.devices[i]; d.condition == Settling && d.looks {
			return "looking at the memory of " + d.Label
		} else if d.condition == Settling {
			parts = append(parts, d.Label)
		}
	}
	if len(parts) > 0 {
		return "the memory of " + some(parts) + " is not back yet"
	}
	return "another start on the same GPU goes first"
}

// hopelessReason says why there is no plan. ahead waits longer; empty: nobody does.
func (c *core) hopelessReason(n *want, ahead string, now time.Time) string {
	if _, ok := c.plan(n, make([]int, len(c.devices)), now); ok && ahead != "" {
		return ahead + " waits longer"
	}
	var fixed, broken []string
	for _, group := range c.groups(n.terms) {
		for _, i := range group {
			if d := &c.devices[i]; d.condition == Quarantined {
				broken = append(broken, d.Label+" ("+d.problem+")")
			}
			for _, h := range c.on(i) {
				if c.standingOf(h, n, now) == isFixed {
					fixed = append(fixed, c.holder(h, isFixed))
				}
			}
		}
	}
	var parts []string
	if len(fixed) > 0 {
		parts = append(parts, "held by "+some(fixed))
	}
	if len(broken) > 0 {
		parts = append(parts, "out of order: "+some(broken))
	}
	return strings.Join(parts, "; ")
}

// heldForGood tells whose models always have so many of the devices that this one gets none as long as that is so; empty: it may
// get some.
func (c *core) heldForGood(n *want, now time.Time) string {
	var by []string
	for _, group := range c.groups(n.terms) {
		left := 0
		for _, i := range group {
			free := whole
			for _, h := range c.on(i) {
				if t := c.terms[h.who.Model]; c.standingOf(h, n, now) == isFixed && c.kept(h, t) {
					free -= h.share
					by = append(by, h.who.Model)
				}
			}
			if free >= n.terms.need() {
				left++
			}
		}
		if left >= n.terms.Count {
			return ""
		}
	}
	return some(by)
}

// holder describes one, with its model's name and nothing else of those who use it.
func (c *core) holder(h *hold, s standing) string {
	says := "busy"
	if n := h.look.inFlight + h.look.queued; n == 1 {
		says = "busy, 1 request"
	} else if n > 1 {
		says = fmt.Sprintf("busy, %d requests", n)
	}
	switch s {
	case isLeaving:
		says = "leaving"
		if n := h.look.inFlight; n > 0 && h.look.state == activator.Draining {
			says = fmt.Sprintf("leaving after %d in flight", n)
		}
	case isIdle, isStaying, isStarting:
		says = "idle"
		if s == isStarting {
			says = "starting"
		}
		if h.look.state == activator.Asleep {
			says = "asleep"
		}
	case isFixed:
		says = "always on"
		if c.terms[h.who.Model].Pinned {
			says = "pinned"
		}
	}
	return h.who.Model + " (" + says + ")"
}

// some joins the first few, each once.
func some(parts []string) string {
	slices.Sort(parts)
	parts = slices.Compact(parts)
	if len(parts) > 3 {
		parts = append(parts[:3:3], "others")
	}
	return strings.Join(parts, ", ")
}
