package sglangsim

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"
)

type responsesRequest struct {
	sampling
	Input              json.RawMessage `json:"input"`
	Instructions       string          `json:"instructions"`
	MaxOutputTokens    *int            `json:"max_output_tokens"`
	Background         bool            `json:"background"`
	Store              *bool           `json:"store"`
	PreviousResponseID string          `json:"previous_response_id"`
	RequestID          string          `json:"request_id"`
}

// responseBound is how many answers are kept; the oldest give way. SGLang keeps them all.
const responseBound = 10000

// responseStore keeps answers in the memory of the process, as SGLang does: they are lost with it.
type responseStore struct {
	mu   sync.Mutex // guards the rest
	byID map[string]*storedResponse
	ids  []string
}

type storedResponse struct {
	body   map[string]any // never changed once stored; replaced whole
	cancel func()         // of a background response; nil otherwise
}

func (st *responseStore) put(id string, body map[string]any, cancel func()) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if old, ok := st.byID[id]; ok {
		old.body = body
		return
	}
	st.byID[id] = &storedResponse{body, cancel}
	if st.ids = append(st.ids, id); len(st.ids) > responseBound {
		delete(st.byID, st.ids[0])
		st.ids = st.ids[1:]
	}
}

func (st *responseStore) get(id string) (map[string]any, func(), bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	r, ok := st.byID[id]
	if !ok {
		return nil, nil, false
	}
	return r.body, r.cancel, true
}

// responseError is the nested shape of this API, with an integer code.
func responseError(w http.ResponseWriter, status int, kind, message string) {
	writeJSON(w, status, map[string]any{"error": map[string]any{"message": message, "type": kind, "param": nil, "code": status}})
}

func failResponse(w http.ResponseWriter, err error) {
	e := toAPIError(err)
	kind := "invalid_request_error"
	if e.Code >= http.StatusInternalServerError {
		kind = e.Type
	}
	responseError(w, e.Code, kind, e.Message)
}

// inputMessages turns a Responses input into a conversation.
func (req *responsesRequest) messages() ([]message, error) {
	var out []message
	quote := func(text string) json.RawMessage { return marshal(text) }
	if req.Instructions != "" {
		out = append(out, message{"system", quote(req.Instructions)})
	}
	var text string
	var items []struct {
		Type    string          `json:"type"`
		Role    string          `json:"role"`
		Content json.RawMessage `json:"content"`
		Output  json.RawMessage `json:"output"`
	}
	switch {
	case len(req.Input) == 0 || string(req.Input) == "null":
		return nil, missing("input")
	case json.Unmarshal(req.Input, &text) == nil:
		out = append(out, message{"user", quote(text)})
	case json.Unmarshal(req.Input, &items) == nil:
		for _, item := range items {
			switch {
			case item.Role != "":
				out = append(out, message{item.Role, item.Content})
			case item.Type == "function_call_output":
				out = append(out, message{"tool", item.Output})
			}
		}
	default:
		return nil, badRequest("input must be a string or a list of items")
	}
	return out, nil
}

func (s *Server) createResponse(w http.ResponseWriter, r *http.Request) {
	var req responsesRequest
	if err := decode(r, &req); err != nil {
		failResponse(w, err)
		return
	}
	if req.MaxOutputTokens != nil {
		req.MaxTokens = req.MaxOutputTokens
	}
	messages, err := req.messages()
	if err == nil && req.PreviousResponseID != "" {
		if _, _, ok := s.responses.get(req.PreviousResponseID); !ok {
			responseError(w, http.StatusNotFound, "invalid_request_error", "Response with id '"+req.PreviousResponseID+"' not found.")
			return
		}
	}
	if err != nil {
		failResponse(w, err)
		return
	}
	chat := chatRequest{sampling: req.sampling, Messages: &messages}
	j, plans, err := s.prepareChat(&chat)
	if err != nil {
		failResponse(w, err)
		return
	}
	s.reached()
	a := &responseAnswer{s: s, req: &req, id: "resp_" + newID(), item: "msg_" + newID(), created: time.Now().Unix(), j: j, plan: plans[0]}
	if req.RequestID != "" {
		a.id = req.RequestID
	}
	switch {
	case req.Background:
		s.runInBackground(w, a)
	case req.Stream:
		s.streamResponse(w, r, a)
	default:
		steps := 0
		out, err := s.generate(r.Context(), j, s.nextFaults(), func(_, to int) error { steps = to; return nil })
		if err != nil {
			failResponse(w, err)
			return
		}
		if !s.answers(w, out, nil) {
			return
		}
		body := a.object(a.status(out), steps)
		a.keep(body, nil)
		writeJSON(w, http.StatusOK, body)
	}
}

