package sglangsim

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

type nativeRequest struct {
	Text     string          `json:"text"`
	InputIDs []int           `json:"input_ids"`
	RID      json.RawMessage `json:"rid"`
	Stream   bool            `json:"stream"`
	Sampling struct {
		MaxNewTokens *int       `json:"max_new_tokens"`
		Stop         stringList `json:"stop"`
		Seed         *int64     `json:"sampling_seed"`
	} `json:"sampling_params"`
}

// nativeError is the shape of errors on SGLang's own routes.
func nativeError(w http.ResponseWriter, err error) {
	writeJSON(w, http.StatusBadRequest, map[string]any{"error": map[string]string{"message": toAPIError(err).Message}})
}

// nativeGenerate is POST /generate: the whole text so far in each event, as without --incremental-streaming-output.
func (s *Server) nativeGenerate(w http.ResponseWriter, r *http.Request) {
	var req nativeRequest
	if err := decodeAny(r, &req); err != nil {
		nativeError(w, err)
		return
	}
	if req.Text == "" && len(req.InputIDs) == 0 {
		nativeError(w, badRequest("Either text, input_ids or input_embeds should be provided."))
		return
	}
	if req.Text == "" {
		req.Text = spell(req.InputIDs)
	}
	p := sampling{RID: req.RID, MaxTokens: req.Sampling.MaxNewTokens, Stop: req.Sampling.Stop, Seed: req.Sampling.Seed}
	if p.MaxTokens == nil {
		limit := 128
		p.MaxTokens = &limit
	}
	tokens := countTokens(req.Text)
	room, err := s.room(&tokens, p.limit())
	if err == nil {
		err = p.check()
	}
	if err != nil {
		nativeError(w, err)
		return
	}
	rid, err := p.rid()
	if err != nil {
		nativeError(w, err)
		return
	}
	s.reached()
	began := time.Now()
	choice := s.plan(&p, req.Text, req.Text, nil, 0, p.limit(), room)
	plans := []plan{choice}
	j := newJob(rid, tokens, plans, req.Stream)
	answer := func(steps int, aborted bool) map[string]any {
		var finish any
		switch {
		case aborted:
			finish = map[string]any{"type": "abort", "message": "Abort in main loop", "status_code": nil, "err_type": nil}
		case steps < len(choice.pieces):
		case choice.finish == "length":
			finish = map[string]any{"type": "length", "length": steps}
		default:
			finish = map[string]any{"type": "stop", "matched": choice.matched}
		}
		text := strings.Join(choice.pieces[:min(steps, len(choice.pieces))], "")
		return map[string]any{"text": text, "output_ids": encodeTokens(text), "meta_info": map[string]any{
			"id": rid, "finish_reason": finish, "prompt_tokens": tokens, "completion_tokens": steps, "cached_tokens": 0,
			"cached_tokens_details": nil, "reasoning_tokens": 0, "weight_version": s.metadata()["weight_version"], "num_retractions": 0,
			"e2e_latency": time.Since(began).Seconds(), "response_sent_to_client_ts": float64(time.Now().UnixMicro()) / 1e6,
		}}
	}
	e := newEventStream(w)
	faults := s.nextFaults()
	steps := 0
	out, err := s.generate(r.Context(), j, faults, func(_, to int) error {
		steps = to
		if !req.Stream {
			return nil
		}
		e.data(answer(to, false))
		return e.send()
	})
	switch {
	case err != nil && req.Stream:
		refuseStream(e, err)
	case err != nil:
		nativeError(w, err)
	case !req.Stream:
		if s.answers(w, out, nil) {
			writeJSON(w, http.StatusOK, answer(steps, out == outcomeAborted))
		}
	case e.finish(out, faults):
		if out == outcomeAborted {
			e.data(answer(steps, true))
		}
		e.done()
	}
}

type tokenizeRequest struct {
	Model    string          `json:"model"`
	Prompt   json.RawMessage `json:"prompt"`
	Messages []message       `json:"messages"`
}

func (s *Server) tokenize(w http.ResponseWriter, r *http.Request) {
	var req tokenizeRequest
	if err := decode(r, &req); err != nil {
		writeError(w, err)
		return
	}
	var one string
	var many []string
	answer := map[string]any{"max_model_len": s.opts.ContextLength}
	switch {
	case len(req.Messages) > 0:
		c, err := converse(req.Messages)
		if err != nil {
			writeError(w, err)
			return
		}
		one = c.key
	case len(req.Prompt) == 0:
		writeError(w, missing("prompt"))
		return
	case json.Unmarshal(req.Prompt, &one) == nil:
	case json.Unmarshal(req.Prompt, &many) == nil:
		tokens, counts := [][]int{}, []int{}
		for _, text := range many {
			ids := encodeTokens(text)
			tokens, counts = append(tokens, ids), append(counts, len(ids))
		}
		answer["tokens"], answer["count"] = tokens, counts
		writeJSON(w, http.StatusOK, answer)
		return
	default:
		writeError(w, invalid("1 validation error:\n  {'type': 'string_type', 'loc': ('body', 'prompt'), 'msg': 'Input should be a valid string'}"))
		return
	}
	ids := encodeTokens(one)
	answer["tokens"], answer["count"] = ids, len(ids)
	writeJSON(w, http.StatusOK, answer)
}

func (s *Server) detokenize(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Tokens json.RawMessage `json:"tokens"`
	}
	if err := decode(r, &req); err != nil {
		writeError(w, err)
		return
	}
	var ids []int
	var lists [][]int
	single := false
	switch {
	case json.Unmarshal(req.Tokens, &ids) == nil:
		single = true
		lists = [][]int{ids}
	case json.Unmarshal(req.Tokens, &lists) == nil:
	default:
		writeError(w, missing("tokens"))
		return
	}
	texts := []string{}
	for _, ids := range lists {
		text, ok := decodeTokens(ids)
		if !ok {
			writeError(w, badRequest("Error decoding tokens: unknown token id"))
			return
		}
		texts = append(texts, text)
	}
	if single {
		writeJSON(w, http.StatusOK, map[string]string{"text": texts[0]})
		return
	}
	writeJSON(w, http.StatusOK, map[string][]string{"text": texts})
}
