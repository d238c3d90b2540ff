package process

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"pilotlight/backends"
	"pilotlight/backends/sglang"
)

// Launch starts a replica and blocks until it is ready. Everything else is an error, always a
// *backends.Failure, and nothing of the replica is left by then: it did not start, it ended, it went
// spec.StartTimeout without progress, somebody else has its port, or ctx ended (class stopped, wrapping
// ctx's error).
//
// Progress is a new phase or a larger percentage, not just any line; engines that are not SGLang show
// none, so StartTimeout is the whole time that they have. progress, which may be nil, is called from the
// calling goroutine and must not block. id is unique among the model's living replicas.
func (d *Driver) Launch(ctx context.Context, spec *backends.Spec, id uint64, progress func(backends.Progress)) (*Replica, error) {
	return d.LaunchOn(ctx, spec, backends.Placement{}, id, progress)
}

// LaunchOn is Launch on certain devices: the engine sees no others. If Leftovers has a replica of this spec by that id that an earlier
// gateway was starting, that start goes on instead, where it is.
func (d *Driver) LaunchOn(ctx context.Context, spec *backends.Spec, on backends.Placement, id uint64, progress func(backends.Progress)) (*Replica, error) {
	if progress == nil {
		progress = func(backends.Progress) {}
	}
	if err := ctx.Err(); err != nil {
		return nil, cancelled(err)
	}
	r, steps, err := d.resume(ctx, spec, id)
	if r == nil && err == nil {
		r, steps, err = d.start(spec, on, id)
	}
	if err != nil {
		return nil, err
	}
	if !r.adopted {
		r.logger.InfoContext(ctx, "engine process started", "pid", r.child.pid, "port", r.record.Port, "log", r.record.Log)
	}
	if err := r.recordProcess(); err != nil {
		// What was recorded before would do to find it, but a full disk is no place to start an engine.
		return nil, r.abandon(ctx, stateFailure(err))
	}

	probing, stopProbing := context.WithCancel(ctx)
	p := &probe{
		host: r.record.Host, port: r.record.Port, path: spec.Probe, apiKey: r.endpoint.APIKey,
		kin: r.child.kin, bound: func() {},
	}
	if spec.Engine == backends.EngineSGLang {
		p.bound = steps.bound // others may bind first and load then
	}
	answer := make(chan error, 1)
	var prober sync.WaitGroup
	prober.Go(func() { answer <- p.run(probing) })
	defer prober.Wait()
	defer stopProbing()

	timeout := spec.StartTimeout
	orDuration(&timeout, defaultStartTimeout)
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	last := steps.now()
	progress(last)
	look := time.NewTicker(d.opts.vitalsPace)
	defer look.Stop()
	var still quiet
	for {
		select {
		case <-r.exited:
			return nil, r.Cause()
		case <-ctx.Done():
			return nil, r.abandon(ctx, cancelled(ctx.Err()))
		case <-deadline.C:
			return nil, r.abandon(ctx, &backends.Failure{
				Class:   backends.ClassHang,
				Message: fmt.Sprintf("the engine made no progress for %s in phase %s of its start", timeout, last.Phase),
				Advice:  "raise the model's start timeout if it needs longer",
			})
		case <-steps.further:
			now := steps.now()
			now.ReadBytes = last.ReadBytes
			if now.Phase != last.Phase { // what was read until now belongs to the phase before
				if v, err := d.opts.vitals(r.child.kin); err == nil {
					now.ReadBytes = v.read
				}
			}
			last = now
			progress(last)
			deadline.Reset(timeout)
		case now := <-look.C:
			v, err := d.opts.vitals(r.child.kin)
			if err != nil {
				r.logger.WarnContext(ctx, "engine's processes cannot be looked at", "error", err)
				look.Stop()
				continue
			}
			last.ReadBytes = v.read
			progress(last)
			still.look(v, r.lines.Load(), now)
			if idle := still.still(now); idle >= d.opts.hangAfter && spec.Engine == backends.EngineSGLang {
				return nil, r.abandon(ctx, hung(idle, last.Phase))
			}
		case err := <-answer:
			switch {
			case errors.Is(err, errForeign):
				return nil, r.abandon(ctx, &backends.Failure{
					Class: backends.ClassPortTaken, Message: "another program took the engine's port", Err: errForeign,
					Advice: "none is needed: the next start takes another port",
				})
			case err != nil:
				return nil, r.abandon(ctx, cancelled(err))
			}
			r.becomeReady(ctx)
			return r, nil
		}
	}
}

