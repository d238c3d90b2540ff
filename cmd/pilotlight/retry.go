package main

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"
)

func retryCommand() *cobra.Command {
	var admin adminFlags
	c := &cobra.Command{
		Use:   "retry MODEL [-c FILE | --admin URL]",
		Short: "Forget why a model's last start failed, so that the next request starts it",
		Long: `Forget why a model's last start failed, and the pause after it, so that the next request starts it: after something was mended that
the configuration does not show, such as a licence that was accepted or a driver that was updated. MODEL is its name or model_id.
Exit status: 0 when it was forgotten, 1 when no gateway answered or it has no such model, 2 for a wrong command line or configuration.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if _, _, err := admin.ask(c.Context(), http.MethodPost, "/api/models/"+args[0]+"/retry"); err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "%s: the next request starts it\n", args[0])
			return err
		},
	}
	admin.add(c)
	return c
}
