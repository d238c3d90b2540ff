package conformance

import (
	"os"
	"path/filepath"
	"testing"

	"pilotlight/internal/testtools"
	"pilotlight/internal/testtools/gatewaytest"
)

// What the SDKs do in clear text they do under TLS, with their own TLS libraries: OpenSSL in Python and Node, and Go's.
func TestClientsThroughEncryptedGateway(t *testing.T) {
	const id = "org/encrypted"
	certificate, key := testtools.Certificate(t, "gateway")
	dir := t.TempDir()
	roots := filepath.Join(dir, "cert.pem")
	for path, text := range map[string][]byte{roots: certificate, filepath.Join(dir, "key.pem"): key} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g := gatewaytest.Serve(t, "tls: {cert: "+roots+", key: "+filepath.Join(dir, "key.pem")+"}\n"+
		gatewaytest.Config(gatewaytest.SimModel(t, "sim", "model_id: "+id+"\nscaling: {replicas: 1}", "--sim-start", "0s", "--sim-ttft", "100ms", "--sim-embeddings")))
	addr := address(t, g, "sim")
	target := edge(g, id)
	target.Roots = roots
	CheckTogether(t, func(Client) []Play {
		return []Play{{Name: id, Target: target, Cases: Cases(target)}}
	})
	stats := simStats(t, addr)
	// As in TestClientsThroughGateway.
	if n := int64(len(Clients())); stats.Aborted < n || stats.Aborted > 2*n || stats.Abandoned != 0 || stats.BadKeys != 0 {
		t.Errorf("of %d clients %d requests were aborted, %d ran on, %d carried a client's key", n, stats.Aborted, stats.Abandoned, stats.BadKeys)
	}
}
