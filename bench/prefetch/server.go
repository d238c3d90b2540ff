package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path"
	"strconv"
	"strings"
	"time"
)

const (
	limitedRate    = 4_000_000 // bytes a second of one connection
	limitedLatency = 30 * time.Millisecond
	block          = 1 << 20
)

// content is a file that is made as it is read: noise that repeats each MiB, but for the number of the MiB in front.
type content struct {
	size  int64
	noise []byte
}

func newContent(size int64) content {
	noise := make([]byte, block)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	return content{size, noise}
}

// send writes length bytes from offset on, in pieces of at most a block; pace is called before each.
func (c content) send(w io.Writer, offset, length int64, piece int, pace func(n int) error) error {
	scratch := make([]byte, block)
	copy(scratch, c.noise)
	for length > 0 {
		at := int(offset % block)
		binary.LittleEndian.PutUint64(scratch, uint64(offset/block))
		n := int(min(length, int64(min(piece, block-at))))
		if err := pace(n); err != nil {
			return err
		}
		if _, err := w.Write(scratch[at : at+n]); err != nil {
			return err
		}
		offset, length = offset+int64(n), length-int64(n)
	}
	return nil
}

func (c content) sha256() (string, error) {
	h := sha256.New()
	err := c.send(h, 0, c.size, block, func(int) error { return nil })
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

// server serves models as folders: /NAME/SHA256SUMS and the files that it names.
type server struct {
	models map[string]map[string]content
	sums   map[string]string
}

// runServer is the role "serve": arguments are NAME=SIZE,SIZE… of models. Files of one size have one content. It prints the addresses of its limited and unlimited listener.
func runServer(args []string) error {
	s := &server{models: map[string]map[string]content{}, sums: map[string]string{}}
	known := map[int64]string{}
	for _, arg := range args {
		model, sizes, _ := strings.Cut(arg, "=")
		s.models[model] = map[string]content{}
		for i, text := range strings.Split(sizes, ",") {
			size, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return err
			}
			name, c := fmt.Sprintf("file-%03d.bin", i), newContent(size)
			if known[size] == "" {
				if known[size], err = c.sha256(); err != nil {
					return err
				}
			}
			s.models[model][name] = c
			s.sums[model] += known[size] + "  " + name + "\n"
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	for _, limited := range []bool{true, false} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		fmt.Println("http://" + listener.Addr().String())
		web := &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, limited) }),
			ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
				return context.WithValue(ctx, connKey{}, &conn{fresh: true})
			},
		}
		go web.Serve(listener)
		defer web.Close()
	}
	<-ctx.Done()
	return nil
}

type connKey struct{}

// conn is what a connection has used of its rate. Requests on it come one after another.
type conn struct {
	fresh bool
	free  time.Time // when the next byte may go out
}

func (s *server) serve(w http.ResponseWriter, r *http.Request, limited bool) {
	c := r.Context().Value(connKey{}).(*conn)
	if limited {
		if c.fresh { // a handshake is a round trip, too
			time.Sleep(limitedLatency)
		}
		c.fresh = false
		time.Sleep(limitedLatency)
	}
	model, name := path.Split(strings.TrimPrefix(r.URL.Path, "/"))
	model = strings.TrimSuffix(model, "/")
	if name == "SHA256SUMS" {
		io.WriteString(w, s.sums[model])
		return
	}
	file, ok := s.models[model][name]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	from, to, status := int64(0), file.size-1, http.StatusOK
	if text, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
		a, b, _ := strings.Cut(text, "-")
		status = http.StatusPartialContent
		var err error
		if from, err = strconv.ParseInt(a, 10, 64); err == nil && b != "" {
			to, err = strconv.ParseInt(b, 10, 64)
		}
		if err != nil || from > to || from >= file.size {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		to = min(to, file.size-1)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, file.size))
	}
	w.Header().Set("Accept-Ranges", "bytes")
	w.Header().Set("ETag", fmt.Sprintf(`"%s-%d"`, name, file.size))
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(to-from+1, 10))
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	piece, pace := block, func(int) error { return nil }
	if limited {
		piece = 32 << 10
		pace = func(n int) error {
			if now := time.Now(); c.free.Before(now) {
				c.free = now
			}
			time.Sleep(time.Until(c.free))
			c.free = c.free.Add(time.Duration(float64(n) / limitedRate * float64(time.Second)))
			return r.Context().Err()
		}
	}
	// Whoever hangs up has what it wanted.
	_ = file.send(w, from, to-from+1, piece, pace)
}
