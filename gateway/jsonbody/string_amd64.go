package jsonbody

import "golang.org/x/sys/cpu"

// haveAVX2 tells whether processor and system know 256-bit integer vectors. Only tests change it.
var haveAVX2 = cpu.X86.HasAVX2

// wideText is the least text in bytes that skipTextAVX2 does something with.
const wideText = 64

// skipText validates text of a string from i, where a character starts, with vectors if there are any. It
// gives the place after the closing quote and true, or false and the place, at a character's start, from
// which it has not looked: because little is left there, or what is there needs a closer look.
func skipText(b []byte, i int) (n int, closed bool) {
	// Vectors are read from up to three bytes before i, too, for the characters that end in them.
	if !haveAVX2 || i < 3 || len(b)-i < wideText {
		return i, false
	}
	n, closed = skipTextAVX2(b, i)
	if closed {
		return n, true
	}
	// All before n is valid, but n may be inside a character.
	switch {
	case b[n-1] >= 0xC0:
		n--
	case b[n-2] >= 0xE0:
		n -= 2
	case b[n-3] >= 0xF0:
		n -= 3
	}
	return n, false
}

// skipTextAVX2 is skipText for i >= 3, but the place it gives when the string is not closed may be that of a
// later byte of a character. It needs AVX2.
//
//go:noescape
func skipTextAVX2(b []byte, i int) (n int, closed bool)
