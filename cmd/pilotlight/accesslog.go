package main

import (
	"io"
	"log/slog"
	"sync"
	"time"
)

const (
	accessLogBuffer = 64 << 10
	// accessLogBuffers bounds what waits for a reader that is slow: beyond it lines are dropped, and counted.
	accessLogBuffers = 32
	// accessLogDelay is how old a line may get before it is written out.
	accessLogDelay = 250 * time.Millisecond
)

// accessLog keeps writing off the request path: requests fill buffers, and one goroutine writes them out. A log that nobody reads costs
// its lines, never a request's time. It is safe for concurrent use.
type accessLog struct {
	w    io.Writer
	log  *slog.Logger // of what becomes of w
	full chan []byte
	end  chan struct{}
	done chan struct{}

	failed error // of the last write; run's goroutine only

	mu      sync.Mutex // guards the fields below
	filling []byte
	free    [][]byte
	made    int // buffers
	lost    int // lines
}

func newAccessLog(w io.Writer, log *slog.Logger) *accessLog {
	l := &accessLog{w: w, log: log, full: make(chan []byte, accessLogBuffers), end: make(chan struct{}), done: make(chan struct{}),
		filling: make([]byte, 0, accessLogBuffer), made: 1}
	go l.run()
	return l
}

// Write takes whole lines, and never fails or waits.
func (l *accessLog) Write(lines []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.filling)+len(lines) > cap(l.filling) && !l.handOver() {
		l.lost++
		return len(lines), nil
	}
	l.filling = append(l.filling, lines...)
	return len(lines), nil
}

// handOver gives the buffer to the writer and takes another; false: there is none. Called with mu held.
func (l *accessLog) handOver() bool {
	var next []byte
	switch n := len(l.free); {
	case n > 0:
		next, l.free = l.free[n-1], l.free[:n-1]
	case l.made < accessLogBuffers:
		next = make([]byte, 0, accessLogBuffer)
		l.made++
	default:
		return false
	}
	l.full <- l.filling // it has room for all that were made
	l.filling = next
	return true
}

func (l *accessLog) run() {
	defer close(l.done)
	t := time.NewTicker(accessLogDelay)
	defer t.Stop()
	for {
		select {
		case b := <-l.full:
			l.write(b)
		case <-t.C:
			if b := l.begun(); b != nil {
				l.write(b)
			}
		case <-l.end:
			for len(l.full) > 0 {
				l.write(<-l.full)
			}
			if b := l.begun(); b != nil {
				l.write(b)
			}
			return
		}
	}
}

// begun takes the buffer that is being filled; nil if it is empty, or others come before it.
func (l *accessLog) begun() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.filling) == 0 || len(l.full) > 0 {
		return nil
	}
	b := l.filling
	if n := len(l.free); n > 0 {
		l.filling, l.free = l.free[n-1], l.free[:n-1]
	} else { // the first time
		l.filling = make([]byte, 0, accessLogBuffer)
		l.made++
	}
	return b
}

func (l *accessLog) write(b []byte) {
	_, err := l.w.Write(b)
	if (err == nil) != (l.failed == nil) {
		if err != nil {
			l.log.Warn("the access log cannot be written; its lines are lost until it can", "error", err.Error())
		} else {
			l.log.Info("the access log can be written again")
		}
	}
	l.failed = err
	l.mu.Lock()
	l.free = append(l.free, b[:0])
	lost := l.lost
	l.lost = 0
	l.mu.Unlock()
	if lost > 0 {
		l.log.Warn("lines of the access log were dropped, because whoever reads standard output is too slow", "lines", lost)
	}
}

// close writes out what there is, and waits for that. Nothing may be written afterwards.
func (l *accessLog) close() {
	close(l.end)
	<-l.done
}
