package jsonbody

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// Locate finds the first member called key in the object doc. It looks only as far as it must: doc is
// trusted to be JSON, such as an engine's answer, and is not validated; with one that is not JSON the
// answer may be wrong but is always in bounds. Keys of nested objects and the insides of strings are
// never taken for members. ok is false when there is no such member or doc ends before it does.
func Locate(doc []byte, key string) (m Member, ok bool) {
	return locate(doc, key, false)
}

// TopLevelString finds the first member called key in the object doc, as Locate does, if its value is a
// string: doc[start:end] is the string with its quotes.
func TopLevelString(doc []byte, key string) (start, end int, ok bool) {
	m, ok := Locate(doc, key)
	if !ok || m.Kind != String {
		return 0, 0, false
	}
	return m.Start, m.End, true
}

// locateLast is Locate for objects in which a later duplicate wins, as it does in engines' parsers.
func locateLast(doc []byte, key string) (Member, bool) {
	return locate(doc, key, true)
}

func locate(doc []byte, key string, last bool) (found Member, ok bool) {
	i := skipSpace(doc, 0)
	if i >= len(doc) || doc[i] != '{' {
		return Member{}, false
	}
	for {
		m := Member{Before: i}
		m.KeyStart = skipSpace(doc, i+1)
		if m.KeyStart >= len(doc) || doc[m.KeyStart] != '"' {
			return found, ok
		}
		keyEnd := passString(doc, m.KeyStart+1)
		if keyEnd < 0 {
			return found, ok
		}
		i = skipSpace(doc, keyEnd)
		if i >= len(doc) || doc[i] != ':' {
			return found, ok
		}
		m.Start = skipSpace(doc, i+1)
		if m.End, m.Kind = passValue(doc, m.Start); m.Kind == Absent {
			return found, ok
		}
		i = skipSpace(doc, m.End)
		if i >= len(doc) || doc[i] != ',' && doc[i] != '}' {
			return found, ok
		}
		m.After = i
		if equalKey(doc[m.KeyStart+1:keyEnd-1], key) {
			if found, ok = m, true; !last {
				return found, ok
			}
		}
		if doc[i] == '}' {
			return found, ok
		}
	}
}

func equalKey(raw []byte, key string) bool {
	if string(raw) == key {
		return true
	}
	if len(raw) <= len(key) || bytes.IndexByte(raw, '\\') < 0 {
		return false
	}
	return string(unescape(make([]byte, 0, len(raw)), raw)) == key
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// passString gives the place after a string's closing quote, from the byte after its opening one, or -1.
func passString(b []byte, i int) int {
	if len(b)-i >= 8 { // most keys and many values end in the first word
		if m := special(binary.LittleEndian.Uint64(b[i:])); m != 0 {
			if end := i + bits.TrailingZeros64(m)>>3; b[end] == '"' {
				return end + 1
			}
		}
	}
	for {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return -1
		}
		end := i + n
		slashes := end
		for slashes > i && b[slashes-1] == '\\' {
			slashes--
		}
		if (end-slashes)%2 == 0 {
			return end + 1
		}
		i = end + 1
	}
}

// passValue gives the end and kind of the value at i; Absent when there is none or it does not end.
func passValue(b []byte, i int) (end int, kind Kind) {
	if i >= len(b) {
		return i, Absent
	}
	switch b[i] {
	case '"':
		if end = passString(b, i+1); end < 0 {
			return i, Absent
		}
		return end, String
	case '{', '[':
		kind = Object
		if b[i] == '[' {
			kind = Array
		}
		depth := 0
		for i < len(b) {
			switch b[i] {
			case '"':
				if i = passString(b, i+1); i < 0 {
					return 0, Absent
				}
				continue
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1, kind
				}
			}
			i++
		}
		return i, Absent
	case 't':
		kind = True
	case 'f':
		kind = False
	case 'n':
		kind = Null
	default:
		kind = Number
	}
	for end = i; end < len(b); end++ {
		switch b[end] {
		case ',', '}', ']', ' ', '\n', '\r', '\t':
			if end == i {
				return i, Absent
			}
			return end, kind
		}
	}
	return end, Absent
}
