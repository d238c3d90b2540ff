package app

import (
	"errors"
	"time"

	"pilotlight/activator"
	"pilotlight/backends"
	"pilotlight/router"
)

// State is what the admin API and `pilotlight status` show.
type State struct {
	Version string       `json:"version"`
	Started time.Time    `json:"started"`
	BaseURL string       `json:"base_url"`
	Config  ConfigState  `json:"config"`
	Clients int64        `json:"clients"` // connections
	Models  []ModelState `json:"models"`
	// Devices are the GPUs that are shared out; absent if none are.
	Devices []DeviceState `json:"devices,omitempty"`
	// Prefetch is what the configuration wants in the store.
	Prefetch []PrefetchState `json:"prefetch,omitempty"`
}

// ConfigState is about the configuration file.
type ConfigState struct {
	File   string    `json:"file"`
	Loaded time.Time `json:"loaded"` // when the version in force was read
	// Error is why the file's present version is not in force; empty when it is.
	Error string `json:"error,omitempty"`
	// NeedsRestart are settings whose new value waits for a restart.
	NeedsRestart []string `json:"needs_restart,omitempty"`
}

// ModelState is one model.
type ModelState struct {
	Name           string         `json:"name"`
	ModelID        string         `json:"model_id"`
	State          string         `json:"state"`
	Leaving        bool           `json:"leaving,omitempty"`
	QueuedRequests int            `json:"queued_requests"`
	QueuedBytes    int64          `json:"queued_bytes"`
	ETASeconds     float64        `json:"eta_seconds,omitempty"` // until the next replica is ready; 0: unknown or none on its way
	Replicas       []ReplicaState `json:"replicas"`
	Scaling        *ScalingState  `json:"scaling,omitempty"` // absent where load does not change the number of replicas
	Failure        *FailureState  `json:"failure,omitempty"`
	RolledBack     *FailureState  `json:"rolled_back,omitempty"` // why the configuration's version is not in force, but the one before
	Slow           *SlowState     `json:"slow_start,omitempty"`  // a start in progress is slow, or the latest one was
	Starts         uint64         `json:"starts"`
	StartFailures  uint64         `json:"start_failures"`
	Crashes        uint64         `json:"crashes"`
	Evictions      uint64         `json:"evictions"`
	Preemptions    uint64         `json:"preemptions"` // replicas that left for another model's sake
	Sleeps         uint64         `json:"sleeps"`
	Wakes          uint64         `json:"wakes"`
	BadSleeps      uint64         `json:"bad_sleeps"` // sleeps and wakes that went wrong; each ended in a stop
	// Sleepless: sleeping went wrong so often that it is not tried any more, until the model changes or is retried.
	Sleepless bool `json:"sleepless,omitempty"`
}

// ReplicaState is one replica.
type ReplicaState struct {
	ID       uint64    `json:"id"`
	State    string    `json:"state"`
	Since    time.Time `json:"since"`
	InFlight int       `json:"in_flight"`
	// Unknown: taken over from an earlier gateway, whose requests may be in flight beside.
	Unknown bool    `json:"unknown,omitempty"`
	Limit   int     `json:"limit,omitempty"`
	Phase   string  `json:"phase,omitempty"`
	Percent float64 `json:"percent,omitempty"`
	Detail  string  `json:"detail,omitempty"`      // more about the phase, such as how fast a download goes
	ETA     float64 `json:"eta_seconds,omitempty"` // until it is ready; 0: unknown, or it is not on its way
	Reason  string  `json:"reason,omitempty"`      // why it waits for GPUs
	Addr    string  `json:"addr,omitempty"`
	PID     int     `json:"pid,omitempty"`
	Freed   int64   `json:"freed_bytes,omitempty"` // of GPU memory, while it sleeps; 0: not measured
	// Choice is there where the model may have several replicas, and this one has had requests.
	Choice *ChoiceState `json:"choice,omitempty"`
}

// ScalingState is how many replicas load asks for.
type ScalingState struct {
	Want   int     `json:"want"`
	Reason string  `json:"reason"`
	Metric string  `json:"metric"` // concurrency or request_rate
	Load   float64 `json:"load"`   // averaged over a minute, in the metric's unit
	Target float64 `json:"target"` // what one replica is meant to have of it
	// ServiceSeconds is how long a request is in flight; 0: not known yet.
	ServiceSeconds float64 `json:"service_seconds,omitempty"`
}

