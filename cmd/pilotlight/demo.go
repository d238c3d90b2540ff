package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"pilotlight/bench/sglangsim"
	"pilotlight/internal/app"
	"pilotlight/internal/demo"
)

// demoDrain: nobody loses anything when a demo ends.
const demoDrain = 3 * time.Second

// simulator is the hidden command that runs the simulated SGLang inside this binary.
const simulator = "sglang-sim"

func demoCommand() *cobra.Command {
	o := demo.Options{}
	var engine string
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show the main job on this machine, without a GPU",
		Long: `Set up a small real model on the CPU (two Python packages in a private folder of your cache), start the gateway with that
model at zero replicas, send one request, and show cold start, answer, idle countdown and eviction. The gateway then stays up.
Needs Python 3.10 or later with venv, or --engine sim, which simulates SGLang and needs nothing.`,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Engine = demo.Engine(engine)
			switch o.Engine {
			case demo.EngineAuto, demo.EngineCPU, demo.EngineSGLang, demo.EngineSim:
			default:
				return usageError{fmt.Errorf("--engine: %q is none of auto, cpu, sglang, sim", engine)}
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			o.Simulator = []string{self, simulator}
			o.Out, o.Log, o.Version = c.OutOrStdout(), c.ErrOrStderr(), versionString()
			return runDemo(c.Context(), o)
		},
	}
	c.Flags().StringVar(&engine, "engine", string(demo.EngineAuto), "auto, cpu, sglang or sim; auto takes SGLang if it is installed beside a GPU")
	c.Flags().DurationVar(&o.ScaledownAfter, "scaledown-after", demo.DefaultScaledown, "how long the idle replica stays")
	c.Flags().StringVar(&o.Model, "model", "", "Hugging Face id of the model for --engine sglang")
	return c
}

func runDemo(ctx context.Context, o demo.Options) error {
	// A signal during the set-up ends it; afterwards run handles signals.
	setup, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	d, err := demo.Prepare(setup, o)
	interrupted := setup.Err() != nil
	stop()
	if err != nil {
		if interrupted {
			return errors.New("interrupted; the next run goes on where this one stopped")
		}
		return err
	}
	defer d.Close()
	show, end := context.WithCancel(ctx)
	shown := make(chan struct{})
	started := false
	err = run(ctx, *d.App, d.App.Logger, demoDrain, func(a *app.App) {
		started = true
		d.Introduce(a)
		go func() {
			defer close(shown)
			if err := d.Show(show, a); err != nil {
				fmt.Fprintln(o.Out, err)
				fmt.Fprintln(o.Out, "The gateway stays up; its state is at", a.AdminURL()+"/api/state")
			}
		}()
	})
	end()
	if started {
		<-shown
	}
	return err
}

// simulatorCommand is not for people: the demo starts it as its engine.
func simulatorCommand() *cobra.Command {
	return &cobra.Command{
		Use: simulator, Hidden: true, DisableFlagParsing: true, Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			os.Exit(sglangsim.Run(context.Background(), sglangsim.Process{
				Args: args, Getenv: os.Getenv, Stdout: os.Stdout, Stderr: os.Stderr, Executable: self,
			}))
			return nil
		},
	}
}
