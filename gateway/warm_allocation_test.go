//go:build !race

package gateway

import (
	"testing"

	"pilotlight/auth/tenants"
	"pilotlight/gateway/jsonbody"
)

// A warm request must not begin to allocate: what each of thousands a second leaves behind, the collector takes from the others. Three
// allocations are the tests' fake keys'; a stream has one more, of fasthttp's. The rest leaves room for what pools lose to the collector.
func TestWarmRequestAllocatesNearlyNothing(t *testing.T) {
	for _, tt := range []struct {
		name, body, answer string
		rules              tenants.Rules
		most               float64 // per request
	}{
		{"plain", warmBody + "}", warmPlain, tenants.Rules{}, 3.2},
		{"stream", warmBody + `,"stream":true}`, warmStream, tenants.Rules{}, 4.2},
		{"plain, limited", warmBody + "}", warmPlain, everyLimit, 3.2},
		{"stream, limited", warmBody + `,"stream":true}`, warmStream, everyLimit, 4.2},
	} {
		n := 0
		client := &scripted{give: []byte(sized(keyed(chatLine), tt.body)), more: func() bool { n--; return n >= 0 }}
		serve := chain(t, client, tt.answer, tt.rules)
		const requests = 200
		got := testing.AllocsPerRun(20, func() {
			n = requests
			serve()
		}) / requests
		if got > tt.most {
			t.Errorf("%s: %.2f allocations per request, want at most %v", tt.name, got, tt.most)
		}
	}
}

func TestPlaceInTheQueueAllocatesNothing(t *testing.T) {
	x := &exchange{route: routes["/chat/completions"]}
	if err := jsonbody.Scan([]byte(`{"model":"m","max_tokens":100,"messages":[{"role":"user","content":"hello"}]}`), &x.fields); err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	if n := testing.AllocsPerRun(1000, func() { total += x.place().Work.MaxOutput }); n != 0 || total == 0 {
		t.Errorf("%v allocations", n)
	}
}
