package activator

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

const (
	// startsKept per spec. Ten follow a change of disk or cache within a few starts, and one odd start
	// among them does not move the median.
	startsKept = 10
	// specsKept per model: the present one, the one before it, and one to roll back to.
	specsKept = 3
	// durationsVersion changes when the file's meaning does; another version is read as empty.
	durationsVersion = 1
)

// Durations remembers how long starts took, per model and spec, and estimates how long one will take. Share
// one among models. Safe for concurrent use.
type Durations struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex // guards the fields below
	models  map[string][]specStarts
	dirty   bool
	writing bool
	wg      sync.WaitGroup
}

// specStarts are the last starts of one spec, oldest first. The specs of a model are ordered likewise, by use.
type specStarts struct {
	Spec   string        `json:"spec"`
	Starts []StartRecord `json:"starts"`
}

// StartRecord is one start that ended in a ready replica.
type StartRecord struct {
	Total  time.Duration `json:"total_ns"`
	Phases []PhaseStart  `json:"phases,omitempty"`
}

// PhaseStart is when a phase began, counted from the start.
type PhaseStart struct {
	Phase string        `json:"phase"`
	At    time.Duration `json:"at_ns"`
}

type durationsFile struct {
	Version int                     `json:"version"`
	Models  map[string][]specStarts `json:"models"`
}

// OpenDurations reads what earlier processes learned from the file at path, and writes there what this one
// learns. An empty path keeps it in memory. A file that cannot be understood is ignored with a warning, and
// overwritten with the next start; one that cannot be read is an error.
func OpenDurations(path string, log *slog.Logger) (*Durations, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d := &Durations{path: path, log: log, models: map[string][]specStarts{}}
	if path == "" {
		return d, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading learned start times: %w", err)
	}
	var file durationsFile
	if err := json.Unmarshal(data, &file); err != nil {
		log.Warn("learned start times are unreadable, learning anew", slog.String("path", path), slog.Any("error", err))
		return d, nil
	}
	if file.Version != durationsVersion {
		log.Warn("learned start times have another format, learning anew", slog.String("path", path), slog.Int("version", file.Version))
		return d, nil
	}
	for model, specs := range file.Models {
		for _, s := range specs {
			for _, r := range s.Starts {
				d.addLocked(model, s.Spec, r)
			}
		}
	}
	return d, nil
}

// Record remembers a start. The file is written in the background.
func (d *Durations) Record(model, spec string, r StartRecord) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addLocked(model, spec, r)
	d.dirty = true
	if d.path != "" && !d.writing {
		d.writing = true
		d.wg.Go(d.write)
	}
}

// addLocked drops records that cannot be true, such as those of a damaged file.
func (d *Durations) addLocked(model, spec string, r StartRecord) {
	if r.Total <= 0 || !slices.IsSortedFunc(r.Phases, func(a, b PhaseStart) int { return cmp.Compare(a.At, b.At) }) {
		return
	}
	specs := d.models[model]
	i := slices.IndexFunc(specs, func(s specStarts) bool { return s.Spec == spec })
	var s specStarts
	if i < 0 {
		s = specStarts{Spec: spec}
	} else {
		s = specs[i]
		specs = slices.Delete(specs, i, i+1)
	}
	s.Starts = lastN(append(s.Starts, r), startsKept)
	d.models[model] = lastN(append(specs, s), specsKept)
}

func lastN[T any](s []T, n int) []T {
	if len(s) > n {
		s = slices.Delete(s, 0, len(s)-n)
	}
	return s
}

// write puts the present state on disk until nothing new has come meanwhile.
func (d *Durations) write() {
	for {
		d.mu.Lock()
		if !d.dirty {
			d.writing = false
			d.mu.Unlock()
			return
		}
		d.dirty = false
		data, err := json.MarshalIndent(durationsFile{durationsVersion, d.models}, "", " ")
		d.mu.Unlock()
		if err == nil {
			err = replaceFile(d.path, append(data, '\n'))
		}
		if err != nil {
			d.log.Warn("learned start times were not saved", slog.String("path", d.path), slog.Any("error", err))
		}
	}
}

// Close returns when everything recorded before is on disk.
func (d *Durations) Close() { d.wg.Wait() }

// replaceFile writes beside the file and renames, so that a crash leaves the old content or the new one.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// Estimate is the time from the beginning of a phase to readiness, as earlier starts of the spec took it; for
// an empty phase, or one that they did not have, the whole start, and fromPhase is false. A spec that was
// never started is estimated by the one used before it: usually closer than nothing. ok is false when the
// model was never started at all.
func (d *Durations) Estimate(model, spec, phase string) (remaining time.Duration, fromPhase, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	specs := d.models[model]
	if len(specs) == 0 {
		return 0, false, false
	}
	starts := specs[len(specs)-1].Starts
	if i := slices.IndexFunc(specs, func(s specStarts) bool { return s.Spec == spec }); i >= 0 {
		starts = specs[i].Starts
	}
	totals := make([]time.Duration, 0, startsKept)
	rests := make([]time.Duration, 0, startsKept)
	for _, s := range starts {
		totals = append(totals, s.Total)
		if i := slices.IndexFunc(s.Phases, func(p PhaseStart) bool { return p.Phase == phase }); i >= 0 {
			rests = append(rests, s.Total-s.Phases[i].At)
		}
	}
	if phase != "" && len(rests) > 0 {
		return median(rests), true, true
	}
	return median(totals), false, true
}

// median of an even number is the later of the two in the middle: a promise that is kept early is forgiven.
func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// RetryAfter is the learned rest of a start as whole seconds for a Retry-After header: 1 to 59, because
// OpenAI's clients give up on their own when told to wait for much longer than a minute. An unknown ETA
// (0) gives 10.
func RetryAfter(eta time.Duration) int {
	if eta <= 0 {
		return 10
	}
	seconds := (eta + time.Second - 1) / time.Second
	return int(min(59, max(1, seconds)))
}
