package jsonbody

import (
	"bytes"
	"encoding/json"
	"io"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// The slow and plain reading of a body that the fast one is compared with, made of encoding/json and of
// the rules that it does not have.

type refMember struct {
	key string
	raw string
}

// refAccepts tells whether doc is an object by the rules of Scan, duplicates aside.
func refAccepts(doc []byte) bool {
	trimmed := bytes.TrimLeft(doc, " \t\r\n")
	return len(trimmed) > 0 && trimmed[0] == '{' &&
		utf8.Valid(doc) && json.Valid(doc) && !refLoneSurrogate(doc) && refDepth(doc) <= MaxDepth
}

// refLoneSurrogate looks for halves of surrogate pairs in valid JSON, where a backslash can only be in a
// string.
func refLoneSurrogate(doc []byte) bool {
	unit := func(i int) rune {
		if i+6 > len(doc) || doc[i] != '\\' || doc[i+1] != 'u' {
			return -1
		}
		u, err := strconv.ParseUint(string(doc[i+2:i+6]), 16, 16)
		if err != nil {
			panic(err) // json.Valid was asked before
		}
		return rune(u)
	}
	for i := 0; i < len(doc); i++ {
		if doc[i] != '\\' {
			continue
		}
		r := unit(i)
		if r < 0 {
			i++
			continue
		}
		if !utf16.IsSurrogate(r) {
			i += 5
			continue
		}
		if utf16.DecodeRune(r, unit(i+6)) == utf8.RuneError {
			return true
		}
		i += 11
	}
	return false
}

func refDepth(doc []byte) int {
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	depth, deepest := 0, 0
	for {
		token, err := d.Token()
		if err == io.EOF {
			return deepest
		}
		if err != nil {
			panic(err)
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
			deepest = max(deepest, depth)
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
	}
}

// refMembers gives the members of a valid object in order, duplicates included.
func refMembers(doc []byte) []refMember {
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	if _, err := d.Token(); err != nil {
		panic(err)
	}
	var members []refMember
	for d.More() {
		key, err := d.Token()
		if err != nil {
			panic(err)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			panic(err)
		}
		members = append(members, refMember{key.(string), string(raw)})
	}
	return members
}

// refDuplicate gives the first key of interest that appears twice.
func refDuplicate(members []refMember) (string, bool) {
	seen := map[string]bool{}
	for _, m := range members {
		if keyOf([]byte(m.key)) == noKey {
			continue
		}
		if seen[m.key] {
			return m.key, true
		}
		seen[m.key] = true
	}
	return "", false
}
