package store

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"

	"pilotlight/internal/testtools"

	"pilotlight/internal/testtools/hubtest"
)

// official is the hub's own client and what it needs, pinned.
var official = []string{
	"huggingface_hub==2.4.0", "anyio==4.16.0", "click==8.5.1", "filelock==4.2.12", "fsspec==2026.9.0", "h11==0.16.0", "hf-xet==1.8.0",
	"httpcore2==2.16.2", "httpx2==2.16.2", "idna==3.20", "packaging==26.3", "PyYAML==6.0.4", "tqdm==4.70.1", "truststore==0.10.5",
	"typing_extensions==4.16.0",
}

// runOfficial runs a script with the official client on a cache folder and decodes the JSON that it prints.
func runOfficial(t *testing.T, script, cache string, env []string, into any) {
	t.Helper()
	cmd := exec.Command(testtools.Python(t, official...), "-c", script)
	// Its own home: neither a token nor a setting of whoever runs the test.
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HF_HOME=" + t.TempDir(), "HF_HUB_CACHE=" + cache, "HF_HUB_DISABLE_TELEMETRY=1", "HF_HUB_DISABLE_XET=1"}, env...)
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := err.(*exec.ExitError); ok {
			t.Fatalf("%v: %s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, into); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestOfficialClientReadsOurs(t *testing.T) {
	hub, dir := hubtest.New(t), t.TempDir()
	hub.Fill()
	got, err := newStore(t, dir).Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)})
	if err != nil {
		t.Fatal(err)
	}
	var said struct {
		Snapshot, File string
		Warnings       []string
		Repos          []string
		Commits        []string
		Files          int
	}
	runOfficial(t, `
import json
from huggingface_hub import snapshot_download, hf_hub_download, scan_cache_dir
scan = scan_cache_dir()
print(json.dumps({
    "Snapshot": snapshot_download("org/model"), "File": hf_hub_download("org/model", "sub/dir/tokenizer é.json"),
    "Warnings": [str(w) for w in scan.warnings], "Repos": [r.repo_id for r in scan.repos],
    "Commits": [v.commit_hash for r in scan.repos for v in r.revisions], "Files": sum(len(v.files) for r in scan.repos for v in r.revisions)}))
`, dir, []string{"HF_HUB_OFFLINE=1"}, &said)
	if said.Snapshot != got.Path || said.File != filepath.Join(got.Path, "sub/dir/tokenizer é.json") {
		t.Errorf("it reads %s and %s, want %s and a file in it", said.Snapshot, said.File, got.Path)
	}
	if len(said.Warnings) > 0 || len(said.Repos) != 1 || said.Repos[0] != hub.Repo || len(said.Commits) != 1 || said.Files != 6 {
		t.Errorf("its scan says %+v", said)
	}
}

func TestOfficialClientFetchesTheSameAndWeReadIt(t *testing.T) {
	hub, theirs, own := hubtest.New(t), t.TempDir(), t.TempDir()
	hub.Fill()
	var at string
	runOfficial(t, `
import json
from huggingface_hub import snapshot_download
print(json.dumps(snapshot_download("org/model")))
`, theirs, []string{"HF_ENDPOINT=" + hub.Front.URL}, &at)
	found, err := newStore(t, theirs).Find(hub.Repo, "main", Filter{})
	if err != nil {
		t.Fatal(err)
	}
	if found.Path != at || found.Guessed {
		t.Errorf("found %+v, want it at %s by its listing", found, at)
	}
	checkContent(t, found, hub.Files)

	// What they fetched is not fetched again.
	before := hub.BytesServed()
	if _, err := newStore(t, theirs).Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)}); err != nil || hub.BytesServed() != before {
		t.Errorf("fetching it again: %v, %d bytes", err, hub.BytesServed()-before)
	}

	if _, err := newStore(t, own).Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)}); err != nil {
		t.Fatal(err)
	}
	// The listing says the same; how the JSON is laid out does not matter.
	listings := make([]any, 2)
	for i, dir := range []string{theirs, own} {
		text, err := os.ReadFile(filepath.Join(dir, "models--org--model/trees", hub.Commit+".json"))
		if err == nil {
			err = json.Unmarshal(text, &listings[i])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(listings[0], listings[1]) {
		t.Errorf("listings: theirs %v, ours %v", listings[0], listings[1])
	}
	for _, part := range []string{"blobs", "snapshots", "refs"} {
		a, b := tree(t, filepath.Join(theirs, "models--org--model", part)), tree(t, filepath.Join(own, "models--org--model", part))
		for name, content := range a {
			if b[name] != content {
				t.Errorf("%s/%s: theirs and ours differ", part, name)
			}
		}
		if len(a) != len(b) {
			t.Errorf("%s: they have %d entries, we have %d", part, len(a), len(b))
		}
	}
}

// tree is every file's content (by its hash) and every link's target below a folder.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		if to, err := os.Readlink(name); err == nil {
			entries[rel] = "link to " + to
			return nil
		}
		content, err := os.ReadFile(name)
		entries[rel] = hubtest.SHA256(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return entries
}
