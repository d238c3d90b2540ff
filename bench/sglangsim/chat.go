package sglangsim

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

type message struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

type chatRequest struct {
	sampling
	Messages            *[]message      `json:"messages"`
	MaxCompletionTokens *int            `json:"max_completion_tokens"`
	Tools               []tool          `json:"tools"`
	ToolChoice          json.RawMessage `json:"tool_choice"`
	ResponseFormat      *struct {
		Type       string `json:"type"`
		JSONSchema *struct {
			Schema json.RawMessage `json:"schema"`
		} `json:"json_schema"`
	} `json:"response_format"`
}

// imageTokens is what a picture or another part without text adds to a prompt.
const imageTokens = 256

// contentText reads a message's content: a string, null, or a list of parts.
func contentText(raw json.RawMessage) (text string, extra int, err error) {
	if len(raw) == 0 || string(raw) == "null" || json.Unmarshal(raw, &text) == nil {
		return text, 0, nil
	}
	var parts []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	if err := json.Unmarshal(raw, &parts); err != nil {
		return "", 0, invalid("1 validation error:\n  {'type': 'string_type', 'loc': ('body', 'messages', 'content'), 'msg': 'Input should be a valid string'}")
	}
	var texts []string
	for _, p := range parts {
		if p.Type == "text" || p.Type == "input_text" || p.Type == "output_text" {
			texts = append(texts, p.Text)
		} else {
			extra += imageTokens
		}
	}
	return strings.Join(texts, " "), extra, nil
}

// conversation is what an answer depends on.
type conversation struct {
	key        string // the whole prompt
	last       string // the user's last message
	lastIsUser bool
	tokens     int
}

func converse(messages []message) (conversation, error) {
	var c conversation
	var key strings.Builder
	for _, m := range messages {
		switch m.Role {
		case "system", "developer", "user", "assistant", "tool", "function":
		default:
			return c, invalid("1 validation error:\n  {'type': 'literal_error', 'loc': ('body', 'messages', 'role'), 'msg': \"Input should be 'system', 'developer', 'user', 'assistant', 'tool' or 'function'\"}")
		}
		text, extra, err := contentText(m.Content)
		if err != nil {
			return c, err
		}
		key.WriteString(m.Role + "\x00" + text + "\x00")
		c.tokens += countTokens(text) + 4 + extra // a chat template frames each message
		if c.lastIsUser = m.Role == "user"; c.lastIsUser {
			c.last = text
		}
	}
	c.key = key.String()
	return c, nil
}

// prepareChat checks a request and settles its answer.
func (s *Server) prepareChat(req *chatRequest) (*job, []plan, error) {
	if s.opts.IsEmbedding && !s.opts.EmbedAndGenerate {
		return nil, nil, badRequest("This model is an embedding model and does not support generation.")
	}
	if req.Messages == nil {
		return nil, nil, missing("messages")
	}
	if len(*req.Messages) == 0 {
		return nil, nil, badRequest("Messages cannot be empty.")
	}
	if req.MaxCompletionTokens != nil {
		req.MaxTokens = req.MaxCompletionTokens
	}
	if err := req.check(); err != nil {
		return nil, nil, err
	}
	c, err := converse(*req.Messages)
	if err != nil {
		return nil, nil, err
	}
	called, err := chooseTool(req.Tools, req.ToolChoice, c.last, c.lastIsUser)
	if err != nil {
		return nil, nil, err
	}
	room, err := s.room(&c.tokens, req.limit())
	if err != nil {
		return nil, nil, err
	}
	fixed, err := req.forcedText()
	if err != nil {
		return nil, nil, err
	}
	if f := req.ResponseFormat; f != nil && fixed == nil {
		fixed, err = forcedDocument(f.Type, func() json.RawMessage {
			if f.JSONSchema == nil {
				return nil
			}
			return f.JSONSchema.Schema
		}(), c)
		if err != nil {
			return nil, nil, err
		}
	}
	var plans []plan
	for i := range req.count() {
		if called != nil {
			p := planTool(called, c.key, c.last)
			plans = append(plans, p)
			continue
		}
		plans = append(plans, s.plan(&req.sampling, c.key, c.last, fixed, i, req.limit(), room))
	}
	rid, err := req.rid()
	if err != nil {
		return nil, nil, err
	}
	j := newJob(rid, c.tokens, plans, req.Stream)
	j.text = c.key
	return j, plans, nil
}

