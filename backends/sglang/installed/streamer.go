package installed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"pilotlight/backends/sglang/flags"
)

// Streamer is what a Python has of the loader that streams weights from object stores, runai-model-streamer.
type Streamer struct {
	// Core and S3 are the versions of runai-model-streamer and runai-model-streamer-s3; empty: not installed.
	Core string `json:"core"`
	S3   string `json:"s3"`
	// Lacks are modules that it needs and that are not there.
	Lacks []string `json:"lacks"`
	// Broken is why its libraries cannot be loaded; empty: they can.
	Broken string `json:"broken"`
}

// Problem says what keeps the loader from reading S3, and what to do; both are empty if nothing does.
func (s Streamer) Problem() (problem, fix string) {
	switch {
	case s.Core == "" && s.S3 == "":
		return "the engine's Python has no runai-model-streamer", "pip install 'runai-model-streamer[s3]' there"
	case s.Core == "":
		return "the engine's Python has runai-model-streamer-s3 " + s.S3 + " without runai-model-streamer", "pip install runai-model-streamer==" + s.S3 + " there"
	case s.S3 == "":
		return "the engine's Python has runai-model-streamer " + s.Core + " without its part for S3", "pip install runai-model-streamer-s3==" + s.Core + " there"
	case s.Core != s.S3:
		return fmt.Sprintf("runai-model-streamer is %s and runai-model-streamer-s3 is %s: they must have one version", s.Core, s.S3), "pip install runai-model-streamer-s3==" + s.Core + " there"
	case len(s.Lacks) > 0:
		return "the streaming loader needs Python modules that are not there: " + strings.Join(s.Lacks, ", "), "pip install " + strings.Join(s.Lacks, " ") + " there"
	case s.Broken != "":
		return "the streaming loader's libraries cannot be loaded: " + s.Broken, "install wheels for this machine's libc and processor"
	}
	return "", ""
}

// streamerScript imports neither torch nor boto3, which take seconds: it asks whether they are there. The libraries are loaded, because wheels
// for another libc are only found out so; a variable of the loader's own may name the core library.
const streamerScript = `import ctypes, importlib.util, json, os, sys
from importlib import metadata
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
said = {"core": version("runai-model-streamer"), "s3": version("runai-model-streamer-s3"), "broken": ""}
said["lacks"] = [m for m in ("torch", "numpy", "humanize", "boto3", "runai_model_streamer", "runai_model_streamer_s3") if importlib.util.find_spec(m) is None]
spec = importlib.util.find_spec("runai_model_streamer")
if spec is not None and spec.origin:
    folder = os.path.join(os.path.dirname(spec.origin), "libstreamer", "lib")
    for name in ("libstreamer.so", "libstreamers3.so"):
        file = os.environ.get("STREAMER_LIBRARY") if name == "libstreamer.so" else None
        try:
            ctypes.CDLL(file or os.path.join(folder, name))
        except OSError as e:
            said["broken"] = str(e)[:200]
            break
print(json.dumps(said))
`

// Streamer asks the Python that command runs for its streaming loader, as Version does for SGLang; nothing is remembered. The errors are
// flags.ErrNoPython, or say why the interpreter did not answer.
func (d *Detector) Streamer(ctx context.Context, command []string, dir string, env map[string]string) (Streamer, error) {
	python, err := Python(command, dir)
	if err != nil {
		return Streamer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "-c", streamerScript)
	cmd.Dir, cmd.Env = dir, slices.Concat(d.environ, packagesOf(env))
	cmd.WaitDelay = time.Second // as in ask
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return Streamer{}, fmt.Errorf("%s did not say within %s which streaming loader it has", python, limit)
	case errors.Is(err, exec.ErrNotFound):
		return Streamer{}, fmt.Errorf("%w: %w", flags.ErrNoPython, err)
	case err != nil:
		return Streamer{}, fmt.Errorf("asking %s for its streaming loader: %w: %s", python, err, lastLine(stderr.String()))
	}
	text := strings.TrimSpace(stdout.String()) // the interpreter's own start may print before it
	var s Streamer
	if err := json.Unmarshal([]byte(text[strings.LastIndex(text, "\n")+1:]), &s); err != nil {
		return Streamer{}, fmt.Errorf("%s gave no answer about its streaming loader: %w", python, err)
	}
	return s, nil
}
