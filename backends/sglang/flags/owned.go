package flags

import "strconv"

// owned are the options that the gateway gives to each replica itself, or that would cut it off from its replica,
// by any of their names, with what to do instead.
var owned = map[string]string{
	"--host":              "remove it; replicas listen on loopback",
	"--port":              "remove it; each replica gets a free port",
	"--api-key":           "remove it; each replica gets a key of its own",
	"--served-model-name": "set model_id",
	"--model-path":        "set model_path or model_hf_path",
}

// broken says why an option with these values cannot be used behind the gateway, and what to do; empty: it can.
// The rules are those of SGLang 0.5: keys exclude gRPC and several tokenizer workers, an admin key closes the abort
// route to the ordinary one, and a server with a certificate no longer answers plain HTTP.
func broken(o *Option, values []string) (message, fix string) {
	one := func() bool {
		n, err := strconv.Atoi(first(values))
		return err == nil && n <= 1
	}
	switch o.Name {
	case "--grpc-port", "--smg-grpc-mode", "--grpc-mode":
		return "does not work together with an API key, which every replica gets", "remove it"
	case "--tokenizer-worker-num":
		if !one() {
			return "above 1 does not work together with an API key, which every replica gets", "remove it"
		}
	case "--admin-api-key":
		return "closes the routes by which the gateway ends abandoned requests", "remove it; each replica gets a key of its own"
	case "--delete-ckpt-after-loading":
		return "deletes the model's folder once it is loaded, so that it could start only once", "remove it"
	case "--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs", "--ssl-keyfile-password", "--enable-ssl-refresh":
		return "makes the replica refuse the gateway, which reaches it in clear over loopback", "remove it; the gateway's own tls encrypts what clients see"
	case "--nnodes":
		if !one() {
			return "above 1 needs other machines, and a replica runs on this one", "remove it"
		}
	}
	return "", ""
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}
