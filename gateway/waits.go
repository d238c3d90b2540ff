package gateway

import (
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"pilotlight/gateway/histogram"
)

const (
	// tenantsTold is how many tenants have waits of their own in the metrics; the waits of those who come later are told together.
	tenantsTold = 100
	others      = "(others)" // no tenant's name
)

var tenantWaitBuckets = []float64{.01, .1, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}

// tenantWaits are the waits of each tenant that had to wait, whatever for.
type tenantWaits struct {
	all  *histogram.Histogram
	rest *histogram.Series // of those who came when there were tenantsTold

	mu     sync.Mutex // guards the field below
	series map[string]*histogram.Series
}

func (w *tenantWaits) init(h *histogram.Set) (err error) {
	w.series = map[string]*histogram.Series{}
	w.all, err = h.Float64Histogram("pilotlight.tenant.queued", metric.WithUnit("s"),
		metric.WithDescription("Time that tenants' requests waited for a place on a replica, those left out that did not."), metric.WithExplicitBucketBoundaries(tenantWaitBuckets...))
	if err == nil {
		w.rest = w.all.Series(tenantLabel(others))
	}
	return err
}

func tenantLabel(name string) attribute.Set {
	return attribute.NewSet(attribute.String("tenant", name))
}

func (w *tenantWaits) record(tenant string, d time.Duration) { w.of(tenant).Record(d) }

func (w *tenantWaits) of(tenant string) *histogram.Series {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.series[tenant]
	switch {
	case s != nil:
	case len(w.series) >= tenantsTold:
		return w.rest
	default:
		s = w.all.Series(tenantLabel(tenant))
		w.series[tenant] = s
	}
	return s
}
