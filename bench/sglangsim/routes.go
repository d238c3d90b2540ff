package sglangsim

import (
	"bytes"
	"crypto/subtle"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
)

// route is one path: its handlers by method, and whether it needs the admin key.
type route struct {
	methods map[string]http.HandlerFunc
	admin   bool
}

func on(h http.HandlerFunc, methods ...string) route {
	r := route{methods: map[string]http.HandlerFunc{}}
	for _, m := range methods {
		r.methods[m] = h
	}
	return r
}

func adminOn(h http.HandlerFunc, methods ...string) route {
	r := on(h, methods...)
	r.admin = true
	return r
}

// routes is the table of everything that is answered; other known routes of SGLang are left out, hence 404.
func (s *Server) routes() map[string]route {
	table := map[string]route{
		"/":                {methods: map[string]http.HandlerFunc{"GET": s.root, "HEAD": s.root}},
		"/ping":            on(s.ping, "GET"),
		"/health":          on(s.health, "GET"),
		"/health_generate": on(s.healthGenerate, "GET"),
		"/model_info":      on(s.modelInfo, "GET"),
		"/get_model_info":  on(s.modelInfo, "GET"),
		"/server_info":     on(s.serverInfo, "GET"),
		"/get_server_info": on(s.serverInfo, "GET"),
		"/v1/models":       on(s.models, "GET"),
		"/v1/loads":        on(s.loads, "GET"),
		"/get_load":        on(s.oldLoad, "GET"),
		"/sim/stats":       on(s.serveStats, "GET"),

		"/v1/chat/completions": on(s.chat, "POST"),
		"/invocations":         on(s.chat, "POST"),
		"/v1/completions":      on(s.completions, "POST"),
		"/v1/embeddings":       on(s.embeddings, "POST"),
		"/v1/rerank":           on(s.rerank, "POST", "PUT"),
		"/v1/score":            on(s.score, "POST"),
		"/v1/classify":         on(s.classify, "POST"),
		"/v1/responses":        on(s.createResponse, "POST"),
		"/v1/tokenize":         on(s.tokenize, "POST"),
		"/tokenize":            on(s.tokenize, "POST"),
		"/v1/detokenize":       on(s.detokenize, "POST"),
		"/detokenize":          on(s.detokenize, "POST"),
		"/generate":            on(s.nativeGenerate, "POST", "PUT"),

		"/flush_cache":                adminOn(s.flushCache, "GET", "POST"),
		"/abort_request":              adminOn(s.abortRequest, "POST"),
		"/pause_generation":           adminOn(s.pauseGeneration, "POST"),
		"/continue_generation":        adminOn(s.continueGeneration, "POST"),
		"/release_memory_occupation":  adminOn(s.releaseMemory, "GET", "POST"),
		"/resume_memory_occupation":   adminOn(s.resumeMemory, "GET", "POST"),
		"/update_weights_from_disk":   adminOn(s.updateWeights, "POST"),
		"/update_weight_version":      adminOn(s.updateWeightVersion, "POST"),
		"/freeze_gc":                  adminOn(s.ok, "GET", "POST"),
		"/set_internal_state":         adminOn(s.ok, "POST", "PUT"),
		"/configure_logging":          adminOn(s.ok, "GET", "POST"),
		"/start_profile":              adminOn(s.ok, "GET", "POST"),
		"/stop_profile":               adminOn(s.ok, "GET", "POST"),
		"/get_weights_by_name":        adminOn(s.ok, "GET", "POST"),
		"/update_weights_from_tensor": adminOn(s.ok, "POST"),
	}
	if s.opts.Metrics {
		table["/metrics"] = on(s.metrics, "GET")
	}
	return table
}

// chain is the handler of everything: bookkeeping, faults of the connection, keys, route.
func (s *Server) chain() http.Handler {
	table := s.routes()
	return http.HandlerFunc(func(raw http.ResponseWriter, r *http.Request) {
		if !s.tasks.enter() {
			panic(http.ErrAbortHandler)
		}
		defer s.tasks.leave()
		if s.resetsReused(r) {
			cut(raw, "rst")
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(raw, "Invalid HTTP request received.", http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if s.opts.Observe != nil {
			s.opts.Observe(r, body)
		}
		if !strings.HasPrefix(r.URL.Path, "/sim/") {
			s.stats.seen(r, s.opts.APIKey)
		}
		w := &statusWriter{ResponseWriter: raw}
		w.Header().Set("Server", "uvicorn")
		s.dispatch(table, w, r)
		if s.opts.AccessLog {
			s.log.access(r.RemoteAddr, r.Method, r.URL.RequestURI(), w.code())
		}
	})
}

func (s *Server) dispatch(table map[string]route, w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	rt, found := table[path]
	if id, ok := strings.CutPrefix(path, "/v1/models/"); ok && id != "" {
		rt, found = on(s.model, "GET"), true
	}
	if id, ok := strings.CutPrefix(path, "/v1/responses/"); ok && id != "" {
		if strings.HasSuffix(id, "/cancel") {
			rt, found = on(s.cancelResponse, "POST"), true
		} else if !strings.Contains(id, "/") {
			rt, found = on(s.getResponse, "GET"), true
		}
	}
	if !s.authorized(path, rt.admin, r) {
		s.stats.change(func(v *Stats) { v.Unauthorized++ })
		writeJSON(w, http.StatusUnauthorized, map[string]string{"error": "Unauthorized"})
		return
	}
	h := rt.methods[r.Method]
	switch {
	case r.Method == http.MethodOptions:
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.WriteHeader(http.StatusOK)
	case !found:
		writeJSON(w, http.StatusNotFound, map[string]string{"detail": "Not Found"})
	case h == nil:
		writeJSON(w, http.StatusMethodNotAllowed, map[string]string{"detail": "Method Not Allowed"})
	default:
		h(w, r)
	}
}

// authorized applies SGLang's rules: OPTIONS, /health… and /metrics… are always open; admin routes take the admin key when
// there is one, else the api key; the others take the api key when there is one.
func (s *Server) authorized(path string, admin bool, r *http.Request) bool {
	if r.Method == http.MethodOptions || strings.HasPrefix(path, "/health") || strings.HasPrefix(path, "/metrics") || strings.HasPrefix(path, "/sim/") {
		return true
	}
	want := s.opts.APIKey
	if admin && s.opts.AdminAPIKey != "" {
		want = s.opts.AdminAPIKey
	}
	if want == "" {
		return true
	}
	given := r.Header.Get("Authorization")
	return subtle.ConstantTimeCompare([]byte(given), []byte("Bearer "+want)) == 1
}

// resetsReused tells whether --sim-reset-reuse hits this request.
func (s *Server) resetsReused(r *http.Request) bool {
	n := s.opts.Faults.ResetReuse
	count, ok := r.Context().Value(connKey{}).(*atomic.Int64)
	if n <= 0 || !ok || count.Add(1) == 1 || s.reused.Add(1)%int64(n) != 0 {
		return false
	}
	s.stats.change(func(v *Stats) { v.ConnectionResets++ })
	return true
}

// cut ends the connection of an answer: by a reset, or by an orderly FIN before the body's end.
func cut(w http.ResponseWriter, how string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil { // no socket behind it (a recorder in a test): the panic ends the answer in net/http's way
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok && how == "rst" {
		_ = tcp.SetLinger(0) // fails only on a socket that is gone already
	}
	_ = conn.Close()
}

// statusWriter remembers the status for the access line.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusWriter) code() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}
