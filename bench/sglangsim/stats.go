package sglangsim

import (
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Stats is what the server has seen, for tests; GET /sim/stats answers it as JSON. Requests are valid ones for
// inference, embeddings and the like included. The warm-up and probes do not count.
type Stats struct {
	Requests         int64 `json:"requests"`          // received, refused ones included
	Finished         int64 `json:"finished"`          // generated to their end
	Aborted          int64 `json:"aborted"`           // ended by /abort_request or a pause
	Disconnected     int64 `json:"disconnected"`      // clients that were seen to leave
	Abandoned        int64 `json:"abandoned"`         // requests that ended because their client had left
	Refused          int64 `json:"refused"`           // queue full, duplicate rid
	Faulted          int64 `json:"faulted"`           // ended by a fault switch
	Running          int64 `json:"running"`           // now
	Waiting          int64 `json:"waiting"`           // now, in the line or behind a pause
	PeakRunning      int64 `json:"peak_running"`      // most at once
	GeneratedTokens  int64 `json:"generated_tokens"`  // also those that nobody read
	WhileDraining    int64 `json:"while_draining"`    // received after SIGTERM
	BadKeys          int64 `json:"bad_keys"`          // requests that carried a credential other than this server's key
	Unauthorized     int64 `json:"unauthorized"`      // answered 401
	ConnectionResets int64 `json:"connection_resets"` // by --sim-reset-reuse
	Sleeps           int64 `json:"sleeps"`            // releases of memory that went well
	Wakes            int64 `json:"wakes"`             // and resumes

	Ready    bool `json:"ready"`
	Draining bool `json:"draining"`

	LastAbort   time.Time         `json:"last_abort"`   // when the last aborted request had ended
	LastRequest time.Time         `json:"last_request"` // when the last one was received
	Routes      map[string]int64  `json:"routes"`       // "METHOD /path", as received
	LastHeaders map[string]string `json:"last_headers"` // of the last inference request; credentials only as "engine key" or "other"
}

type stats struct {
	mu sync.Mutex // guards the rest
	v  Stats
}

func newStats() *stats {
	return &stats{v: Stats{Routes: map[string]int64{}, LastHeaders: map[string]string{}}}
}

func (s *stats) change(f func(v *Stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.v)
}

func (s *stats) received(draining bool) {
	s.change(func(v *Stats) {
		v.Requests++
		v.LastRequest = time.Now()
		if draining {
			v.WhileDraining++
		}
	})
}

func (s *stats) refused()        { s.change(func(v *Stats) { v.Refused++ }) }
func (s *stats) disconnected()   { s.change(func(v *Stats) { v.Disconnected++ }) }
func (s *stats) generated(n int) { s.change(func(v *Stats) { v.GeneratedTokens += int64(n) }) }
func (s *stats) peak(n int64)    { s.change(func(v *Stats) { v.PeakRunning = max(v.PeakRunning, n) }) }

func (s *stats) ended(out outcome) {
	s.change(func(v *Stats) {
		switch out {
		case outcomeDone:
			v.Finished++
		case outcomeAborted:
			v.Aborted++
			v.LastAbort = time.Now()
		case outcomeLeft:
			v.Abandoned++
		case outcomeCut, outcomeError:
			v.Faulted++
		case outcomeDead:
		}
	})
}

// credentialHeaders may carry a client's key.
var credentialHeaders = []string{"Authorization", "X-Api-Key", "Api-Key", "Cookie", "Proxy-Authorization"}

// seen counts a request by route and looks for credentials that are not the engine's own.
func (s *stats) seen(r *http.Request, key string) {
	foreign := false
	headers := make(map[string]string, len(r.Header))
	for name, values := range r.Header {
		headers[name] = strings.Join(values, ", ")
	}
	for _, name := range credentialHeaders {
		value, ok := headers[name]
		if !ok {
			continue
		}
		headers[name] = "engine key"
		if key == "" || name != "Authorization" || value != "Bearer "+key {
			headers[name] = "other"
			foreign = true
		}
	}
	s.change(func(v *Stats) {
		if len(v.Routes) < 1000 || v.Routes[r.Method+" "+r.URL.Path] > 0 { // a scanner's paths need no memory
			v.Routes[r.Method+" "+r.URL.Path]++
		}
		if foreign {
			v.BadKeys++
		}
		if r.Method == http.MethodPost {
			v.LastHeaders = headers
		}
	})
}

// Stats is a copy of what was seen until now.
func (s *Server) Stats() Stats {
	s.stats.mu.Lock()
	v := s.stats.v
	v.Routes, v.LastHeaders = maps.Clone(v.Routes), maps.Clone(v.LastHeaders)
	s.stats.mu.Unlock()
	running, waiting, blocked := s.engine.load()
	v.Running, v.Waiting = int64(running), int64(waiting+blocked)
	v.Ready, v.Draining = s.up.Load(), s.draining.Load()
	return v
}

// Idle tells whether no request is in the engine.
func (s *Server) Idle() bool {
	running, waiting, blocked := s.engine.load()
	return running+waiting+blocked == 0
}
