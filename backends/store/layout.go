package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// ErrIncomplete is what Find returns for a model that is not, or not wholly, in the store.
var ErrIncomplete = errors.New("not in the store, or not all of it")

// repoName is what huggingface_hub's validate_repo_id accepts, which is also what keeps "--" free for folder names.
var repoName = regexp.MustCompile(`^(?:[\w][\w.-]*/)?[\w][\w.-]*$`)

// CheckRepo reports what is wrong with a model's name: "org/name" or "name" of ASCII letters, digits, '_', '-' and '.'.
func CheckRepo(repo string) error {
	if !repoName.MatchString(repo) || len(repo) > 96 || strings.Contains(repo, "--") || strings.Contains(repo, "..") ||
		strings.HasSuffix(repo, ".git") || strings.HasSuffix(repo, "-") || strings.HasSuffix(repo, ".") {
		return fmt.Errorf(`%q is not a model name: want "org/name" of letters, digits, '_', '-', '.', without "--", ".." or a final "-", "." or ".git"`, shorten(repo))
	}
	return nil
}

// checkRevision reports what cannot be a branch, tag or commit, or a file below refs.
func checkRevision(revision string) error {
	if err := checkPath(revision); err != nil {
		return fmt.Errorf("revision: %w", err)
	}
	return nil
}

// folder is one model's part of the cache. Everything is written through root, so that no name and no link in it leads elsewhere.
type folder struct {
	path  string // …/models--ORG--NAME
	locks string // …/.locks/models--ORG--NAME
	root  *os.Root
}

func folderPath(store, repo string) string {
	return filepath.Join(store, "models--"+strings.ReplaceAll(repo, "/", "--"))
}

// openFolder makes the folder if it is missing. The caller closes root.
func openFolder(store, repo string) (*folder, error) {
	dir := folderPath(store, repo)
	// 0777 as the hub's client: the umask decides who shares the cache.
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	f := &folder{path: dir, locks: filepath.Join(store, ".locks", filepath.Base(dir)), root: root}
	for _, sub := range []string{"blobs", "snapshots", "refs", "trees", partials} {
		if err := root.MkdirAll(sub, 0o777); err != nil {
			return nil, errors.Join(err, root.Close())
		}
	}
	if err := f.sweep(time.Now()); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return f, nil
}

// leftFor is how old a file of one step must be before it counts as left by a process that was killed: no step takes minutes.
const leftFor = time.Hour

