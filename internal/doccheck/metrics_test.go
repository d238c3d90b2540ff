package doccheck

import (
	"context"
	"go/ast"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

// instrument is one that the code makes.
type instrument struct{ kind, unit string }

// instruments are the calls of a meter in the module: a method named after a kind, a name, and options with the unit.
func instruments(t *testing.T) map[string]instrument {
	t.Helper()
	found := map[string]instrument{}
	_, files := goFiles(t, ".", false)
	for path, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || makers[method.Sel.Name] == nil || len(call.Args) < 1 {
				return true
			}
			name, ok := text(call.Args[0])
			if !ok {
				t.Errorf("%s makes an instrument whose name is no literal", path)
				return true
			}
			in := instrument{kind: method.Sel.Name}
			for _, option := range call.Args[1:] {
				if o, ok := option.(*ast.CallExpr); ok {
					if f, ok := o.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "WithUnit" {
						in.unit, _ = text(o.Args[0])
					}
				}
			}
			found[name] = in
			return true
		})
	}
	return found
}

// makers makes an instrument of each kind that the code may use, and records one value.
var makers = map[string]func(m metric.Meter, name, unit string) error{
	"Int64Counter": func(m metric.Meter, name, unit string) error {
		i, err := m.Int64Counter(name, metric.WithUnit(unit))
		i.Add(context.Background(), 1)
		return err
	},
	"Int64UpDownCounter": func(m metric.Meter, name, unit string) error {
		i, err := m.Int64UpDownCounter(name, metric.WithUnit(unit))
		i.Add(context.Background(), 1)
		return err
	},
	"Int64ObservableUpDownCounter": func(m metric.Meter, name, unit string) error {
		_, err := m.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(1)
			return nil
		}))
		return err
	},
	"Int64ObservableCounter": func(m metric.Meter, name, unit string) error {
		_, err := m.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(1)
			return nil
		}))
		return err
	},
	"Float64Histogram": func(m metric.Meter, name, unit string) error {
		i, err := m.Float64Histogram(name, metric.WithUnit(unit))
		i.Record(context.Background(), 1)
		return err
	},
	"Int64Histogram": func(m metric.Meter, name, unit string) error {
		i, err := m.Int64Histogram(name, metric.WithUnit(unit))
		i.Record(context.Background(), 1)
		return err
	},
	"Int64ObservableGauge": func(m metric.Meter, name, unit string) error {
		_, err := m.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(1)
			return nil
		}))
		return err
	},
	"Float64ObservableGauge": func(m metric.Meter, name, unit string) error {
		_, err := m.Float64ObservableGauge(name, metric.WithUnit(unit), metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			o.Observe(1)
			return nil
		}))
		return err
	},
}

// scraped is what Prometheus calls an instrument, by the exporter itself, set up as internal/app does.
func scraped(t *testing.T, name string, in instrument) string {
	t.Helper()
	registry := prometheus.NewRegistry()
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry), otelprometheus.WithoutScopeInfo(), otelprometheus.WithoutTargetInfo())
	if err != nil {
		t.Fatal(err)
	}
	if err := makers[in.kind](sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter)).Meter("test"), name, in.unit); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%s gives %d families, %v", name, len(families), err)
	}
	return families[0].GetName()
}

func TestMetricsAreDocumented(t *testing.T) {
	real, pages := instruments(t), map[string]bool{}
	for name, in := range real {
		pages[scraped(t, name, in)] = true
	}
	if len(real) < 14 {
		t.Fatalf("found only these instruments: %v", sortedKeys(real))
	}
	metrics := section(t, read(t, "README.md"), "## Metrics and logs")
	compare(t, "the README's table of instruments", column(metrics, 0), real)
	compare(t, "the README's table of instruments, as scraped,", column(metrics, 1), pages)
}