// forcedDocument is the text that a response_format asks for; nil for free text.
func forcedDocument(kind string, schema json.RawMessage, c conversation) (*string, error) {
	echo, echoes := echoOf(c.last)
	switch kind {
	case "", "text", "structural_tag":
		return nil, nil
	case "json_object":
		if echoes && json.Valid([]byte(echo)) {
			return &echo, nil
		}
		if !echoes {
			echo = strings.Join(sentence(c.key, 6), "")
		}
		text := string(marshal(map[string]string{"answer": echo}))
		return &text, nil
	case "json_schema":
		if len(schema) == 0 {
			return nil, badRequest("schema_ is required for json_schema response format request.")
		}
		words := sentence(c.key, 16)
		if echoes {
			words = []string{echo}
		}
		text := string(document(schema, words))
		return &text, nil
	}
	return nil, invalid("1 validation error:\n  {'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), 'msg': \"Input should be 'text', 'json_object' or 'json_schema'\"}")
}

// usage counts tokens; SGLang sends prompt_tokens_details as null unless it reports cached ones.
type usage struct {
	PromptTokens     int           `json:"prompt_tokens"`
	TotalTokens      int           `json:"total_tokens"`
	CompletionTokens int           `json:"completion_tokens"`
	Details          *cachedTokens `json:"prompt_tokens_details"`
	ReasoningTokens  int           `json:"reasoning_tokens"`
}

// cachedTokens is there with --enable-cache-report, and only if some were cached (facts/sglang.md, section 7).
type cachedTokens struct {
	CachedTokens int `json:"cached_tokens"`
}

func (j *job) usage(plans []plan, steps int) usage {
	u := usage{PromptTokens: j.promptTokens}
	if j.cached > 0 && j.report {
		u.Details = &cachedTokens{j.cached}
	}
	for _, p := range plans {
		u.CompletionTokens += min(steps, len(p.pieces))
	}
	u.TotalTokens = u.PromptTokens + u.CompletionTokens
	return u
}

type chatMessage struct {
	Role      string     `json:"role"`
	Content   string     `json:"content"`
	Reasoning *string    `json:"reasoning_content"`
	ToolCalls []toolCall `json:"tool_calls"`
}

type chatChoice struct {
	Index        int         `json:"index"`
	Message      chatMessage `json:"message"`
	Logprobs     any         `json:"logprobs"`
	FinishReason string      `json:"finish_reason"`
	MatchedStop  any         `json:"matched_stop"`
}

func (s *Server) chat(w http.ResponseWriter, r *http.Request) {
	var req chatRequest
	if err := decode(r, &req); err != nil {
		writeError(w, err)
		return
	}
	j, plans, err := s.prepareChat(&req)
	if err != nil {
		writeError(w, err)
		return
	}
	s.reached()
	if req.Stream {
		s.streamChat(w, r, &req, j, plans)
		return
	}
	steps := 0
	out, err := s.generate(r.Context(), j, s.nextFaults(), func(_, to int) error { steps = to; return nil })
	if !s.answers(w, out, err) {
		return
	}
	var choices []chatChoice
	for i, p := range plans {
		c := chatChoice{Index: i, FinishReason: p.finish, MatchedStop: p.matched, Message: chatMessage{Role: "assistant"}}
		if p.tool != nil {
			c.Message.ToolCalls = []toolCall{*p.tool}
		} else {
			c.Message.Content = strings.Join(p.pieces[:min(steps, len(p.pieces))], "")
		}
		if out == outcomeAborted {
			c.FinishReason, c.MatchedStop = "abort", nil
		}
		choices = append(choices, c)
	}
	writeJSON(w, http.StatusOK, struct {
		ID       string            `json:"id"`
		Object   string            `json:"object"`
		Created  int64             `json:"created"`
		Model    string            `json:"model"`
		Choices  []chatChoice      `json:"choices"`
		Usage    usage             `json:"usage"`
		Metadata map[string]string `json:"metadata"`
	}{j.rid, "chat.completion", time.Now().Unix(), req.model(), choices, j.usage(plans, steps), s.metadata()})
}

// answers deals with the ends of a generation that leave nothing to answer, or only an error.
func (s *Server) answers(w http.ResponseWriter, out outcome, err error) bool {
	switch {
	case err != nil:
		writeError(w, err)
		return false
	case out == outcomeDead, out == outcomeLeft:
		panic(http.ErrAbortHandler)
	}
	return true
}

// refuseStream answers a stream that did not begin: a full queue is a 200 with an error chunk, anything else has its status.
func refuseStream(e *eventStream, err error) {
	full := toAPIError(err)
	if full.Code < http.StatusInternalServerError {
		writeError(e.w, err)
		return
	}
	e.fail(full.Code, strings.ToUpper(strings.ReplaceAll(http.StatusText(full.Code), " ", "_")), full.Message)
	e.done()
}

// metadata is the part of an answer that names the weights.
func (s *Server) metadata() map[string]string {
	s.modelMu.Lock()
	defer s.modelMu.Unlock()
	return map[string]string{"weight_version": s.version}
}
