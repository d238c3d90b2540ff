package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
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
		Short: "Make, list, rotate and revoke API keys",
		Long: `Make, list, rotate and revoke API keys. Keys live as hashes in a file (auth.keys_file of the configuration; keys.yaml beside it
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
	c.AddCommand(newKeyCommand(store), listKeysCommand(store), rotateKeyCommand(store), revokeKeyCommand(store))
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	return c
}

func newKeyCommand(store func() (auth.KeyFile, error)) *cobra.Command {
	var tenant, name string
	var expires time.Duration
	var grant auth.Grant
	c := &cobra.Command{
		Use:     "new -c FILE --tenant TENANT",
		Aliases: []string{"create"},
		Short:   "Make a key and print it; it is shown this once",
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
			secret, key, err := f.Add(tenant, name, until, grant)
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
	c.Flags().StringSliceVar(&grant.Models, "models", nil, "`NAMES` of the models that it may use, with commas between; * stands for any text; without it: the tenant's")
	c.Flags().Int64Var(&grant.MaxTokens, "max-tokens", 0, "the most tokens of one answer; without it: the tenant's")
	limit := func(n *int64, name, what string) {
		c.Flags().Int64Var(n, name, 0, what+" of this key; without it: the tenant's key_limits")
	}
	limit(&grant.Limits.RequestsPerMinute, "requests-per-minute", "requests per minute")
	limit(&grant.Limits.TokensPerMinute, "tokens-per-minute", "tokens per minute")
	limit(&grant.Limits.TokensPerDay, "tokens-per-day", "tokens per day")
	limit(&grant.Limits.TokensPerMonth, "tokens-per-month", "tokens per month")
	limit(&grant.Limits.Concurrent, "concurrent-requests", "requests at the same time")
	return c
}

func listKeysCommand(store func() (auth.KeyFile, error)) *cobra.Command {
	return &cobra.Command{
		Use:     "list -c FILE",
		Aliases: []string{"ls"},
		Short:   "List the keys, without their secrets",
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
			fmt.Fprintln(w, "ID\tTENANT\tNAME\tCREATED\tSTATE\tMAY")
			for _, k := range keys {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Tenant, k.Name, k.Created.Format(time.RFC3339), keyState(k, now), keyGrant(k))
			}
			return w.Flush()
		},
	}
}

// keyGrant is what the key says beyond its tenant.
func keyGrant(k auth.Key) string {
	var parts []string
	if len(k.Models) > 0 {
		parts = append(parts, "models "+strings.Join(k.Models, " "))
	}
	if k.MaxTokens > 0 {
		parts = append(parts, fmt.Sprintf("%d tokens an answer", k.MaxTokens))
	}
	if text := k.Limits.String(); text != "" {
		parts = append(parts, text)
	}
	if parts == nil {
		return "what its tenant may"
	}
	return strings.Join(parts, ", ")
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

func rotateKeyCommand(store func() (auth.KeyFile, error)) *cobra.Command {
	overlap := 24 * time.Hour
	c := &cobra.Command{
		Use:   "rotate -c FILE ID",
		Short: "Make a key in the place of another, which stays valid for a while",
		Long: `Make a key that may do what the one called ID may, and print it on standard output: it is shown this once. The old key expires after the
overlap, so that clients can be changed meanwhile.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			f, err := store()
			if err != nil {
				return err
			}
			if overlap < 0 {
				return usageError{errors.New("--overlap must not be negative")}
			}
			secret, key, err := f.Rotate(args[0], overlap)
			if err != nil {
				return unknownKey(err, args[0])
			}
			fmt.Fprintf(c.ErrOrStderr(), "key %s for tenant %s; it is shown only now. Key %s expires in %s.\n", key.ID, key.Tenant, args[0], overlap)
			_, err = fmt.Fprintln(c.OutOrStdout(), secret)
			return err
		},
	}
	c.Flags().DurationVar(&overlap, "overlap", overlap, "how long the old key stays valid; 0s: not at all")
	return c
}

func unknownKey(err error, id string) error {
	if errors.Is(err, auth.ErrUnknownKey) {
		return fmt.Errorf("%w: %s; 'pilotlight keys list' shows the ids", auth.ErrUnknownKey, id)
	}
	return err
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
				return unknownKey(err, args[0])
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "key %s is revoked\n", args[0])
			return err
		},
	}
}
