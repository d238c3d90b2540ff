package main

import (
	"os"

	"github.com/spf13/cobra"

	"pilotlight/backends/process"
	"pilotlight/backends/sglang/installed"
	"pilotlight/internal/config"
)

func checkCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Check a configuration file and show what it means",
		Long: `Check a configuration file and print the resolved models, their launch commands (secrets masked), warnings and advice.
No engine is started; the Python of each SGLang command is asked which release it has. Exit status: 0 when the file can be served, 2 with every problem listed when it cannot.`,
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := source().Load(file)
			if err != nil {
				return usageError{err}
			}
			return config.Describe(c.OutOrStdout(), conf, process.Preview)
		},
	}
	configFlag(c, &file)
	return c
}

// source reads files for commands that start what is in them, or say what would be started.
func source() config.Source {
	return config.Source{Env: os.LookupEnv, EngineRelease: installed.New(os.Environ()).Version}
}
