package flags

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"pilotlight/internal/testtools"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The folders declare options in each way that releases have used. What the generator makes of them was compared by
// hand with the declarations; whatever it makes of the real packages, generate/oracle.py holds against their parsers.
func TestGenerate(t *testing.T) {
	folder := filepath.Join("testdata", "package")
	cmd := exec.Command(testtools.Python(t), "-B", "generate/table.py", "1.0.0="+filepath.Join(folder, "old"),
		"2.0.0="+filepath.Join(folder, "annotated"), "3.0.0="+filepath.Join(folder, "collected"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	got, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.Bytes())
	}
	want, err := os.ReadFile(filepath.Join(folder, "options.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if _, err := readTables(got); err != nil {
		t.Errorf("the result does not read: %v", err)
	}
}

// A declaration that the generator cannot evaluate must end it: a table with a hole would refuse what exists.
func TestGenerateStopsAtWhatItCannotRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sglang", "srt")
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	source := "class ServerArgs:\n    def add_cli_args(parser):\n        parser.add_argument('--x', choices=something())\n"
	if err := os.WriteFile(filepath.Join(path, "server_args.py"), []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(testtools.Python(t), "-B", "generate/table.py", "1.0.0="+dir).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "something") {
		t.Errorf("got %v: %s", err, out)
	}
}
