package config

import (
	"net/url"
	"strings"
)

// Traces says where spans go and which requests have any.
type Traces struct {
	// Endpoint is the base URL of an OTLP/HTTP collector, without a trailing slash; empty: there are no traces.
	Endpoint string
	// Sample is the share of requests that are traced, 0 to 1, unless the client has decided.
	Sample float64
	// TrustClient lets a client's traceparent decide whether its request is traced.
	TrustClient bool
}

// defaultSample is what costs little at any rate: at a thousand requests a second some thirty spans.
const defaultSample = 0.01

func (r *reader) traces(c *Config, telemetry fields) {
	v := telemetry.get("otlp_endpoint")
	c.Traces = Traces{Endpoint: r.endpoint(v), Sample: defaultSample, TrustClient: true}
	t := telemetry.get("traces")
	f := t.fields("sample", "trust_client")
	if sample, ok := f.get("sample").fraction(); ok {
		if sample < 0 || sample > 1 {
			f.get("sample").fail("is not a share: expected 0 to 1", "write 0.01 for one request in a hundred")
		} else {
			c.Traces.Sample = sample
		}
	}
	c.Traces.TrustClient = f.get("trust_client").boolean(true)
	if t.given() && !v.given() {
		t.warn("has no effect without telemetry.otlp_endpoint", "say where traces go, such as http://localhost:4318")
	}
}

// endpoint reads a collector's base URL.
func (r *reader) endpoint(v value) string {
	text, _, ok := v.expandable(false)
	if !ok {
		return ""
	}
	v = v.asSecret() // it may hold somebody's token
	const fix = "write the base URL of an OTLP/HTTP receiver, such as http://localhost:4318"
	u, err := url.Parse(text)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		v.fail("is not an http or https URL", fix)
	case u.User != nil:
		v.fail("must not hold a user's name or password", "set OTEL_EXPORTER_OTLP_HEADERS in the gateway's environment, such as Authorization=Bearer%20…")
	case u.RawQuery != "" || u.Fragment != "":
		v.fail("must not have a query or a fragment", fix)
	case u.Port() == "4317":
		v.fail("is the port of OTLP over gRPC, which is not spoken here", "write the HTTP receiver's, 4318 unless configured otherwise")
	case strings.HasSuffix(strings.TrimRight(u.Path, "/"), "/v1/traces"):
		v.fail("must not end in /v1/traces, which is added", fix)
	default:
		return strings.TrimRight(text, "/")
	}
	return ""
}
