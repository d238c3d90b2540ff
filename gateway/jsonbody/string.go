package jsonbody

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
)

const (
	ones = 0x0101010101010101
	high = 0x8080808080808080
)

// special marks (in the high bit of each byte, exact up to and including the lowest mark) the bytes of w
// at which a string needs a closer look: control characters, '"', '\\' and all that is not ASCII.
// Flipping bit 1 turns '"' (0x22) into 0x20 and leaves controls below it, so one subtraction finds both;
// a borrow can only spoil the marks above a true one. Of the bytes that are not ASCII, the second
// subtraction leaves the high bit of all but 0xDC, and the first has that one.
func special(w uint64) uint64 {
	return marks(w) & high
}

// marks is special with noise in the other bits.
func marks(w uint64) uint64 {
	return ((w ^ 2*ones) - 0x21*ones) | ((w ^ '\\'*ones) - ones)
}

// skipString validates a string from the byte after its opening quote, before which all is valid, and gives the place after the
// closing one, or that of the fault. Most strings are short keys and words, but nearly all bytes of a large
// body are inside a few long ones (text, base64 images): short ones end in the first words that are read,
// and long ones are left to vectors.
func skipString(b []byte, i int) (int, fault) {
	for end := i + shortString; i < end && i+8 <= len(b); i += 8 {
		if m := special(binary.LittleEndian.Uint64(b[i:])); m != 0 {
			i += bits.TrailingZeros64(m) >> 3
			if b[i] == '"' {
				return i + 1, faultNone
			}
			break
		}
	}
	for {
		n, closed := skipText(b, i)
		if closed {
			return n, faultNone
		}
		i = skipPlain(b, n)
		if i == len(b) {
			return i, faultEnd
		}
		switch c := b[i]; {
		case c == '"':
			return i + 1, faultNone
		case c == '\\':
			// Where one character is written by its number, more are.
			i = skipNumbered(b, i)
			if i == len(b) || b[i] != '\\' {
				continue
			}
			n, ft := skipEscape(b, i)
			if ft != faultNone {
				return n, ft
			}
			i = n
		case c < ' ':
			return i, faultControl
		default:
			n := skipRunes(b, i)
			if n < len(b) && b[n] >= 0x80 {
				return n, faultUTF8
			}
			i = n
		}
	}
}

// shortString is how many bytes of a string are read in words before vectors are worth their setup.
const shortString = 24

// skipPlain gives the place of the first byte from i on that is special, or the end.
func skipPlain(b []byte, i int) int {
	s := b[i:]
	for len(s) >= 32 {
		w0 := binary.LittleEndian.Uint64(s)
		w1 := binary.LittleEndian.Uint64(s[8:])
		w2 := binary.LittleEndian.Uint64(s[16:])
		w3 := binary.LittleEndian.Uint64(s[24:])
		m := marks(w0) | marks(w1) | marks(w2) | marks(w3)
		if m&high != 0 {
			break
		}
		s = s[32:]
	}
	for len(s) >= 8 {
		if m := special(binary.LittleEndian.Uint64(s)); m != 0 {
			return len(b) - len(s) + bits.TrailingZeros64(m)>>3
		}
		s = s[8:]
	}
	for len(s) > 0 && s[0] >= ' ' && s[0] < 0x80 && s[0] != '"' && s[0] != '\\' {
		s = s[1:]
	}
	return len(b) - len(s)
}

// skipNumbered goes over u escapes that stand for a character by themselves and stops at the first byte that
// begins none, leaving halves of surrogate pairs and what is malformed to skipEscape.
func skipNumbered(b []byte, i int) int {
	for s := b[i:]; len(s) >= 6 && s[0] == '\\' && s[1] == 'u'; s = s[6:] {
		first, second := hexValues[s[2]], hexValues[s[3]]
		if first&second&hexValues[s[4]]&hexValues[s[5]]&isHex == 0 || first == isHex|0xD && second >= isHex|8 {
			break
		}
		i += 6
	}
	return i
}

// skipEscape validates the escape whose backslash is at i and gives the place after it.
func skipEscape(b []byte, i int) (int, fault) {
	if i+1 >= len(b) {
		return len(b), faultEnd
	}
	switch b[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2, faultNone
	case 'u':
	default:
		return i, faultEscape
	}
	r, ok := hex4(b[i+2:])
	if !ok {
		return i, faultEscape
	}
	if !utf16.IsSurrogate(r) {
		return i + 6, faultNone
	}
	if next := b[i+6:]; len(next) >= 6 && next[0] == '\\' && next[1] == 'u' {
		if low, ok := hex4(next[2:]); ok && utf16.DecodeRune(r, low) != '\uFFFD' {
			return i + 12, faultNone
		}
	}
	return i, faultSurrogate
}

// skipRunes goes over valid UTF-8 sequences of two to four bytes (RFC 3629 §4) and stops at the first
// byte that is ASCII, starts no valid sequence, or is past the end.
func skipRunes(b []byte, i int) int {
	for i < len(b) {
		s := b[i:]
		switch c := s[0]; {
		case c < 0xC2 || c > 0xF4:
			return i
		case c < 0xE0:
			if len(s) < 2 || !trails(s[1]) {
				return i
			}
			i += 2
		case c < 0xF0:
			if len(s) < 3 || !trails(s[1]) || !trails(s[2]) ||
				c == 0xE0 && s[1] < 0xA0 || // overlong
				c == 0xED && s[1] > 0x9F { // surrogates
				return i
			}
			i += 3
		default:
			if len(s) < 4 || !trails(s[1]) || !trails(s[2]) || !trails(s[3]) ||
				c == 0xF0 && s[1] < 0x90 || // overlong
				c == 0xF4 && s[1] > 0x8F { // beyond U+10FFFF
				return i
			}
			i += 4
		}
	}
	return i
}

func trails(c byte) bool { return c&0xC0 == 0x80 }
