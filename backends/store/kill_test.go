package store

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pilotlight/internal/testtools/hubtest"
)

// childEnv makes this test's program a process that fetches: "STORE HUB".
const childEnv = "PILOTLIGHT_TEST_STORE_CHILD"

func child() {
	dir, hub, _ := strings.Cut(os.Getenv(childEnv), " ")
	err := func() error {
		src, err := NewHub(HubOptions{Repo: "org/model", Endpoint: hub})
		if err != nil {
			return err
		}
		s, err := New(Options{Path: dir})
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // were the test killed
		defer cancel()
		_, err = s.Fetch(ctx, Request{Repo: "org/model", Source: src})
		return err
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// killsEnv is how often TestKilledDownloadGoesOn kills; a few times where it is not set.
const killsEnv = "PILOTLIGHT_TEST_STORE_KILLS"

// TestKilledDownloadGoesOn kills a process that fetches at random moments, again and again till it has come to its end, and begins anew, until
// there were enough kills. What a killed one had marked is not asked for again, each connection loses less than 8 MiB, and what the last one
// leaves is right.
func TestKilledDownloadGoesOn(t *testing.T) {
	kills := 6
	if v := os.Getenv(killsEnv); v != "" {
		var err error
		if kills, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	hub := hubtest.New(t)
	hub.Fill()
	const big = "model-3.safetensors"
	content := hubtest.Noise(7, 44<<20)
	hub.Add(big, content, true)
	var mu sync.Mutex
	asked := map[int64]int{} // by chunk of the big file, in this run
	hub.FailWith(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/blob/"+big {
			return false
		}
		var from, to int64
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); err != nil {
			t.Errorf("range %q: %v", r.Header.Get("Range"), err)
			return false
		}
		mu.Lock()
		for i := from / chunk; i <= to/chunk; i++ {
			asked[i]++
		}
		mu.Unlock()
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(content)))
		w.Header().Set("Content-Length", fmt.Sprint(to-from+1))
		w.WriteHeader(http.StatusPartialContent)
		for at := from; at <= to; at += 256 << 10 { // slowly enough for a kill to meet it at work
			time.Sleep(10 * time.Millisecond)
			if _, err := w.Write(content[at:min(at+256<<10, to+1)]); err != nil {
				return true
			}
		}
		return true
	})
	killed, runs, whole := 0, 0, 0
	dir := t.TempDir()
	size := int64(0)
	for name, c := range hub.Files {
		if hub.Large[name] && name != "copy.safetensors" {
			size += int64(len(c))
		}
	}
	served, since := hub.BytesServed(), 0 // when this store was begun, and the kills since
	for killed < kills || whole == 0 {
		if runs++; runs > 20*kills+50 {
			t.Fatalf("%d kills and %d ends in %d runs", killed, whole, runs)
		}
		marks := filepath.Join(dir, "models--org--model", partials, hubtest.SHA256(content)+".marks")
		before, _ := os.ReadFile(marks) // missing before the first run, and after the last
		mu.Lock()
		clear(asked)
		mu.Unlock()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir+" "+hub.Front.URL)
		var text strings.Builder
		cmd.Stderr = &text
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var timer *time.Timer
		if killed < kills {
			// The moments move on, so that a slow machine comes to its end, too.
			timer = time.AfterFunc(time.Duration(rand.IntN(500)+50*since)*time.Millisecond, func() {
				_ = cmd.Process.Kill() // it may have ended by itself
			})
		}
		err := cmd.Wait()
		if timer != nil {
			timer.Stop()
		}
		mu.Lock()
		again := maps.Clone(asked)
		mu.Unlock()
		for i, m := range strings.TrimPrefix(string(before), marksHeader(int64(len(content)))) {
			if m == '1' && again[int64(i)] > 0 {
				t.Errorf("run %d: chunk %d was there and was fetched again", runs, i)
			}
		}
		if err != nil {
			if text.Len() > 0 {
				t.Fatalf("run %d: %s", runs, text.String())
			}
			killed++
			since++
			continue
		}
		whole++
		got, err := newStore(t, dir).Find("org/model", "main", Filter{})
		if err != nil {
			t.Fatal(err)
		}
		// Links and refs that were being written are a few bytes each; they lie where nobody looks.
		checkContent(t, got, hub.Files)
		// Each run has a second of time at most and firstConnections connections, or more if it comes to adding some.
		lost := hub.BytesServed() - served - size
		if most := int64(since) * defaultConnections * 8 << 20; lost > most {
			t.Errorf("%d bytes were fetched again after %d kills, want at most %d", lost, since, most)
		}
		t.Logf("%d kills, then whole: %.1f MiB of %d were fetched again", since, float64(lost)/(1<<20), size>>20)
		dir, served, since = t.TempDir(), hub.BytesServed(), 0
	}
	t.Logf("%d kills and %d ends in %d runs", killed, whole, runs)
}
