package main

import (
	"os"

	"github.com/spf13/cobra"

	"pilotlight/backends/process"
	"pilotlight/internal/config"
)

func checkCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Check a configuration file and show what it means",
		Long: `Check a configuration file and print the resolved models, their launch commands (secrets masked), warnings and advice.
Nothing is started. Exit status: 0 when the file can be served, 2 with every problem listed when it cannot.`,
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := config.Load(file, os.LookupEnv)
			if err != nil {
				return usageError{err}
			}
			return config.Describe(c.OutOrStdout(), conf, process.Preview)
		},
	}
	configFlag(c, &file)
	return c
}