// FailureState is a model's last failure, for operators: with the engine's last lines, secrets removed.
type FailureState struct {
	Class     string     `json:"class"`
	Message   string     `json:"message"`
	Advice    string     `json:"advice,omitempty"`
	Permanent bool       `json:"permanent"`
	At        time.Time  `json:"at"`
	RetryAt   *time.Time `json:"retry_at,omitempty"`
	Lines     []string   `json:"lines,omitempty"`
}

// State is a snapshot.
func (a *App) State() State {
	a.mu.Lock()
	s := State{
		Version: a.opts.Version, Started: a.started, BaseURL: a.BaseURL(), Clients: a.gateway.Connections(),
		Config: ConfigState{File: a.config.Source, Loaded: a.loaded, Error: a.configError, NeedsRestart: a.needsRestart},
	}
	models := make([]*model, 0, len(a.config.Models))
	for i := range a.config.Models {
		models = append(models, a.models[a.config.Models[i].Name])
	}
	models = append(models, a.leaving...)
	ids, balancers := make([]string, len(models)), make([]*router.Balancer, len(models)) // a reload may change them
	for i, m := range models {
		ids[i], balancers[i] = m.id, m.balancer
	}
	a.mu.Unlock()
	s.Devices, s.Prefetch = a.devices(), a.prefetch.states()
	for i, m := range models {
		s.Models = append(s.Models, m.state(ids[i], balancers[i]))
	}
	return s
}

func (m *model) state(id string, b *router.Balancer) ModelState {
	status := m.activator.Status()
	s := ModelState{
		Name: m.name, ModelID: id, State: status.State.String(), Leaving: status.Leaving,
		QueuedRequests: status.QueuedRequests, QueuedBytes: status.QueuedBytes, ETASeconds: status.ETA.Seconds(),
		Replicas: []ReplicaState{},
		Starts:   status.Starts, StartFailures: status.StartFailures, Crashes: status.Crashes, Evictions: status.Evictions, Preemptions: status.Preemptions,
		Sleeps: status.Sleeps, Wakes: status.Wakes, BadSleeps: status.BadSleeps, Sleepless: status.Sleepless,
	}
	for _, r := range status.Replicas {
		rs := ReplicaState{ID: r.ID, State: r.State.String(), Since: r.Since, InFlight: r.InFlight, Unknown: r.Unknown, Limit: r.Limit, Phase: r.Phase, Percent: r.Percent, Detail: r.Detail, ETA: r.ETA.Seconds(), Reason: r.Reason}
		rs.Choice = choiceState(b, r.ID)
		if i, ok := r.Instance.(*instance); ok {
			rs.Addr, rs.Freed = i.Endpoint().Addr, i.freed.Load()
			if p, ok := i.replica.(interface{ PID() int }); ok {
				rs.PID = p.PID()
			}
		}
		s.Replicas = append(s.Replicas, rs)
	}
	if d := m.activator.Scaling(); d != nil {
		s.Scaling = &ScalingState{Want: d.Want, Reason: d.Reason, Metric: "concurrency", Load: d.Load, Target: d.Target, ServiceSeconds: d.Service.Seconds()}
		if d.ByRate {
			s.Scaling.Metric = "request_rate"
		}
	}
	if status.Slow != nil {
		s.Slow = DescribeSlow(status.Slow)
	}
	s.Failure, s.RolledBack = failureState(status.LastFailure), failureState(status.RolledBack)
	return s
}

func failureState(f *activator.FailureStatus) *FailureState {
	if f == nil {
		return nil
	}
	s := &FailureState{Class: string(failureClass(f.Cause)), Message: f.Cause.Error(), Permanent: f.Permanent, At: f.At}
	if !f.RetryAt.IsZero() {
		s.RetryAt = &f.RetryAt
	}
	var known *backends.Failure
	if errors.As(f.Cause, &known) {
		s.Message, s.Advice, s.Lines = known.Message, known.Advice, known.Lines
	}
	return s
}

func failureClass(err error) backends.Class {
	var f *backends.Failure
	if errors.As(err, &f) {
		return f.Class
	}
	return "unknown"
}
