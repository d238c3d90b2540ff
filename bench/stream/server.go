package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// command starts nothing yet. What it starts ends with ctx, its children included.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

const (
	accessKey = "AKBENCH"
	secretKey = "secret-of-the-bench"
	bucket    = "models"
	prefix    = "bench"
)

// s3 is a real S3 server over a folder.
type s3 struct {
	addr string // host:port
	cmd  *exec.Cmd
}

func freePort() (string, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func serveS3(ctx context.Context, program, dir string) (*s3, error) {
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"data", "side"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	s := &s3{addr: addr, cmd: command(ctx, program, "--port", addr, "--health", "/health", "--quiet", "posix", "--sidecar", filepath.Join(dir, "side"), filepath.Join(dir, "data"))}
	s.cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+accessKey, "ROOT_SECRET_ACCESS_KEY="+secretKey)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	return s, waitFor(ctx, "http://"+addr+"/health", 30*time.Second)
}

func (s *s3) end() error {
	err := s.cmd.Cancel()
	var exit *exec.ExitError
	if e := s.cmd.Wait(); !errors.As(e, &exit) {
		err = errors.Join(err, e)
	}
	return err
}

// env is the environment of a client that reaches the server at endpoint, with the loader's own settings of whoever measures.
func (s *s3) env(endpoint string) []string {
	env := slices.DeleteFunc(os.Environ(), func(entry string) bool { return !strings.HasPrefix(entry, "RUNAI_STREAMER_") })
	return append(env,
		"PATH="+os.Getenv("PATH"), "AWS_ENDPOINT_URL="+endpoint, "AWS_ACCESS_KEY_ID="+accessKey, "AWS_SECRET_ACCESS_KEY="+secretKey,
		"AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true",
	)
}

const uploadScript = `import boto3, os, sys
s3 = boto3.client("s3")
s3.create_bucket(Bucket=sys.argv[2])
for name in os.listdir(sys.argv[1]):
    s3.upload_file(os.path.join(sys.argv[1], name), sys.argv[2], sys.argv[3] + "/" + name)
`

// upload puts the model there as most people do, with boto3, at full speed.
func (s *s3) upload(ctx context.Context, python string, m model) error {
	cmd := command(ctx, python, "-c", uploadScript, m.folder, bucket, prefix)
	cmd.Env = s.env("http://" + s.addr)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("uploading the model: %w: %s", err, text)
	}
	return nil
}

func waitFor(ctx context.Context, url string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w", url, ctx.Err())
		}
	}
}

// model is a folder of random weights.
type model struct {
	folder  string
	weights int64 // bytes
	beside  int64 // bytes of the other files
	files   int   // of weights
}

const weightFiles = 4

// makeModel writes size bytes of weights in four safetensors files (https://github.com/huggingface/safetensors#format), with tensors of 16 MiB, and
// a configuration and a tokenizer of the size that such files have.
func makeModel(folder string, size int64) (model, error) {
	m := model{folder: folder, files: weightFiles}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return m, err
	}
	random := rand.NewChaCha8([32]byte{1})
	const tensor = 16 << 20
	perFile := max(1, size/weightFiles/tensor)
	for i := range weightFiles {
		type entry struct {
			Type    string   `json:"dtype"`
			Shape   []int64  `json:"shape"`
			Offsets [2]int64 `json:"data_offsets"`
		}
		header := map[string]entry{}
		for t := range perFile {
			header[fmt.Sprintf("layers.%d.%d", i, t)] = entry{"BF16", []int64{2048, tensor / 4096}, [2]int64{t * tensor, (t + 1) * tensor}}
		}
		text, err := json.Marshal(header)
		if err != nil {
			return m, err
		}
		for len(text)%8 != 0 {
			text = append(text, ' ')
		}
		name := filepath.Join(folder, fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, weightFiles))
		if err := write(name, append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), io.LimitReader(random, perFile*tensor)); err != nil {
			return m, err
		}
		m.weights += perFile*tensor + int64(len(text)) + 8
	}
	for name, n := range map[string]int{"config.json": 700, "tokenizer.json": 7 << 20, "tokenizer_config.json": 10 << 10} {
		text, err := json.Marshal(map[string]string{"model_type": "bench", "padding": string(make([]byte, n/6))})
		if err != nil {
			return m, err
		}
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o644); err != nil {
			return m, err
		}
		m.beside += int64(len(text))
	}
	return m, nil
}

func write(name string, head []byte, rest io.Reader) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if _, err = f.Write(head); err == nil {
		_, err = io.Copy(f, rest)
	}
	return errors.Join(err, f.Close())
}
