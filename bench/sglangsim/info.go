package sglangsim

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

func (s *Server) root(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, "SGLang is running")
}

// ping answers whatever state the engine is in.
func (s *Server) ping(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }

func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	if n := s.opts.Faults.Health503; n > 0 && s.up.Load() && s.probes.Add(1)%int64(n) == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	s.probe(w, r, s.opts.InstantHealth)
}

func (s *Server) healthGenerate(w http.ResponseWriter, r *http.Request) { s.probe(w, r, false) }

// probe is a health check: 503 at once while starting or draining; else the state of the process (instant), or a
// one-token generation that takes at least a second and gives up after twenty.
func (s *Server) probe(w http.ResponseWriter, r *http.Request, instant bool) {
	if s.draining.Load() {
		s.log.main("Health check request received during shutdown. Returning 503.")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if !s.up.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if instant {
		w.WriteHeader(http.StatusOK)
		return
	}
	s.reached()
	s.engine.mu.Lock()
	paused := s.engine.paused != ""
	s.engine.mu.Unlock()
	good := !paused && !s.stuck()
	wait := s.opts.HealthDelay
	if !good {
		wait = s.opts.HealthTimeout
	}
	t := time.NewTimer(max(wait, time.Nanosecond))
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
		return
	case <-s.dead:
		panic(http.ErrAbortHandler)
	}
	if good {
		s.unhealthy.Store(false)
		w.WriteHeader(http.StatusOK)
		return
	}
	s.unhealthy.Store(true)
	s.log.main("Health check failed. Server couldn't get a response from detokenizer for last %g seconds. tic start time: %s. last_heartbeat time: %s",
		s.opts.HealthTimeout.Seconds(), time.Now().Add(-s.opts.HealthTimeout).Format("15:04:05"), s.started.Format("15:04:05"))
	w.WriteHeader(http.StatusServiceUnavailable)
}

func (s *Server) modelInfo(w http.ResponseWriter, _ *http.Request) {
	path := s.path()
	writeJSON(w, http.StatusOK, map[string]any{
		"model_path": path, "served_model_name": s.opts.servedName(), "tokenizer_path": s.opts.ModelPath,
		"is_generation": !s.opts.IsEmbedding, "preferred_sampling_params": nil, "weight_version": s.metadata()["weight_version"],
		"load_format": s.opts.LoadFormat, "reasoning_parser": nil, "tool_call_parser": nil,
		"has_image_understanding": false, "has_audio_understanding": false, "model_type": "llama", "architectures": []string{"LlamaForCausalLM"},
	})
}

// serverInfo leaks both keys, as the real one does.
func (s *Server) serverInfo(w http.ResponseWriter, r *http.Request) {
	if s.isHung() { // it asks the scheduler
		select {
		case <-r.Context().Done():
		case <-s.dead:
		}
		panic(http.ErrAbortHandler)
	}
	info := map[string]any{}
	for _, f := range knownFlags() {
		info[f.dest] = f.jsonValue(s.opts.Args)
	}
	orNull := func(v string) any {
		if v == "" {
			return nil
		}
		return v
	}
	info["model_path"], info["served_model_name"] = s.path(), s.opts.servedName()
	info["host"], info["port"] = s.opts.Host, s.opts.Port
	info["api_key"], info["admin_api_key"] = orNull(s.opts.APIKey), orNull(s.opts.AdminAPIKey)
	info["status"], info["version"] = "ready", "0.5.15"
	info["max_total_num_tokens"], info["max_req_input_len"] = s.opts.MaxTotalTokens, s.opts.ContextLength-6
	info["startup_time"] = s.opts.Start.Total().Seconds()
	info["kv_events"] = nil
	info["internal_states"] = []map[string]any{{
		"last_gen_throughput": 0.0, "effective_max_running_requests_per_dp": s.opts.MaxRunningRequests,
		"memory_usage": map[string]any{"weight": 0.27, "kvcache": 41.4, "graph": 0.61, "token_capacity": s.opts.MaxTotalTokens},
	}}
	writeJSON(w, http.StatusOK, info)
}

