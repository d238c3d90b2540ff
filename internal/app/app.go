// Package app puts the gateway together: it turns a configuration into models, drivers, the edge and the admin listener, applies
// reloads, and takes everything down in order. It decides nothing about requests or replicas.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"pilotlight/activator"
	"pilotlight/activator/ledger"
	"pilotlight/backends"
	"pilotlight/backends/gpu"
	"pilotlight/backends/process"
	"pilotlight/backends/static"
	"pilotlight/backends/store/s3"
	"pilotlight/backends/weights"
	"pilotlight/gateway"
	"pilotlight/internal/config"
	"pilotlight/router"
)

// Options of an App. Config is required.
type Options struct {
	Config *config.Config
	// Load reads the configuration again for a reload; nil: the App cannot be reloaded.
	Load func() (*config.Config, error)
	// Watch follows the configuration file and reloads when it changes.
	Watch bool
	// Keys replaces the keys file.
	Keys gateway.Identifier
	// SMI finds GPUs; the zero value asks nvidia-smi.
	SMI    gpu.SMI
	Logger *slog.Logger // required
	Access io.Writer    // takes the access log, line by line; nil: none
	// KeepReplicas leaves replicas that are ready running at Shutdown, for the next gateway with the same state folder.
	KeepReplicas bool
	Version      string
}

// App is a running gateway. Its methods are safe for concurrent use.
type App struct {
	opts      Options
	log       *slog.Logger
	telemetry *telemetry
	tracing   *tracing
	durations *activator.Durations
	totals    *activator.Totals
	process   *process.Driver
	static    *static.Driver
	keeper    *weights.Keeper // nil: there is no store
	cutter    *Cutter         // nil: as keeper
	remote    *s3.Remote      // of the store; nil: it has none
	prefetch  *prefetcher
	ledger    *ledger.Ledger // nil: GPUs are not shared out
	noDevices error          // why it is not known which GPUs there are
	tenancy   *tenancy
	keysFile  *keyring     // nil with Options.Keys
	cert      *certificate // nil: clients are served in clear text
	gateway   *gateway.Gateway
	admin     *gateway.Admin
	listener  net.Listener
	adminLn   net.Listener
	started   time.Time
	serving   sync.WaitGroup
	failed    chan error // a listener broke
	watchEnd  context.CancelFunc

	guards    sync.WaitGroup // watch replicas for hangs while guarding has not ended
	guarding  context.Context
	endGuards context.CancelFunc

	reloading sync.Mutex // one reload at a time

	mu           sync.Mutex // guards the fields below
	config       *config.Config
	loaded       time.Time
	configError  string
	needsRestart []string
	models       map[string]*model
	leaving      []*model // removed from the configuration, still draining
	generation   map[string]uint64
	stopping     bool
	unloads      sync.WaitGroup
}

// model is one entry of the configuration, running.
type model struct {
	name      string
	id        string // guarded by App.mu
	specHash  string // guarded by App.mu
	created   int64
	activator *activator.Model
	balancer  *router.Balancer // guarded by App.mu; nil until the model may have several replicas
	starts    *starts
	keep      *atomic.Bool // its replicas stay when they are to be stopped
}

