package sglangsim

import (
	"net/http"
	"time"
)

var memoryTags = [...]string{"kv_cache", "weights", "cuda_graph"}

// The faults of falling asleep and waking up. busy: the scheduler never counts as idle, for /flush_cache; status: 500; hang: no
// answer; die: SIGKILL instead of an answer; mute: answers are empty afterwards, as without a copy of the weights; late: the first
// generation afterwards kills.
var (
	sleepFaults = []string{"busy", "status", "hang", "die"}
	wakeFaults  = []string{"status", "hang", "die", "mute", "late"}
)

func readTags(r *http.Request) ([]string, error) {
	var req struct {
		Tags []string `json:"tags"`
	}
	if err := decodeAny(r, &req); err != nil {
		return nil, err
	}
	if len(req.Tags) == 0 {
		return memoryTags[:], nil
	}
	return req.Tags, nil
}

// unresponsive keeps a question to a hung scheduler waiting until the server's end.
func (s *Server) unresponsive() {
	if s.isHung() {
		<-s.dead
		panic(http.ErrAbortHandler)
	}
}

// perish ends the server with a scheduler's last words, and the question without an answer.
func (s *Server) perish(after time.Duration, words string) {
	s.log.ranks("Scheduler hit an exception: Traceback (most recent call last):\n%s", words)
	s.dieAfter(after)
	<-s.dead
	panic(http.ErrAbortHandler)
}

// faulty does what --sim-sleep-fault or --sim-wake-fault ask for; true: the question was answered.
func (s *Server) faulty(w http.ResponseWriter, mode string, delay time.Duration) bool {
	if !s.sleep(delay) {
		panic(http.ErrAbortHandler)
	}
	switch mode {
	case "status":
		writeJSON(w, http.StatusInternalServerError, map[string]any{"error": map[string]string{"message": "simulated failure"}})
		return true
	case "hang":
		<-s.dead
		panic(http.ErrAbortHandler)
	case "die":
		s.die(ErrDied)
		panic(http.ErrAbortHandler)
	}
	return false
}

// releaseMemory puts the server to sleep. A busy one dies, with or without a memory saver, and so does one that has released
// the same already; without a saver nothing is freed.
func (s *Server) releaseMemory(w http.ResponseWriter, r *http.Request) {
	tags, err := readTags(r)
	if err != nil {
		nativeError(w, err)
		return
	}
	s.unresponsive()
	running, waiting, _ := s.engine.load()
	if running+waiting > 0 {
		s.perish(s.opts.CrashDelay, "AssertionError: release_memory_occupation should be called only when no ongoing request.")
	}
	if s.faulty(w, s.opts.Faults.Sleep, s.opts.Faults.SleepDelay) {
		return
	}
	s.engine.mu.Lock()
	twice := false
	for _, tag := range tags {
		twice = twice || s.engine.asleep[tag] && s.opts.MemorySaver
		s.engine.asleep[tag] = true
	}
	s.engine.mu.Unlock()
	if twice {
		s.perish(0, "RuntimeError: torch_memory_saver: pause of an allocation that is paused")
	}
	if s.cache != nil {
		s.cache.clear()
	}
	s.occupied()
	s.stats.change(func(v *Stats) { v.Sleeps++ })
	writeJSON(w, http.StatusOK, nil)
}

// resumeMemory wakes the server; a tag that was not released kills it.
func (s *Server) resumeMemory(w http.ResponseWriter, r *http.Request) {
	tags, err := readTags(r)
	if err != nil {
		nativeError(w, err)
		return
	}
	s.unresponsive()
	s.engine.mu.Lock()
	unknown := ""
	for _, tag := range tags {
		if !s.engine.asleep[tag] {
			unknown = tag
		}
	}
	s.engine.mu.Unlock()
	if unknown != "" {
		s.perish(0, "KeyError: '"+unknown+"'")
	}
	if s.faulty(w, s.opts.Faults.Wake, s.opts.Faults.WakeDelay) {
		return
	}
	s.engine.mu.Lock()
	for _, tag := range tags {
		delete(s.engine.asleep, tag)
		if tag == "weights" && s.opts.MemorySaver && (!s.opts.WeightsBackup || s.opts.Faults.Wake == "mute") {
			s.engine.garbage = true
		}
	}
	s.engine.doomed = s.opts.Faults.Wake == "late"
	s.engine.mu.Unlock()
	s.occupied()
	s.stats.change(func(v *Stats) { v.Wakes++ })
	writeJSON(w, http.StatusOK, nil)
}

// occupied tells whoever wants to know how much of its memory the server occupies now.
func (s *Server) occupied() {
	if s.opts.Occupied == nil || !s.opts.MemorySaver {
		return
	}
	s.engine.mu.Lock()
	kv, weights := !s.engine.asleep["kv_cache"], !s.engine.asleep["weights"]
	s.engine.mu.Unlock()
	s.opts.Occupied(kv, weights)
}