func (s *Server) card() map[string]any {
	return map[string]any{
		"id": s.opts.servedName(), "object": "model", "created": time.Now().Unix(), "owned_by": "sglang",
		"root": s.opts.servedName(), "parent": nil, "max_model_len": s.opts.ContextLength,
	}
}

func (s *Server) models(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": []any{s.card()}})
}

func (s *Server) model(w http.ResponseWriter, r *http.Request) {
	id := strings.TrimPrefix(r.URL.Path, "/v1/models/")
	if id != s.opts.servedName() {
		writeJSON(w, http.StatusNotFound, map[string]any{"error": map[string]any{
			"message": fmt.Sprintf("The model '%s' does not exist", id), "type": "invalid_request_error", "param": "model", "code": "model_not_found",
		}})
		return
	}
	writeJSON(w, http.StatusOK, s.card())
}

// loads is read from a snapshot in the real server, so it answers in every state.
func (s *Server) loads(w http.ResponseWriter, r *http.Request) {
	running, waiting, blocked := s.engine.load()
	load := map[string]any{
		"timestamp": float64(time.Now().UnixMicro()) / 1e6, "dp_rank": 0, "num_running_reqs": running, "num_waiting_reqs": waiting,
		"num_waiting_uncached_tokens": 0, "num_used_tokens": 0, "num_total_tokens": 0, "num_active_tokens": 0,
		"max_total_num_tokens": s.opts.MaxTotalTokens, "max_running_requests": s.opts.MaxRunningRequests, "token_usage": 0.0,
		"gen_throughput": 0.0, "cache_hit_rate": 0.0, "utilization": float64(running) / float64(s.opts.MaxRunningRequests),
		"total_prefill_uncached_tokens": 0, "total_prefill_busy_us": 0, "decode_moments": nil,
	}
	for _, section := range strings.FieldsFunc(r.URL.Query().Get("include"), func(r rune) bool { return r == ',' }) {
		switch section {
		case "core", "spec", "lora", "disagg", "all":
		case "memory":
			load["memory"] = map[string]any{"weight_gb": 0.27, "kv_cache_gb": 41.4, "graph_gb": 0.61, "token_capacity": s.opts.MaxTotalTokens}
		case "queues":
			load["queues"] = map[string]int{"waiting": waiting, "grammar": 0, "paused": blocked, "retracted": 0, "prealloc_ready": 0}
		default:
			writeError(w, badRequest("Invalid include section: %s", section))
			return
		}
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"timestamp": time.Now().UTC().Format("2006-01-02T15:04:05.000000+00:00"), "version": "0.5.15",
		"accelerator": nil, "num_accelerators": s.opts.TPSize, "loads": []any{load},
	})
}

func (s *Server) oldLoad(w http.ResponseWriter, _ *http.Request) {
	running, waiting, _ := s.engine.load()
	writeJSON(w, http.StatusOK, []map[string]any{{
		"dp_rank": 0, "num_reqs": running + waiting, "num_waiting_reqs": waiting, "num_tokens": 0, "num_pending_tokens": 0,
		"ts_tic": time.Since(s.started).Seconds(),
	}})
}

// metrics is a small part of the real /metrics, there with --enable-metrics only.
func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	v := s.Stats()
	labels := fmt.Sprintf("{engine_type=\"unified\",model_name=%q}", s.opts.servedName())
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	for _, m := range []struct {
		name, kind string
		value      int64
	}{
		{"num_running_reqs", "gauge", v.Running}, {"num_queue_reqs", "gauge", v.Waiting},
		{"max_total_num_tokens", "gauge", int64(s.opts.MaxTotalTokens)},
		{"generation_tokens_total", "counter", v.GeneratedTokens}, {"num_requests_total", "counter", v.Requests},
		{"num_aborted_requests_total", "counter", v.Aborted + v.Abandoned},
	} {
		_, _ = fmt.Fprintf(w, "# TYPE sglang:%s %s\nsglang:%s%s %d\n", m.name, m.kind, m.name, labels, m.value)
	}
}

func (s *Server) serveStats(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.Stats())
}
