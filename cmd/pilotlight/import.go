package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"pilotlight/internal/flyte"
)

// maxPython is far above what people write by hand; a larger file is another kind of file.
const maxPython = 1 << 20

func importCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "import APP.py...",
		Short: "Turn Flyte's SGLangAppEnvironment into a configuration file",
		Long: `Read Python files that deploy models with Flyte's SGLangAppEnvironment, and print the configuration that serves the same models.
The files are not run: what only running them would tell becomes a comment with (!). Exit status: 0 when a configuration was
printed, 2 when a file is not Python or deploys no model.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, paths []string) error {
			var files []flyte.File
			for _, path := range paths {
				source, err := readPython(path)
				if err != nil {
					return err
				}
				files = append(files, flyte.File{Name: path, Source: source})
			}
			result, err := flyte.Import(files...)
			if err != nil {
				return usageError{err}
			}
			if _, err := c.OutOrStdout().Write(result.YAML); err != nil {
				return err
			}
			if result.Open > 0 {
				fmt.Fprintf(c.ErrOrStderr(), "lines with (!) that ask for something: %d\n", result.Open)
			}
			return nil
		},
	}
}

func readPython(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	source, err := io.ReadAll(io.LimitReader(file, maxPython+1))
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", path, err)
	}
	if len(source) > maxPython {
		return "", usageError{errors.New(path + " is larger than 1 MiB")}
	}
	return string(source), nil
}
