package jsonbody

import "bytes"

// MaxDepth is how many objects and arrays may enclose a value. Engines' own parsers give up at about
// twice that (orjson at 1024), and no honest request comes near.
const MaxDepth = 512

// Scan validates body as strict JSON (RFC 8259) whose top level is an object, and notes in f where the
// members of interest lie. Refused are, beyond what the grammar refuses: a byte order mark, invalid
// UTF-8, halves of surrogate pairs, nesting beyond MaxDepth, and a second appearance of a member of
// interest (keys are compared after unescaping, and with regard to case).
//
// It takes one pass and allocates nothing. Every error is an *Error; f is of no use then.
func Scan(body []byte, f *Fields) error {
	*f = Fields{body: body}
	s := scanner{body: body, f: f, key: noKey}
	if at, ft := s.document(); ft != faultNone {
		return ft.at(at)
	}
	if s.duplicate != nil {
		return s.duplicate
	}
	return nil
}

// scanner is what is rarely touched of a scan's state. Places and depth are handed from function to function,
// since going through memory for them at every token is what would cost the most.
type scanner struct {
	body  []byte
	kinds [MaxDepth / 64]uint64 // bit d is set when level d+1 is an object

	f         *Fields
	key       Key // the member of interest whose value is being read
	before    int // at the top level, the '{' or ',' before the member being read
	duplicate *Error
}

// document reads the whole body, and gives the place of the fault when there is one.
func (s *scanner) document() (at int, ft fault) {
	b := s.body
	if len(b) >= 3 && b[0] == 0xEF && b[1] == 0xBB && b[2] == 0xBF {
		return 0, faultBOM
	}
	i := nextToken(b, 0)
	if i == len(b) {
		return i, faultEmptyBody
	}
	if b[i] != '{' {
		return i, faultNotObject
	}
	s.f.open = i
	depth, object := 0, false // of the container that encloses i
	for {
		// A value starts here.
		if i >= len(b) {
			return i, faultEnd
		}
		var kind Kind
		start := i
		switch c := b[i]; c {
		case '"':
			kind = String
			i, ft = skipString(b, i+1)
		case '{', '[':
			if kind = Object; c == '[' {
				kind = Array
			}
			if depth == MaxDepth {
				return i, faultDepth
			}
			open := i
			i = nextToken(b, i+1)
			if i < len(b) && b[i] == c+2 { // the closing bracket, in ASCII
				i++
				break
			}
			if depth == 1 {
				s.note(kind, start, 0)
			}
			if object = kind == Object; object {
				s.kinds[depth>>6] |= 1 << (depth & 63)
			} else {
				s.kinds[depth>>6] &^= 1 << (depth & 63)
			}
			depth++
			if object {
				if depth == 1 {
					s.before = open
				}
				if i, ft = s.member(i, depth); ft != faultNone {
					return i, ft
				}
			}
			continue
		case 't':
			kind = True
			i, ft = skipLiteral(b, i, "true")
		case 'f':
			kind = False
			i, ft = skipLiteral(b, i, "false")
		case 'n':
			kind = Null
			i, ft = skipLiteral(b, i, "null")
		case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
			kind = Number
			i, ft = skipNumber(b, i)
		default:
			return i, faultValue
		}
		if ft != faultNone {
			return i, ft
		}
		if depth == 1 {
			s.note(kind, start, i)
		}
		// A value ended here: close what ends with it, up to where the next one starts.
		for {
			if depth == 0 {
				if i = nextToken(b, i); i != len(b) {
					return i, faultTrailing
				}
				return i, faultNone
			}
			i = nextToken(b, i)
			if i == len(b) {
				return i, faultEnd
			}
			if depth == 1 && s.key != noKey {
				s.f.members[s.key].After = i
				s.key = noKey
			}
			if c := b[i]; c == ',' {
				comma := i
				i = nextToken(b, i+1)
				if object {
					if depth == 1 {
						s.before = comma
					}
					if i, ft = s.member(i, depth); ft != faultNone {
						return i, ft
					}
				}
				break
			} else if object && c != '}' || !object && c != ']' {
				return i, faultComma
			}
			i++
			depth--
			if depth > 0 {
				object = s.kinds[(depth-1)>>6]>>((depth-1)&63)&1 == 1
			}
			if depth == 1 && s.key != noKey {
				s.f.members[s.key].End = i
			}
		}
	}
}