// Start binds the listeners and starts everything. What it returns serves until Shutdown.
func Start(ctx context.Context, o Options) (_ *App, err error) {
	a := &App{opts: o, log: o.Logger, config: o.Config, started: time.Now(), loaded: time.Now(),
		models: make(map[string]*model), generation: make(map[string]uint64), failed: make(chan error, 2)}
	// Undone in reverse if a later step fails.
	var undo []func()
	defer func() {
		if err != nil {
			for i := len(undo) - 1; i >= 0; i-- {
				undo[i]()
			}
		}
	}()
	c := o.Config
	edge := gateway.Options{Config: c.Gateway, Logger: a.log, AccessLog: o.Access}
	if c.TLS != (config.TLS{}) {
		p, err := loadPair(c.TLS)
		if err != nil {
			return nil, err
		}
		a.cert = &certificate{log: a.log, watched: o.Watch}
		a.cert.follow(p)
		undo = append(undo, a.cert.close)
		edge.Certificate = a.cert.get
	}
	if a.listener, err = net.Listen("tcp", c.Gateway.Listen); err != nil {
		return nil, fmt.Errorf("listen %s: %w", c.Gateway.Listen, err)
	}
	undo = append(undo, func() { _ = a.listener.Close() })
	if a.adminLn, err = net.Listen("tcp", c.Admin.Listen); err != nil {
		return nil, fmt.Errorf("admin.listen %s: %w", c.Admin.Listen, err)
	}
	undo = append(undo, func() { _ = a.adminLn.Close() })

	if err = os.MkdirAll(c.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("state_dir: %w", err)
	}
	if a.process, err = process.New(process.Options{StateDir: c.StateDir, Logger: a.log}); err != nil {
		return nil, fmt.Errorf("state_dir %s: %w", c.StateDir, err)
	}
	undo = append(undo, func() { _ = a.process.Close() })
	if err = a.openStore(c.Store, c.StateDir); err != nil {
		return nil, err
	}
	undo = append(undo, a.closeRemote)
	a.prefetch = newPrefetcher(a.keeper, a.log)
	undo = append(undo, a.prefetch.close)
	a.static = static.New(static.Options{Logger: a.log})
	if a.durations, err = activator.OpenDurations(filepath.Join(c.StateDir, "durations.json"), a.log); err != nil {
		return nil, fmt.Errorf("state_dir: %w", err)
	}
	// What will not be taken over is gone before GPUs are counted, and what will be holds its own before any is given out.
	left := a.sortLeftovers(ctx)
	if err = a.openLedger(ctx); err != nil {
		return nil, err
	}
	undo = append(undo, a.closeLedger)
	a.guarding, a.endGuards = context.WithCancel(context.Background())
	undo = append(undo, func() { a.endGuards(); a.guards.Wait() })
	adopted := a.takeOver(ctx, left)
	a.totals = activator.NewTotals(c.Queue.MaxRequests, c.Queue.MaxBytes)

	if err = a.openTenancy(c); err != nil {
		return nil, err
	}
	undo = append(undo, func() { _ = a.tenancy.close() })
	edge.Tenants = a.tenancy.registry
	keys := o.Keys
	if keys == nil {
		a.keysFile = &keyring{log: a.log}
		opened, err := a.keysFile.open(c.KeysFile)
		if err != nil {
			return nil, err
		}
		a.keysFile.follow(opened)
		undo = append(undo, a.keysFile.close)
		tokens, err := a.keysFile.trust(c.Issuers)
		if err != nil {
			return nil, err
		}
		a.keysFile.accept(tokens)
		keys = a.keysFile
	}
	if a.telemetry, err = newTelemetry(); err != nil {
		return nil, err
	}
	if a.tracing, err = newTracing(a.telemetry.meter, o.Version, a.log); err != nil {
		return nil, err
	}
	edge.Keys, edge.Meter, edge.Histograms = keys, a.telemetry.meter, a.telemetry.histograms
	if a.gateway, err = gateway.New(edge); err != nil {
		return nil, err
	}
	if err = a.telemetry.watch(a); err != nil {
		return nil, err
	}
	if err = a.telemetry.watchTenants(a.tenancy.registry); err != nil {
		return nil, err
	}
	to, err := a.tracing.open(c.Traces)
	if err != nil {
		return nil, err
	}
	a.gateway.SetTracing(a.tracing.use(c.Traces, to))
	undo = append(undo, func() { a.endTracing() })
	undo = append(undo, func() {
		// A gateway that cannot start leaves the replicas that it has found for the one that can.
		a.keepReplicas()
		now, cancel := context.WithCancel(context.Background())
		cancel()
		a.closeModels(now)
	})
	for i := range c.Models {
		if _, err = a.addModel(&c.Models[i], adopted[c.Models[i].Name]...); err != nil {
			return nil, err
		}
	}
	if err = a.publish(c); err != nil {
		return nil, err
	}
	a.admin = gateway.NewAdmin(gateway.AdminOptions{
		Token: c.Admin.Token, Ready: a.Ready, State: func() any { return a.State() }, Retry: a.Retry, Reload: a.Reload,
		Metrics: a.telemetry.page, Logger: a.log,
	})
	a.serving.Go(func() { a.serve("listen", a.gateway.Serve, a.listener) })
	a.serving.Go(func() { a.serve("admin.listen", a.admin.Serve, a.adminLn) })
	a.prefetch.use(c, false)
	if err = a.watch(); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *App) serve(name string, serve func(net.Listener) error, ln net.Listener) {
	if err := serve(ln); err != nil {
		a.failed <- fmt.Errorf("%s: %w", name, err)
	}
}

