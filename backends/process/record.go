package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"pilotlight/backends"
)

// Record is what the state folder knows about a replica, in replicas/<model>-<id>.json, mode 0600. It is
// written before the process is started and goes when the last process is gone, so that a gateway that
// dies at any moment leaves enough to find them: by pid and start time in the same boot, and by the mark
// that all of them carry in their environment.
type Record struct {
	Model    string `json:"model"`
	ID       uint64 `json:"id"`
	State    State  `json:"state"`
	SpecHash string `json:"spec_hash"`
	BootID   string `json:"boot_id"`
	// Engine, ServedName, Probe, Sleep and SecretEnv (the variables that hold secrets, not their values) are the spec's: what the next
	// gateway has to know although its configuration may say something else by then.
	Engine     backends.Engine `json:"engine"`
	ServedName string          `json:"served_name,omitempty"`
	Probe      string          `json:"probe,omitempty"`
	Sleep      backends.Sleep  `json:"sleep,omitempty"`
	SecretEnv  []string        `json:"secret_env,omitempty"`
	// PID and StartTicks are 0 until the process exists. Ticks count from boot, 100 a second.
	PID         int       `json:"pid,omitempty"`
	StartTicks  uint64    `json:"start_ticks,omitempty"`
	Mark        string    `json:"mark"`
	Host        string    `json:"host"`
	Port        int       `json:"port"`
	APIKey      string    `json:"api_key,omitempty"`
	Log         string    `json:"log"`
	TempDir     string    `json:"temp_dir,omitempty"`
	Devices     []string  `json:"devices,omitempty"` // GPUs, as in CUDA_VISIBLE_DEVICES; empty: nobody keeps account
	Share       int       `json:"share,omitempty"`   // thousandths of the only one; 0: whole ones
	Concurrency int       `json:"concurrency,omitempty"`
	StartedAt   time.Time `json:"started_at"`
}

// State says how far a recorded replica was.
type State string

const (
	StateLaunching State = "launching" // the process may exist or not
	StateStarting  State = "starting"  // the process exists
	StateReady     State = "ready"
	StateAsleep    State = "asleep"   // or on the way into or out of it: nothing may be generated
	StateStopping  State = "stopping" // told to end, or about to be
)

func (r *Record) name() string { return replicaName(r.Model, r.ID) }

func replicaName(model string, id uint64) string { return fmt.Sprintf("%s-%d", model, id) }

func (d *Driver) recordPath(name string) string {
	return filepath.Join(d.recordDir(), name+".json")
}

func (d *Driver) save(r *Record) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("replica record: %w", err)
	}
	if err := d.opts.write(d.recordPath(r.name()), append(b, '\n')); err != nil {
		return fmt.Errorf("replica record: %w", err)
	}
	return nil
}

// writeAtomically replaces path by data, or leaves it as it was. It does not wait for the disk: the
// processes that a record is about do not survive a loss of power either.
func writeAtomically(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// Records lists what the state folder holds, in order of name. A file that is no record is an error, but
// does not hide the others.
func (d *Driver) Records() ([]Record, error) {
	entries, err := os.ReadDir(d.recordDir())
	if err != nil {
		return nil, fmt.Errorf("replica records: %w", err)
	}
	var records []Record
	var problems error
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".json") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(d.recordDir(), entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // its replica ended just now
		}
		var r Record
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err == nil && (r.Mark == "" || r.name()+".json" != entry.Name()) {
			err = errors.New("not a replica record")
		}
		if err != nil {
			problems = errors.Join(problems, fmt.Errorf("replica record %s: %w", entry.Name(), err))
			continue
		}
		records = append(records, r)
	}
	return records, problems
}

// erase removes a replica's temporary folder and its record. The log stays.
func (d *Driver) erase(r *Record) error {
	var err error
	// The name is checked because what a file says is not worth the removal of any other folder.
	if strings.HasPrefix(filepath.Base(r.TempDir), tempPrefix) {
		err = os.RemoveAll(r.TempDir)
	}
	if gone := os.Remove(d.recordPath(r.name())); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	if err != nil {
		return fmt.Errorf("cleaning up after replica %s: %w", r.name(), err)
	}
	return nil
}

// recordProcess notes the process that was started.
func (r *Replica) recordProcess() error {
	return r.changeRecord(func(rec *Record) {
		rec.State, rec.PID, rec.StartTicks = StateStarting, r.child.pid, r.child.start
	})
}

func (r *Replica) recordReady() error {
	return r.changeRecord(func(rec *Record) {
		rec.State, rec.Concurrency = StateReady, r.endpoint.Concurrency
	})
}

// recordState notes a state between ready and the end.
func (r *Replica) recordState(s State) error {
	return r.changeRecord(func(rec *Record) { rec.State = s })
}

// changeRecord writes the record anew, unless the replica ended meanwhile and took its record along.
func (r *Replica) changeRecord(change func(*Record)) error {
	r.recording.Lock()
	defer r.recording.Unlock()
	if r.erased {
		return nil
	}
	change(r.record)
	return r.driver.save(r.record)
}

func (r *Replica) eraseRecord() error {
	r.recording.Lock()
	defer r.recording.Unlock()
	r.erased = true
	return r.driver.erase(r.record)
}

// newRecord describes a replica that is about to be started.
func (d *Driver) newRecord(spec *backends.Spec, id uint64) *Record {
	return &Record{
		Model: spec.Model, ID: id, State: StateLaunching, SpecHash: spec.Hash(), BootID: d.bootID,
		Engine: spec.Engine, ServedName: spec.ServedName, Probe: spec.Probe, Sleep: spec.Sleep, SecretEnv: secretEnv(spec),
		Host: d.opts.Host, StartedAt: time.Now().UTC(),
	}
}

func secretEnv(spec *backends.Spec) []string {
	var names []string
	for _, s := range spec.Secrets {
		names = append(names, s.Env)
	}
	return names
}

func (r *Replica) recordStopping() error {
	return r.changeRecord(func(rec *Record) { rec.State = StateStopping })
}
