package app

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"pilotlight/auth/tenants"
	"pilotlight/internal/config"
)

// savePause is how often what was spent is written down: what a crash can lose of a budget.
const savePause = 5 * time.Second

// tenancy is who may do what, and its part of the state folder.
type tenancy struct {
	registry *tenants.Registry
	ledger   *tenants.Ledger
	end      context.CancelFunc
	saving   sync.WaitGroup
}

// openTenancy begins to count where the gateway before stopped.
func (a *App) openTenancy(c *config.Config) error {
	ledger, err := tenants.OpenLedger(filepath.Join(c.StateDir, "spent.json"))
	if err != nil {
		return fmt.Errorf("state_dir: %w", err)
	}
	now := time.Now()
	registry, err := tenants.New(c.Tenants, now, ledger.Salt())
	if err != nil {
		return err
	}
	ledger.Restore(registry, now)
	a.tenancy = &tenancy{registry: registry, ledger: ledger}
	ctx, end := context.WithCancel(context.Background())
	a.tenancy.end = end
	a.tenancy.saving.Go(func() {
		tick := time.NewTicker(savePause)
		defer tick.Stop()
		for failed := false; ; {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				err := ledger.Save(registry, now)
				if err != nil && !failed {
					a.log.Error("what was spent of budgets is not written down", "error", err.Error())
				}
				failed = err != nil
			}
		}
	})
	return nil
}

// close writes down what was spent, once no request goes on.
func (t *tenancy) close() error {
	t.end()
	t.saving.Wait()
	return t.ledger.Save(t.registry, time.Now())
}

// watchTenants adds what tenants have used, which is read at each scrape.
func (t *telemetry) watchTenants(r *tenants.Registry) error {
	requests, err1 := t.meter.Int64ObservableCounter("pilotlight.tenant.requests", metric.WithUnit("{request}"),
		metric.WithDescription("Requests of tenants, by whether they were admitted, or which limit refused them."))
	tokens, err2 := t.meter.Int64ObservableCounter("pilotlight.tenant.tokens", metric.WithUnit("{token}"),
		metric.WithDescription("Tokens that tenants have used, by type."))
	running, err3 := t.meter.Int64ObservableGauge("pilotlight.tenant.running", metric.WithUnit("{request}"),
		metric.WithDescription("Requests of tenants that wait or are served now."))
	for _, err := range []error{err1, err2, err3} {
		if err != nil {
			return err
		}
	}
	_, err := t.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, c := range r.Counts() {
			tenant := attribute.String("tenant", c.Tenant)
			o.ObserveInt64(requests, c.Requests, metric.WithAttributes(tenant, attribute.String("result", "admitted")))
			for kind, n := range c.Refused {
				o.ObserveInt64(requests, n, metric.WithAttributes(tenant, attribute.String("result", kind.String())))
			}
			o.ObserveInt64(tokens, c.Prompt, metric.WithAttributes(tenant, attribute.String("gen_ai.token.type", "input")))
			o.ObserveInt64(tokens, c.Completion, metric.WithAttributes(tenant, attribute.String("gen_ai.token.type", "output")))
			o.ObserveInt64(running, c.Running, metric.WithAttributes(tenant))
		}
		return nil
	}, requests, tokens, running)
	return err
}
