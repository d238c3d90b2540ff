package s3

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"pilotlight/backends/store"
)

// manifestName is the object that says that a model lies whole in its folder. It is written last.
const manifestName = ".pilotlight.json"

// manifestLimit bounds what is read of a manifest: store.MaxFiles entries of some 300 bytes.
const manifestLimit = 64 << 20

// manifest lists a commit. Files that were not pushed are in it, too, so that the commit's listing is known whole.
type manifest struct {
	Version int             `json:"version"` // 1
	Repo    string          `json:"repo"`
	Commit  string          `json:"commit"`
	Files   []manifestEntry `json:"files"`
}

type manifestEntry struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256,omitempty"`
	GitOID string `json:"git_oid,omitempty"`
	Here   bool   `json:"here"` // its object lies beside the manifest
}

var errManifest = errors.New("the manifest cannot be used")

func (b *Bucket) readManifest(ctx context.Context) (manifest, error) {
	text, err := b.read(ctx, manifestName, manifestLimit)
	if err != nil {
		return manifest{}, err
	}
	var m manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return manifest{}, fmt.Errorf("%w: %w: %w", store.ErrBadListing, errManifest, err)
	}
	if m.Version != 1 {
		return manifest{}, fmt.Errorf("%w: %w: it has version %d, and this program knows 1", store.ErrBadListing, errManifest, m.Version)
	}
	return m, nil
}

// manifestListing is the manifest's listing of what is here, checked against what really lies beside it.
func (b *Bucket) manifestListing(ctx context.Context, found map[string]store.File) (store.Listing, error) {
	m, err := b.readManifest(ctx)
	if err != nil {
		return store.Listing{}, err
	}
	list := store.Listing{Commit: m.Commit}
	for _, e := range m.Files {
		if !e.Here {
			continue
		}
		object, ok := found[e.Path]
		if !ok || object.Size != e.Size {
			return store.Listing{}, fmt.Errorf("%w: the manifest lists %q with %d bytes, and it is not so here", store.ErrChanged, e.Path, e.Size)
		}
		object.SHA256, object.GitOID = e.SHA256, e.GitOID
		list.Files = append(list.Files, object)
	}
	return list, nil
}
