package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain lets the test binary play the parts that the program starts itself again for.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "role" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

func TestStatLines(t *testing.T) {
	line := "42 (a (b) c) S 7 42 42 0 -1 4194304 1 2 3 4 150 50 9 9 20 0 3 0 100 123456 2000 18446744073709551615 1 1"
	got, err := parseStat([]byte(line))
	if want := (stat{parent: 7, ticks: 200, pages: 2000}); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "1 (x", "1 (x) S 1 2", strings.Replace(line, "150", "x", 1)} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

// A child's time is its parent's subject's.
func TestUsageCountsChildren(t *testing.T) {
	p, err := start(t.TempDir(), "busy", nil, "sh", "-c", "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; sleep 30' & wait")
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		all, err1 := p.usage()
		own, err2 := p.own()
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if all.cpu >= 50*time.Millisecond && own.cpu < all.cpu && own.resident < all.resident && own.resident > 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("all %+v, own %+v", all, own)
		}
	}
}

func TestParseBenchmarks(t *testing.T) {
	got := parseBenchmarks("goos: linux\nBenchmarkScan/22MiB-2  \t 10\t 1500000 ns/op\t 0 B/op\nBenchmarkScan/22MiB-2 \t 10 \t 1400000.5 ns/op\nBenchmarkX-2 12 3 MB/s\nok\n")
	if len(got) != 1 || got["Scan/22MiB"] != 1400000.5 {
		t.Errorf("%v", got)
	}
}

func TestMedianAndSpread(t *testing.T) {
	of := []sample{{CPU: 4000}, {CPU: 1000}, {CPU: 2000}, {CPU: 3000}}
	value := func(s sample) float64 { return float64(s.CPU) }
	if m, s := median(of, value), spread(of, value); m != 2500 || s != 0.4 {
		t.Errorf("median %v, spread %v", m, s)
	}
	if median(nil, value) != 0 || spread(nil, value) != 0 {
		t.Error("of nothing")
	}
}

// A disturbance of one round that hits both subjects is not in their ratio.
func TestRoundsArePaired(t *testing.T) {
	value := func(s sample) float64 { return float64(s.CPU) }
	a, b := []sample{{CPU: 20}, {CPU: 900}, {CPU: 22}}, []sample{{CPU: 10}, {CPU: 450}, {CPU: 11}}
	for name, tt := range map[string]struct{ of, base []sample }{"paired": {a, b}, "one against a median": {a[2:], b}} {
		if of := against(tt.of, tt.base, value, ratio); middle(of) != 2 || deviation(of) != 0 {
			t.Errorf("%s: %v", name, of)
		}
	}
	if against(a, nil, value, ratio) != nil || against(nil, b, value, ratio) != nil {
		t.Error("something from nothing")
	}
}

func TestTargets(t *testing.T) {
	good := func() *results {
		plain := func(cpu, requests int) []sample {
			return []sample{{CPU: time.Duration(cpu) * time.Microsecond, seen: seen{Requests: int64(requests), Frames: int64(requests), Elapsed: time.Second, P99: 100}}}
		}
		return &results{
			Plain: map[string][]sample{us: plain(23_000, 1000), bare: plain(20_000, 1000)}, Frames: map[string][]sample{us: plain(10_000, 1000), bare: plain(10_000, 1000)},
			OpenStreams: 2, Open: map[string][]sample{us: {{seen: seen{Requests: 2}, Grown: 2 * 32 << 10}}}, HeldRequests: 2,
			Held:     &held{sample: sample{seen: seen{Requests: 2, Beats: 2 * heldBeats}, Resident: 1 << 20}, Share: 0.01},
			Growth:   []growth{{Name: "more", Few: plain(20_000, 1000), Many: plain(20_500, 1000)}},
			Features: map[string]float64{"Feature/log": 900}, Scan: map[string]float64{"Scan/base64/22528KiB": 1.4e6, "EncodingJSON/base64/22528KiB": 1e8},
		}
	}
	missed := func(r *results) (n int) {
		for _, x := range r.targets() {
			if !x.Met {
				n++
			}
		}
		return n
	}
	if n, all := missed(good()), len(good().targets()); n != 0 || all != 11 {
		t.Fatalf("%d of %d missed: %+v", n, all, good().targets())
	}
	for name, spoil := range map[string]func(*results){
		"dear requests":      func(r *results) { r.Plain[us][0].CPU += 2 * time.Millisecond },
		"slow":               func(r *results) { r.Plain[us][0].Elapsed *= 2 },
		"dear frames":        func(r *results) { r.Frames[us][0].CPU += 2 * time.Millisecond },
		"a wrong frame":      func(r *results) { r.Frames[us][0].Errors = 1 },
		"large streams":      func(r *results) { r.Open[us][0].Grown++ },
		"a broken stream":    func(r *results) { r.Open[us][0].Requests-- },
		"memory of waiting":  func(r *results) { r.Held.Resident = 513 << 20 },
		"time of waiting":    func(r *results) { r.Held.Share = 0.06 },
		"a late heartbeat":   func(r *results) { r.Held.LateBeat = 1 },
		"too few heartbeats": func(r *results) { r.Held.Beats-- },
		"a lost request":     func(r *results) { r.Held.Requests-- },
		"growth":             func(r *results) { r.Growth[0].Many[0].CPU += 2 * time.Millisecond },
		"a wrong answer":     func(r *results) { r.Growth[0].Many[0].Errors = 1 },
		"a dear feature":     func(r *results) { r.Features["Feature/metrics"] = 1001 },
		"a slow scan":        func(r *results) { r.Scan["Scan/base64/22528KiB"] = 1.6e6 },
	} {
		r := good()
		spoil(r)
		if n := missed(r); n != 1 {
			t.Errorf("%s: %d missed", name, n)
		}
	}
}

