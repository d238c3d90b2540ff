package sglangsim

import (
	"net/http"
	"strconv"
	"time"
)

func (s *Server) ok(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }

// flushCache answers 400 while requests are in the engine; ?timeout=S waits for them.
func (s *Server) flushCache(w http.ResponseWriter, r *http.Request) {
	if seconds, err := strconv.ParseFloat(r.URL.Query().Get("timeout"), 64); err == nil && seconds > 0 {
		s.engine.mu.Lock()
		idle := s.engine.idle
		s.engine.mu.Unlock()
		t := time.NewTimer(time.Duration(seconds * float64(time.Second)))
		defer t.Stop()
		select {
		case <-idle:
		case <-t.C:
		case <-r.Context().Done():
		case <-s.dead:
		}
	}
	s.unresponsive()
	// Requests that a pause keeps out have not come to the scheduler.
	if running, waiting, _ := s.engine.load(); running+waiting > 0 || s.opts.Faults.Sleep == "busy" {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte("Flush cache failed.\nPlease check backend logs for more details. (When there are running or waiting requests, the operation will not be performed.)\n"))
		return
	}
	if s.cache != nil {
		s.cache.clear()
	}
	_, _ = w.Write([]byte("Cache flushed.\nPlease check backend logs for more details. (When there are running or waiting requests, the operation will not be performed.)\n"))
}

// abortRequest ends requests by a prefix of their rid; an unknown one is no error.
func (s *Server) abortRequest(w http.ResponseWriter, r *http.Request) {
	var req struct {
		RID      string `json:"rid"`
		AbortAll bool   `json:"abort_all"`
	}
	if err := decodeAny(r, &req); err != nil {
		writeError(w, err)
		return
	}
	if req.AbortAll {
		s.engine.abortWhere(func(string) bool { return true })
	} else {
		s.engine.abort(req.RID)
	}
	w.WriteHeader(http.StatusOK)
}

// pauseGeneration keeps new requests out. Mode abort returns once those in flight have ended.
func (s *Server) pauseGeneration(w http.ResponseWriter, r *http.Request) {
	req := struct {
		Mode string `json:"mode"`
	}{Mode: "abort"}
	if err := decodeAny(r, &req); err != nil {
		nativeError(w, err)
		return
	}
	switch req.Mode {
	case "abort", "retract", "in_place":
	default:
		nativeError(w, badRequest("mode must be abort, retract or in_place"))
		return
	}
	idle := s.engine.pause(req.Mode)
	if req.Mode == "abort" {
		select {
		case <-idle:
		case <-s.dead:
			panic(http.ErrAbortHandler)
		}
	}
	writeJSON(w, http.StatusOK, map[string]string{"message": "Generation paused successfully.", "status": "ok"})
}

func (s *Server) continueGeneration(w http.ResponseWriter, _ *http.Request) {
	s.engine.resume()
	writeJSON(w, http.StatusOK, map[string]string{"message": "Generation continued successfully.", "status": "ok"})
}

// isGarbage tells whether the weights came back from a sleep without a backup.
func (e *engine) isGarbage() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.garbage
}

// updateWeights changes the path that /model_info shows and makes the weights good again.
func (s *Server) updateWeights(w http.ResponseWriter, r *http.Request) {
	var req struct {
		ModelPath     string `json:"model_path"`
		WeightVersion string `json:"weight_version"`
		AbortAll      bool   `json:"abort_all_requests"`
	}
	if err := decodeAny(r, &req); err != nil {
		nativeError(w, err)
		return
	}
	if req.ModelPath == "" {
		nativeError(w, missing("model_path"))
		return
	}
	if req.AbortAll {
		s.engine.abortWhere(func(string) bool { return true })
	}
	s.modelMu.Lock()
	s.modelPath = req.ModelPath
	if req.WeightVersion != "" {
		s.version = req.WeightVersion
	}
	s.modelMu.Unlock()
	s.engine.mu.Lock()
	s.engine.garbage = false
	s.engine.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{"success": true, "message": "Succeeded to update model weights.", "num_paused_requests": 0})
}

func (s *Server) updateWeightVersion(w http.ResponseWriter, r *http.Request) {
	var req struct {
		NewVersion string `json:"new_version"`
	}
	if err := decodeAny(r, &req); err != nil {
		nativeError(w, err)
		return
	}
	s.modelMu.Lock()
	s.version = req.NewVersion
	s.modelMu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{"success": true, "message": "Weight version updated to " + req.NewVersion, "new_version": req.NewVersion})
}

// path is the model's path as of the last weight update.
func (s *Server) path() string {
	s.modelMu.Lock()
	defer s.modelMu.Unlock()
	return s.modelPath
}