// hung is a start that shows no sign of life. Other engines than SGLang may be wrappers that wait for something elsewhere.
func hung(idle time.Duration, phase backends.Phase) *backends.Failure {
	return &backends.Failure{
		Class:   backends.ClassHang,
		Message: fmt.Sprintf("the engine said nothing, used no processor and read nothing for %s in phase %s of its start", idle.Round(time.Second), phase),
		Advice:  "see what it waits for: its last lines, and py-spy dump on its processes; network storage that does not answer looks like that",
	}
}

func cancelled(err error) *backends.Failure {
	return &backends.Failure{Class: backends.ClassStopped, Message: "the start was cancelled", Err: err}
}

// abandon ends a replica that did not get ready, and returns why.
func (r *Replica) abandon(ctx context.Context, reason *backends.Failure) *backends.Failure {
	reason.Lines = r.Tail(40)
	// Nothing is in flight, and ctx may be what ended the start.
	if err := r.end(context.WithoutCancel(ctx), true, reason); err != nil {
		r.logger.ErrorContext(ctx, "engine process is left over", "pid", r.child.pid, "error", err)
	}
	return reason
}

// becomeReady completes the endpoint and the record. A replica that answers is worth more than either, so
// trouble with them is only logged.
func (r *Replica) becomeReady(ctx context.Context) {
	problem := r.out.catchUp() // the capacity line may be a look away
	r.endpoint.Concurrency = int(r.concurrency.Load())
	r.out.slow()
	if problem = errors.Join(problem, r.recordReady()); problem != nil {
		r.logger.WarnContext(ctx, "replica is ready, but its log or record has a problem", "error", problem)
	}
}

// start does everything up to a running process. On error it has undone what it did.
func (d *Driver) start(spec *backends.Spec, on backends.Placement, id uint64) (_ *Replica, _ *startSteps, err error) {
	name := replicaName(spec.Model, id)
	r := d.newReplica(d.newRecord(spec, id))
	if len(spec.Command) == 0 {
		return nil, nil, &backends.Failure{Class: backends.ClassNotFound, Permanent: true, Message: "the model has no command to run"}
	}
	secrets, err := readSecrets(spec)
	if err != nil {
		return nil, nil, err
	}
	if !d.remember(name, r) {
		return nil, nil, &backends.Failure{Class: backends.ClassLaunch, Message: "a replica of this number runs already"}
	}
	defer func() {
		if err != nil {
			if left := errors.Join(d.erase(r.record), d.ports.release(r.record.Port)); left != nil {
				r.logger.Warn("replica that did not start left something behind", "error", left)
			}
			d.forget(name)
			err = stateFailure(err)
		}
	}()

	key, err := d.random(32)
	if err != nil {
		return nil, nil, err
	}
	if r.record.Mark, err = d.random(16); err != nil {
		return nil, nil, err
	}
	if r.record.Port, err = d.ports.acquire(); err != nil {
		return nil, nil, err
	}
	r.record.Log, r.record.Devices, r.record.Share = d.logPath(name), on.Devices, on.Share
	argv, apiKey := commandLine(spec, on, d.opts.Host, r.record.Port, key)
	r.record.APIKey = apiKey
	if spec.Engine == backends.EngineSGLang {
		if r.record.TempDir, err = shortTempDir(); err != nil {
			return nil, nil, err
		}
	}
	if err := d.save(r.record); err != nil {
		return nil, nil, err
	}
	if err := d.pruneLogs(spec.Model); err != nil {
		r.logger.Warn("old engine logs could not be removed", "error", err)
	}
	log, err := openLog(r.record.Log)
	if err != nil {
		return nil, nil, err
	}
	defer log.Close() //nolint:errcheck // the engine has its own descriptor, and nothing was written here

	steps := newStartSteps()
	out, err := follow(r.record.Log, 0, d.opts.logLimit, r.logger, masker(apiKey, secrets), r.listen(steps))
	if err != nil {
		return nil, nil, err
	}
	env := d.environment(spec, on, secrets, r.record.Mark, r.record.TempDir)
	if r.kills, err = d.opts.oomKills(); err != nil {
		r.kills = -1 // it only makes an explanation more exact
	}
	c, err := startChild(argv, env, spec.Dir, log, r.record.Mark, on.Files...)
	if err != nil {
		return nil, nil, errors.Join(startFailure(err, spec), out.close())
	}
	r.out, r.child, r.args = out, c, argv
	r.endpoint = r.record.endpoint()
	if n, ok := sglang.MaxRunningRequestsFlag(spec.ExtraArgs); ok && spec.Engine == backends.EngineSGLang {
		r.concurrency.CompareAndSwap(0, int64(n))
	}
	go r.watch()
	return r, steps, nil
}