// Ten thousand connections of one process and those of the next share no address, whose ports would run out.
func TestSourcesDiffer(t *testing.T) {
	seen := map[string]string{}
	for _, pid := range []int{1, 2, 255, 256, 257, 32767} {
		for _, i := range []int{0, 10_000} {
			where, ip := fmt.Sprintf("process %d, connection %d", pid, i), source(pid, i)
			if other, ok := seen[ip.String()]; ok || !ip.IsLoopback() || ip.Equal(net.IPv4(127, 0, 0, 1)) {
				t.Errorf("%s: %s, as %s", where, ip, other)
			}
			seen[ip.String()] = where
		}
	}
	if !source(7, 0).Equal(source(7, 9_999)) {
		t.Error("the address changes within ten thousand connections")
	}
}

// Requests take keys and models in turn, and stay whole.
func TestRequestsTakeTurns(t *testing.T) {
	j := job{Addr: "a:1", Keys: []string{"k0", "k1", "k2"}, Models: []string{"m0", "m1"}, BodyBytes: 500}
	if err := j.validate(); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []job{{Keys: j.Keys}, {Models: j.Models}, {Keys: []string{"k", "key"}, Models: j.Models}} {
		if bad.validate() == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
	request := j.request()
	for n := range 6 {
		j.turn(request, n)
		want := job{Addr: j.Addr, Keys: j.Keys[n%3 : n%3+1], Models: j.Models[n%2 : n%2+1], BodyBytes: 500}.request()
		if !bytes.Equal(request, want) {
			t.Errorf("%s, want %s", request, want)
		}
		if _, body, _ := bytes.Cut(request, []byte("\r\n\r\n")); len(body) != 500 || !json.Valid(body) {
			t.Errorf("body %s", body)
		}
	}
}

// The client must not take a stream for whole that is not.
func TestClientChecksFrames(t *testing.T) {
	frame := func(n string) string { return `data: {"choices":[{"delta":{"content":"` + n + ` x"}}]}` + "\n\n" }
	chunked := func(events ...string) string {
		var b strings.Builder
		b.WriteString("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for _, e := range events {
			b.WriteString(strings.ToLower(string("0123456789abcdef"[len(e)>>4])) + string("0123456789abcdef"[len(e)&15]) + "\r\n" + e + "\r\n")
		}
		return b.String()
	}
	done := "data: [DONE]\n\n"
	for name, tt := range map[string]struct {
		answer string
		ok     bool
	}{
		"whole":         {chunked(frame("00000000"), frame("00000001"), done) + "0\r\n\r\n", true},
		"one missing":   {chunked(frame("00000000"), done) + "0\r\n\r\n", false},
		"out of order":  {chunked(frame("00000001"), frame("00000000"), done) + "0\r\n\r\n", false},
		"twice":         {chunked(frame("00000000"), frame("00000000"), done) + "0\r\n\r\n", false},
		"cut":           {chunked(frame("00000000"), frame("00000001"), done), false},
		"error event":   {chunked(frame("00000000"), "data: {\"error\":{}}\n\n"), false},
		"not a success": {"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", false},
	} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer ln.Close()
			c, err := ln.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			buf := make([]byte, 4<<10)
			if _, err := c.Read(buf); err == nil {
				_, _ = c.Write([]byte(tt.answer))
			}
		}()
		got := job{Addr: ln.Addr().String(), Keys: []string{"k"}, Models: []string{"m"}, Conns: 1, Stream: true, Frames: 2, Every: time.Millisecond, BodyBytes: 500}.do()
		if ok := got.Errors == 0 && got.Requests == 1 && got.Frames == 2; ok != tt.ok {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// A short run against a bare proxy, with everything real but the figures' weight.
func TestQuickRun(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "pilotlight")
	build := exec.Command("go", "build", "-o", binary, "pilotlight/cmd/pilotlight")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out := t.TempDir()
	o := options{peers: "fasthttp,nethttp", rows: "plain,latency,frames,open", rounds: 1, streams: 20, plainFor: 300 * time.Millisecond, framesFor: time.Second, open: 20, openFor: 3, out: out, binary: binary}
	if err := compare(context.Background(), o, t.Output()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(out, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r results
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	for row, m := range map[string]map[string][]sample{"plain": r.Plain, "latency": r.Latency, "frames": r.Frames, "open": r.Open} {
		for _, name := range []string{us, "fasthttp"} {
			// What a peer does wrong on a busy machine is no failure of this program; what we do, is.
			if len(m[name]) != 1 || m[name][0].Requests == 0 || name == us && m[name][0].Errors != 0 {
				t.Errorf("%s, %s: %+v", row, name, m[name])
			}
		}
	}
	if r.Plain[us][0].CPU == 0 || r.Frames[us][0].Frames != 20*50 || r.Open[us][0].Frames != 20*3 {
		t.Errorf("%+v", r)
	}
	report, err := os.ReadFile(filepath.Join(out, "RESULTS.md"))
	if err != nil || !strings.Contains(string(report), "| pilotlight |") {
		t.Errorf("%s, %v", report, err)
	}
}