// Failed gives an error when a listener has broken; the App is of no more use then.
func (a *App) Failed() <-chan error { return a.failed }

// BaseURL is where clients point their SDKs.
func (a *App) BaseURL() string {
	scheme := "http://"
	if a.cert != nil {
		scheme = "https://"
	}
	return scheme + a.listener.Addr().String() + "/v1"
}

// AdminURL is the admin listener's.
func (a *App) AdminURL() string { return "http://" + a.adminLn.Addr().String() }

// Ready says why no traffic should come now.
func (a *App) Ready() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopping {
		return errors.New("shutting down")
	}
	return nil
}

// Retry forgets the failure of the model called name (or model_id).
func (a *App) Retry(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.models {
		if m.name == name || m.id == name {
			m.activator.Retry()
			return true
		}
	}
	return false
}

// addModel starts a model's activator, with replicas that an earlier gateway left.
func (a *App) addModel(c *config.Model, adopted ...activator.Adopted) (*model, error) {
	// Ids name records and logs. A model that was removed and is added again may still have replicas that
	// drain, and may yet start some for requests that waited: the new ones begin at a distance.
	const distance = 1000
	first := a.process.LastID(c.Name) + 1 + distance*a.generation[c.Name]
	a.generation[c.Name]++
	starts := &starts{tracing: a.tracing}
	keep := &atomic.Bool{}
	for _, f := range adopted {
		if i, ok := f.Instance.(*instance); ok {
			i.keep = keep
		}
	}
	a.setTerms(c)
	observer := a.telemetry.observer(c.ModelID)
	observer.SlowStart = a.noteSlow
	act, err := activator.New(activator.Options{
		Name: c.Name, Config: a.lifeOf(c), Launcher: a.launcher(c, starts, keep), SpecHash: c.Spec.Hash(),
		Totals: a.totals, Ledger: accountsOf(a.ledger), Durations: a.durations, Logger: a.log, Observer: observer,
		FirstID: first, Adopted: adopted,
	})
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", c.Name, err)
	}
	m := &model{name: c.Name, id: c.ModelID, specHash: c.Spec.Hash(), created: time.Now().Unix(), activator: act, starts: starts, keep: keep}
	a.mu.Lock()
	a.models[c.Name] = m
	a.mu.Unlock()
	return m, nil
}

// lifeOf is how the model's replicas live. New ones come beside those of an old spec where it is known that both have room: where no GPU is
// asked for, or somebody keeps account of them.
func (a *App) lifeOf(c *config.Model) activator.Config {
	life := c.Activator
	life.Surge = c.Spec.Driver == backends.DriverProcess && (c.Spec.Devices.Count == 0 || a.ledger != nil)
	return life
}

func (a *App) launcher(c *config.Model, s *starts, keep *atomic.Bool) activator.Launcher {
	return s.launcher(c.ModelID, &launcher{
		spec: c.Spec, keeper: a.keeper, cutter: a.cutter, prepared: prepared{held: map[uint64]*weights.Held{}}, log: a.log, process: a.process, static: a.static, ledger: a.ledger, noDevices: a.noDevices, smi: a.opts.SMI, keep: keep,
		guard: func(r *process.Replica, id uint64) { a.guard(c.Name, r, id) },
	})
}

// publish makes the models of c those that the edge serves.
func (a *App) publish(c *config.Config) error {
	models := make([]*gateway.Model, len(c.Models))
	a.mu.Lock()
	for i := range c.Models {
		m := &c.Models[i]
		running := a.models[m.Name]
		running.balance(m)
		models[i] = &gateway.Model{
			ID: m.ModelID, Aliases: m.Aliases, RequiresAuth: m.RequiresAuth, Cold: m.Cold, Timeouts: m.Timeouts,
			Routing: m.Routing, Balancer: running.balancer,
			Created: running.created, Activator: running.activator, StartTrace: running.starts.find,
		}
	}
	a.mu.Unlock()
	linkModels(models, c)
	return a.gateway.SetModels(models)
}
