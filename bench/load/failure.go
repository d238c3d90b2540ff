package load

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"unicode"
)

// Classes of failures. Those of HTTP are "http STATUS CODE", those within a stream "in-stream CODE", with the code (else the type) of
// OpenAI's error object, where there is one.
const (
	errConnect   = "connect"   // no connection came about: refused, unknown host, TLS
	errClosed    = "closed"    // the connection ended before the answer's head
	errTimeout   = "timeout"   // Options.Timeout passed, in whatever phase
	errCut       = "cut"       // the answer ended early
	errMalformed = "malformed" // not what OpenAI's clients understand
	errInStream  = "in-stream" // an error event within a stream
	// cancelled and dropped requests have not failed: the first were in flight when the run was interrupted, the others never sent.
	errCancelled = "cancelled"
	errDropped   = "dropped"
)

// failure is how a request failed.
type failure struct{ class, detail string }

func (f *failure) Error() string { return f.class + ": " + f.detail }

// errTooLate is why a request's context ends at its time-out, and not with the run.
var errTooLate = errors.New("the time-out has passed")

// broken is the failure of a request whose connection gave err: the run's or the request's end, else this class.
func broken(ctx context.Context, err error, class string) *failure {
	switch {
	case errors.Is(context.Cause(ctx), errTooLate):
		class = errTimeout
	case ctx.Err() != nil:
		class = errCancelled
	}
	return &failure{class, err.Error()}
}

// mostCode bounds what a server's error code contributes to a class, in bytes.
const mostCode = 64

// codeOf is the code of an error object, nested as OpenAI's or flat as SGLang's, with a space before it. A code that is a number says no
// more than the status.
func codeOf(body []byte) string {
	var e struct {
		Error  errorObject `json:"error"`
		Object string      `json:"object"`
		errorObject
	}
	if json.Unmarshal(body, &e) != nil {
		return "" // a proxy's page, say
	}
	if e.Object == "error" {
		e.Error = e.errorObject
	}
	code, ok := e.Error.Code.(string)
	if !ok || code == "" {
		code, _ = e.Error.Type.(string)
	}
	if code == "" {
		return ""
	}
	return " " + printable(code[:min(len(code), mostCode)])
}

type errorObject struct {
	Code any `json:"code"`
	Type any `json:"type"`
}

// printable is text of a server on one line, without what a terminal or a table would act on.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
