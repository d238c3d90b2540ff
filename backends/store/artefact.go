package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const artefacts = ours + "/artefacts"

// Artefact is what was brought into the store under a name, as it is remembered beside the model's files.
type Artefact struct {
	Name     string    `json:"name"`   // by which Lookup finds it
	Origin   string    `json:"origin"` // Origin.Text, to fetch it again
	Repo     string    `json:"repo"`
	Revision string    `json:"revision"`
	Commit   string    `json:"commit"`
	Include  []string  `json:"include,omitempty"` // with Exclude, its Filter
	Exclude  []string  `json:"exclude,omitempty"`
	At       time.Time `json:"at"`
}

// Filter is what of the model belongs to the artefact.
func (a Artefact) Filter() Filter { return Filter{Include: a.Include, Exclude: a.Exclude} }

// folders are the names of the models' folders in the store; none if there is no store yet.
func (s *Store) folders() ([]string, error) {
	entries, err := os.ReadDir(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), "models--") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// repoOf undoes folderPath: CheckRepo keeps "--" out of names.
func repoOf(folder string) string {
	return strings.ReplaceAll(strings.TrimPrefix(folder, "models--"), "--", "/")
}

func artefactFile(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:8]) + ".json"
}

// Remember makes a model findable by a name, which it takes away from whatever had it before.
func (s *Store) Remember(a Artefact) error {
	if err := errors.Join(CheckRepo(a.Name), CheckRepo(a.Repo)); err != nil {
		return err
	}
	text, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return err
	}
	dir, err := openFolder(s.path, a.Repo)
	if err != nil {
		return err
	}
	err = dir.root.MkdirAll(artefacts, 0o777)
	if err == nil {
		err = dir.replace(artefacts+"/"+artefactFile(a.Name), append(text, '\n'))
	}
	if err := errors.Join(err, dir.root.Close()); err != nil {
		return fmt.Errorf("noting what %s is: %w", a.Name, err)
	}
	folders, err := s.folders()
	if err != nil {
		return err
	}
	for _, other := range folders {
		if other == filepath.Base(dir.path) {
			continue
		}
		if err := os.Remove(filepath.Join(s.path, other, artefacts, artefactFile(a.Name))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s was the name of %s before: %w", a.Name, repoOf(other), err)
		}
	}
	return nil
}

// Lookup finds an artefact by its name. Where there is none, the error wraps ErrIncomplete.
func (s *Store) Lookup(name string) (Artefact, error) {
	if err := CheckRepo(name); err != nil {
		return Artefact{}, err
	}
	folders, err := s.folders()
	if err != nil {
		return Artefact{}, err
	}
	var latest Artefact
	for _, folder := range folders {
		a, err := readArtefact(filepath.Join(s.path, folder, artefacts, artefactFile(name)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return Artefact{}, err
		}
		if latest.Name == "" || a.At.After(latest.At) { // two only after a process was killed between the steps of Remember
			latest = a
		}
	}
	if latest.Name != name {
		return Artefact{}, fmt.Errorf("nothing is called %s: %w", name, ErrIncomplete)
	}
	return latest, nil
}

func readArtefact(file string) (Artefact, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return Artefact{}, err
	}
	var a Artefact
	if err := json.Unmarshal(text, &a); err != nil {
		return Artefact{}, fmt.Errorf("reading %s: %w", file, err)
	}
	return a, errors.Join(CheckRepo(a.Name), CheckRepo(a.Repo))
}

// artefactsOf are those of one model, by name.
func (s *Store) artefactsOf(folder string) ([]Artefact, error) {
	dir := filepath.Join(s.path, folder, artefacts)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var out []Artefact
	for _, e := range entries {
		a, err := readArtefact(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		} else if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b Artefact) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Known returns an artefact whose files are all in the store and belong to a model at a revision ("" is "main"); among several, the one with
// the latest At. Where there is none, the error wraps ErrIncomplete.
func (s *Store) Known(repo, revision string) (Artefact, Snapshot, error) {
	if err := CheckRepo(repo); err != nil {
		return Artefact{}, Snapshot{}, err
	}
	if revision == "" {
		revision = "main"
	}
	all, err := s.artefactsOf(filepath.Base(folderPath(s.path, repo)))
	if err != nil {
		return Artefact{}, Snapshot{}, err
	}
	slices.SortStableFunc(all, func(a, b Artefact) int { return b.At.Compare(a.At) })
	for _, a := range all {
		if a.Repo != repo || a.Revision != revision && a.Commit != revision {
			continue
		}
		found, err := s.Find(repo, revision, a.Filter())
		if err == nil && !found.Guessed {
			return a, found, nil
		} else if err != nil && !errors.Is(err, ErrIncomplete) {
			return Artefact{}, Snapshot{}, err
		}
	}
	return Artefact{}, Snapshot{}, fmt.Errorf("%s at %s: %w", repo, revision, ErrIncomplete)
}
