package gateway

import (
	"fmt"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"pilotlight/gateway/histogram"
)

func TestTenantsInTheMetricsAreBounded(t *testing.T) {
	set := histogram.NewSet("test")
	var w tenantWaits
	if err := w.init(set); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for i := range 3 * tenantsTold {
			w.record(fmt.Sprint("tenant", i), time.Second)
		}
	}
	scopes, err := set.Produce(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]uint64{}
	for _, p := range scopes[0].Metrics[0].Data.(metricdata.Histogram[float64]).DataPoints {
		tenant, _ := p.Attributes.Value("tenant")
		counts[tenant.AsString()] = p.Count
	}
	if len(counts) != tenantsTold+1 || counts["tenant0"] != 2 || counts[others] != 2*2*tenantsTold {
		t.Errorf("%d tenants are told, the first has %d waits, the others %d", len(counts), counts["tenant0"], counts[others])
	}
}
