package mockengine

import (
	"sync"
	"sync/atomic"
)

// Record is what an engine has seen. Every request that was received ends in exactly one of Finished, Left, Refused and Broken, or
// is in InFlight still.
type Record struct {
	Requests int64 `json:"requests"`  // for an answer, received whole
	Finished int64 `json:"finished"`  // answered whole
	Left     int64 `json:"left"`      // their client left before the end
	Refused  int64 `json:"refused"`   // with the status of their script
	Broken   int64 `json:"broken"`    // off, as their script says
	InFlight int64 `json:"in_flight"` // now

	Repeated int64 `json:"repeated"` // requests whose number had been seen; those that break off at the head are not counted
	Aborts   int64 `json:"aborts"`   // calls of /abort_request
	// Malformed are heads and bodies that could not be read, and bytes that came before the answer had ended.
	Malformed int64 `json:"malformed"`

	Connections int64 `json:"connections"` // accepted
	// Expired connections were idle until the engine's keep-alive was over; on any later write to them a request is lost.
	Expired int64 `json:"expired"`
	// LongestIdle is the longest pause between two requests on one connection, in milliseconds.
	LongestIdle int64 `json:"longest_idle_ms"`
}

// Add sums two engines' records.
func (r Record) Add(other Record) Record {
	r.Requests += other.Requests
	r.Finished += other.Finished
	r.Left += other.Left
	r.Refused += other.Refused
	r.Broken += other.Broken
	r.InFlight += other.InFlight
	r.Repeated += other.Repeated
	r.Aborts += other.Aborts
	r.Malformed += other.Malformed
	r.Connections += other.Connections
	r.Expired += other.Expired
	r.LongestIdle = max(r.LongestIdle, other.LongestIdle)
	return r
}

// counters are a Record that many connections write.
type counters struct {
	requests, finished, left, refused, broken, inFlight, repeated, aborts, malformed, connections, expired, longestIdle atomic.Int64
}

func (c *counters) record() Record {
	return Record{
		Requests: c.requests.Load(), Finished: c.finished.Load(), Left: c.left.Load(), Refused: c.refused.Load(), Broken: c.broken.Load(),
		InFlight: c.inFlight.Load(), Repeated: c.repeated.Load(), Aborts: c.aborts.Load(), Malformed: c.malformed.Load(),
		Connections: c.connections.Load(), Expired: c.expired.Load(), LongestIdle: c.longestIdle.Load(),
	}
}

func (c *counters) idle(milliseconds int64) {
	for {
		old := c.longestIdle.Load()
		if milliseconds <= old || c.longestIdle.CompareAndSwap(old, milliseconds) {
			return
		}
	}
}

// seen is a set of small numbers.
type seen struct {
	mu    sync.Mutex // guards words
	words []uint64
}

// maxID bounds the memory of seen: 125 MB.
const maxID = 1_000_000_000

// add tells whether n was there already.
func (s *seen) add(n uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	word, bit := int(n/64), uint64(1)<<(n%64)
	for word >= len(s.words) {
		s.words = append(s.words, 0)
	}
	was := s.words[word]&bit != 0
	s.words[word] |= bit
	return was
}
