package store

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"pilotlight/internal/testtools/hubtest"
)

func TestConnectionsGrowWhileThatHelps(t *testing.T) {
	const mb = 1e6
	for _, c := range []struct {
		name string
		most int
		rate func(connections int) float64
		want int
	}{
		{"4 MB/s a connection", 96, func(n int) float64 { return float64(n) * 4 * mb }, 96},
		{"one that allows fewer", 12, func(n int) float64 { return float64(n) * 4 * mb }, 12},
		{"a fast machine", 96, func(int) float64 { return 900 * mb }, 16},
		{"160 MB/s in all", 96, func(n int) float64 { return min(160*mb, float64(n)*4*mb) }, 32},
		{"more makes it worse", 96, func(n int) float64 { return 100 * mb / float64(n) }, 16},
		{"silence", 96, func(int) float64 { return 0 }, 16},
		{"one at a time", 1, func(n int) float64 { return float64(n) * 4 * mb }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRamp(c.most)
			n := r.target
			for range 30 { // 7.5 s
				n = r.step(c.rate(n), false)
			}
			if n != c.want {
				t.Errorf("got %d connections, want %d", n, c.want)
			}
			if half := r.step(c.rate(n), true); half != max(1, n/2) {
				t.Errorf("asked for less: got %d connections, want half of %d", half, n)
			}
			for range rampRest {
				if now := r.step(c.rate(r.target), false); now != max(1, n/2) {
					t.Fatalf("it grew to %d at once", now)
				}
			}
		})
	}
}

// slowSource serves the part that begins at 0 only up to its first chunk and a half, until it is let go.
type slowSource struct {
	content []byte
	free    chan struct{}
	mu      sync.Mutex
	opened  []int64 // offsets
}

func (s *slowSource) List(context.Context, string) (Listing, error) {
	return Listing{Commit: strings.Repeat("1", 40), Files: []File{{Path: "w", Size: int64(len(s.content)), SHA256: hubtest.SHA256(s.content)}}}, nil
}

func (s *slowSource) Open(ctx context.Context, _ string, _ File, offset, length int64) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened = append(s.opened, offset)
	part := bytes.NewReader(s.content[offset : offset+length])
	if offset > 0 {
		return io.NopCloser(part), nil
	}
	return io.NopCloser(io.MultiReader(io.LimitReader(part, chunk+chunk/2), waiter{ctx, s.free}, part)), nil
}

// waiter reads as nothing, when it is let go.
type waiter struct {
	ctx  context.Context
	free chan struct{}
}

func (w waiter) Read([]byte) (int, error) {
	select {
	case <-w.free:
		return 0, io.EOF
	case <-w.ctx.Done():
		return 0, context.Cause(w.ctx)
	}
}

// TestSlowConnectionIsHelped has one connection that comes to a halt. The others take all it was asked for, but for the chunk that it is at.
func TestSlowConnectionIsHelped(t *testing.T) {
	src := &slowSource{content: hubtest.Noise(8, 40*chunk+7), free: make(chan struct{})}
	s, err := New(Options{Path: t.TempDir(), Connections: 2})
	if err != nil {
		t.Fatal(err)
	}
	progress, fetched := make(chan Progress), make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var got Snapshot
	go func() {
		var err error
		got, err = s.Fetch(ctx, Request{Repo: "slow", Source: src, Progress: func(p Progress) {
			select {
			case progress <- p:
			default:
			}
		}})
		fetched <- err
	}()
	// What the halted connection has got of its second chunk counts.
	until(t, progress, "all but half a chunk is there", func(p Progress) bool { return p.BytesDone == int64(len(src.content))-chunk/2 })
	close(src.free)
	if err := <-fetched; err != nil {
		t.Fatal(err)
	}
	checkContent(t, got, map[string][]byte{"w": src.content})
	src.mu.Lock()
	defer src.mu.Unlock()
	seen := map[int64]bool{}
	for _, offset := range src.opened {
		if seen[offset] {
			t.Errorf("what begins at %d was asked for twice", offset)
		}
		seen[offset] = true
	}
}
