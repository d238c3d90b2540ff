package activator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
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
	Kin    string        `json:"kin,omitempty"`
	Starts []StartRecord `json:"starts"`
	// Wakes are how long sleepers took to wake up, oldest first.
	Wakes []time.Duration `json:"wakes_ns,omitempty"`
	// Service is how long a request was in flight, as last measured; 0: not known.
	Service time.Duration `json:"service_ns,omitempty"`
}

// Subject is what start times are learned of.
type Subject struct {
	Model string
	// Spec tells what exactly is started; see Options.SpecHash.
	Spec string
	// Kin is common to specs that take about as long, whatever model they are of; empty: there are none.
	Kin string
}

// StartRecord is one start that ended in a ready replica.
type StartRecord struct {
	Total  time.Duration `json:"total_ns"`
	Phases []PhaseStart  `json:"phases,omitempty"`
}

// PhaseStart is when a phase began, counted from the start, and how it went on.
type PhaseStart struct {
	Phase string        `json:"phase"`
	At    time.Duration `json:"at_ns"`
	// Marks tell when shares of the phase were over, in order of both.
	Marks []Mark `json:"marks,omitempty"`
	// ReadBytes is what the engine read during the phase; 0: not known.
	ReadBytes int64 `json:"read_bytes,omitempty"`
}

// Mark is when a share of a phase was over, counted from the start.
type Mark struct {
	Share float64       `json:"share"` // over 0, up to 1
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
				d.addLocked(Subject{Model: model, Spec: s.Spec, Kin: s.Kin}, r)
			}
			d.addWakesLocked(model, s.Spec, s.Wakes...)
			d.setServiceLocked(model, s.Spec, s.Service)
		}
	}
	return d, nil
}

// Record remembers a start. The file is written in the background.
func (d *Durations) Record(of Subject, r StartRecord) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addLocked(of, r)
	d.saveLocked()
}

// saveLocked has the file written.
func (d *Durations) saveLocked() {
	d.dirty = true
	if d.path != "" && !d.writing {
		d.writing = true
		d.wg.Go(d.write)
	}
}

// addLocked drops records that cannot be true, such as those of a damaged file.
func (d *Durations) addLocked(of Subject, r StartRecord) {
	if !r.plausible() {
		return
	}
	specs := d.models[of.Model]
	i := slices.IndexFunc(specs, func(s specStarts) bool { return s.Spec == of.Spec })
	var s specStarts
	if i < 0 {
		s = specStarts{Spec: of.Spec}
	} else {
		s = specs[i]
		specs = slices.Delete(specs, i, i+1)
	}
	s.Kin = of.Kin
	// A new array each time: forecasts keep what they were given.
	s.Starts = lastN(append(slices.Clone(s.Starts), r), startsKept)
	d.models[of.Model] = lastN(append(specs, s), specsKept)
}

// plausible: time goes on, from the first phase to the end.
func (r StartRecord) plausible() bool {
	var last time.Duration
	for _, p := range r.Phases {
		if p.At < last {
			return false
		}
		last = p.At
		share := 0.0
		for _, m := range p.Marks {
			if m.At < last || m.Share < share || m.Share > 1 {
				return false
			}
			last, share = m.At, m.Share
		}
	}
	return r.Total > 0 && last <= r.Total
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

// pastLocked are the starts to judge by: those of the spec; of one that was never started those of the model's latest other spec, and
// else the latest of its kin. Usually that is closer than nothing.
func (d *Durations) pastLocked(of Subject) []StartRecord {
	specs := d.models[of.Model]
	if i := slices.IndexFunc(specs, func(s specStarts) bool { return s.Spec == of.Spec }); i >= 0 {
		return specs[i].Starts
	}
	if len(specs) > 0 {
		return specs[len(specs)-1].Starts
	}
	if of.Kin == "" {
		return nil
	}
	for _, model := range slices.Sorted(maps.Keys(d.models)) {
		for _, s := range slices.Backward(d.models[model]) {
			if s.Kin == of.Kin {
				return s.Starts
			}
		}
	}
	return nil
}

// Estimate is the time that a whole start takes, from earlier ones. false: nothing like it was ever started.
func (d *Durations) Estimate(of Subject) (time.Duration, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	starts := d.pastLocked(of)
	if len(starts) == 0 {
		return 0, false
	}
	totals := make([]time.Duration, 0, startsKept)
	for _, s := range starts {
		totals = append(totals, s.Total)
	}
	return median(totals), true
}

// forecast is for a start that has come so far; nil if nothing like it was ever started.
func (d *Durations) forecast(of Subject, c course) *forecast {
	d.mu.Lock()
	defer d.mu.Unlock()
	starts := d.pastLocked(of)
	if len(starts) == 0 {
		return nil
	}
	return &forecast{past: starts, course: c}
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
