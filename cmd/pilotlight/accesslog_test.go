package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// reader is what an access log is written to; it takes nothing while it is held.
type reader struct {
	held sync.Mutex
	got  bytes.Buffer
	err  error
}

func (r *reader) Write(p []byte) (int, error) {
	r.held.Lock()
	defer r.held.Unlock()
	if r.err != nil {
		return 0, r.err
	}
	return r.got.Write(p)
}

func TestAccessLogIsWrittenInOrderAndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r reader
		l := newAccessLog(&r, slog.New(slog.DiscardHandler))
		var want strings.Builder
		for i := range 10_000 { // some buffers, and the beginning of another
			line := fmt.Sprintf("line %d of one writer, and some more words\n", i)
			want.WriteString(line)
			if n, err := l.Write([]byte(line)); n != len(line) || err != nil {
				t.Fatal(n, err)
			}
			if i%3000 == 0 {
				synctest.Wait()
			}
		}
		time.Sleep(accessLogDelay + time.Millisecond)
		synctest.Wait()
		if r.got.String() != want.String() {
			t.Errorf("%d of %d bytes came within %v, or in another order", r.got.Len(), want.Len(), accessLogDelay)
		}
		_, _ = l.Write([]byte("the last\n"))
		l.close()
		if !strings.HasSuffix(r.got.String(), "words\nthe last\n") {
			t.Error("what was written before the end did not come")
		}
	})
}

func TestASlowReaderOfTheAccessLogCostsLinesNotTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r reader
		var log bytes.Buffer
		l := newAccessLog(&r, slog.New(slog.NewTextHandler(&log, nil)))
		line := []byte(strings.Repeat("x", 1023) + "\n")
		r.held.Lock()
		const lines = 2 * accessLogBuffers * accessLogBuffer / 1024
		for range lines {
			_, _ = l.Write(line) // returns, or synctest finds that nobody can go on
		}
		r.held.Unlock()
		l.close()
		kept := r.got.Len() / len(line)
		if kept < lines/2-64 || kept > lines/2+64 {
			t.Errorf("%d lines of %d were kept", kept, lines)
		}
		if want := fmt.Sprintf("lines=%d", lines-kept); !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %s:\n%s", want, log.String())
		}
	})
}

func TestAFailingAccessLogIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := reader{err: errors.New("no space left")}
		var log bytes.Buffer
		l := newAccessLog(&r, slog.New(slog.NewTextHandler(&log, nil)))
		for range 3 {
			_, _ = l.Write([]byte("lost\n"))
			time.Sleep(2 * accessLogDelay)
			synctest.Wait()
		}
		r.held.Lock()
		r.err = nil
		r.held.Unlock()
		_, _ = l.Write([]byte("kept\n"))
		l.close()
		if got := log.String(); strings.Count(got, "cannot be written") != 1 || strings.Count(got, "again") != 1 || r.got.String() != "kept\n" {
			t.Errorf("log %q, written %q", got, r.got.String())
		}
	})
}
