package sglangsim

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

func (s *Server) streamChat(w http.ResponseWriter, r *http.Request, req *chatRequest, j *job, plans []plan) {
	e := newEventStream(w)
	atEnd, always := req.wantsUsage(s.opts.UsageByDefault)
	c := chunker{e: e, id: appendString(nil, j.rid), model: appendString(nil, req.model())}
	faults := s.nextFaults()
	sent := 0
	out, err := s.generate(r.Context(), j, faults, func(from, to int) error {
		c.usage = nil
		if always {
			c.usage = marshal(j.usage(plans, to))
		}
		for i := range plans {
			if from == 0 {
				c.chunk(i, `,"role":"assistant","content":""`, "", nil)
			}
			c.pieces(i, &plans[i], from, to)
		}
		sent = to
		return e.send()
	})
	if err != nil {
		refuseStream(e, err)
		return
	}
	if !e.finish(out, faults) {
		return
	}
	for i, p := range plans {
		if out == outcomeAborted {
			p.finish, p.matched = "abort", nil
		}
		c.chunk(i, "", p.finish, p.matched)
	}
	if atEnd {
		c.finalUsage(marshal(j.usage(plans, sent)))
	}
	e.done()
}

// chunker appends chat chunks without reflection: thousands of streams share two cores with what they test.
type chunker struct {
	e     *eventStream
	id    []byte // as JSON
	model []byte // as JSON
	usage []byte // for continuous_usage_stats; nil otherwise
	delta []byte // scratch
}

func (c *chunker) head() []byte {
	b := append(c.e.buf, `data: {"id":`...)
	b = append(b, c.id...)
	b = append(b, `,"object":"chat.completion.chunk","created":`...)
	b = strconv.AppendInt(b, time.Now().Unix(), 10)
	b = append(b, `,"model":`...)
	return append(b, c.model...)
}

// chunk adds one frame; delta is what follows reasoning_content, finish is empty while the choice goes on.
func (c *chunker) chunk(index int, delta, finish string, matched any) {
	b := append(c.head(), `,"choices":[{"index":`...)
	b = strconv.AppendInt(b, int64(index), 10)
	b = append(b, `,"delta":{"reasoning_content":null`...)
	b = append(b, delta...)
	b = append(b, `},"logprobs":null,"finish_reason":`...)
	if finish == "" {
		b = append(b, "null"...)
	} else {
		b = appendString(b, finish)
	}
	b = append(b, `,"matched_stop":`...)
	if matched == nil {
		b = append(b, "null"...)
	} else {
		b = append(b, marshal(matched)...)
	}
	b = append(b, "}]"...)
	if c.usage != nil {
		b = append(append(b, `,"usage":`...), c.usage...)
	}
	c.e.buf = append(b, "}\n\n"...)
}

// pieces adds the tokens of one choice; those of a tool call come in the fuller form with null keys.
func (c *chunker) pieces(index int, p *plan, from, to int) {
	to = min(to, len(p.pieces))
	if from >= to {
		return
	}
	text := strings.Join(p.pieces[from:to], "")
	if p.tool == nil {
		if text != "" {
			c.delta = appendString(append(c.delta[:0], `,"content":`...), text)
			c.chunk(index, string(c.delta), "", nil)
		}
		return
	}
	if from == 0 { // the name comes alone, before any argument
		first := *p.tool
		first.Function.Arguments = ""
		c.tool(index, first)
	}
	if text != "" {
		c.tool(index, toolCall{Type: "function", Function: toolFunction{Arguments: text}})
	}
}

// toolChunk is the fuller form of a chunk.
type toolChunk struct {
	ID      json.RawMessage `json:"id"`
	Object  string          `json:"object"`
	Created int64           `json:"created"`
	Model   json.RawMessage `json:"model"`
	Choices []toolChoice    `json:"choices"`
	Usage   json.RawMessage `json:"usage"`
}

type toolChoice struct {
	Index        int       `json:"index"`
	Delta        toolDelta `json:"delta"`
	Logprobs     any       `json:"logprobs"`
	FinishReason *string   `json:"finish_reason"`
	MatchedStop  any       `json:"matched_stop"`
}

type toolDelta struct {
	Role      *string    `json:"role"`
	Content   *string    `json:"content"`
	Reasoning *string    `json:"reasoning_content"`
	ToolCalls []toolCall `json:"tool_calls"`
}

func (c *chunker) tool(index int, call toolCall) {
	c.e.data(toolChunk{
		ID: c.id, Object: "chat.completion.chunk", Created: time.Now().Unix(), Model: c.model, Usage: c.usage,
		Choices: []toolChoice{{Index: index, Delta: toolDelta{ToolCalls: []toolCall{call}}}},
	})
}

func (c *chunker) finalUsage(u []byte) {
	b := append(c.head(), `,"choices":[],"usage":`...)
	c.e.buf = append(append(b, u...), "}\n\n"...)
}
