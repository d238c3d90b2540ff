package activator

import "math"

// InFlight is the number of requests in flight at a replica that takes requests; 0 for one that does not. Safe for concurrent use.
func (m *Model) InFlight(replica uint64) int {
	for _, r := range m.open.Load().replicas {
		if r.id == replica {
			return r.load().inFlight()
		}
	}
	return 0
}

// Hold keeps a replica that has requests in flight from becoming idle, and so from sleeping, being stopped or preempted for it, until release
// is called, once. It is beyond the replica's limit and no activity: idleness counts from the last real request. false: nothing is in
// flight, or the replica takes no requests. Safe for concurrent use.
func (m *Model) Hold(replica uint64) (release func(), ok bool) {
	for _, r := range m.open.Load().replicas {
		if r.id == replica && r.join() {
			return func() { m.afterLeave(r.leave()) }, true
		}
	}
	return nil, false
}

// join is enter for whoever only wants to be there while somebody else is.
func (r *replica) join() bool {
	for {
		w := r.load()
		next, ok := w.enter(math.MaxInt)
		if !ok || w.inFlight() == 0 {
			return false
		}
		if r.swap(w, next) {
			return true
		}
	}
}
