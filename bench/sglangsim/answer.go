package sglangsim

import (
	"hash/fnv"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// plan is one choice of an answer, settled before the first token: what will be said, in which pieces, and why it ends.
type plan struct {
	pieces  []string // one a token; together the whole text
	finish  string   // stop, length or tool_calls
	matched any      // the stop string that ended it, the EOS token's id, or nil
	tool    *toolCall
}

func (p *plan) text() string { return strings.Join(p.pieces, "") }

// eosToken is the id that matched_stop shows when the model ended by itself.
const eosToken = 2

var vocabulary = strings.Fields(`the a model server token answer light small quiet river stone morning window garden letter road
	paper silver winter summer harbour island signal engine steady simple gentle bright hollow narrow distant early late often
	never always under over between around while because before after again near far open close carry follow gather listen
	measure notice offer return settle travel wander`)

// sentence makes n words that depend on nothing but the key.
func sentence(key string, n int) []string {
	h := fnv.New64a()
	h.Write([]byte(key)) // never fails (hash.Hash)
	x := h.Sum64() | 1
	words := make([]string, n)
	for i := range words {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		words[i] = vocabulary[x%uint64(len(vocabulary))]
		if i > 0 {
			words[i] = " " + words[i]
		}
	}
	return words
}

// pieceLength bounds a token of an echoed text, in bytes.
const pieceLength = 12

// split cuts a text into tokens: before each run of white space, and inside of long words.
func split(text string) []string {
	var pieces []string
	start, wasSpace := 0, true
	for i, r := range text {
		space := unicode.IsSpace(r)
		if i > start && (space && !wasSpace || i-start >= pieceLength) {
			pieces = append(pieces, text[start:i])
			start = i
		}
		wasSpace = space
	}
	if start < len(text) {
		pieces = append(pieces, text[start:])
	}
	return pieces
}

// echoOf is the text that a prompt asks to hear: whatever follows its first "echo: ".
func echoOf(prompt string) (string, bool) {
	_, text, ok := strings.Cut(prompt, "echo: ")
	return text, ok
}

// plan settles one choice. fixed, when not nil, is a text that the request forces (a JSON document); last is the user's
// last message and key the whole prompt. limit is the largest number of tokens, 0 when the request sets none.
func (s *Server) plan(p *sampling, key, last string, fixed *string, index, limit, room int) plan {
	out := plan{finish: "stop", matched: eosToken}
	natural := true // the text has an end of its own
	switch echo, ok := echoOf(last); {
	case s.engine.isGarbage(): // what a server says whose weights came back without a backup
		out.pieces = []string{""}
		return out
	case fixed != nil:
		out.pieces = split(*fixed)
	case ok:
		out.pieces = split(echo)
	default:
		n := s.opts.OutputTokens
		if limit > 0 {
			n, natural = limit, false
		}
		out.pieces = sentence(key+"\x00"+strconv.FormatInt(p.seed(s.opts.RandomSeed), 10)+"\x00"+strconv.Itoa(index), min(n, max(room, 0)))
	}
	if limit == 0 || limit > room {
		limit = room
	}
	if len(out.pieces) > limit || !natural {
		out.pieces = out.pieces[:min(limit, len(out.pieces))]
		out.finish, out.matched = "length", nil
	}
	out.stopAt(p.Stop, p.NoStopTrim)
	if len(out.pieces) == 0 {
		out.pieces = []string{""}
	}
	return out
}

// stopAt ends the text at the first of the stop strings.
func (p *plan) stopAt(stops []string, keep bool) {
	text, at, match := p.text(), -1, ""
	for _, stop := range stops {
		if i := strings.Index(text, stop); stop != "" && i >= 0 && (at < 0 || i < at) {
			at, match = i, stop
		}
	}
	if at < 0 {
		return
	}
	p.finish, p.matched = "stop", match
	if keep {
		at += len(match)
	}
	for i, piece := range p.pieces {
		if at <= len(piece) {
			p.pieces = append(p.pieces[:i:i], piece[:at])
			return
		}
		at -= len(piece)
	}
}

// tokenBytes is how many bytes of a prompt make one token.
const tokenBytes = 3

// countTokens is the length of a prompt in the simulator's tokens, not below 1.
func countTokens(text string) int { return max((len(text)+tokenBytes-1)/tokenBytes, 1) }

// encodeTokens turns a text into token ids that decodeTokens can turn back: length and bytes in one number.
func encodeTokens(text string) []int {
	ids := []int{}
	for len(text) > 0 {
		n := min(tokenBytes, len(text))
		id := n
		for i := range n {
			id = id<<8 | int(text[i])
		}
		ids, text = append(ids, id), text[n:]
	}
	return ids
}

func decodeTokens(ids []int) (string, bool) {
	var b strings.Builder
	for _, id := range ids {
		n := 0
		for n = tokenBytes; n > 0 && id>>(8*n) != n; n-- {
		}
		if n == 0 || id < 0 {
			return "", false
		}
		for i := n - 1; i >= 0; i-- {
			b.WriteByte(byte(id >> (8 * i)))
		}
	}
	if text := b.String(); utf8.ValidString(text) {
		return text, true
	}
	return strings.ToValidUTF8(b.String(), "\uFFFD"), true
}
