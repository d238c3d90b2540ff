package sglangsim

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

type completionRequest struct {
	sampling
	Prompt     json.RawMessage `json:"prompt"`
	Echo       bool            `json:"echo"`
	JSONSchema string          `json:"json_schema"`
}

// completionTokens is the limit of a completion that sets none.
const completionTokens = 16

// prompts reads a prompt: a string, token ids, or a list of either.
func prompts(raw json.RawMessage) ([]string, error) {
	var one string
	var many []string
	var ids []int
	var lists [][]int
	switch {
	case json.Unmarshal(raw, &one) == nil:
		if one == "" {
			return nil, badRequest("Prompt cannot be empty")
		}
		return []string{one}, nil
	case json.Unmarshal(raw, &many) == nil:
	case json.Unmarshal(raw, &ids) == nil:
		return []string{spell(ids)}, nil
	case json.Unmarshal(raw, &lists) == nil:
		many = nil // what an attempt above left
		for _, ids := range lists {
			many = append(many, spell(ids))
		}
	default:
		return nil, badRequest("prompt must be a string, a list of strings, a list of token ids or a list of such lists")
	}
	if len(many) == 0 {
		return nil, badRequest("Prompt cannot be empty")
	}
	return many, nil
}

// spell turns token ids into text; ids of another tokenizer still make a prompt of that length.
func spell(ids []int) string {
	if text, ok := decodeTokens(ids); ok {
		return text
	}
	return strings.Repeat("tok", len(ids))
}

func (s *Server) prepareCompletion(req *completionRequest) (*job, []plan, error) {
	if s.opts.IsEmbedding && !s.opts.EmbedAndGenerate {
		return nil, nil, badRequest("This model is an embedding model and does not support generation.")
	}
	if len(req.Prompt) == 0 || string(req.Prompt) == "null" {
		return nil, nil, missing("prompt")
	}
	if req.MaxTokens == nil {
		limit := completionTokens
		req.MaxTokens = &limit
	}
	if err := req.check(); err != nil {
		return nil, nil, err
	}
	texts, err := prompts(req.Prompt)
	if err != nil {
		return nil, nil, err
	}
	total := 0
	var plans []plan
	for _, text := range texts {
		tokens := countTokens(text)
		room, err := s.room(&tokens, req.limit())
		if err != nil {
			return nil, nil, err
		}
		total += tokens
		fixed, err := req.forcedText()
		if err != nil {
			return nil, nil, err
		}
		if req.JSONSchema != "" {
			if fixed, err = forcedDocument("json_schema", json.RawMessage(req.JSONSchema), conversation{key: text, last: text}); err != nil {
				return nil, nil, err
			}
		}
		for i := range req.count() {
			p := s.plan(&req.sampling, text, text, fixed, i, req.limit(), room)
			if req.Echo {
				p.pieces[0] = text + p.pieces[0]
			}
			plans = append(plans, p)
		}
	}
	rid, err := req.rid()
	if err != nil {
		return nil, nil, err
	}
	return newJob(rid, total, plans, req.Stream), plans, nil
}

type textChoice struct {
	Index        int     `json:"index"`
	Text         string  `json:"text"`
	Logprobs     any     `json:"logprobs"`
	FinishReason *string `json:"finish_reason"`
	MatchedStop  any     `json:"matched_stop"`
}

type completionAnswer struct {
	ID       string            `json:"id"`
	Object   string            `json:"object"`
	Created  int64             `json:"created"`
	Model    string            `json:"model"`
	Choices  []textChoice      `json:"choices"`
	Usage    any               `json:"usage,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

func (s *Server) completions(w http.ResponseWriter, r *http.Request) {
	var req completionRequest
	if err := decode(r, &req); err != nil {
		writeError(w, err)
		return
	}
	j, plans, err := s.prepareCompletion(&req)
	if err != nil {
		writeError(w, err)
		return
	}
	s.reached()
	answer := completionAnswer{ID: j.rid, Object: "text_completion", Model: req.model()}
	if req.Stream {
		s.streamCompletion(w, r, &req, j, plans, answer)
		return
	}
	steps := 0
	out, err := s.generate(r.Context(), j, s.nextFaults(), func(_, to int) error { steps = to; return nil })
	if !s.answers(w, out, err) {
		return
	}
	for i, p := range plans {
		if out == outcomeAborted {
			p.finish, p.matched = "abort", nil
		}
		answer.Choices = append(answer.Choices, textChoice{i, strings.Join(p.pieces[:min(steps, len(p.pieces))], ""), nil, &p.finish, p.matched})
	}
	answer.Created, answer.Usage, answer.Metadata = time.Now().Unix(), j.usage(plans, steps), s.metadata()
	writeJSON(w, http.StatusOK, answer)
}

func (s *Server) streamCompletion(w http.ResponseWriter, r *http.Request, req *completionRequest, j *job, plans []plan, answer completionAnswer) {
	e := newEventStream(w)
	atEnd, always := req.wantsUsage(s.opts.UsageByDefault)
	faults := s.nextFaults()
	sent := 0
	send := func(c textChoice) {
		answer.Created, answer.Choices, answer.Usage = time.Now().Unix(), []textChoice{c}, nil
		if always {
			answer.Usage = j.usage(plans, sent)
		}
		e.data(answer)
	}
	out, err := s.generate(r.Context(), j, faults, func(from, to int) error {
		sent = to
		for i, p := range plans {
			if from >= len(p.pieces) {
				continue
			}
			c := textChoice{Index: i, Text: strings.Join(p.pieces[from:min(to, len(p.pieces))], "")}
			if to >= len(p.pieces) { // the reason rides on the last piece of text
				c.FinishReason, c.MatchedStop = &p.finish, p.matched
			}
			send(c)
		}
		return e.send()
	})
	if err != nil {
		refuseStream(e, err)
		return
	}
	if !e.finish(out, faults) {
		return
	}
	if out == outcomeAborted {
		reason := "abort"
		for i := range plans {
			send(textChoice{Index: i, FinishReason: &reason})
		}
	}
	if atEnd {
		answer.Created, answer.Choices, answer.Usage = time.Now().Unix(), []textChoice{}, j.usage(plans, sent).withoutNulls()
		e.data(answer)
	}
	e.done()
}

// withoutNulls is the form that the last chunk of a completion's stream has.
func (u usage) withoutNulls() map[string]int {
	return map[string]int{
		"prompt_tokens": u.PromptTokens, "total_tokens": u.TotalTokens,
		"completion_tokens": u.CompletionTokens, "reasoning_tokens": u.ReasoningTokens,
	}
}
