package activator

import (
	"errors"
	"fmt"
	"time"
)

// Adopted is a replica that an earlier gateway has left. It holds its devices by the ledger's account already. Its requests in flight count
// as unknown, so that it is not idle, until its instance's Settle has returned; without a Settler that is at once.
type Adopted struct {
	// ID is the one that it was started under.
	ID uint64
	// Instance is nil while its start is under way: Launcher.Launch is called with the ID, and takes it over.
	Instance Instance
	// Began is when its start began.
	Began time.Time
	// Outdated: it is ready, and of another spec than Options.Launcher's. It is replaced as after an Update.
	Outdated bool
}

func checkAdopted(found []Adopted, c Config) error {
	seen := map[uint64]bool{}
	for _, a := range found {
		if a.ID == 0 || seen[a.ID] {
			return fmt.Errorf("activator: adopted replica %d has no id of its own", a.ID)
		}
		seen[a.ID] = true
	}
	most := c.Max
	if c.Surge {
		most++
	}
	if len(found) > most {
		return errors.New("activator: more replicas are adopted than there may be")
	}
	return nil
}

// adopt takes replicas over, before anything else happens.
func (o *owner) adopt(found []Adopted) {
	m := o.model
	for i, a := range found {
		e := event{kind: evAdopt, id: a.ID, n: len(found) - 1 - i, old: a.Outdated}
		if a.Instance != nil {
			o.instances[a.ID] = a.Instance
			o.watch(a.ID, a.Instance)
			e.ok, e.limit, e.instance = true, a.Instance.Concurrency(), a.Instance
		} else {
			o.openStart(a.ID, min(m.now(), a.Began.Sub(m.base)+1)).found = true
		}
		o.handle(e)
	}
}

// settle reports when an adopted replica's requests in flight are known.
func (o *owner) settle(id uint64, instance Instance) {
	m := o.model
	s, ok := instance.(Settler)
	if !ok {
		m.mail.send(event{kind: evSettled, id: id})
		return
	}
	o.wg.Go(func() {
		if s.Settle(o.detached) == nil { // else it is gone, or we are
			m.mail.send(event{kind: evSettled, id: id})
		}
	})
}
