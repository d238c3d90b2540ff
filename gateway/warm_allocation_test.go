//go:build !race

package gateway

import "testing"

// A warm request must not begin to allocate: what each of thousands a second leaves behind, the collector takes from the others. Three
// allocations are the tests' fake keys'; a stream has one more, of fasthttp's. The rest leaves room for what pools lose to the collector.
func TestWarmRequestAllocatesNearlyNothing(t *testing.T) {
	for _, tt := range []struct {
		name, body, answer string
		most               float64 // per request
	}{
		{"plain", warmBody + "}", warmPlain, 3.2},
		{"stream", warmBody + `,"stream":true}`, warmStream, 4.2},
	} {
		n := 0
		client := &scripted{give: []byte(sized(keyed(chatLine), tt.body)), more: func() bool { n--; return n >= 0 }}
		serve := chain(t, client, tt.answer)
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
