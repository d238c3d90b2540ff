package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// seen is what a client process reports, as JSON on standard output.
type seen struct {
	Requests int64         `json:"requests"`
	Frames   int64         `json:"frames"`
	Beats    int64         `json:"beats"` // comments of a stream
	LateBeat int64         `json:"late_beats"`
	OffBeat  time.Duration `json:"off_beat_ns"` // the most that one was early or late
	Errors   int64         `json:"errors"`
	First    string        `json:"first_error,omitempty"`
	Elapsed  time.Duration `json:"elapsed_ns"`
	P50      time.Duration `json:"p50_ns"`
	P99      time.Duration `json:"p99_ns"`
}

// job is what a client process is to do.
type job struct {
	Addr      string        `json:"addr"`
	Keys      []string      `json:"keys"`   // of one length; requests take them in turn
	Models    []string      `json:"models"` // as for Keys
	Conns     int           `json:"conns"`
	For       time.Duration `json:"for_ns"` // of plain requests
	Stream    bool          `json:"stream"`
	Frames    int           `json:"frames"` // per stream, asked for and counted; 0: whatever comes
	Every     time.Duration `json:"every_ns"`
	BodyBytes int           `json:"body_bytes"`
	Beat      time.Duration `json:"beat_ns"` // comments are expected this far apart, within a second; 0: none are expected
}

func runClient(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected arguments: %q", args)
	}
	var j job // it comes on standard input: 100,000 keys are no argument
	if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
		return err
	}
	if err := j.validate(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(j.do())
}

// validate refuses names that cannot be written over each other.
func (j job) validate() error {
	for _, names := range [][]string{j.Keys, j.Models} {
		if len(names) == 0 {
			return errors.New("no key, or no model")
		}
		for _, name := range names {
			if len(name) != len(names[0]) {
				return fmt.Errorf("%q and %q differ in length", names[0], name)
			}
		}
	}
	return nil
}

func (j job) body() string {
	stream, text := "", ""
	switch {
	case j.Frames > 0:
		stream, text = `"stream":true,`, fmt.Sprintf("%s%d,every=%d ", frameWord, j.Frames, j.Every.Milliseconds())
	case j.Stream:
		stream = `"stream":true,"max_tokens":2,`
	}
	body := fmt.Sprintf(`{"model":%q,%s"messages":[{"role":"user","content":"%s`, j.Models[0], stream, text)
	return body + strings.Repeat("x", max(0, j.BodyBytes-len(body)-len(`"}]}`))) + `"}]}`
}

// request is one with the first key and the first model.
func (j job) request() []byte {
	body := j.body()
	return fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nAccept: application/json\r\nContent-Type: application/json\r\nUser-Agent: OpenAI/Python 3.54.0\r\n"+
		"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", j.Addr, j.Keys[0], len(body), body)
}

// turn writes the nth key and the nth model over those of a request.
func (j job) turn(request []byte, n int) {
	if len(j.Keys) > 1 {
		copy(request[bytes.Index(request, []byte("Bearer "))+len("Bearer "):], j.Keys[n%len(j.Keys)])
	}
	if len(j.Models) > 1 {
		copy(request[bytes.Index(request, []byte(`{"model":"`))+len(`{"model":"`):], j.Models[n%len(j.Models)])
	}
}

func (j job) do() (total seen) {
	var mu sync.Mutex
	latencies := hdrhistogram.New(1, int64(time.Minute), 3)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range j.Conns {
		wg.Go(func() {
			s, own, err := j.one(i, start.Add(j.For))
			mu.Lock()
			defer mu.Unlock()
			total.Requests += s.Requests
			total.Frames += s.Frames
			total.Beats += s.Beats
			total.LateBeat += s.LateBeat
			total.OffBeat = max(total.OffBeat, s.OffBeat)
			if own != nil {
				latencies.Merge(own)
			}
			if err != nil {
				if total.Errors++; total.First == "" {
					total.First = err.Error()
				}
			}
		})
		if j.Stream && i%200 == 199 {
			time.Sleep(20 * time.Millisecond) // a listener's backlog is not what is measured
		}
	}
	wg.Wait()
	total.Elapsed = time.Since(start)
	total.P50, total.P99 = time.Duration(latencies.ValueAtQuantile(50)), time.Duration(latencies.ValueAtQuantile(99))
	return total
}

