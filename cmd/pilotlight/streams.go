package main

import (
	"context"
	"errors"
	"io"
	"os"

	"pilotlight/backends"
	"pilotlight/backends/sglang/installed"
	"pilotlight/backends/stream"
	"pilotlight/internal/app"
	"pilotlight/internal/config"
)

// printStreams shows what a start would find out about weights that are streamed.
func printStreams(ctx context.Context, w io.Writer, conf *config.Config) error {
	loader, text := installed.New(os.Environ()), ""
	for i := range conf.Models {
		m := &conf.Models[i]
		if !m.Spec.Stream {
			continue
		}
		if text == "" {
			text = "\nStreamed weights\n"
		}
		env, err := app.Variables(&m.Spec)
		var plan stream.Plan
		if err == nil {
			plan, err = stream.Check(ctx, &m.Spec, env, loader)
		}
		var f *backends.Failure
		switch {
		case err == nil:
			text += "  " + m.Name + ": " + plan.String() + "\n"
		case errors.As(err, &f):
			text += "  " + m.Name + ": would not start: " + f.Message + "; " + f.Advice + "\n"
		default:
			return err
		}
	}
	_, err := io.WriteString(w, text)
	return err
}
