package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"pilotlight/backends"
)

// Leftovers lists the replicas that an earlier gateway left running or starting, in the order of their ids, as New found them and less
// those that were adopted, launched on or ended since. Their main processes were verified: they are those that were recorded.
func (d *Driver) Leftovers() []Record {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []Record
	for _, name := range slices.Sorted(maps.Keys(d.left)) {
		out = append(out, *d.left[name])
	}
	slices.SortStableFunc(out, func(a, b Record) int {
		if a.Model != b.Model {
			return strings.Compare(a.Model, b.Model)
		}
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return out
}

// findLeftovers sorts what an earlier gateway left: what lives and may serve is kept for its owner to decide; of everything else
// nothing is left afterwards.
func (d *Driver) findLeftovers() error {
	temps, err := filepath.Glob(filepath.Join(d.recordDir(), ".tmp-*"))
	if err != nil {
		return err
	}
	for _, path := range temps {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("replica records: %w", err)
		}
	}
	records, problems := d.Records()
	if problems != nil {
		// Nothing can be done for an unreadable one, and it must not keep the gateway from starting.
		d.logger.Warn("unreadable replica records are left alone", "error", problems)
	}
	ctx, cancel := context.WithTimeout(context.Background(), d.opts.sweepLimit)
	defer cancel()
	errs := make([]error, len(records))
	var ends sync.WaitGroup
	for i := range records {
		if r := &records[i]; d.mayServe(r) {
			d.left[r.name()] = r
		} else {
			ends.Go(func() { errs[i] = d.endLeft(ctx, r, "it does not serve") })
		}
	}
	ends.Wait()
	for _, err := range errs {
		// What a device driver holds must not keep the gateway from starting; the next one tries again.
		if err != nil && !errors.Is(err, errNotGone) {
			return err
		}
	}
	return nil
}

// mayServe: the recorded process runs, was not told to end, and its record says enough to reach it. One that was just being launched
// has not come far enough to be worth it. A pid that another program has by now is told by the start time.
func (d *Driver) mayServe(r *Record) bool {
	if r.BootID != d.bootID || r.PID <= 0 || r.Engine == "" || r.State != StateStarting && r.State != StateReady {
		return false
	}
	m, err := memberOf(r.PID)
	return err == nil && m.start == r.StartTicks && !m.dead
}

// End kills a leftover, and returns when nothing of it is left. reason is for the log. One that is not there is no error.
func (d *Driver) End(ctx context.Context, model string, id uint64, reason string) error {
	r := d.takeLeft(replicaName(model, id))
	if r == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.opts.sweepLimit)
	defer cancel()
	return d.endLeft(ctx, r, reason)
}

// takeLeft takes a leftover from the list; nil if there is none by that name.
func (d *Driver) takeLeft(name string) *Record {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.left[name]
	delete(d.left, name)
	return r
}

// endLeft kills what lives of a record, and erases it. A process group is killed only if its leader is alive in this boot with the recorded
// start time, and single processes only if they carry the record's mark.
func (d *Driver) endLeft(ctx context.Context, r *Record, reason string) error {
	if r.BootID == d.bootID {
		kin := r.family()
		if start, err := startTime(r.PID); r.PID <= 0 || err != nil || start != r.StartTicks {
			kin.group = 0
		}
		left, err := kin.members()
		if err != nil {
			return err
		}
		if err := kin.sweep(ctx); err != nil {
			d.logger.Error("a replica of an earlier gateway does not end", "model", r.Model, "replica", r.ID, "pid", r.PID, "error", err)
			return err
		}
		if len(left) > 0 {
			d.logger.Warn("killed a replica of an earlier gateway",
				"model", r.Model, "replica", r.ID, "pid", r.PID, "processes", len(left), "reason", reason)
		}
	}
	return d.erase(r)
}

// family are the processes of a recorded replica, whose leader is alive.
func (r *Record) family() family {
	return family{group: r.PID, found: true, mark: r.Mark, since: r.StartTicks}
}

func (r *Record) endpoint() backends.Endpoint {
	return backends.Endpoint{
		Addr: net.JoinHostPort(r.Host, strconv.Itoa(r.Port)), APIKey: r.APIKey,
		Engine: r.Engine, ServedName: r.ServedName, Concurrency: r.Concurrency,
	}
}

// adoptPatience is how long a replica may take to answer its probe when it is taken over. Engines are started so that they answer at
// once, busy or not; one that does not is on its way out or hangs.
const adoptPatience = 5 * time.Second

// Adopt takes a ready leftover over. Its process must be the recorded one still, the listener on its port one of its own, and its probe must
// be answered with a status of 2xx; else it is ended and the error says why. What was in flight on it is unknown: see Replica.Settle.
func (d *Driver) Adopt(ctx context.Context, model string, id uint64) (*Replica, error) {
	rec := d.takeLeft(replicaName(model, id))
	if rec == nil {
		return nil, fmt.Errorf("replica %s is not there", replicaName(model, id))
	}
	r, err := d.adopt(ctx, rec)
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.opts.sweepLimit)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("adopting replica %s: %w", rec.name(), err), d.endLeft(ctx, rec, "it cannot be taken over"))
	}
	r.out.slow()
	r.logger.InfoContext(ctx, "replica of an earlier gateway is taken over", "pid", rec.PID, "port", rec.Port, "started", rec.StartedAt)
	return r, nil
}

