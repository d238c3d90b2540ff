package jsonbody

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
	if ft := s.document(); ft != faultNone {
		return ft.at(s.i)
	}
	if s.duplicate != nil {
		return s.duplicate
	}
	return nil
}

type scanner struct {
	body  []byte
	i     int // the next byte to read; the place of the fault when there is one
	depth int
	kinds [MaxDepth / 64]uint64 // bit d is set when level d+1 is an object

	f         *Fields
	key       Key // the member of interest whose value is being read
	before    int // the '{' or ',' before the member being read
	duplicate *Error
}

func (s *scanner) document() fault {
	if len(s.body) >= 3 && s.body[0] == 0xEF && s.body[1] == 0xBB && s.body[2] == 0xBF {
		return faultBOM
	}
	switch s.space() {
	case '{':
		s.f.open = s.i
	case 0:
		if s.i == len(s.body) {
			return faultEmptyBody
		}
		return faultNotObject
	default:
		return faultNotObject
	}
	for {
		// A value starts here.
		opened, ft := s.value()
		if ft != faultNone {
			return ft
		}
		if opened {
			continue
		}
		// A value ended here: close what ends with it, up to where the next one starts.
		for {
			if s.depth == 0 {
				if s.space(); s.i != len(s.body) {
					return faultTrailing
				}
				return faultNone
			}
			if s.depth == 1 && s.key != noKey {
				s.f.members[s.key].End = s.i
			}
			c := s.space()
			object := s.inObject()
			if s.depth == 1 && s.key != noKey {
				s.f.members[s.key].After = s.i
				s.key = noKey
			}
			if c == ',' {
				s.before = s.i
				s.i++
				s.space()
				if object {
					if ft := s.member(); ft != faultNone {
						return ft
					}
				}
				break
			}
			if object && c == '}' || !object && c == ']' {
				s.i++
				s.depth--
				continue
			}
			if s.i == len(s.body) {
				return faultEnd
			}
			return faultComma
		}
	}
}

// value reads one scalar or empty container, or enters a container up to its first value; opened tells
// which.
func (s *scanner) value() (opened bool, ft fault) {
	if s.i >= len(s.body) {
		return false, faultEnd
	}
	var kind Kind
	start := s.i
	switch c := s.body[s.i]; c {
	case '"':
		kind = String
		s.i, ft = skipString(s.body, s.i+1)
	case '{', '[':
		if kind = Object; c == '[' {
			kind = Array
		}
		if s.depth == MaxDepth {
			return false, faultDepth
		}
		s.note(kind, start) // before the level changes
		bit := uint64(1) << (s.depth & 63)
		if kind == Object {
			s.kinds[s.depth>>6] |= bit
		} else {
			s.kinds[s.depth>>6] &^= bit
		}
		s.before = s.i
		s.i++
		if s.space() == c+2 { // the closing bracket, in ASCII
			s.i++
			return false, faultNone
		}
		s.depth++
		if kind == Object {
			return true, s.member()
		}
		return true, faultNone
	case 't':
		kind = True
		ft = s.literal("true")
	case 'f':
		kind = False
		ft = s.literal("false")
	case 'n':
		kind = Null
		ft = s.literal("null")
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		kind = Number
		ft = s.number()
	default:
		return false, faultValue
	}
	s.note(kind, start)
	return false, ft
}

// note records kind and start of the value of a member of interest.
func (s *scanner) note(kind Kind, start int) {
	if s.depth == 1 && s.key != noKey {
		m := &s.f.members[s.key]
		m.Kind, m.Start = kind, start
	}
}

// member reads a key and its colon, up to the value.
func (s *scanner) member() fault {
	if s.i >= len(s.body) {
		return faultEnd
	}
	if s.body[s.i] != '"' {
		return faultKey
	}
	start := s.i
	end, ft := skipString(s.body, s.i+1)
	s.i = end
	if ft != faultNone {
		return ft
	}
	if s.depth == 1 {
		s.f.count++
		s.key = keyOfLiteral(s.body[start:end])
		if s.key != noKey {
			m := &s.f.members[s.key]
			if m.Kind != Absent && s.duplicate == nil {
				// Told at the end: a body that is no JSON at all is the more useful finding.
				s.duplicate = errDuplicate(s.key, start)
			}
			m.KeyStart, m.Before = start, s.before
		}
	}
	if s.space() != ':' {
		if s.i == len(s.body) {
			return faultEnd
		}
		return faultColon
	}
	s.i++
	s.space()
	return faultNone
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
	for _, c := range name {
		if c == '\\' {
			var buf [maxKeyLen * longestEscape]byte
			return keyOf(unescape(buf[:0], name))
		}
	}
	return noKey
}

func (s *scanner) inObject() bool {
	d := s.depth - 1
	return s.kinds[d>>6]>>(d&63)&1 == 1
}

// space skips white space and gives the byte it stopped at, or 0 at the end.
func (s *scanner) space() byte {
	i := s.i
	for ; i < len(s.body); i++ {
		if c := s.body[i]; c > ' ' || c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			s.i = i
			return c
		}
	}
	s.i = i
	return 0
}

func (s *scanner) literal(word string) fault {
	rest := s.body[s.i:]
	for i := range len(word) {
		if i >= len(rest) {
			s.i += i
			return faultEnd
		}
		if rest[i] != word[i] {
			return faultLiteral
		}
	}
	s.i += len(word)
	return faultNone
}

func (s *scanner) number() fault {
	b, i := s.body, s.i
	if b[i] == '-' {
		i++
	}
	switch {
	case i < len(b) && b[i] == '0':
		i++
	default:
		n := digits(b, i)
		if n == i {
			return s.badNumber(i)
		}
		i = n
	}
	if i < len(b) && b[i] == '.' {
		n := digits(b, i+1)
		if n == i+1 {
			return s.badNumber(n)
		}
		i = n
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		n := digits(b, i)
		if n == i {
			return s.badNumber(i)
		}
		i = n
	}
	// What may not follow a number, such as the 1 of 01, is not what may follow a value either.
	s.i = i
	return faultNone
}

func (s *scanner) badNumber(i int) fault {
	s.i = i
	if i >= len(s.body) {
		return faultEnd
	}
	return faultNumber
}

// digits gives the end of the run of decimal digits that starts at i.
func digits(b []byte, i int) int {
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	return i
}