// responseAnswer is one response in the making.
type responseAnswer struct {
	s        *Server
	req      *responsesRequest
	id, item string
	created  int64
	j        *job
	plan     plan
}

// keep stores the response unless its request said no.
func (a *responseAnswer) keep(body map[string]any, cancel func()) {
	if a.req.Store == nil || *a.req.Store {
		a.s.responses.put(a.id, body, cancel)
	}
}

func (a *responseAnswer) status(out outcome) string {
	switch {
	case out == outcomeAborted:
		return "cancelled"
	case out == outcomeDone && a.plan.finish == "length":
		return "incomplete"
	case out == outcomeDone:
		return "completed"
	}
	return "failed"
}

func (a *responseAnswer) text(steps int) string {
	return strings.Join(a.plan.pieces[:min(steps, len(a.plan.pieces))], "")
}

func (a *responseAnswer) part(text string) map[string]any {
	return map[string]any{"type": "output_text", "text": text, "annotations": []any{}, "logprobs": nil}
}

func (a *responseAnswer) message(status string, content ...any) map[string]any {
	if content == nil {
		content = []any{}
	}
	return map[string]any{"id": a.item, "type": "message", "role": "assistant", "status": status, "content": content}
}

// object is the response as the API shows it in that status.
func (a *responseAnswer) object(status string, steps int) map[string]any {
	body := map[string]any{
		"id": a.id, "object": "response", "created_at": a.created, "status": status, "model": a.req.model(), "output": []any{},
		"error": nil, "incomplete_details": nil, "instructions": nil, "metadata": map[string]any{}, "parallel_tool_calls": true,
		"previous_response_id": nil, "temperature": 1.0, "top_p": 1.0, "tool_choice": "auto", "tools": []any{}, "background": a.req.Background,
		"max_output_tokens": a.req.MaxTokens, "usage": nil, "text": map[string]any{"format": map[string]string{"type": "text"}}, "truncation": "disabled",
	}
	if a.req.Instructions != "" {
		body["instructions"] = a.req.Instructions
	}
	if a.req.PreviousResponseID != "" {
		body["previous_response_id"] = a.req.PreviousResponseID
	}
	switch status {
	case "completed", "incomplete", "cancelled":
		body["output"] = []any{a.message(status, a.part(a.text(steps)))}
		u := a.j.usage([]plan{a.plan}, steps)
		body["usage"] = map[string]any{
			"input_tokens": u.PromptTokens, "input_tokens_details": map[string]int{"cached_tokens": 0},
			"output_tokens": u.CompletionTokens, "output_tokens_details": map[string]int{"reasoning_tokens": 0}, "total_tokens": u.TotalTokens,
		}
		if status == "incomplete" {
			body["incomplete_details"] = map[string]string{"reason": "max_output_tokens"}
		}
	case "failed":
		body["error"] = map[string]string{"code": "server_error", "message": "simulated error"}
	}
	return body
}

// runInBackground answers at once; the generation goes on whatever the client does.
func (s *Server) runInBackground(w http.ResponseWriter, a *responseAnswer) {
	queued := a.object("queued", 0)
	s.responses.put(a.id, queued, a.j.abort)
	s.tasks.spawn(func() {
		s.responses.put(a.id, a.object("in_progress", 0), nil)
		steps := 0
		a.j.stream = false
		out, err := s.generate(context.Background(), a.j, streamFaults{}, func(_, to int) error { steps = to; return nil })
		status := a.status(out)
		if err != nil {
			status = "failed"
		}
		s.responses.put(a.id, a.object(status, steps), nil)
	})
	writeJSON(w, http.StatusOK, queued)
}

