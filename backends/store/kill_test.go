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

// TestKilledDownloadGoesOn kills a process that fetches at random moments. What a killed one had marked is not asked for again, so that
// each connection loses less than a chunk.
func TestKilledDownloadGoesOn(t *testing.T) {
	hub, dir := hubtest.New(t), t.TempDir()
	hub.Fill()
	content := hubtest.Noise(7, 44<<20)
	hub.Add("model-3.safetensors", content, true)
	var mu sync.Mutex
	asked := map[int64]int{} // by chunk of model-3, in this run
	hub.FailWith(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/blob/model-3.safetensors" {
			return false
		}
		var from, to int64
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); err != nil {
			t.Errorf("range %q: %v", r.Header.Get("Range"), err)
			return false
		}
		mu.Lock()
		asked[from/chunk]++
		mu.Unlock()
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(content)))
		w.Header().Set("Content-Length", fmt.Sprint(to-from+1))
		w.WriteHeader(http.StatusPartialContent)
		for at := from; at <= to; at += 512 << 10 { // slowly enough for a kill to meet it at work
			time.Sleep(2 * time.Millisecond)
			if _, err := w.Write(content[at:min(at+512<<10, to+1)]); err != nil {
				return true
			}
		}
		return true
	})
	marks := filepath.Join(dir, "models--org--model", partials, hubtest.SHA256(content)+".marks")
	kills := 0
	for run := 0; ; run++ {
		if run > 200 {
			t.Fatal("no run came to its end")
		}
		before, _ := os.ReadFile(marks) // missing before the first run, and after the last
		header, _, _ := strings.Cut(string(before), "\n")
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
		// The moments move on, so that a slow machine comes to its end, too.
		timer := time.AfterFunc(time.Duration(rand.IntN(300)+80*run)*time.Millisecond, func() {
			_ = cmd.Process.Kill() // it may have ended by itself
		})
		err := cmd.Wait()
		timer.Stop()
		mu.Lock()
		chunks := maps.Clone(asked)
		mu.Unlock()
		for i, m := range strings.TrimPrefix(string(before), header+"\n") {
			if m == '1' && chunks[int64(i)] > 0 {
				t.Errorf("run %d: chunk %d was there and was fetched again", run, i)
			}
		}
		if err == nil {
			break
		}
		if text.Len() > 0 {
			t.Fatalf("run %d: %s", run, text.String())
		}
		kills++
	}
	t.Logf("%d kills", kills)
	got, err := newStore(t, dir).Find("org/model", "main", Filter{})
	if err != nil {
		t.Fatal(err)
	}
	// Links and refs that were being written are a few bytes each; they lie where nobody looks.
	checkContent(t, got, hub.Files)
}