func (d *Driver) adopt(ctx context.Context, rec *Record) (*Replica, error) {
	p := &probe{host: rec.Host, port: rec.Port, path: rec.Probe, apiKey: rec.APIKey, kin: rec.family(), bound: func() {}}
	ctx, cancel := context.WithTimeout(ctx, adoptPatience)
	defer cancel()
	status, err := p.ask(ctx, p.client(), p.url())
	if err == nil && (status < 200 || status > 299) {
		err = fmt.Errorf("its probe is answered with %d", status)
	}
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(rec.Log)
	if err != nil {
		return nil, fmt.Errorf("engine log: %w", err)
	}
	const recent = 64 << 10 // for whoever asks for the last lines
	r, _, err := d.takeOver(rec, max(0, info.Size()-recent))
	return r, err
}

// resume takes a leftover over whose start was under way; nil without an error if there is none that fits. Its output is read from the
// beginning, so that progress is what it would have been. One that cannot be taken over is ended, and the caller starts anew.
func (d *Driver) resume(ctx context.Context, spec *backends.Spec, id uint64) (*Replica, *startSteps, error) {
	rec := d.takeLeft(replicaName(spec.Model, id))
	if rec == nil {
		return nil, nil, nil
	}
	err := errors.New("the model has changed")
	if rec.State == StateStarting && rec.SpecHash == spec.Hash() {
		var r *Replica
		var steps *startSteps
		if r, steps, err = d.takeOver(rec, 0); err == nil {
			r.logger.InfoContext(ctx, "start of an earlier gateway is taken over", "pid", rec.PID, "port", rec.Port, "started", rec.StartedAt)
			return r, steps, nil
		}
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.opts.sweepLimit)
	defer cancel()
	if err := errors.Join(d.endLeft(ending, rec, err.Error())); err != nil {
		return nil, nil, stateFailure(err)
	}
	return nil, nil, nil
}

// takeOver makes a Replica of a record, with its output followed from there on. On error it has undone what it did.
func (d *Driver) takeOver(rec *Record, from int64) (_ *Replica, _ *startSteps, err error) {
	r := d.newReplica(rec)
	r.adopted = true
	r.endpoint = rec.endpoint()
	r.concurrency.Store(int64(rec.Concurrency))
	if r.child, err = findChild(rec); err != nil {
		return nil, nil, err
	}
	undo := []func() error{r.child.pidfd.Close}
	defer func() {
		if err != nil {
			for _, f := range slices.Backward(undo) {
				err = errors.Join(err, f())
			}
		}
	}()
	secrets, err := secretsOf(rec)
	if err == nil {
		r.args, err = argsOf(rec)
	}
	if err != nil {
		return nil, nil, err
	}
	if err := d.ports.claim(rec.Port); err != nil {
		return nil, nil, err
	}
	undo = append(undo, func() error { return d.ports.release(rec.Port) })
	steps := newStartSteps()
	if r.out, err = follow(rec.Log, from, d.opts.logLimit, r.logger, masker(rec.APIKey, secrets), r.listen(steps)); err != nil {
		return nil, nil, err
	}
	undo = append(undo, r.out.close)
	if !d.remember(rec.name(), r) {
		return nil, nil, errors.New("a replica of this number runs already")
	}
	go r.watch()
	return r, steps, nil
}

// secretsOf reads the secrets that an engine was given from where they are, its environment: their files may hold newer ones.
func secretsOf(rec *Record) (map[string]string, error) {
	if len(rec.SecretEnv) == 0 {
		return nil, nil
	}
	env, err := environ(rec.PID)
	if err != nil {
		return nil, fmt.Errorf("reading the engine's environment: %w", err)
	}
	secrets := make(map[string]string)
	for entry := range bytes.SplitSeq(env, []byte{0}) {
		if name, value, ok := strings.Cut(string(entry), "="); ok && slices.Contains(rec.SecretEnv, name) {
			secrets[name] = value
		}
	}
	return secrets, nil
}

// argsOf reads an engine's command line.
func argsOf(rec *Record) ([]string, error) {
	b, err := os.ReadFile(procPath(rec.PID, "cmdline"))
	if err != nil {
		return nil, fmt.Errorf("reading the engine's command line: %w", err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00"), nil
}

// Adoptable tells whether the next gateway could take the replica over, if this one left it running.
func (r *Replica) Adoptable() bool {
	select {
	case <-r.exited:
		return false
	default:
	}
	r.recording.Lock()
	defer r.recording.Unlock()
	return r.record.State == StateReady
}

// letGo ends the watching of a replica that goes on without us, and returns when that has ended.
func (r *Replica) letGo() error {
	// The past, which wakes up the wait for its end.
	if err := r.child.pidfd.SetReadDeadline(time.Unix(1, 0)); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("letting go of replica %s: %w", r.record.name(), err)
	}
	<-r.watched
	return nil
}

// release gives back what watching a replica takes. The replica stays, and so does its record.
func (r *Replica) release() {
	problem := errors.Join(r.out.close(), r.child.pidfd.Close(), r.driver.ports.release(r.record.Port))
	if r.child.cmd != nil {
		problem = errors.Join(problem, r.child.cmd.Process.Release())
	}
	r.driver.forget(r.record.name())
	r.logger.Info("replica goes on without a gateway", "pid", r.child.pid, "port", r.record.Port, "error", problem)
}