// sweep removes what killed processes left of single steps; unfinished downloads stay.
func (f *folder) sweep(now time.Time) error {
	entries, err := fs.ReadDir(f.root.FS(), ours)
	if err != nil {
		return err
	}
	for _, e := range entries {
		kind, _, _ := strings.Cut(e.Name(), "-")
		if kind != "write" && kind != "link" && kind != "snapshot" {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // another process finished its step
		} else if err != nil {
			return err
		}
		if now.Sub(info.ModTime()) > leftFor {
			if err := f.root.RemoveAll(path.Join(ours, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// replace writes a small file in one step, as seen by readers.
func (f *folder) replace(name string, content []byte) error {
	if now, err := f.root.ReadFile(name); err == nil && string(now) == string(content) {
		return nil // also so that a cache of somebody else's can be read
	}
	if err := f.root.MkdirAll(path.Dir(name), 0o777); err != nil {
		return err
	}
	fresh := path.Join(ours, fmt.Sprintf("write-%016x", rand.Uint64()))
	if err := f.root.WriteFile(fresh, content, 0o666); err != nil {
		return err
	}
	if err := f.root.Rename(fresh, name); err != nil {
		return errors.Join(err, f.root.Remove(fresh))
	}
	return nil
}

// treeFile is trees/COMMIT.json, as huggingface_hub 2.4 writes it (_tree_cache.py, format_version 1).
type treeFile struct {
	Version int                  `json:"format_version"`
	Files   map[string]treeEntry `json:"files"`
}

type treeEntry struct {
	Size    int64  `json:"size"`
	BlobID  string `json:"blob_id"`
	SHA256  string `json:"lfs_sha256,omitempty"`
	LFSSize *int64 `json:"lfs_size,omitempty"`
}

// writeTree keeps a listing, by which both we and the hub's client know offline what a whole snapshot is.
func (f *folder) writeTree(list Listing) error {
	tree := treeFile{Version: 1, Files: make(map[string]treeEntry, len(list.Files))}
	for _, file := range list.Files {
		e := treeEntry{Size: file.Size, BlobID: file.GitOID, SHA256: file.SHA256}
		if file.SHA256 != "" {
			e.LFSSize = &file.Size
		}
		tree.Files[file.Path] = e
	}
	text, err := json.MarshalIndent(tree, "", "  ")
	if err != nil {
		return err
	}
	return f.replace("trees/"+list.Commit+".json", text)
}

// readTree returns fs.ErrNotExist where no listing is kept, or one of another version.
func readTree(dir, commit string) (Listing, error) {
	text, err := os.ReadFile(filepath.Join(dir, "trees", commit+".json"))
	if err != nil {
		return Listing{}, err
	}
	var tree treeFile
	if err := json.Unmarshal(text, &tree); err != nil {
		return Listing{}, fmt.Errorf("reading the listing of %s: %w", commit, err)
	}
	if tree.Version != 1 {
		return Listing{}, fmt.Errorf("the listing of %s has version %d: %w", commit, tree.Version, fs.ErrNotExist)
	}
	list := Listing{Commit: commit}
	for name, e := range tree.Files {
		list.Files = append(list.Files, File{Path: name, Size: e.Size, SHA256: e.SHA256, GitOID: e.BlobID})
	}
	return list, list.Check()
}

// link is where a snapshot's file points, relative to the folder it lies in.
func link(name, blob string) string {
	return strings.Repeat("../", strings.Count(name, "/")) + "../../blobs/" + blob
}

// publish makes snapshots/COMMIT hold links to the given blobs by path. A new snapshot appears at once and whole; one that is there (of
// another choice of files, or of the hub's client) gets what it lacks, link by link.
func (f *folder) publish(commit string, blobs map[string]string) error {
	target := "snapshots/" + commit
	if _, err := f.root.Lstat(target); errors.Is(err, fs.ErrNotExist) {
		fresh := path.Join(ours, fmt.Sprintf("snapshot-%016x", rand.Uint64()))
		err := f.links(fresh, blobs, true)
		if err == nil {
			err = f.root.Rename(fresh, target)
		}
		if err == nil {
			return nil
		}
		if err := errors.Join(err, f.root.RemoveAll(fresh)); !errors.Is(err, fs.ErrExist) {
			return err
		}
	} else if err != nil {
		return err
	}
	return f.links(target, blobs, false)
}

// links makes them in a folder. In one that nobody sees yet they need not appear in one step each, which halves the time of many.
func (f *folder) links(dir string, blobs map[string]string, unseen bool) error {
	made := map[string]bool{}
	for name, blob := range blobs {
		at, to := dir+"/"+name, link(name, blob)
		if parent := path.Dir(at); !made[parent] {
			if err := f.root.MkdirAll(parent, 0o777); err != nil {
				return err
			}
			made[parent] = true
		}
		if unseen {
			if err := f.root.Symlink(to, at); err != nil {
				return err
			}
			continue
		}
		if now, err := f.root.Readlink(at); err == nil && now == to {
			continue
		}
		fresh := path.Join(ours, fmt.Sprintf("link-%016x", rand.Uint64()))
		if err := f.root.Symlink(to, fresh); err != nil {
			return err
		}
		if err := f.root.Rename(fresh, at); err != nil {
			return errors.Join(err, f.root.Remove(fresh))
		}
	}
	return nil
}

// Snapshot is a model in the store.
type Snapshot struct {
	Repo, Commit string
	Path         string // the folder to give to an engine
	Files        []File // those that were asked for, all there
	// Guessed is true where no listing of the commit is kept (an older client of the hub fetched it), so that Files is only what is there.
	Guessed bool
}

// Find looks for a revision in the store without asking any source: "" is "main". It returns an error that wraps ErrIncomplete where files
// that the filter wants are missing or have another size than listed; it does not read their content.
func (s *Store) Find(repo, revision string, filter Filter) (Snapshot, error) {
	if err := errors.Join(CheckRepo(repo), filter.Check()); err != nil {
		return Snapshot{}, err
	}
	if revision == "" {
		revision = "main"
	}
	dir, commit, err := s.commitOf(repo, revision)
	if err != nil {
		return Snapshot{}, err
	}
	found := Snapshot{Repo: repo, Commit: commit, Path: filepath.Join(dir, "snapshots", commit)}
	list, err := readTree(dir, commit)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		found.Guessed = true
		if list, err = walkSnapshot(found.Path); err != nil {
			return Snapshot{}, err
		}
	case err != nil:
		return Snapshot{}, err
	}
	found.Files = filter.choose(list.Files)
	for _, file := range found.Files {
		info, err := os.Stat(filepath.Join(found.Path, filepath.FromSlash(file.Path)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Snapshot{}, err
		}
		if err != nil || info.Size() != file.Size {
			return Snapshot{}, fmt.Errorf("%s at %s: %s: %w", repo, revision, file.Path, ErrIncomplete)
		}
	}
	if len(found.Files) == 0 {
		return Snapshot{}, fmt.Errorf("%s at %s: %w", repo, revision, ErrIncomplete)
	}
	return found, nil
}

// commitOf is a model's folder and the commit that a revision stands for there. It wraps ErrIncomplete where the store knows of none.
func (s *Store) commitOf(repo, revision string) (dir, commit string, err error) {
	if err := checkRevision(revision); err != nil {
		return "", "", err
	}
	dir = folderPath(s.path, repo)
	if isHex(revision, 40) {
		return dir, revision, nil
	}
	text, err := os.ReadFile(filepath.Join(dir, "refs", filepath.FromSlash(revision)))
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", fmt.Errorf("%s at %s: %w", repo, revision, ErrIncomplete)
	} else if err != nil {
		return "", "", err
	}
	if commit = strings.TrimSpace(string(text)); !isHex(commit, 40) {
		return "", "", fmt.Errorf("%s at %s: the store's ref holds %q", repo, revision, shorten(commit))
	}
	return dir, commit, nil
}

// walkSnapshot lists what a snapshot holds; none at all is an empty listing.
func walkSnapshot(dir string) (Listing, error) {
	var list Listing
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a link to a blob that somebody removed
		} else if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		list.Files = append(list.Files, File{Path: filepath.ToSlash(rel), Size: info.Size()})
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return list, err
}
