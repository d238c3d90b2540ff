package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"
)

// The models. Those that a reload touches have no other traffic's answers depend on it.
const (
	steady    = "steady"        // two replicas that stay: most of the traffic
	steadyToo = "org/steady:2"  // an alias, so that answers are patched
	setting   = "setting"       // each reload changes a setting that its replica does not see
	respec    = "respec"        // some reloads change its command: its replica is replaced
	extra     = "extra"         // comes and goes with reloads
	cycling   = "cycling"       // and a number: asked in bursts, evicted between them
	cycles    = 4               // their number
	idleAfter = 1 * time.Second // when those on demand are evicted
)

// fleet is a configuration that a reload may bring.
type fleet struct {
	engine, record string
	setting        int
	generation     int
	extra          bool
	broken         bool
	turn           int
}

func (f fleet) yaml() (string, error) {
	var b strings.Builder
	// Sockets of clients that leave are many; the rest are defaults.
	b.WriteString("listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\nstate_dir: state\nmodels:\n")
	var broken error
	model := func(name, more string, generation int) {
		command, err := json.Marshal([]string{f.engine, engineCommand, "--record", f.record, "--generation", fmt.Sprint(generation)})
		if err != nil {
			broken = err
		}
		fmt.Fprintf(&b, "  - name: %s\n    model_id: %s\n    model_path: mock\n    backend: {process: {command: %s}}\n    cold: {grace: 100ms, heartbeat: 100ms}\n    %s\n", name, name, command, more)
	}
	model(steady, fmt.Sprintf("aliases: [%q]\n    scaling: {replicas: 2, metric: {concurrency: 256}}", steadyToo), 0)
	model(setting, fmt.Sprintf("scaling: {replicas: 1, metric: {concurrency: %d}}", 64+f.setting%64), 0)
	onDemand := fmt.Sprintf("scaling: {replicas: [0, 1], scaledown_after: %v, metric: {concurrency: 64}}", idleAfter)
	model(respec, onDemand, f.generation)
	for i := range cycles {
		model(fmt.Sprint(cycling, i), fmt.Sprintf("scaling: {replicas: [0, 1], scaledown_after: %v, metric: {concurrency: 8}}", idleAfter), 0)
	}
	if f.extra {
		model(extra, onDemand, 0)
	}
	if f.broken {
		b.WriteString("no_such_field: 1\n")
	}
	return b.String(), broken
}

// next is the configuration after this one; in turn, a model comes or goes, a command changes, the file is broken, and it is good again.
func (f fleet) next() fleet {
	f.broken = f.turn%4 == 2
	f.setting++
	switch f.turn % 4 {
	case 0:
		f.extra = !f.extra
	case 1:
		f.generation++
	}
	f.turn++
	return f
}

// reload brings configurations one after the other until stop, and at last one as it was in the beginning.
func reload(g *gateway, f fleet, every time.Duration, stop <-chan struct{}) (reloads int, err error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			f.broken, f.extra = false, false
			yaml, err := f.yaml()
			if err != nil {
				return reloads, err
			}
			return reloads + 1, g.configure(yaml)
		case <-g.ended:
			return reloads, nil // said elsewhere
		case <-tick.C:
		}
		f = f.next()
		yaml, err := f.yaml()
		if err != nil {
			return reloads, err
		}
		if err := g.configure(yaml); err != nil {
			return reloads, err
		}
		reloads++
		if rand.IntN(3) == 0 { // the change of the file is enough; both at once must do no harm
			if err := g.cmd.Process.Signal(syscall.SIGHUP); err != nil && g.alive() {
				return reloads, err
			}
		}
	}
}
