package main

import (
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"pilotlight/auth"
	"pilotlight/internal/config"
)

func keysCommand() *cobra.Command {
	var file, configFile string
	c := &cobra.Command{
		Use:   "keys",
		Short: "Make, list and revoke API keys",
		Long: `Make, list and revoke API keys. Keys live as hashes in a file (auth.keys_file of the configuration; keys.yaml beside it
by default). Say which with --config or --file. A running gateway sees changes within a second.`,
	}
	c.PersistentFlags().StringVarP(&configFile, "config", "c", "", "the configuration `FILE`, whose auth.keys_file is used")
	c.PersistentFlags().StringVar(&file, "file", "", "the keys `FILE` itself")
	store := func() (auth.KeyFile, error) {
		switch {
		case file != "" && configFile != "":
			return auth.KeyFile{}, usageError{errors.New("give --file or --config, not both")}
		case file != "":
			return auth.KeyFile{Path: file}, nil
		case configFile != "":
			c, err := config.Load(configFile, os.LookupEnv)
			if err != nil {
				return auth.KeyFile{}, usageError{err}
			}
			return auth.KeyFile{Path: c.KeysFile}, nil
		}
		return auth.KeyFile{}, usageError{errors.New("say which keys file: --config FILE or --file FILE")}
	}
	c.AddCommand(newKeyCommand(store), listKeysCommand(store), revokeKeyCommand(store))
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	return c
}

func newKeyCommand(store func() (auth.KeyFile, error)) *cobra.Command {
	var tenant, name string
	var expires time.Duration
	c := &cobra.Command{
		Use:   "new -c FILE --tenant TENANT",
		Short: "Make a key and print it; it is shown this once",
		Long: `Make a key for a tenant, add its hash to the keys file, and print the key on standard output: it is shown this once.
The file is made with mode 0600 if it is missing, so run this as the user that the gateway runs as.`,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := store()
			if err != nil {
				return err
			}
			if tenant == "" {
				return usageError{errors.New("--tenant is required: the application or team that the key is for")}
			}
			var until time.Time
			if c.Flags().Changed("expires-in") {
				if expires <= 0 {
					return usageError{errors.New("--expires-in must be positive, such as 720h")}
				}
				until = time.Now().Add(expires)
			}
			secret, key, err := f.New(tenant, name, until)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "key %s for tenant %s; it is shown only now:\n", key.ID, key.Tenant)
			_, err = fmt.Fprintln(c.OutOrStdout(), secret)
			return err
		},
	}
	c.Flags().StringVar(&tenant, "tenant", "", "the application or team that the key is for (required)")
	c.Flags().StringVar(&name, "name", "", "a note to tell keys apart")
	c.Flags().DurationVar(&expires, "expires-in", 0, "how long the key is valid, such as 720h; without it: until revoked")
	return c
}

func listKeysCommand(store func() (auth.KeyFile, error)) *cobra.Command {
	return &cobra.Command{
		Use:   "list -c FILE",
		Short: "List the keys, without their secrets",
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := store()
			if err != nil {
				return err
			}
			keys, err := f.List()
			if err != nil {
				return err
			}
			now := time.Now()
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "ID\tTENANT\tNAME\tCREATED\tSTATE")
			for _, k := range keys {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", k.ID, k.Tenant, k.Name, k.Created.Format(time.RFC3339), keyState(k, now))
			}
			return w.Flush()
		},
	}
}

func keyState(k auth.Key, now time.Time) string {
	switch {
	case !k.Revoked.IsZero():
		return "revoked " + k.Revoked.Format(time.RFC3339)
	case !k.Active(now):
		return "expired " + k.Expires.Format(time.RFC3339)
	case !k.Expires.IsZero():
		return "active until " + k.Expires.Format(time.RFC3339)
	}
	return "active"
}

func revokeKeyCommand(store func() (auth.KeyFile, error)) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke -c FILE ID",
		Short: "Refuse a key from now on",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			f, err := store()
			if err != nil {
				return err
			}
			if err := f.Revoke(args[0]); err != nil {
				if errors.Is(err, auth.ErrUnknownKey) {
					return fmt.Errorf("%w: %s; 'pilotlight keys list' shows the ids", err, args[0])
				}
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "key %s is revoked\n", args[0])
			return err
		},
	}
}