func (s *Server) getResponse(w http.ResponseWriter, r *http.Request) {
	id := strings.TrimPrefix(r.URL.Path, "/v1/responses/")
	body, _, ok := s.responses.get(id)
	if !ok {
		responseError(w, http.StatusNotFound, "invalid_request_error", "Response with id '"+id+"' not found.")
		return
	}
	writeJSON(w, http.StatusOK, body)
}

func (s *Server) cancelResponse(w http.ResponseWriter, r *http.Request) {
	id := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/v1/responses/"), "/cancel")
	body, cancel, ok := s.responses.get(id)
	switch {
	case !ok:
		responseError(w, http.StatusNotFound, "invalid_request_error", "Response with id '"+id+"' not found.")
		return
	case cancel == nil:
		responseError(w, http.StatusBadRequest, "invalid_request_error", "Cannot cancel a synchronous response.")
		return
	}
	if status := body["status"]; status == "queued" || status == "in_progress" {
		cancel()
		changed := map[string]any{}
		for k, v := range body {
			changed[k] = v
		}
		changed["status"] = "cancelled"
		body = changed
		s.responses.put(id, body, nil)
	}
	writeJSON(w, http.StatusOK, body)
}

// streamResponse sends the named events of the Responses API; it has no [DONE].
func (s *Server) streamResponse(w http.ResponseWriter, r *http.Request, a *responseAnswer) {
	e := newEventStream(w)
	faults := s.nextFaults()
	number, steps := 0, 0
	emit := func(name string, fields map[string]any) {
		fields["type"], fields["sequence_number"] = name, number
		number++
		e.event(name, fields)
	}
	at := func(fields map[string]any) map[string]any {
		fields["item_id"], fields["output_index"], fields["content_index"] = a.item, 0, 0
		return fields
	}
	out, err := s.generate(r.Context(), a.j, faults, func(from, to int) error {
		if from == 0 {
			emit("response.created", map[string]any{"response": a.object("in_progress", 0)})
			emit("response.in_progress", map[string]any{"response": a.object("in_progress", 0)})
			emit("response.output_item.added", map[string]any{"output_index": 0, "item": a.message("in_progress")})
			emit("response.content_part.added", at(map[string]any{"part": a.part("")}))
		}
		steps = to
		emit("response.output_text.delta", at(map[string]any{"delta": strings.Join(a.plan.pieces[from:min(to, len(a.plan.pieces))], ""), "logprobs": []any{}}))
		return e.send()
	})
	if err != nil {
		if toAPIError(err).Code < http.StatusInternalServerError {
			failResponse(w, err)
			return
		}
		emit("error", map[string]any{"code": "server_error", "message": toAPIError(err).Message, "param": nil})
		_ = e.send() // the last frame: nothing follows whether or not it was read
		return
	}
	switch {
	case out == outcomeError:
		emit("error", map[string]any{"code": "server_error", "message": "simulated error in mid-stream", "param": nil})
		emit("response.failed", map[string]any{"response": a.object("failed", steps)})
		_ = e.send()
		return
	case !e.finish(out, faults):
		return
	}
	status := a.status(out)
	body := a.object(status, steps)
	a.keep(body, nil)
	text := a.text(steps)
	emit("response.output_text.done", at(map[string]any{"text": text, "logprobs": []any{}}))
	emit("response.content_part.done", at(map[string]any{"part": a.part(text)}))
	emit("response.output_item.done", map[string]any{"output_index": 0, "item": a.message(status, a.part(text))})
	last := "response.completed"
	if status == "incomplete" {
		last = "response.incomplete"
	}
	emit(last, map[string]any{"response": body})
	_ = e.send()
}
