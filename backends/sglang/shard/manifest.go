package shard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"pilotlight/backends"
)

// ManifestName is the file that lies beside sharded weights and says what they are.
const ManifestName = "pilotlight-shard.json"

// Manifest says how sharded weights were made, and lists their files.
type Manifest struct {
	Format int `json:"format"` // 1
	Recipe
	Files []ManifestFile `json:"files"`
}

// ManifestFile is one file of weights.
type ManifestFile struct {
	Name    string `json:"name"`
	Rank    int    `json:"rank"`
	Tensors int    `json:"tensors"`
	Size    int64  `json:"bytes"`
	SHA256  string `json:"sha256"`
}

// ReadManifest reads the manifest in a model's folder; nil without an error: the folder holds no sharded weights of ours.
func ReadManifest(dir string) (*Manifest, error) {
	text, err := os.ReadFile(filepath.Join(dir, ManifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var m Manifest
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("reading %s: %w", ManifestName, err)
	}
	if m.Format != 1 {
		return nil, fmt.Errorf("%s has format %d, and this release knows 1", ManifestName, m.Format)
	}
	return &m, nil
}

// Refuse is the failure of a start whose weights were made for something else. fix is what makes weights that fit.
func Refuse(err error, fix string) *backends.Failure {
	return &backends.Failure{
		Class: backends.ClassBadFlag, Permanent: true, Message: "the sharded weights do not fit this replica",
		Advice: err.Error() + "; " + fix, Err: err,
	}
}
