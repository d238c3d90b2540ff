package installed

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pilotlight/backends/sglang/flags"
	"pilotlight/internal/testtools"
)

// TestStreamerIsFoundOut gives a real Python packages of the loader's names.
func TestStreamerIsFoundOut(t *testing.T) {
	python := testtools.Python(t)
	ask := func(files map[string]string) Streamer {
		t.Helper()
		site := t.TempDir()
		for name, text := range files {
			path := filepath.Join(site, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		s, err := New([]string{"PATH=" + os.Getenv("PATH")}).Streamer(t.Context(), []string{python, "-m", "sglang.launch_server"}, "", map[string]string{"PYTHONPATH": site})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := ask(nil); s.Core != "" || s.S3 != "" {
		t.Errorf("got %+v", s)
	} else if problem, fix := s.Problem(); !strings.Contains(problem, "no runai-model-streamer") || !strings.Contains(fix, "[s3]") {
		t.Errorf("got %s; %s", problem, fix)
	}
	files := map[string]string{
		"runai_model_streamer-0.17.0.dist-info/METADATA":    "Metadata-Version: 2.1\nName: runai-model-streamer\nVersion: 0.17.0\n",
		"runai_model_streamer_s3-0.16.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: runai-model-streamer-s3\nVersion: 0.16.1\n",
		"runai_model_streamer/__init__.py":                  "raise SystemExit('must not be imported')", "runai_model_streamer_s3/__init__.py": "",
		"torch.py": "raise SystemExit('must not be imported')", "numpy.py": "", "humanize.py": "", "boto3.py": "",
	}
	s := ask(files)
	if s.Core != "0.17.0" || s.S3 != "0.16.1" || len(s.Lacks) > 0 || !strings.Contains(s.Broken, "libstreamer.so") {
		t.Errorf("got %+v", s)
	}
	if problem, _ := s.Problem(); !strings.Contains(problem, "one version") {
		t.Errorf("got %s", problem)
	}
	delete(files, "boto3.py")
	if s := ask(files); len(s.Lacks) != 1 || s.Lacks[0] != "boto3" {
		t.Errorf("got %+v", s)
	}
	if _, err := New(nil).Streamer(t.Context(), []string{"/bin/true"}, "", nil); !errors.Is(err, flags.ErrNoPython) {
		t.Errorf("got %v, want %v", err, flags.ErrNoPython)
	}
}
