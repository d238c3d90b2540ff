package gateway

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"pilotlight/auth"
	"pilotlight/auth/tenants"
	"pilotlight/gateway/histogram"
	"pilotlight/router"
)

// BenchmarkFeature is what each of the edge's features adds to a warm request. bench/compare quotes it.
func BenchmarkFeature(b *testing.B) {
	now := time.Now()
	b.Run("key among 100,000", func(b *testing.B) {
		var keys []auth.Key
		var secret string
		for i := range 100_000 {
			s, k, err := auth.Generate(rand.Reader, now, fmt.Sprintf("tenant-%d", i%50), "", time.Time{})
			if err != nil {
				b.Fatal(err)
			}
			keys, secret = append(keys, k), s
		}
		known, err := auth.Static(keys...)
		if err != nil {
			b.Fatal(err)
		}
		g := &Gateway{keys: known}
		h := chatHeader()
		h.Set("Authorization", "Bearer "+secret)
		b.ReportAllocs()
		for b.Loop() {
			if identity, err := g.identify(h, now, nil); err != nil || identity.Tenant == "" {
				b.Fatal(identity, err)
			}
		}
	})
	b.Run("wrong key of an address that sends many", func(b *testing.B) {
		known, err := auth.Static()
		if err != nil {
			b.Fatal(err)
		}
		registry, err := tenants.New(tenants.Rules{}, now, [32]byte{})
		if err != nil {
			b.Fatal(err)
		}
		g, conn := &Gateway{keys: known, tenants: registry}, &clientConn{from: netip.MustParseAddr("192.0.2.1")}
		h := chatHeader()
		h.Set("Authorization", "Bearer pl-aaaaaaaaaaaa-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
		b.ReportAllocs()
		for b.Loop() {
			if _, err := g.identify(h, now, conn); err == nil {
				b.Fatal("accepted")
			}
		}
	})
	b.Run("model among 1,000", func(b *testing.B) {
		entries := make([]router.Entry[*Model], 1000)
		for i := range entries {
			entries[i] = router.Entry[*Model]{Names: []string{fmt.Sprintf("org/model-%d", i)}, Model: &Model{}}
		}
		table, err := router.NewTable(entries)
		if err != nil {
			b.Fatal(err)
		}
		name := []byte("org/model-777")
		b.ReportAllocs()
		for b.Loop() {
			if _, known, err := table.ResolveBytes(name); err != nil || known == "" {
				b.Fatal(err)
			}
		}
	})
	model := &Model{ID: "org/model:1b"}
	r := &record{start: now, id: []byte("0123456789abcdef0123456789abcdef"), route: routes["/chat/completions"], model: model, status: 200, bytesIn: 1000, bytesOut: 600,
		duration: 1234567, replica: 1, attempts: 1, identity: auth.Identity{Tenant: "t", KeyID: "abcdefghijkl"}}
	b.Run("access log", func(b *testing.B) {
		w := bufio.NewWriterSize(io.Discard, 64<<10)
		var mu sync.Mutex
		line := make([]byte, 0, 512)
		b.ReportAllocs()
		for b.Loop() {
			line = r.appendLine(line[:0], "")
			mu.Lock()
			_, err := w.Write(line)
			mu.Unlock()
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("metrics", func(b *testing.B) {
		histograms := histogram.NewSet("test")
		exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(prometheus.NewRegistry()), otelprometheus.WithProducer(histograms))
		if err != nil {
			b.Fatal(err)
		}
		g := &Gateway{}
		in, err := newInstruments(sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter)).Meter("test"), histograms, &g.open)
		if err != nil {
			b.Fatal(err)
		}
		model.metrics = in.of(model.ID)
		b.ReportAllocs()
		for b.Loop() {
			in.began(model)
			r.attempted = true
			in.ended(r, "")
		}
	})
}
