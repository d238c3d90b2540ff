package config

import (
	"strings"

	"pilotlight/backends"
	"pilotlight/backends/store"
)

// loadFormat is the option that says how SGLang reads weights, and the value that streams them.
const (
	loadFormat = "--load-format"
	streamer   = "runai_streamer"
)

// stream reads whether a model's weights go from an object store to the device without a copy on disk. It follows source.
func (r *reader) stream(m *Model, f fields) {
	v := f.get("stream_model")
	// Flyte's default is true, and means nothing for models from Hugging Face, as here.
	if !v.boolean(false) || f.get("model_hf_path").given() {
		return
	}
	path := f.get("model_path").text("")
	origin, err := store.ParseOrigin(path, "/")
	given := ""
	if m.options != nil {
		given, _ = m.options.value(loadFormat)
	}
	const without = "write stream_model: false"
	switch {
	case m.Spec.Driver == backends.DriverStatic:
		v.warn("has no effect on a static backend, whose servers somebody else starts", "remove it")
	case path == "":
		// Its absence is reported.
	case m.Spec.Engine != backends.EngineSGLang:
		v.fail("is for SGLang, whose loader streams weights", without)
	case strings.HasPrefix(path, storePrefix):
		v.fail("streams from an object store, and the store is a folder of this machine", "write model_path: s3://bucket/prefix, or "+without)
	case err != nil && strings.Contains(path, "://"):
		// Reported.
	case err != nil || origin.Kind != store.FromS3:
		v.fail("streams from an object store", "write model_path: s3://bucket/prefix, or "+without+": weights are read from local disk")
	case m.Prefetch:
		v.fail("leaves the weights where they are, and prefetch brings them to this machine", "remove prefetch (sharded weights cannot be streamed: SGLang's loader reads whole checkpoints), or "+without)
	case given == "sharded_state" || given == "presharded":
		v.fail("cannot stream "+given+": SGLang's streaming loader reads whole checkpoints, of which each rank takes its part",
			"remove "+loadFormat+" from extra_args, or "+without+" and have the sharded weights read from local disk")
	case given != "" && given != streamer:
		v.fail("needs "+loadFormat+" "+streamer+", and extra_args has "+given, "remove "+loadFormat+" from extra_args, or "+without)
	case m.Spec.Weights.Origin != "":
		m.Spec.Stream = true
		m.Spec.ModelPath = origin.Raw()
		m.Spec.Weights.Exclude = store.WeightFiles
	}
}
