package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"pilotlight/backends"
	"pilotlight/backends/store"
	"pilotlight/backends/store/s3"
	"pilotlight/backends/weights"
	"pilotlight/internal/app"
	"pilotlight/internal/config"
)

// storeFlags say which store a command works on.
type storeFlags struct{ file, path string }

func (f *storeFlags) add(c *cobra.Command) {
	c.Flags().StringVarP(&f.file, "config", "c", "", "the configuration `FILE`, for its store")
	c.Flags().StringVar(&f.path, "store", "", "the store's `PATH` (default: the hub client's cache, by HF_HUB_CACHE or HF_HOME)")
}

// open returns the store, and the configuration if there is one.
func (f *storeFlags) open(log *slog.Logger) (*store.Store, *config.Config, error) {
	var conf *config.Config
	options := store.Options{Path: f.path, Logger: log}
	var remote string
	if f.file != "" {
		var err error
		if conf, err = config.Load(f.file, os.LookupEnv); err != nil {
			return nil, nil, usageError{err}
		}
		remote = conf.Store.Remote
		if options.MaxBytes = conf.Store.MaxBytes; options.Path == "" {
			options.Path = conf.Store.Path
		}
	}
	if options.Path == "" {
		options.Path = store.DefaultPath(os.LookupEnv)
	}
	if options.Path == "" {
		return nil, nil, usageError{errors.New("there is no place for a store, because HOME is not set; give --store PATH")}
	}
	if remote != "" {
		// It holds idle connections until this process ends, which is soon.
		r, err := s3.OpenRemote(context.Background(), remote, os.LookupEnv, 0)
		if err != nil {
			return nil, nil, usageError{fmt.Errorf("store.remote: %w", err)}
		}
		options.Remote = r
	}
	s, err := store.New(options)
	return s, conf, err
}

