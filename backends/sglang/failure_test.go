package sglang

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pilotlight/backends"
)

func tailOf(t *testing.T, name string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "fail-"+name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	if len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

func TestClassifyNamesTheCause(t *testing.T) {
	killed := ExitStatus{Signal: syscall.SIGKILL}
	for _, c := range []struct {
		log       string
		exit      ExitStatus
		class     backends.Class
		permanent bool
		message   string // must be part of it
		advice    string // must be part of it
	}{
		{"flag", ExitStatus{Code: 2}, backends.ClassBadFlag, true, "--max-model-len", "--context-length"},
		{"missing-folder", ExitStatus{Code: 1}, backends.ClassModelNotFound, true, "not found", "revision"},
		{"no-kv-memory", killed, backends.ClassOutOfMemory, true, "cache", "above 0.003"},
		{"not-enough", killed, backends.ClassOutOfMemory, true, "cache", "--mem-fraction-static"},
		{"oom-weights", killed, backends.ClassOutOfMemory, true, "while loading the weights", "--tp-size"},
		{"oom-serving", killed, backends.ClassOutOfMemory, false, "while answering", "--chunked-prefill-size"},
		{"graph-capture", killed, backends.ClassOutOfMemory, true, "CUDA graphs", "0.8"},
		{"gated", ExitStatus{Code: 1}, backends.ClassGated, true, "gated", "HF_TOKEN"},
		{"offline", ExitStatus{Code: 1}, backends.ClassUnreachable, false, "could not be reached", "network"},
		{"unsupported", killed, backends.ClassUnsupported, true, "architecture", "newer SGLang"},
		{"divisible", killed, backends.ClassBadFlag, true, "cut", "--tp-size"},
		{"port", ExitStatus{Code: 1}, backends.ClassPortTaken, false, "port", ""},
		{"dp-port", ExitStatus{Code: 1}, backends.ClassPortTaken, false, "port", ""},
		{"disk", ExitStatus{Code: 1}, backends.ClassDiskFull, false, "disk", "free disk space"},
		{"shm", killed, backends.ClassDriver, false, "shared memory", "shm"},
		{"host-oom", ExitStatus{Code: 1}, backends.ClassKilled, false, "ran out of memory", "more memory"},
		{"no-module", ExitStatus{Code: 1}, backends.ClassNotFound, true, "sglang", "install"},
		{"optional-module", ExitStatus{Code: 1}, backends.ClassExited, false, "exited", "log"},
		{"watchdog", killed, backends.ClassHang, false, "hung", "--watchdog-timeout"},
		{"warmup", killed, backends.ClassExited, false, "first request", "proxy"},
		{"remote-code", ExitStatus{Code: 1}, backends.ClassBadFlag, true, "code of its own", "--trust-remote-code"},
		{"context", ExitStatus{Code: 1}, backends.ClassBadFlag, true, "context length", "--context-length"},
		{"driver", killed, backends.ClassDriver, true, "driver", "build"},
		{"no-gpu", ExitStatus{Code: 1}, backends.ClassDriver, true, "no GPU", "driver"},
		{"child", killed, backends.ClassExited, false, "a part of the engine crashed", "log"},
		{"weights-missing", killed, backends.ClassModelNotFound, true, "no weight files", "--load-format"},
		{"sharded", killed, backends.ClassModelNotFound, true, "sharded", "--tp-size"},
		{"silent", killed, backends.ClassKilled, false, "killed", "memory"},
		{"silent", ExitStatus{Code: 137}, backends.ClassKilled, false, "killed", "memory"},
		{"silent", ExitStatus{Code: 143}, backends.ClassKilled, false, "asked to end", ""},
		{"silent", ExitStatus{Signal: syscall.SIGSEGV}, backends.ClassExited, false, "crashed", ""},
		{"silent", ExitStatus{Code: 2}, backends.ClassBadFlag, true, "arguments", "--help"},
		{"silent", ExitStatus{Code: 3}, backends.ClassExited, false, "exited", ""},
		{"silent", ExitStatus{}, backends.ClassExited, false, "exited", ""},
		{"silent", ExitStatus{Unknown: true}, backends.ClassExited, false, "exited", ""},
	} {
		t.Run(c.log+" "+c.exit.String(), func(t *testing.T) {
			f := Classify(tailOf(t, c.log), c.exit)
			if f.Class != c.class || f.Permanent != c.permanent {
				t.Errorf("got class %s, permanent %t; want %s, %t", f.Class, f.Permanent, c.class, c.permanent)
			}
			if !strings.Contains(f.Message, c.message) || f.Message == "" {
				t.Errorf("got message %q; want %q in it", f.Message, c.message)
			}
			if !strings.Contains(f.Advice, c.advice) {
				t.Errorf("got advice %q; want %q in it", f.Advice, c.advice)
			}
			inside := regexp.MustCompile(`(^|\s|'|")/\w|https?:|\d+\.\d+\.\d+\.\d+|localhost|hf_|secret`)
			if m := inside.FindString(f.Message + " " + f.Advice); m != "" {
				t.Errorf("client text %q, %q holds %q", f.Message, f.Advice, m)
			}
			if got := f.Error(); !strings.Contains(got, c.exit.String()) {
				t.Errorf("error text %q does not say %q", got, c.exit)
			}
		})
	}
}

// Every excerpt in testdata is used, so that a new one cannot be forgotten in the table.
func TestClassifyKnowsEveryExcerptWithoutItsExitStatus(t *testing.T) {
	files, err := filepath.Glob("testdata/fail-*.log")
	if err != nil || len(files) < 20 {
		t.Fatalf("got %d excerpts, error %v", len(files), err)
	}
	unsigned := []string{"silent", "child", "optional-module"}
	for _, file := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "fail-"), ".log")
		byText := Classify(tailOf(t, name), ExitStatus{Unknown: true})
		generic := byText.Message == "the engine exited by itself" || byText.Message == "a part of the engine crashed"
		if generic != slices.Contains(unsigned, name) {
			t.Errorf("%s: got %q without an exit status", name, byText.Message)
		}
	}
}

