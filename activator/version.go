package activator

import (
	"log/slog"
	"maps"
)

// version is a spec that replicas are of: what starts them, and what is learned of them.
type version struct {
	launcher Launcher
	subject  Subject
}

// take has a change's version in force. Equal hashes are one version for as long as it may be needed: who goes back to what is still served keeps it.
func (o *owner) take(c *change) {
	c.spec = 0
	newest := uint64(0)
	for n, v := range o.versions {
		if newest = max(newest, n); v.subject.Spec == c.subject.Spec {
			c.spec = n
		}
	}
	if c.spec == 0 {
		c.spec = newest + 1
	}
	used := map[uint64]bool{c.spec: true, o.core.spec: true, o.core.fallback: true, newest: true}
	for i := range o.core.slots {
		used[o.core.slots[i].spec] = true
	}
	maps.DeleteFunc(o.versions, func(n uint64, _ version) bool { return !used[n] })
	o.versions[c.spec] = version{c.launcher, c.subject}
	o.launcher, o.subject, o.refused = c.launcher, c.subject, nil
	o.model.queued.setLimits(c.config.MaxQueuedRequests, c.config.MaxQueuedBytes)
}

// rollBack has the version in force that the machine has gone back to.
func (o *owner) rollBack(err error) {
	m, from := o.model, o.subject
	c := change{config: o.core.config, launcher: o.launcher, subject: o.subject}
	v := o.versions[o.core.spec]
	o.launcher, o.subject, o.refused = v.launcher, v.subject, &c
	m.log.Error("no replica of the changed model became ready; it stays as it was until it is changed or tried again", slog.String("model", m.name), slog.Any("error", err))
	if m.observer.RollBack != nil {
		m.observer.RollBack(m.name, from.Spec, err)
	}
}
