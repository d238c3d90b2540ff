package footprint

import (
	"os"
	"path/filepath"
	"strings"
)

// Folder finds a model on this machine: path if it is absolute, else the snapshot of a repository in Hugging Face's cache, which
// lookup's HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME or HOME lead to (huggingface_hub, constants.py). revision is a branch, a tag or a
// commit; empty: main. It returns nothing if the model is not there yet.
func Folder(path, revision string, lookup func(string) string) string {
	if filepath.IsAbs(path) {
		return path
	}
	if strings.Count(path, "/") > 1 || path == "" || strings.HasPrefix(path, ".") || strings.Contains(path, "://") {
		return ""
	}
	cache := lookup("HF_HUB_CACHE")
	if cache == "" {
		home := lookup("HF_HOME")
		if home == "" {
			base := lookup("XDG_CACHE_HOME")
			if base == "" && lookup("HOME") != "" {
				base = filepath.Join(lookup("HOME"), ".cache")
			}
			if base == "" {
				return ""
			}
			home = filepath.Join(base, "huggingface")
		}
		cache = filepath.Join(home, "hub")
	}
	repository := filepath.Join(cache, "models--"+strings.ReplaceAll(path, "/", "--"))
	if revision == "" {
		revision = "main"
	}
	if commit, err := os.ReadFile(filepath.Join(repository, "refs", filepath.FromSlash(revision))); err == nil {
		revision = strings.TrimSpace(string(commit))
	}
	snapshot := filepath.Join(repository, "snapshots", filepath.Base(revision))
	if _, err := os.Stat(filepath.Join(snapshot, "config.json")); err != nil {
		return ""
	}
	return snapshot
}
