package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"pilotlight/internal/app"
	"pilotlight/internal/config"
)

// defaultDrain bounds how long a shutdown waits for requests in flight: longer than nearly all answers, shorter than an
// orchestrator's patience can be set to.
const defaultDrain = 5 * time.Minute

func serveCommand() *cobra.Command {
	var file, level, onExit string
	var drain time.Duration
	c := &cobra.Command{
		Use:   "serve -c FILE",
		Short: "Serve the models of a configuration file",
		Long: `Serve the models of a configuration file until SIGINT or SIGTERM.

The file is read again when it changes, and on SIGHUP; only what changed is applied. A file with errors changes nothing.
The first SIGINT or SIGTERM lets requests in flight end, for at most --drain, and stops the replicas; a second one
ends at once; replicas that still run are taken over by the next start. With --on-exit keep the first signal
leaves replicas that are ready running, too, and a gateway that is started again takes them over as they are.

The access log goes to standard output, everything else to standard error, both as JSON lines.

Exit status: 0 after an orderly end, 1 when something went wrong, 2 for a wrong command line or configuration.`,
		RunE: func(c *cobra.Command, _ []string) error {
			var l slog.Level
			if err := l.UnmarshalText([]byte(level)); err != nil {
				return usageError{fmt.Errorf("--log-level: %q is none of debug, info, warn, error", level)}
			}
			if onExit != "stop" && onExit != "keep" {
				return usageError{fmt.Errorf("--on-exit: %q is none of stop, keep", onExit)}
			}
			return serve(c.Context(), file, l, drain, onExit == "keep", c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	configFlag(c, &file)
	c.Flags().StringVar(&level, "log-level", "info", "`LEVEL` of what goes to standard error: debug, info, warn or error")
	c.Flags().DurationVar(&drain, "drain", defaultDrain, "how long requests in flight may go on at shutdown")
	c.Flags().StringVar(&onExit, "on-exit", "stop", "`WHAT` becomes of replicas that are ready at shutdown: stop, or keep them for the next gateway")
	return c
}

func configFlag(c *cobra.Command, file *string) {
	c.Flags().StringVarP(file, "config", "c", "", "the configuration `FILE` (required)")
	if err := c.MarkFlagRequired("config"); err != nil {
		panic("BUG: " + err.Error())
	}
}

func serve(ctx context.Context, file string, level slog.Level, drain time.Duration, keep bool, stdout, stderr io.Writer) error {
	from := source()
	load := func() (*config.Config, error) { return from.Load(file) }
	c, err := load()
	if err != nil {
		return usageError{err}
	}
	log := slog.New(jsonLog(stderr, level))
	for _, w := range c.Warnings {
		log.Warn("configuration", "file", c.Source, "line", w.Line, "path", w.Path, "warning", w.Message, "fix", w.Fix)
	}
	out := newAccessLog(stdout, log)
	defer out.close()
	options := app.Options{Config: c, Load: load, Watch: true, Logger: log, Access: out, KeepReplicas: keep, Version: versionString()}
	return run(ctx, options, log, drain, func(a *app.App) {
		log.Info("serving", "base_url", a.BaseURL(), "admin", a.AdminURL(), "models", len(c.Models))
	})
}

// jsonLog writes durations in seconds; slog's own nanoseconds are for machines only.
func jsonLog(w io.Writer, level slog.Level) slog.Handler {
	return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindDuration {
			a.Value = slog.Float64Value(a.Value.Duration().Seconds())
		}
		return a
	}})
}

// leastHeap keeps the collector from running for every few hundred requests, as it does where little is live: its goal is twice
// what is live, and this counts as live. It is never written to, so it occupies addresses and no memory. What garbage may pile up
// beyond it, twice its size, is the price, and makes resident memory level early instead of creeping up with each busier moment.
var leastHeap = make([]byte, 16<<20)

// run starts the gateway and keeps it up until a signal; SIGHUP reloads.
func run(ctx context.Context, o app.Options, log *slog.Logger, drain time.Duration, started func(*app.App)) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	defer runtime.KeepAlive(leastHeap)
	a, err := app.Start(ctx, o)
	if err != nil {
		return err
	}
	started(a)
	for {
		select {
		case err := <-a.Failed():
			return errors.Join(err, shutdown(a, log, 0, signals))
		case <-ctx.Done():
			return shutdown(a, log, drain, signals)
		case s := <-signals:
			if s != syscall.SIGHUP {
				return shutdown(a, log, drain, signals)
			}
			if err := a.Reload(); err != nil {
				log.Error("configuration not reloaded; the one before stays in force", "error", err.Error())
			}
		}
	}
}

// shutdown takes the gateway down; a second signal ends the process at once.
func shutdown(a *app.App, log *slog.Logger, drain time.Duration, signals <-chan os.Signal) error {
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- a.Shutdown(ctx, func(n, of int, what string) { log.Info("shutdown", "step", n, "of", of, "what", what) })
	}()
	for {
		select {
		case err := <-done:
			if err == nil {
				log.Info("shutdown complete")
			}
			return err
		case s := <-signals:
			if s != syscall.SIGHUP {
				return errors.New("ended at once by a second signal; replicas that still run are taken over by the next start")
			}
		}
	}
}
