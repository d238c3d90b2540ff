// Command pilotlight is the gateway: it serves models, checks configurations, shows a running gateway's state and manages API keys.
// This package maps flags and signals to the packages that do the work.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"pilotlight/internal/config"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1 // it was tried and went wrong
	exitUsage   = 2 // the command line or the configuration is wrong
)

// version is set at link time (-ldflags "-X main.version=v1.2.3").
var version = ""

func versionString() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return "dev-" + s.Value[:12]
			}
		}
	}
	return "dev"
}

// usageError marks what the caller got wrong, as opposed to what went wrong.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() {
	root := rootCommand()
	err := root.ExecuteContext(context.Background())
	if err == nil {
		os.Exit(exitOK)
	}
	var usage usageError
	var problems *config.Problems
	if errors.As(err, &problems) {
		fmt.Fprintln(os.Stderr, problems) // one file:line: … each, as editors and CI read it
	} else {
		fmt.Fprintln(os.Stderr, "pilotlight:", err)
	}
	if errors.As(err, &usage) {
		os.Exit(exitUsage)
	}
	os.Exit(exitFailure)
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "pilotlight",
		Short: "An OpenAI-compatible gateway with scale-to-zero for SGLang",
		Long: `Pilotlight is the front door for self-hosted models. Applications point their OpenAI client at it;
a model that nobody uses has no replica and costs nothing, and the first request starts one.

Try it without a GPU:   pilotlight demo
Run it:                 pilotlight serve -c pilotlight.yaml`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w\nSee '%s --help'", err, c.CommandPath())}
	})
	root.AddCommand(serveCommand(), checkCommand(), statusCommand(), retryCommand(), prefetchCommand(), modelsCommand(), keysCommand(), importCommand(), demoCommand(), benchCommand(), versionCommand(), simulatorCommand())
	for _, c := range root.Commands() {
		wrapArgs(c)
	}
	root.Args = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return usageError{fmt.Errorf("there is no command %q\nSee 'pilotlight --help'", args[0])}
	}
	root.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	return root
}

// wrapArgs makes wrong positional arguments and missing flags usage errors.
func wrapArgs(c *cobra.Command) {
	check := c.Args
	if check == nil {
		check = cobra.NoArgs
	}
	c.Args = func(c *cobra.Command, args []string) error {
		err := check(c, args)
		if err == nil {
			err = c.ValidateRequiredFlags() // cobra would look itself, later, and its error would not be a usageError
		}
		if err != nil {
			return usageError{fmt.Errorf("%w\nSee '%s --help'", err, c.CommandPath())}
		}
		return nil
	}
	for _, sub := range c.Commands() {
		wrapArgs(sub)
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(c.OutOrStdout(), "pilotlight", versionString())
			return err
		},
	}
}