// note records a value of the top level if it is that of a member of interest.
func (s *scanner) note(kind Kind, start, end int) {
	if s.key != noKey {
		m := &s.f.members[s.key]
		m.Kind, m.Start, m.End = kind, start, end
	}
}

// member reads a key and its colon, and gives the place of the value, or of the fault.
func (s *scanner) member(i, depth int) (int, fault) {
	b := s.body
	if i >= len(b) {
		return i, faultEnd
	}
	if b[i] != '"' {
		return i, faultKey
	}
	start := i
	i, ft := skipString(b, i+1)
	if ft != faultNone {
		return i, ft
	}
	if depth == 1 {
		s.topKey(start, i)
	}
	i = nextToken(b, i)
	if i == len(b) {
		return i, faultEnd
	}
	if b[i] != ':' {
		return i, faultColon
	}
	return nextToken(b, i+1), faultNone
}

// topKey takes note of a key of the top level.
func (s *scanner) topKey(start, end int) {
	s.f.count++
	if s.key = keyOfLiteral(s.body[start:end]); s.key == noKey {
		return
	}
	m := &s.f.members[s.key]
	if m.Kind != Absent && s.duplicate == nil {
		// Told at the end: a body that is no JSON at all is the more useful finding.
		s.duplicate = errDuplicate(s.key, start)
	}
	m.KeyStart, m.Before = start, s.before
}

// keyOfLiteral gives the Key of a quoted key, unescaped on the stack when it has to be.
func keyOfLiteral(literal []byte) Key {
	name := literal[1 : len(literal)-1]
	if k := keyOf(name); k != noKey {
		return k
	}
	const longestEscape = len(`\u0000`)
	if len(name) > maxKeyLen*longestEscape {
		return noKey
	}
	if bytes.IndexByte(name, '\\') >= 0 {
		var buf [maxKeyLen * longestEscape]byte
		return keyOf(unescape(buf[:0], name))
	}
	return noKey
}

// nextToken gives the place of the first byte from i on that is no white space, or the end. Most tokens follow
// at once.
func nextToken(b []byte, i int) int {
	if i < len(b) && b[i] > ' ' {
		return i
	}
	return skipSpace(b, i)
}

// skipLiteral gives the place behind word, or that of the fault: what does not start with it is told where it
// starts, what ends within it is told at the end.
func skipLiteral(b []byte, i int, word string) (int, fault) {
	rest := b[i:min(i+len(word), len(b))]
	switch {
	case string(rest) == word:
		return i + len(word), faultNone
	case string(rest) == word[:len(rest)]:
		return len(b), faultEnd
	default:
		return i, faultLiteral
	}
}

// skipNumber gives the place behind a number, or that of the fault.
func skipNumber(b []byte, i int) (int, fault) {
	if b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else {
		n := digits(b, i)
		if n == i {
			return badNumber(b, i)
		}
		i = n
	}
	if i < len(b) && b[i] == '.' {
		n := digits(b, i+1)
		if n == i+1 {
			return badNumber(b, n)
		}
		i = n
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		n := digits(b, i)
		if n == i {
			return badNumber(b, i)
		}
		i = n
	}
	// What may not follow a number, such as the 1 of 01, is not what may follow a value either.
	return i, faultNone
}

func badNumber(b []byte, i int) (int, fault) {
	if i >= len(b) {
		return i, faultEnd
	}
	return i, faultNumber
}

// digits gives the end of the run of decimal digits that starts at i.
func digits(b []byte, i int) int {
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	return i
}