func prefetchCommand() *cobra.Command {
	var where storeFlags
	var w backends.Weights
	var all bool
	var parts shardFlags
	c := &cobra.Command{
		Use:   "prefetch SOURCE [--revision R] [--include GLOB] [--exclude GLOB] [--name NAME] [-c FILE | --store PATH]",
		Short: "Fetch a model into the store, verified",
		Long: `Fetch a model into the store, so that replicas start from local disk. What is there already is not fetched again, an interrupted
download goes on where it was, and nothing counts before its hash is right.

SOURCE is a model of the hub (org/name), a folder (/path or ./path), a web server's folder (https://…) or an object store's (s3://bucket/prefix).
The hub is HF_ENDPOINT's, with the token of HF_TOKEN or of "hf auth login"; an object store's credentials are those of Amazon's tools.
The store is the hub client's own cache unless the configuration or --store says otherwise, and laid out as one: huggingface_hub,
transformers and engines find the model in it. model_path: store:NAME serves it; NAME is SOURCE's own unless --name gives one.

--shard tp=N has SGLang's own code cut the weights up for --tp-size N, so that each rank of a replica reads its part alone. The Python of --python
has it; --engine-args are SGLang's arguments of the replicas that will load the parts, as in extra_args. It takes N GPUs: those of
CUDA_VISIBLE_DEVICES, or N of the kind that --accelerator names. The parts' folder is printed on a second line. A running gateway does not know of this use
of its GPUs; its models' own prefetch.shard has a replica's start do it, on the GPUs that it was given.

A configuration's store.remote is asked before SOURCE for what a revision holds, and given what is fetched.

With --all everything is fetched that the configuration wants prefetched: its prefetch list, and models with prefetch: true.

Patterns are the hub client's: '*' also crosses '/', and a final '/' means all below. Progress is a line that is written over on a terminal, and
a line every ten seconds elsewhere, both on standard error; the folder that was fetched to goes to standard output.

Exit status: 0 when everything is in the store, 1 when something is not, 2 for a wrong command line or configuration.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			if all {
				return prefetchAll(ctx, &where, log, len(args), c.OutOrStdout(), c.ErrOrStderr())
			}
			if len(args) == 0 {
				return usageError{errors.New("say what to fetch, such as Qwen/Qwen3-0.6B, or --all -c FILE")}
			}
			here, err := os.Getwd()
			if err != nil {
				return err
			}
			origin, err := store.ParseOrigin(args[0], here)
			if err != nil {
				return usageError{err}
			}
			if w.Origin = origin.Text; w.Name != "" {
				if err := store.CheckRepo(w.Name); err != nil {
					return usageError{fmt.Errorf("--name: %w", err)}
				}
			}
			if err := (store.Filter{Include: w.Include, Exclude: w.Exclude}).Check(); err != nil {
				return usageError{err}
			}
			spec, err := parts.spec()
			if err != nil {
				return usageError{err}
			}
			s, _, err := where.open(log)
			if err != nil {
				return err
			}
			found, err := prefetch(ctx, weights.New(s, log), args[0], w, os.LookupEnv, c.OutOrStdout(), c.ErrOrStderr())
			if err != nil || spec == nil {
				return err
			}
			return cutUp(ctx, s, log, spec, parts.accelerator, found.Path, &found, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	where.add(c)
	c.Flags().StringVar(&w.Revision, "revision", "", "the branch, tag or commit `R` (default main)")
	c.Flags().StringArrayVar(&w.Include, "include", nil, "fetch only files that match `GLOB`; may be repeated")
	c.Flags().StringArrayVar(&w.Exclude, "exclude", nil, "fetch no files that match `GLOB`; may be repeated")
	c.Flags().StringVar(&w.Name, "name", "", "the `NAME` that model_path: store:NAME will find it by")
	parts.add(c)
	c.Flags().BoolVar(&all, "all", false, "fetch all that the configuration wants prefetched")
	return c
}

func prefetchAll(ctx context.Context, where *storeFlags, log *slog.Logger, args int, stdout, stderr io.Writer) error {
	if where.file == "" || args > 0 {
		return usageError{errors.New("--all takes no SOURCE, and needs -c FILE")}
	}
	s, conf, err := where.open(log)
	if err != nil {
		return err
	}
	cuts := cutsOf(conf)
	if len(conf.Prefetch)+len(cuts) == 0 {
		_, err := fmt.Fprintln(stderr, "the configuration wants nothing prefetched: give it a prefetch list, or models with prefetch: true")
		return err
	}
	k, failed := weights.New(s, log), 0
	for _, item := range conf.Prefetch {
		spec := &backends.Spec{}
		for i := range conf.Models {
			if m := &conf.Models[i]; m.Name == item.Model {
				spec = &m.Spec
			}
		}
		env, err := app.Variables(spec)
		if err == nil {
			_, err = prefetch(ctx, k, item.Name, item.Weights, env, stdout, stderr)
		}
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			failed++
			fmt.Fprintf(stderr, "pilotlight: %v\n", err)
		}
	}
	for _, cut := range cuts {
		if err := cut.run(ctx, s, k, log, stdout, stderr); err != nil {
			if ctx.Err() != nil {
				return err
			}
			failed++
			fmt.Fprintf(stderr, "pilotlight: %v\n", err)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d models are not in the store", failed, len(conf.Prefetch)+len(cuts))
	}
	return nil
}

// prefetch fetches one model and prints its folder.
func prefetch(ctx context.Context, k *weights.Keeper, label string, w backends.Weights, env func(string) (string, bool), stdout, stderr io.Writer) (store.Snapshot, error) {
	bar := newBar(stderr, label)
	found, err := k.Fetch(ctx, weights.Request{Weights: w, Who: "pilotlight prefetch", Env: env, Progress: bar.show})
	bar.end()
	if err != nil {
		return found, explained(label, err)
	}
	return found, printFetched(label, found, stdout, stderr)
}

// explained is a failure with what to do about it.
func explained(label string, err error) error {
	var f *backends.Failure
	if !errors.As(err, &f) {
		return err
	}
	text := label + ": " + f.Message
	if f.Err != nil {
		text += " (" + f.Err.Error() + ")"
	}
	if f.Advice != "" {
		text += "\n  advice: " + f.Advice
	}
	return errors.New(text)
}

func printFetched(label string, found store.Snapshot, stdout, stderr io.Writer) error {
	size := int64(0)
	for _, file := range found.Files {
		size += file.Size
	}
	fmt.Fprintf(stderr, "%s: %d files, %s, commit %s\n", label, len(found.Files), humanize.Bytes(uint64(size)), found.Commit[:12])
	_, err := fmt.Fprintln(stdout, filepath.Clean(found.Path))
	return err
}
