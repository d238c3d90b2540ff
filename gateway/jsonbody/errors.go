package jsonbody

import (
	"errors"
	"strconv"
)

// What Scan and the readers of Fields refuse. Every error they give is an *Error that wraps one of these.
var (
	ErrSyntax       = errors.New("not valid JSON")
	ErrEncoding     = errors.New("not valid UTF-8")
	ErrDepth        = errors.New("nested too deeply")
	ErrNotObject    = errors.New("not a JSON object")
	ErrDuplicateKey = errors.New("duplicate key")
	ErrMissing      = errors.New("missing")
	ErrType         = errors.New("wrong type")
	ErrEmpty        = errors.New("empty string")
)

// Error says what is wrong with a body, and where. It never quotes the body, so it may be logged and
// shown to the client.
type Error struct {
	// Err is one of the sentinels of this package.
	Err error
	// Param names the member concerned, as in OpenAI's error.param; empty when the whole body is.
	Param string
	// Offset is the byte at which the problem was seen, from 0. -1 when there is no such place.
	Offset int

	reason string // completes Message
}

// Error gives a line for logs.
func (e *Error) Error() string {
	return "request body: " + e.Message()
}

// Message gives a sentence for the client.
func (e *Error) Message() string {
	if e.Offset < 0 {
		return e.reason
	}
	return e.reason + " (at byte " + strconv.Itoa(e.Offset) + ")"
}

// Unwrap gives the sentinel.
func (e *Error) Unwrap() error { return e.Err }

// fault is what can be wrong at one place of a document. The scanner passes it by value, so that only a
// refused body costs an allocation.
type fault uint8

const (
	faultNone fault = iota
	faultEmptyBody
	faultBOM
	faultNotObject
	faultEnd
	faultValue
	faultLiteral
	faultNumber
	faultKey
	faultColon
	faultComma
	faultTrailing
	faultControl
	faultEscape
	faultSurrogate
	faultUTF8
	faultDepth
)

var faults = [...]struct {
	err    error
	reason string
}{
	faultEmptyBody: {ErrSyntax, "the request body is empty; send a JSON object"},
	faultBOM:       {ErrSyntax, "the request body starts with a byte order mark; send plain UTF-8"},
	faultNotObject: {ErrNotObject, "the request body must be a JSON object"},
	faultEnd:       {ErrSyntax, "the request body is not valid JSON: it ends too early"},
	faultValue:     {ErrSyntax, "the request body is not valid JSON: a value was expected"},
	faultLiteral:   {ErrSyntax, "the request body is not valid JSON: only true, false and null may be written without quotes"},
	faultNumber:    {ErrSyntax, "the request body is not valid JSON: malformed number"},
	faultKey:       {ErrSyntax, "the request body is not valid JSON: a quoted key was expected"},
	faultColon:     {ErrSyntax, "the request body is not valid JSON: a colon was expected after a key"},
	faultComma:     {ErrSyntax, "the request body is not valid JSON: a comma or the end of the object or array was expected"},
	faultTrailing:  {ErrSyntax, "the request body is not valid JSON: there is more data after the object"},
	faultControl:   {ErrSyntax, "the request body is not valid JSON: a control character in a string must be escaped"},
	faultEscape:    {ErrSyntax, "the request body is not valid JSON: unknown or malformed escape in a string"},
	faultSurrogate: {ErrEncoding, "the request body holds half of a UTF-16 surrogate pair, which is no character"},
	faultUTF8:      {ErrEncoding, "the request body is not valid UTF-8"},
	faultDepth:     {ErrDepth, "the request body is nested too deeply; at most " + strconv.Itoa(MaxDepth) + " levels are allowed"},
}

func (f fault) at(offset int) *Error {
	return &Error{Err: faults[f].err, Offset: offset, reason: faults[f].reason}
}

func errDuplicate(k Key, offset int) *Error {
	return &Error{Err: ErrDuplicateKey, Param: k.String(), Offset: offset, reason: "the key '" + k.String() + "' appears more than once"}
}

func errMissing(k Key) *Error {
	return &Error{Err: ErrMissing, Param: k.String(), Offset: -1, reason: "you must provide a '" + k.String() + "' parameter"}
}

func errType(k Key, want string, offset int) *Error {
	return &Error{Err: ErrType, Param: k.String(), Offset: offset, reason: "'" + k.String() + "' must be " + want}
}

func errEmpty(k Key, offset int) *Error {
	return &Error{Err: ErrEmpty, Param: k.String(), Offset: offset, reason: "'" + k.String() + "' must not be empty"}
}
