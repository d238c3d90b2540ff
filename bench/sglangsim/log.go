package sglangsim

import (
	"fmt"
	"io"
	stdlog "log"
	"net/http"
	"sync"
	"time"
)

// logger writes lines as SGLang and uvicorn do: "[2006-01-02 15:04:05] text" on stderr, access lines on stdout.
type logger struct {
	tp  int
	now func() time.Time

	mu       sync.Mutex // one line at a time
	out, err io.Writer
}

func newLogger(stdout, stderr io.Writer, tp int) *logger {
	if stdout == nil {
		stdout = io.Discard
	}
	if stderr == nil {
		stderr = io.Discard
	}
	return &logger{tp: tp, now: time.Now, out: stdout, err: stderr}
}

func (l *logger) stamp() string { return l.now().Format("2006-01-02 15:04:05") }

// main is a line of the main process.
func (l *logger) main(format string, args ...any) {
	l.raw("[" + l.stamp() + "] " + fmt.Sprintf(format, args...) + "\n")
}

// ranks is a line that each scheduler prints; they name themselves only when there are several.
func (l *logger) ranks(format string, args ...any) {
	if l.tp <= 1 {
		l.main(format, args...)
		return
	}
	text := ""
	for rank := range l.tp {
		text += fmt.Sprintf("[%s TP%d] ", l.stamp(), rank) + fmt.Sprintf(format, args...) + "\n"
	}
	l.raw(text)
}

// rank0 is a line that only the first scheduler prints.
func (l *logger) rank0(format string, args ...any) {
	tag := ""
	if l.tp > 1 {
		tag = " TP0"
	}
	l.raw("[" + l.stamp() + tag + "] " + fmt.Sprintf(format, args...) + "\n")
}

// raw writes to stderr as it is. A reader that went away is no concern of the engine's: the write's error has nobody
// to go to.
func (l *logger) raw(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = io.WriteString(l.err, text)
}

// access is uvicorn's line for one answered request.
func (l *logger) access(peer, method, target string, status int) {
	line := fmt.Sprintf("[%s] INFO:     %s - \"%s %s HTTP/1.1\" %d %s\n", l.stamp(), peer, method, target, status, http.StatusText(status))
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = io.WriteString(l.out, line)
}

// discardErrors keeps net/http's own complaints (about connections that faults cut) out of the engine's output.
func discardErrors() *stdlog.Logger { return stdlog.New(io.Discard, "", 0) }

// logPrefill is the scheduler's line for a prefilled request.
func (s *Server) logPrefill(j *job) {
	running, waiting, _ := s.engine.load()
	s.log.rank0("Prefill batch, #new-seq: 1, #new-token: %d, #cached-token: %d, token usage: 0.00, #running-req: %d, #queue-req: %d, #pending-token: 0, cuda graph: True, input throughput (token/s): 0.00", j.promptTokens-j.cached, j.cached, running, waiting)
}
