package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// session is one user's requests, each sent some time after the answer to the one before it.
type session struct {
	start  time.Duration // since the beginning
	system string
	turns  []turn
}

type turn struct {
	text  string
	think time.Duration // after the last answer
}

// workload makes sessions. The same seed gives the same ones.
type workload struct {
	name string
	what string
	make func(r *rand.Rand, p *parameters) []session
}

// tokenBytes is what the simulator counts as a token.
const tokenBytes = 4

// prose is text of so many tokens that nothing else shares.
func prose(r *rand.Rand, tokens int) string {
	const letters = "etaoinshrdlucmfw"
	var b strings.Builder
	for b.Len() < tokens*tokenBytes {
		for range 3 + r.IntN(6) {
			b.WriteByte(letters[r.IntN(len(letters))])
		}
		b.WriteByte(' ')
	}
	return b.String()[:tokens*tokenBytes]
}

// between is evenly spread from half of n to one and a half.
func between(r *rand.Rand, n int) int { return n/2 + r.IntN(n+1) }

// arrivals are n Poisson arrivals over about the parameters' length.
func arrivals(r *rand.Rand, n int, length time.Duration) []time.Duration {
	at, out := time.Duration(0), make([]time.Duration, n)
	for i := range out {
		at += time.Duration(r.ExpFloat64() * float64(length) / float64(n))
		out[i] = at
	}
	return out
}

// count is how many requests of so many tokens make the parameters' load, where nothing is cached.
func (p *parameters) count(tokens int) int {
	return max(1, int(p.load*p.prefill*float64(p.replicas)*p.length.Seconds()/float64(tokens)))
}

var workloads = []workload{
	{"chat", "conversations of 8 turns on average, each with the whole history; questions of 200 tokens, answers of 32", func(r *rand.Rand, p *parameters) []session {
		const turns, question, answer = 8, 200, 32
		mean := (question + answer) * (turns + 1) / 2
		var all []session
		for _, at := range arrivals(r, max(1, p.count(mean)/turns), p.length) {
			s := session{start: at, system: prose(r, 100)}
			for range between(r, turns) {
				s.turns = append(s.turns, turn{prose(r, between(r, question)), time.Duration(r.ExpFloat64() * float64(700*time.Millisecond))})
			}
			all = append(all, s)
		}
		return all
	}},
	{"system prompts", "24 system prompts of 2,000 tokens, the most popular with a quarter of the requests, and questions of 100 tokens", func(r *rand.Rand, p *parameters) []session {
		prompts := make([]string, 24)
		for i := range prompts {
			prompts[i] = prose(r, 2000)
		}
		pick := rand.NewZipf(r, 1.3, 2, uint64(len(prompts)-1))
		var all []session
		for _, at := range arrivals(r, p.count(2100), p.length) {
			all = append(all, session{start: at, system: prompts[pick.Uint64()], turns: []turn{{prose(r, between(r, 100)), 0}}})
		}
		return all
	}},
	{"long documents", "40 documents of 6,000 tokens, each asked about again and again", func(r *rand.Rand, p *parameters) []session {
		documents := make([]string, 40)
		for i := range documents {
			documents[i] = prose(r, between(r, 6000))
		}
		var all []session
		for _, at := range arrivals(r, p.count(6000), p.length) {
			all = append(all, session{start: at, system: "Answer from the document.", turns: []turn{{documents[r.IntN(len(documents))] + prose(r, 50), 0}}})
		}
		return all
	}},
	{"nothing shared", "prompts of 1,500 tokens that share nothing", func(r *rand.Rand, p *parameters) []session {
		var all []session
		for _, at := range arrivals(r, p.count(1500), p.length) {
			all = append(all, session{start: at, system: prose(r, 20), turns: []turn{{prose(r, between(r, 1500)), 0}}})
		}
		return all
	}},
}

func (w *workload) describe() string { return fmt.Sprintf("%s: %s", w.name, w.what) }