func TestClassifyFindsASignatureAmongManyLines(t *testing.T) {
	var tail []string
	for range 150 {
		tail = append(tail, "  File \"x.py\", line 1, in f")
	}
	tail = append(tail, "torch.OutOfMemoryError: CUDA out of memory.", "Authorization: Bearer abcdef")
	for range 5 {
		tail = append(tail, "[rank0]: done")
	}
	f := Classify(tail, ExitStatus{Signal: syscall.SIGKILL})
	if f.Class != backends.ClassOutOfMemory {
		t.Errorf("got %s, want %s", f.Class, backends.ClassOutOfMemory)
	}
	if len(f.Lines) != kept {
		t.Errorf("got %d lines, want %d", len(f.Lines), kept)
	}
	if strings.Contains(strings.Join(f.Lines, "\n"), "abcdef") {
		t.Error("a bearer token is in the failure's lines")
	}
}

func TestClassifyAnyGivesNoAdviceInSGLangsWords(t *testing.T) {
	for _, c := range []struct {
		log   string
		exit  ExitStatus
		class backends.Class
	}{
		{"port", ExitStatus{Code: 1}, backends.ClassPortTaken},
		{"disk", ExitStatus{Code: 1}, backends.ClassDiskFull},
		{"no-module", ExitStatus{Code: 1}, backends.ClassNotFound},
		{"gated", ExitStatus{Code: 1}, backends.ClassGated},
		// Its wording is SGLang's alone.
		{"watchdog", ExitStatus{Code: 1}, backends.ClassExited},
	} {
		f := ClassifyAny(tailOf(t, c.log), c.exit)
		if f.Class != c.class {
			t.Errorf("%s: got %s, want %s", c.log, f.Class, c.class)
		}
		if strings.Contains(f.Advice, "SGLang") || strings.Contains(f.Advice, "--mem") {
			t.Errorf("%s: advice %q is for SGLang", c.log, f.Advice)
		}
	}
}
