package config

import "go.yaml.in/yaml/v3"

// later refuses what this release reads but does not do. Ignoring it would let somebody believe that, say,
// their gateways share their limits.
func (v value) later(meanwhile string) {
	v.fail("not supported yet", meanwhile)
}

// laterTopLevel type-checks and refuses the top level's fields of later releases.
func (r *reader) laterTopLevel(f fields) {
	if v := f.get("store"); v.given() {
		store := v.fields("path", "max_bytes", "remote")
		store.get("path").text("")
		store.get("max_bytes").size(0, leastResource)
		store.get("remote").expandable(false)
		v.later("leave it out; engines keep their own cache, such as HF_HOME")
	}
	if v := f.get("redis"); v.given() {
		v.fields("url").get("url").expandable(false)
		v.later("run one gateway; each keeps its own state")
	}
}

func (r *reader) laterJWT(v value) {
	if !v.given() {
		return
	}
	f := v.fields("issuer", "audience", "jwks_url")
	f.get("issuer").expandable(false)
	f.get("audience").text("")
	f.get("jwks_url").expandable(false)
	v.later("use API keys: auth.keys_file")
}

// laterModel type-checks and refuses a model's fields of later releases. Values that ask for what happens
// anyway (stream_model: false, prefetch: false) pass.
func (r *reader) laterModel(f fields) {
	// Flyte's default is true, and means nothing for models from Hugging Face, as here.
	if v := f.get("stream_model"); v.boolean(false) && !f.get("model_hf_path").given() {
		v.later("write stream_model: false; weights are read from local disk")
	}
	if v := f.get("image"); v.given() {
		v.text("")
		v.later("leave it out; the process backend runs what is installed on this machine")
	}
	if v := f.get("prefetch"); v.given() {
		r.prefetch(v)
	}
}

func (r *reader) prefetch(v value) {
	const meanwhile = "leave it out; the engine downloads the model at its first start"
	if v.node.Kind == yaml.ScalarNode {
		if v.boolean(false) {
			v.later(meanwhile)
		}
		return
	}
	f := v.fields("revision", "accelerator", "shard")
	f.get("revision").text("")
	f.get("accelerator").gpu()
	shard := f.get("shard").fields("engine", "tp", "trust_remote_code")
	shard.get("engine").text("")
	shard.get("tp").integer(1, 1, maxGPUs)
	shard.get("trust_remote_code").boolean(false)
	v.later(meanwhile)
}
