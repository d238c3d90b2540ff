package load

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
)

// question is one request to be sent.
type question struct {
	caller    Caller
	model     string
	stream    bool
	maxTokens int
	body      []byte
}

// drawer makes the requests of a plan, one after the other: their order decides what is drawn.
type drawer struct {
	o      Options
	rng    *rand.Rand
	total  float64
	prefix string
}

func newDrawer(o Options) *drawer {
	d := &drawer{o: o, rng: rand.New(rand.NewPCG(o.Seed, 2))}
	for _, m := range o.Models {
		d.total += m.Weight
	}
	d.prefix = words(rand.New(rand.NewPCG(o.Seed, 3)), o.SharedPrefix)
	return d
}

// vocabulary holds words that are one token in every common vocabulary, so that a text of n words has about n tokens.
var vocabulary = strings.Fields("the of and to in a is that for it was on are as with his they at be this have from or one had by word but not what all were we when your can said " +
	"there use an each which she do how their if will up other about out many then them these so some her would make like him into time has look two more write go see number")

// words is text of about n tokens.
func words(rng *rand.Rand, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(vocabulary[rng.IntN(len(vocabulary))])
	}
	return b.String()
}

type chat struct {
	Model         string         `json:"model"`
	Messages      []message      `json:"messages"`
	MaxTokens     int            `json:"max_tokens"`
	Stream        bool           `json:"stream,omitempty"`
	StreamOptions *streamOptions `json:"stream_options,omitempty"`
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

// question is the plan's i-th request.
func (d *drawer) question(i int, a Arrival) question {
	q := question{caller: d.o.Callers[i%len(d.o.Callers)], maxTokens: a.MaxTokens, model: d.o.Models[len(d.o.Models)-1].Name}
	for at, k := d.rng.Float64()*d.total, 0; k < len(d.o.Models); k++ {
		if at -= d.o.Models[k].Weight; at < 0 {
			q.model = d.o.Models[k].Name
			break
		}
	}
	q.stream = d.rng.Float64() < d.o.Stream
	text := words(d.rng, max(1, a.PromptTokens-d.o.SharedPrefix))
	if d.prefix != "" {
		text = d.prefix + " " + text
	}
	c := chat{Model: q.model, Messages: []message{{"user", text}}, MaxTokens: a.MaxTokens, Stream: q.stream}
	if q.stream {
		c.StreamOptions = &streamOptions{true}
	}
	body, err := json.Marshal(c)
	if err != nil {
		panic("BUG: strings and numbers are JSON: " + err.Error())
	}
	q.body = body
	return q
}
