package sglangsim

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var normal = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\]`), "[T]"},
	{regexp.MustCompile(`elapsed=\d+\.\d\d s`), "elapsed=# s"},
	{regexp.MustCompile(`process \[\d+\]`), "process [#]"},
	{regexp.MustCompile(`http://127\.0\.0\.1:\d+`), "http://127.0.0.1:#"},
	{regexp.MustCompile(`\[\d\d:\d\d<[^]]*(it/s|s/it)\]`), "[#]"},
	{regexp.MustCompile(`, tokenizer_mode=.*`), ""},
}

// lines splits engine output as a log reader does, drops empty lines and evens out what differs between any two starts.
func lines(output string) []string {
	var out []string
	for _, l := range strings.FieldsFunc(output, func(r rune) bool { return r == '\n' || r == '\r' }) {
		if l = strings.TrimRight(l, " "); l == "" {
			continue
		}
		for _, n := range normal {
			l = n.pattern.ReplaceAllString(l, n.with)
		}
		out = append(out, l)
	}
	return out
}

// likeRecording compares output with the recorded start: what is no progress bar must be equal line by line, and the recorded
// bar lines must appear.
func likeRecording(t *testing.T, output, until string) {
	t.Helper()
	recorded, err := os.ReadFile(filepath.Join("testdata", "start.log"))
	if err != nil {
		t.Fatal(err)
	}
	isBar := func(l string) bool { return !strings.HasPrefix(l, "[T]") }
	want, got := lines(string(recorded)), lines(output)
	if i := slices.IndexFunc(want, func(l string) bool { return strings.Contains(l, until) }); i >= 0 {
		want = want[:i+1]
	}
	for _, l := range want {
		if isBar(l) && !slices.Contains(got, l) {
			t.Errorf("no bar line %q", l)
		}
	}
	got = slices.DeleteFunc(got, isBar)
	want = slices.DeleteFunc(want, isBar)
	for i := range max(len(got), len(want)) {
		g, w := "nothing", "nothing"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Fatalf("line %d:\n got %s\nwant %s", i, g, w)
		}
	}
}

func TestStartPrintsWhatWasRecorded(t *testing.T) {
	o, err := ParseArgs([]string{"--model-path", "/models/smol", "--sim-start", "64040ms"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	l := newLogger(nil, &out, 1)
	if !play(t.Context(), o.timeline(1623), time.Now().Add(-time.Hour), l) {
		t.Error("it did not come to the end")
	}
	likeRecording(t, out.String(), "Application startup complete")
}

func TestStartMomentsFollowTheRecording(t *testing.T) {
	o := Defaults()
	o.Start = realProfile()
	marks := o.timeline(1)
	if !slices.IsSortedFunc(marks, func(a, b mark) int { return int(a.at - b.at) }) {
		t.Error("marks are out of order")
	}
	for text, second := range map[string]float64{ // seconds after exec in the recording
		"server_args": 25.37, "Init torch distributed begin": 48.46, "Load weight begin": 51.32, "KV Cache is allocated": 53.40,
		"Capture target prefill CUDA graph end": 59.60, "Capture target decode CUDA graph end": 62.54, "INFO:     Application startup complete": 62.82,
	} {
		i := slices.IndexFunc(marks, func(m mark) bool { return strings.HasPrefix(m.text, text) })
		if i < 0 {
			t.Errorf("no mark %q", text)
			continue
		}
		if got := marks[i].at.Seconds(); got < second-0.1 || got > second+0.1 {
			t.Errorf("%s at %.2f s, want %.2f s", text, got, second)
		}
	}
	if total := o.Start.Total(); total != 64040*time.Millisecond {
		t.Errorf("ready after %v", total)
	}
}

func TestSchedulersNameThemselvesWhenThereAreSeveral(t *testing.T) {
	o := Defaults()
	o.TPSize = 2
	var out bytes.Buffer
	play(t.Context(), o.timeline(1), time.Now(), newLogger(nil, &out, 2))
	for _, want := range []string{" TP0] Load weight begin", " TP1] Load weight begin", "] INFO:     Started server process"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q", want)
		}
	}
}

func TestServerArgsLeakTheKeys(t *testing.T) {
	o, err := ParseArgs([]string{"--model-path", "M", "--api-key", "secret", "--admin-api-key", "more", "--is-embedding"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	line := o.serverArgs()
	for _, want := range []string{"server_args=ServerArgs(model_path='M'", "api_key='secret'", "admin_api_key='more'", "is_embedding=True", "port=30000", "revision=None"} {
		if !strings.Contains(line, want) {
			t.Errorf("no %q in %s", want, line)
		}
	}
}

func TestBars(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{graphBar(1, 58, 700*time.Millisecond), "  2%|▏         | 1/58 [00:00<00:39,  1.43it/s]"},
		{graphBar(58, 58, 5310*time.Millisecond), "100%|██████████| 58/58 [00:05<00:00, 10.92it/s]"},
		{shardBar(1, 4, 8*time.Second), " 25% Completed | 1/4 [00:08<00:24,  8.00s/it]"},
		{shardBar(0, 4, 0), "  0% Completed | 0/4 [00:00<?, ?it/s]"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestFailedStartsAreCountedInTheFile(t *testing.T) {
	o := Defaults()
	o.Faults.FailStarts, o.Faults.FailFile = 2, filepath.Join(t.TempDir(), "n")
	for i, want := range []string{"exit", "exit", "", ""} {
		f, err := o.failure()
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if f != nil {
			got = f.mode
		}
		if got != want {
			t.Errorf("start %d: failure %q, want %q", i+1, got, want)
		}
	}
}

func TestEveryFailureHasItsMark(t *testing.T) {
	o := Defaults()
	marks := o.timeline(1)
	for _, f := range startFailures() {
		if !slices.ContainsFunc(marks, func(m mark) bool { return strings.HasPrefix(m.text, f.until) }) {
			t.Errorf("%s: no line begins with %q", f.mode, f.until)
		}
	}
}