// stateFailure makes any error of the launch a Failure.
func stateFailure(err error) *backends.Failure {
	var f *backends.Failure
	if errors.As(err, &f) {
		return f
	}
	if full := diskFull(err); full != nil {
		return full
	}
	return &backends.Failure{
		Class: backends.ClassLaunch, Message: "this machine could not start the engine",
		Advice: "check the gateway's state folder and the machine's limits", Err: err,
	}
}

const tempPrefix = "pl-"

// shortTempDir makes a launch's TMPDIR. Engines make unix sockets in it, whose paths may have 107 bytes.
func shortTempDir() (string, error) {
	base := os.TempDir()
	if len(base) > 40 {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, tempPrefix)
	if err != nil {
		return "", fmt.Errorf("temporary folder: %w", err)
	}
	return dir, nil
}

// random returns n random bytes in hexadecimal.
func (d *Driver) random(n int) (string, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(d.opts.rand, b); err != nil {
		return "", fmt.Errorf("reading random bytes: %w", err)
	}
	return hex.EncodeToString(b), nil
}

// masker hides the shapes of secrets and the values that this launch knows.
func masker(apiKey string, secrets map[string]string) func(string) string {
	var pairs []string
	if apiKey != "" {
		pairs = append(pairs, apiKey, sglang.Mask)
	}
	for _, value := range secrets {
		// Masking short ones would tell them, by the holes they leave in ordinary words.
		if len(value) >= 6 {
			pairs = append(pairs, value, sglang.Mask)
		}
	}
	known := strings.NewReplacer(pairs...)
	return func(line string) string { return sglang.Redact(known.Replace(line)) }
}

// listen is what a replica hears in its engine's output.
func (r *Replica) listen(steps *startSteps) func(string) {
	if r.record.Engine != backends.EngineSGLang {
		return func(string) { r.lines.Add(1) }
	}
	return func(line string) {
		r.lines.Add(1)
		if n, ok := sglang.MaxRunningRequests(line); ok {
			r.concurrency.Store(int64(n))
		}
		steps.line(line)
	}
}

// startSteps is the progress of one start, from the follower and the prober to Launch.
type startSteps struct {
	further chan struct{} // holds one: there is something new

	mu       sync.Mutex // guards the fields below
	progress sglang.Progress
}

func newStartSteps() *startSteps { return &startSteps{further: make(chan struct{}, 1)} }

func (s *startSteps) line(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tellLocked(s.progress.Line(line))
}

func (s *startSteps) bound() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tellLocked(s.progress.Bound())
}

func (s *startSteps) tellLocked(changed bool) {
	if changed {
		select {
		case s.further <- struct{}{}:
		default: // told already
		}
	}
}

func (s *startSteps) now() backends.Progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	return backends.Progress{Phase: s.progress.Phase(), Share: s.progress.Share(), Percent: s.progress.Percent()}
}

// remember enters a replica; false means that its name is taken.
func (d *Driver) remember(name string, r *Replica) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.live[name] != nil {
		return false
	}
	d.live[name] = r
	return true
}

func (d *Driver) forget(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.live, name)
}

func (d *Driver) alive(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.live[name] != nil
}
