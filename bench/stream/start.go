package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
)

// result is one start.
type result struct {
	ready       time.Duration // from the first request to its answer
	disk        int64         // bytes at most, of everything that the gateway and the engine wrote
	fetched     int64         // bytes that came from the object store
	connections int64         // to it at once, at most
	engine      struct {
		Bytes  int64   `json:"bytes"`
		CRC32  int64   `json:"crc32"`
		Import float64 `json:"import_seconds"`
		Load   float64 `json:"load_seconds"`
	}
}

func (r result) row(streamed bool) string {
	name := "download, then load"
	if streamed {
		name = "stream_model: true"
	}
	return fmt.Sprintf("%-22s %7.1fs %7.1fs %7.1fs %12s %12s %6d", name, r.ready.Seconds(), r.engine.Import, r.engine.Load,
		humanize.IBytes(uint64(r.disk)), humanize.IBytes(uint64(r.fetched)), r.connections)
}

const configuration = `listen: %[1]s
admin: {listen: "127.0.0.1:0"}
state_dir: %[2]s/state
store: {path: %[2]s/store}
devices: none
models:
  - name: bench
    model_id: bench
    model_path: s3://%[3]s/%[4]s
    stream_model: %[5]v
    requires_auth: false
    cold: {max_wait: 10m}
    backend: {process: {command: [%[6]q, %[7]q], engine: sglang, engine_version: custom}}
`

// start runs a gateway with nothing in its store, and asks its model something.
func start(ctx context.Context, program, python, dir string, env []string, m model, streamed bool) (r result, err error) {
	if err := os.RemoveAll(dir); err != nil {
		return r, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return r, err
	}
	listen, err := freePort()
	if err != nil {
		return r, err
	}
	engine, err := filepath.Abs("bench/stream/engine.py")
	if err != nil {
		return r, err
	}
	file := filepath.Join(dir, "pilotlight.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, configuration, listen, dir, bucket, prefix, streamed, python, engine), 0o600); err != nil {
		return r, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	cmd := command(ctx, program, "serve", "-c", file)
	cmd.Env = append(env, "HOME="+dir)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return r, err
	}
	defer func() {
		_ = syscall.Kill(cmd.Process.Pid, syscall.SIGTERM) // it stops its engine; one that has ended is no matter
		if e := cmd.Wait(); e != nil && err == nil {
			err = fmt.Errorf("the gateway: %w", e)
		}
	}()
	if err := listening(ctx, listen); err != nil {
		return r, errors.Join(err, said(log.Name()))
	}
	watch := watchDisk(dir)
	began := time.Now()
	answer, err := ask(ctx, "http://"+listen)
	r.ready = time.Since(began)
	r.disk = watch()
	if err == nil {
		err = json.Unmarshal([]byte(answer), &r.engine)
	}
	if err == nil && r.engine.Bytes < m.weights*9/10 {
		err = fmt.Errorf("the engine loaded %d bytes", r.engine.Bytes)
	}
	if err != nil {
		return r, errors.Join(err, said(log.Name()))
	}
	return r, nil
}

func said(log string) error {
	text, err := os.ReadFile(log)
	if err != nil {
		return err
	}
	return fmt.Errorf("the gateway said: %s", text[max(0, len(text)-4000):])
}

func listening(ctx context.Context, addr string) error {
	for range 500 {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			return c.Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
	return errors.New("the gateway does not listen")
}

func ask(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/chat/completions", strings.NewReader(`{"model":"bench","messages":[{"role":"user","content":"?"}]}`))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return "", err
	}
	var body struct {
		Choices []struct {
			Message struct {
				Content string `json:"content"`
			} `json:"message"`
		} `json:"choices"`
	}
	if err := json.Unmarshal(text, &body); err != nil || len(body.Choices) != 1 {
		return "", fmt.Errorf("status %d: %s", resp.StatusCode, bytes.TrimSpace(text))
	}
	return body.Choices[0].Message.Content, nil
}

// watchDisk looks every 20 ms at what lies below dir, and returns how to end that and learn the most.
func watchDisk(dir string) (most func() int64) {
	var high int64
	var work sync.WaitGroup
	end := make(chan struct{})
	work.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			high = max(high, usage(dir))
			select {
			case <-tick.C:
			case <-end:
				return
			}
		}
	})
	return func() int64 {
		close(end)
		work.Wait()
		return high
	}
}

// usage is what files below dir occupy. Files that vanish meanwhile count nothing.
func usage(dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				sum += stat.Blocks * 512
			}
		}
		return nil
	})
	return sum
}
