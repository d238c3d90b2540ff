package jsonbody

import "strconv"

// Kind is the type of a JSON value. The zero Kind is Absent.
type Kind uint8

// The kinds of values.
const (
	Absent Kind = iota
	Null
	False
	True
	Number
	String
	Array
	Object
)

// Member is where one member of an object lies: byte offsets into the document, ends exclusive.
type Member struct {
	Kind Kind
	// Before is the '{' or ',' before the member, After the ',' or '}' behind it.
	Before, After int
	// KeyStart is the key's opening quote.
	KeyStart int
	// Start and End enclose the value, quotes or brackets included.
	Start, End int
}

// Fields is what Scan found. It refers to the scanned body, which must not change while it is in use.
// The zero value is that of a body without members.
type Fields struct {
	body    []byte
	open    int // the object's '{'
	count   int // members of the top-level object
	members [numKeys]Member
}

// Body gives the scanned bytes.
func (f *Fields) Body() []byte { return f.body }

// Get gives a member; its Kind is Absent when the body has none.
func (f *Fields) Get(k Key) Member { return f.members[k] }

// Has tells whether the body holds the member, with whatever value.
func (f *Fields) Has(k Key) bool { return f.members[k].Kind != Absent }

// Raw gives the bytes of a value as they are written, nil when absent.
func (f *Fields) Raw(k Key) []byte {
	m := &f.members[k]
	if m.Kind == Absent {
		return nil
	}
	return f.body[m.Start:m.End]
}

// Model gives the model's name: an *Error with ErrMissing, ErrType or ErrEmpty when the body has no such
// member, one that is no string, or an empty one. The bytes are part of the body when the name was
// written without escapes.
func (f *Fields) Model() ([]byte, error) {
	m := &f.members[Model]
	switch m.Kind {
	case Absent:
		return nil, errMissing(Model)
	case String:
	default:
		return nil, errType(Model, "a string", m.Start)
	}
	if m.End-m.Start == len(`""`) {
		return nil, errEmpty(Model, m.Start)
	}
	return StringValue(f.Raw(Model)), nil
}

// Text gives the value of a member that must be a string if it is there: ok is false when it is absent
// or null. Any other kind is an *Error with ErrType.
func (f *Fields) Text(k Key) (value []byte, ok bool, err error) {
	m := &f.members[k]
	switch m.Kind {
	case Absent, Null:
		return nil, false, nil
	case String:
		return StringValue(f.Raw(k)), true, nil
	default:
		return nil, false, errType(k, "a string", m.Start)
	}
}

// Bool gives the value of a member that must be a boolean if it is there: ok is false when it is absent
// or null. Any other kind is an *Error with ErrType.
func (f *Fields) Bool(k Key) (value, ok bool, err error) {
	m := &f.members[k]
	switch m.Kind {
	case Absent, Null:
		return false, false, nil
	case False, True:
		return m.Kind == True, true, nil
	default:
		return false, false, errType(k, "a boolean", m.Start)
	}
}

// Int gives the value of a member that must be an integer if it is there: ok is false when it is absent
// or null. Any other kind, a fraction or exponent, and what does not fit in 64 bits is an *Error with
// ErrType. Engines may read 1.0 as 1; a caller that only estimates can ignore the error.
func (f *Fields) Int(k Key) (value int64, ok bool, err error) {
	m := &f.members[k]
	switch m.Kind {
	case Absent, Null:
		return 0, false, nil
	case Number:
		raw := f.Raw(k)
		if len(raw) <= len("-9223372036854775808") {
			if n, perr := strconv.ParseInt(string(raw), 10, 64); perr == nil {
				return n, true, nil
			}
		}
	}
	return 0, false, errType(k, "an integer", m.Start)
}

// Several tells how many texts a member holds that may be one text, a list of them, or a text as a list of numbers, such as the prompt of
// completions: at least 1. It stops counting at most.
func (f *Fields) Several(k Key, most int) int {
	m := &f.members[k]
	if m.Kind != Array {
		return 1
	}
	list, n := f.body[m.Start:m.End], 0
	for i := 1; n < most; n++ {
		i = skipSpace(list, i)
		end, kind := passValue(list, i)
		if kind != String && kind != Array {
			break
		}
		if i = skipSpace(list, end); i >= len(list) || list[i] != ',' {
			n++
			break
		}
		i++
	}
	return max(n, 1)
}

// IncludeUsage tells whether stream_options asks for the usage chunk at the end of a stream.
func (f *Fields) IncludeUsage() bool {
	if f.members[StreamOptions].Kind != Object {
		return false
	}
	m, ok := locateLast(f.Raw(StreamOptions), "include_usage")
	return ok && m.Kind == True
}
