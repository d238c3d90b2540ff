package s3

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"pilotlight/backends/store"
)

// Remote is a store.Remote in an object store. Below its address lie
//
//	models--ORG--NAME/snapshots/COMMIT/FILE            the files under their own names, so that an engine can stream from there
//	models--ORG--NAME/snapshots/COMMIT/.pilotlight.json  written when the files are there: sizes and hashes
//	models--ORG--NAME/refs/REVISION                    the commit that a branch or tag stands for, written last
//
// Nothing is ever changed but manifests and refs, which are replaced whole; who uploads the same twice uploads the same. What is damaged on the
// way or at rest is found by whoever fetches it.
type Remote struct {
	bucket *Bucket
}

// OpenRemote takes an address s3://… and the environment that says how it is reached; connections 0 is 8. It asks nobody yet. Close it when done.
func OpenRemote(ctx context.Context, address string, env func(string) (string, bool), connections int) (*Remote, error) {
	b, err := open(ctx, address, env, connections)
	if err != nil {
		return nil, err
	}
	return &Remote{bucket: b}, nil
}

// Close lets go of idle connections.
func (r *Remote) Close() error { return r.bucket.Close() }

// Bucket is where the remote lies.
func (r *Remote) Bucket() *Bucket { return r.bucket }

func (r *Remote) snapshot(repo, commit string) *Bucket {
	return r.bucket.at(store.RemoteFolder(repo) + "/snapshots/" + commit)
}

// Look implements store.Remote with two small reads.
func (r *Remote) Look(ctx context.Context, repo, revision string) (store.Source, func(string) bool, error) {
	commit := revision
	if !isCommit(revision) {
		text, err := r.bucket.at(store.RemoteFolder(repo)).read(ctx, "refs/"+revision, 1<<10)
		if errors.Is(err, store.ErrFileNotFound) {
			return nil, nil, fmt.Errorf("%s at %s: %w", repo, revision, store.ErrIncomplete)
		} else if err != nil {
			return nil, nil, err
		}
		if commit = strings.TrimSpace(string(text)); !isCommit(commit) {
			return nil, nil, fmt.Errorf("%w: the remote's ref %s of %s holds %q", store.ErrBadListing, revision, repo, shorten(commit))
		}
	}
	at := r.snapshot(repo, commit)
	m, err := at.readManifest(ctx)
	if errors.Is(err, store.ErrFileNotFound) {
		return nil, nil, fmt.Errorf("%s at %s: %w", repo, commit, store.ErrIncomplete)
	} else if err != nil {
		return nil, nil, err
	}
	if m.Commit != commit || m.Repo != repo {
		return nil, nil, fmt.Errorf("%w: the remote's manifest of %s at %s is of %s at %s", store.ErrBadListing, repo, commit, shorten(m.Repo), shorten(m.Commit))
	}
	list := store.Listing{Commit: commit}
	here := map[string]bool{}
	for _, e := range m.Files {
		list.Files = append(list.Files, store.File{Path: e.Path, Size: e.Size, SHA256: e.SHA256, GitOID: e.GitOID})
		here[e.Path] = e.Here
	}
	if err := list.Check(); err != nil {
		return nil, nil, err
	}
	return listed{Bucket: at, list: list}, func(path string) bool { return here[path] }, nil
}

// listed is a folder whose listing is known.
type listed struct {
	*Bucket
	list store.Listing
}

func (l listed) List(context.Context, string) (store.Listing, error) { return l.list, nil }

func isCommit(s string) bool { return len(s) == 40 && strings.Trim(s, "0123456789abcdef") == "" }
