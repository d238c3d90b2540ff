package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"pilotlight/activator"
	"pilotlight/backends"
	"pilotlight/backends/gpu"
	"pilotlight/backends/process"
	"pilotlight/backends/sglang/footprint"
	"pilotlight/backends/sglang/installed"
	"pilotlight/backends/store"
	"pilotlight/backends/weights"
	"pilotlight/internal/app"
	"pilotlight/internal/config"
)

func checkCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Check a configuration file and show what it means",
		Long: `Check a configuration file and print the resolved models, their launch commands (secrets masked), warnings and advice.
No engine is started; the Python of each SGLang command is asked which release it has, and of each that streams its weights (stream_model), which
loader; the object store of the latter is asked, too. Exit status: 0 when the file can be served, 2 with every problem listed when it cannot.`,
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := source().Load(file)
			if err != nil {
				return usageError{err}
			}
			if err := config.Describe(c.OutOrStdout(), conf, process.Preview, learned(c, conf.StateDir), stored(conf)); err != nil {
				return err
			}
			if err := printStreams(c.Context(), c.OutOrStdout(), conf); err != nil {
				return err
			}
			return printDevices(c.Context(), c.OutOrStdout(), conf)
		},
	}
	configFlag(c, &file)
	return c
}

// learned tells how long starts took on this machine; nil if that cannot be read, as by another user than the gateway's.
func learned(c *cobra.Command, stateDir string) func(*config.Model) (config.Learned, bool) {
	durations, err := activator.OpenDurations(filepath.Join(stateDir, "durations.json"), slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Fprintln(c.ErrOrStderr(), "learned start times:", err)
		return nil
	}
	return func(m *config.Model) (config.Learned, bool) {
		of := activator.Subject{Model: m.Name, Spec: m.Spec.Hash(), Kin: m.Activator.Kin}
		took, ok := durations.Estimate(of)
		l := config.Learned{Start: took}
		if slow := durations.Slow(of); slow != nil {
			s := app.DescribeSlow(slow)
			l.Slow = s.Text
			if s.Remedy != "" {
				l.Slow += "; " + s.Remedy
			}
		}
		return l, ok
	}
}

// stored tells what the store has.
func stored(conf *config.Config) func(backends.Weights) (config.Stored, error) {
	return func(w backends.Weights) (config.Stored, error) {
		s, err := openStore(conf.Store)
		if err != nil {
			return config.Stored{}, err
		}
		found, err := weights.New(s, nil).Find(w)
		if err != nil {
			return config.Stored{}, err
		}
		out := config.Stored{Path: found.Path}
		for _, f := range found.Files {
			out.Bytes += f.Size
		}
		return out, nil
	}
}

// openStore is the store of a configuration.
func openStore(c config.Store) (*store.Store, error) {
	return store.New(store.Options{Path: c.Path, MaxBytes: c.MaxBytes})
}

// printDevices shows the GPUs that would be shared out here.
func printDevices(ctx context.Context, w io.Writer, conf *config.Config) error {
	devices, notes, _ := app.FindDevices(ctx, conf, gpu.SMI{}) // notes tell of the error
	if len(devices)+len(notes) == 0 {
		return nil
	}
	text := "\nGPUs of this machine\n"
	for _, d := range devices {
		text += "  " + d.Label()
		if d.Missing {
			text += ", not shown by nvidia-smi"
		}
		if d.Memory > 0 {
			text += ", " + humanize.IBytes(uint64(d.Memory))
		}
		if d.Measured {
			text += ", " + humanize.IBytes(uint64(d.Used)) + " in use now"
		}
		text += "\n"
	}
	for _, n := range notes {
		text += "  " + n + "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

// source reads files for commands that start what is in them, or say what would be started.
func source() config.Source {
	return config.Source{Env: os.LookupEnv, EngineRelease: installed.New(os.Environ()).Version, Footprint: modelFootprint, Stored: storedPath}
}

// storedPath is config.Source's Stored. What cannot be read is not there: whoever needs it is told then.
func storedPath(c config.Store, w backends.Weights) string {
	s, err := openStore(c)
	if err != nil {
		return ""
	}
	found, err := weights.New(s, nil).Find(w)
	if err != nil {
		return ""
	}
	return found.Path
}

// modelFootprint looks at a model that is on this machine, where the engine would look for it.
func modelFootprint(path, revision string, env map[string]string) (*footprint.Model, error) {
	folder := footprint.Folder(path, revision, func(name string) string {
		if value, ok := env[name]; ok {
			return value
		}
		return os.Getenv(name)
	})
	if folder == "" {
		return nil, nil
	}
	model, err := footprint.Read(os.DirFS(folder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // it is not there yet, or no folder
	}
	return model, err
}
