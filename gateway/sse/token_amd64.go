package sse

import (
	"bytes"

	"golang.org/x/sys/cpu"
)

// haveAVX2 tells whether processor and system know 256-bit integer vectors. Only tests change it.
var haveAVX2 = cpu.X86.HasAVX2

// minVector is the least length in bytes of a document that is searched with vectors, less that of the token.
const minVector = 32

// indexToken is bytes.Index with vectors, if there are any and doc is long enough for one; ok is false otherwise. A token
// is at least 3 bytes.
func indexToken(doc, token []byte) (n int, ok bool) {
	if !haveAVX2 || len(doc) < minVector+len(token) {
		return 0, false
	}
	// The opening quote is no help, since every key and text has one.
	quote := len(token) - 1
	n = indexEndsAVX2(doc[1:], token[1], token[quote-1], token[quote], quote-1)
	if n < 0 || string(doc[n:n+len(token)]) == string(token) {
		return n, true
	}
	// Something with the same ends, which is rare: go on as if there were no vectors.
	rest := bytes.Index(doc[n+1:], token)
	if rest < 0 {
		return -1, true
	}
	return n + 1 + rest, true
}

// indexEndsAVX2 gives the first place of b with the byte first, the byte quote so many bytes on, and last before that; or
// -1. It needs AVX2, apart of at least 1 and b of at least apart+32 bytes.
//
//go:noescape
func indexEndsAVX2(b []byte, first, last, quote byte, apart int) int
