package config

import (
	"errors"
	"strings"
	"testing"
)

func TestTraces(t *testing.T) {
	const model = "models: [{name: a, model_id: a, model_hf_path: o/a}]\n"
	for _, tt := range []struct {
		telemetry string
		want      Traces
		problem   string // of the first problem; empty: none
		warning   string
	}{
		{"", Traces{"", .01, true}, "", ""},
		{"{otlp_endpoint: http://c:4318}", Traces{"http://c:4318", .01, true}, "", ""},
		{"{otlp_endpoint: https://c/otlp/}", Traces{"https://c/otlp", .01, true}, "", ""},
		{"{otlp_endpoint: 'http://${UPSTREAM_HOST}'}", Traces{"http://10.0.0.7", .01, true}, "", ""},
		{"{otlp_endpoint: http://c, traces: {sample: 0}}", Traces{"http://c", 0, true}, "", ""},
		{"{otlp_endpoint: http://c, traces: {sample: 1, trust_client: false}}", Traces{"http://c", 1, false}, "", ""},
		{"{traces: {sample: 0.5}}", Traces{"", .5, true}, "", "has no effect without"},
		{"{otlp_endpoint: http://c, traces: {sample: 1.01}}", Traces{}, "is not a share", ""},
		{"{otlp_endpoint: http://c, traces: {sample: -0.1}}", Traces{}, "is not a share", ""},
		{"{otlp_endpoint: http://c, traces: {sample: all}}", Traces{}, "expected a number", ""},
		{"{otlp_endpoint: http://c, traces: {ratio: 1}}", Traces{}, "unknown field", ""},
		{"{otlp_endpoint: c:4318}", Traces{}, "is not an http or https URL", ""},
		{"{otlp_endpoint: grpc://c}", Traces{}, "is not an http or https URL", ""},
		{"{otlp_endpoint: 'http://:4318'}", Traces{}, "is not an http or https URL", ""},
		{"{otlp_endpoint: http://user:sesame@c}", Traces{}, "must not hold a user", ""},
		{"{otlp_endpoint: 'http://c?sesame'}", Traces{}, "must not have a query", ""},
		{"{otlp_endpoint: http://c:4317}", Traces{}, "is the port of OTLP over gRPC", ""},
		{"{otlp_endpoint: http://c/v1/traces}", Traces{}, "must not end in /v1/traces", ""},
		{"{otlp_endpoint: 'http://${UNDEFINED}'}", Traces{}, "the variable UNDEFINED is not defined", ""},
	} {
		c, err := Parse("/etc/p.yaml", []byte(model+"telemetry: "+tt.telemetry+"\n"), testEnv)
		if tt.problem != "" {
			var problems *Problems
			if !errors.As(err, &problems) || !strings.HasPrefix(problems.List[0].Message, tt.problem) {
				t.Errorf("%s: got %v, want %q", tt.telemetry, err, tt.problem)
			} else if strings.Contains(err.Error(), "sesame") {
				t.Errorf("a secret is shown: %v", err)
			}
			continue
		}
		if err != nil || c.Traces != tt.want {
			t.Errorf("%s: got %+v, %v; want %+v", tt.telemetry, c, err, tt.want)
			continue
		}
		if tt.warning == "" && len(c.Warnings) > 0 || tt.warning != "" && (len(c.Warnings) != 1 || !strings.HasPrefix(c.Warnings[0].Message, tt.warning)) {
			t.Errorf("%s: got warnings %v, want %q", tt.telemetry, c.Warnings, tt.warning)
		}
	}
}
