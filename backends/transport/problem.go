package transport

import (
	"errors"
	"io"
	"net"
	"os"
)

var (
	// ErrNotYet says that nothing (more) arrived before the given time. The call goes on.
	ErrNotYet = errors.New("nothing arrived yet")
	// ErrCancelled says that Cancel ended the call.
	ErrCancelled = errors.New("call cancelled")
)

// Phase is how far a call had come when it failed.
type Phase uint8

const (
	PhaseDial Phase = iota // no connection
	PhaseSend              // the request was not wholly written
	PhaseHead              // no byte, or no whole head, of the response had arrived
	PhaseBody              // the response had begun
)

func (p Phase) String() string {
	return [...]string{"connecting", "sending the request", "waiting for the response", "reading the response"}[p]
}

// Error is a failed exchange.
type Error struct {
	Phase Phase
	// Refused: nobody listens at the address, so the replica has surely not seen the request.
	Refused bool
	Err     error
}

func (e *Error) Error() string { return e.Phase.String() + ": " + e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

var errStale = errors.New("the engine had ended the connection, or had spoken unasked")

var errBadHead = errors.New("the head of the response is malformed")

// headProblem names what kind of error err is. fasthttp's text quotes what it has read, which may be part of an answer.
func headProblem(err error) error {
	var op *net.OpError
	switch {
	case isTimeout(err):
		return os.ErrDeadlineExceeded
	case errors.As(err, &op):
		return op
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	}
	return errBadHead
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