// source is where the ith connection of this process comes from. An address has too few ports for all connections of a run, since those that
// were closed keep theirs for a minute: each process has addresses of its own, and each ten thousand connections another.
func source(pid, i int) net.IP {
	return net.IPv4(127, byte(1+pid>>8%128), byte(pid), byte(2+i/10_000))
}

// one drives one connection.
func (j job) one(i int, end time.Time) (s seen, latencies *hdrhistogram.Histogram, err error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: source(os.Getpid(), i)}, Timeout: 30 * time.Second}
	c, err := d.Dial("tcp", j.Addr)
	if err != nil {
		return s, nil, err
	}
	defer c.Close()
	br := bufio.NewReaderSize(c, 4<<10)
	request := j.request()
	if j.Stream {
		j.turn(request, i)
		if _, err := c.Write(request); err != nil {
			return s, nil, err
		}
		err := j.stream(br, &s)
		return s, nil, err
	}
	if j.Conns == 1 {
		latencies = hdrhistogram.New(1, int64(time.Minute), 3)
	}
	t := time.Now()
	for n := i; t.Before(end); n += j.Conns {
		j.turn(request, n)
		if _, err := c.Write(request); err != nil {
			return s, latencies, err
		}
		length, chunked, err := readHead(br)
		if err != nil {
			return s, latencies, err
		}
		if chunked {
			if err := discardChunks(br); err != nil {
				return s, latencies, err
			}
		} else if _, err := br.Discard(length); err != nil {
			return s, latencies, err
		}
		s.Requests++
		now := time.Now()
		if latencies != nil {
			if err := latencies.RecordValue(int64(now.Sub(t))); err != nil {
				return s, latencies, err
			}
		}
		t = now
	}
	return s, latencies, nil
}

var errStatus = errors.New("not status 200")

func readHead(br *bufio.Reader) (length int, chunked bool, err error) {
	for first := true; ; first = false {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return 0, false, err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			rest, _ := br.Peek(min(br.Buffered(), 700)) // what is buffered can be looked at
			return 0, false, fmt.Errorf("%w: %q %q", errStatus, line, rest)
		}
		if len(line) <= 2 {
			return length, chunked, nil
		}
		switch name, value, _ := bytes.Cut(line, []byte(":")); {
		case bytes.EqualFold(name, []byte("content-length")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, false, err
			}
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			chunked = true
		}
	}
}

func discardChunks(br *bufio.Reader) error {
	for {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return err
		}
		n, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 16, 31)
		if err != nil {
			return err
		}
		if _, err := br.Discard(int(n) + 2); err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
	}
}

var errOrder = errors.New("a frame is missing, twice there, or out of order")

// stream reads one stream to its end and checks that each frame came, in order.
func (j job) stream(br *bufio.Reader, s *seen) error {
	if _, _, err := readHead(br); err != nil {
		return err
	}
	heard := time.Now()
	next, done := 0, false
	for {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("after %d frames: %w", next, err)
		}
		switch {
		case line[0] == ':':
			s.Beats++
			if j.Beat > 0 && s.Beats > 1 {
				off := (time.Since(heard) - j.Beat).Abs()
				s.OffBeat = max(s.OffBeat, off)
				if off > time.Second {
					s.LateBeat++
				}
			}
			heard = time.Now()
		case bytes.HasPrefix(line, []byte("data: {")):
			i := bytes.Index(line, []byte(`"content":"`))
			if i < 0 || j.Frames == 0 {
				if bytes.Contains(line, []byte(`"error"`)) {
					return fmt.Errorf("an error after %d frames: %q", next, line)
				}
				continue // a peer's own frame: role, usage
			}
			digits := line[i+len(`"content":"`):]
			if len(digits) < 8 || digits[0] == '"' {
				continue
			}
			if n, err := strconv.Atoi(string(digits[:8])); err != nil || n != next {
				return fmt.Errorf("%w: %d, want %d", errOrder, n, next)
			}
			next++
			s.Frames++
		case bytes.HasPrefix(line, []byte("data: [DONE]")):
			done = true
		case done && (bytes.Equal(line, []byte("0\r\n"))):
			if j.Frames > 0 && next != j.Frames {
				return fmt.Errorf("%w: %d of %d came", errOrder, next, j.Frames)
			}
			s.Requests++
			return nil
		}
	}
}
