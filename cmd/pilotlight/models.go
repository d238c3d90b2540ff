package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"pilotlight/backends/store"
)

func modelsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "models",
		Short: "Show, verify and remove the models of the store",
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(modelsListCommand(), modelsVerifyCommand(), modelsRemoveCommand(), modelsCollectCommand())
	return c
}

func modelsListCommand() *cobra.Command {
	var where storeFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "ls [-c FILE | --store PATH]",
		Short: "List the store's models: size, last use, users",
		RunE: func(c *cobra.Command, _ []string) error {
			s, _, err := where.open(nil)
			if err != nil {
				return err
			}
			models, err := s.Models()
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(models)
			}
			return printModels(c.OutOrStdout(), models, time.Now())
		},
	}
	where.add(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printModels(w io.Writer, models []store.Model, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MODEL\tSIZE\tLAST USED\tREVISIONS\tNAMES\tUSED BY")
	total := int64(0)
	for _, m := range models {
		total += m.Bytes
		size := humanize.Bytes(uint64(m.Bytes))
		if m.Unfinished > 0 {
			size += " (" + humanize.Bytes(uint64(m.Unfinished)) + " unfinished)"
		}
		var revisions, names, users []string
		for _, r := range m.Revisions {
			text := r.Commit[:12]
			if len(r.Refs) > 0 {
				text = strings.Join(r.Refs, " ") + "=" + text
			}
			if !r.Whole {
				text += " (not whole)"
			}
			revisions = append(revisions, text)
		}
		for _, a := range m.Artefacts {
			names = append(names, a.Name)
		}
		for _, u := range m.Users {
			users = append(users, fmt.Sprintf("%s (pid %d)", u.Who, u.PID))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", m.Repo, size, humanize.RelTime(m.LastUsed, now, "ago", "from now"),
			orDash(revisions), orDash(names), orDash(users))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	plural := "s"
	if len(models) == 1 {
		plural = ""
	}
	_, err := fmt.Fprintf(w, "%d model%s, %s\n", len(models), plural, humanize.Bytes(uint64(total)))
	return err
}

func orDash(list []string) string {
	if len(list) == 0 {
		return "-"
	}
	return strings.Join(list, ", ")
}

func modelsVerifyCommand() *cobra.Command {
	var where storeFlags
	var discard bool
	c := &cobra.Command{
		Use:   "verify [MODEL...] [--discard] [-c FILE | --store PATH]",
		Short: "Read the store's files again and compare them with their hashes",
		Long: `Read the files of models again, of all their revisions, and compare them with the hashes that their source listed. MODEL is as "models ls" shows it, or
one of its NAMES; without one, all are read. Nobody is asked, and nothing is changed: with --discard, damaged contents are taken away, so that the next
prefetch or start fetches them again. Exit status: 0 when all is right, 1 when something is not, 2 for a wrong command line.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			s, _, err := where.open(nil)
			if err != nil {
				return err
			}
			models, err := s.Models()
			if err != nil {
				return err
			}
			wanted := map[string]bool{}
			for _, name := range args {
				repo, err := repoOf(s, name)
				if err != nil {
					return err
				}
				if !slices.ContainsFunc(models, func(m store.Model) bool { return m.Repo == repo }) {
					return fmt.Errorf("%s is not in the store", name)
				}
				wanted[repo] = true
			}
			bad := 0
			for _, m := range models {
				for _, r := range m.Revisions {
					if len(args) > 0 && !wanted[m.Repo] {
						continue
					}
					ok, err := verifyRevision(ctx, s, m, r, discard, c.OutOrStdout(), c.ErrOrStderr())
					if err != nil {
						return err
					}
					if !ok {
						bad++
					}
				}
			}
			if bad > 0 {
				return fmt.Errorf("%d revisions are not as they should be", bad)
			}
			return nil
		},
	}
	where.add(c)
	c.Flags().BoolVar(&discard, "discard", false, "take damaged contents away, to be fetched again")
	return c
}

// verifyRevision reads one revision: the files of what was fetched by a name, else all.
func verifyRevision(ctx context.Context, s *store.Store, m store.Model, r store.Revision, discard bool, stdout, stderr io.Writer) (ok bool, err error) {
	filter := store.Filter{}
	for _, a := range m.Artefacts {
		if a.Commit == r.Commit {
			filter = a.Filter()
		}
	}
	label := m.Repo + " " + r.Commit[:12]
	bar := newBar(stderr, label)
	report, err := s.Verify(ctx, m.Repo, r.Commit, filter, bar.show)
	bar.end()
	if errors.Is(err, store.ErrIncomplete) {
		_, err := fmt.Fprintf(stdout, "%s: not whole\n", label)
		return false, err
	} else if err != nil {
		return false, err
	}
	for _, p := range report.Problems {
		fmt.Fprintf(stdout, "%s: %s is %s: %s\n", label, p.Path, p.Fault, p.Detail)
	}
	for _, name := range report.Unchecked {
		fmt.Fprintf(stdout, "%s: %s is there; no hash is known to compare it with\n", label, name)
	}
	if report.OK() {
		_, err := fmt.Fprintf(stdout, "%s: %d files are right, %s were read\n", label, report.Files-len(report.Unchecked), humanize.Bytes(uint64(report.Bytes)))
		return true, err
	}
	if discard {
		n, err := s.Discard(ctx, report)
		if err != nil {
			return false, err
		}
		fmt.Fprintf(stdout, "%s: %d damaged contents were taken away\n", label, n)
	}
	return false, nil
}

func modelsRemoveCommand() *cobra.Command {
	var where storeFlags
	c := &cobra.Command{
		Use:   "rm MODEL... [-c FILE | --store PATH]",
		Short: "Remove models from the store, with all their revisions",
		Long: `Remove models from the store, with all their revisions and downloads that are not finished. MODEL is as "models ls" shows it, or one of its NAMES.
A model that a replica or a download needs, of whichever process, is left. Exit status: 0 when all are gone, 1 when one is not, 2 for a wrong command line.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, _, err := where.open(nil)
			if err != nil {
				return err
			}
			var errs []error
			for _, name := range args {
				repo, err := repoOf(s, name)
				if err == nil {
					var freed int64
					if freed, err = s.Remove(c.Context(), repo); err == nil {
						fmt.Fprintf(c.OutOrStdout(), "%s: removed, %s\n", repo, humanize.Bytes(uint64(freed)))
					}
				}
				errs = append(errs, err)
			}
			return errors.Join(errs...)
		},
	}
	where.add(c)
	return c
}

// repoOf is the model that a name stands for.
func repoOf(s *store.Store, name string) (string, error) {
	a, err := s.Lookup(name)
	switch {
	case err == nil:
		return a.Repo, nil
	case errors.Is(err, store.ErrIncomplete):
		return name, nil
	}
	return "", usageError{err}
}

func modelsCollectCommand() *cobra.Command {
	var where storeFlags
	var age time.Duration
	var dry bool
	c := &cobra.Command{
		Use:   "gc [--older-than AGE] [--dry-run] [-c FILE | --store PATH]",
		Short: "Remove what nobody will need: abandoned downloads, revisions without a name",
		Long: `Remove from models that Pilotlight fetched or served, and that nobody uses at the moment: downloads and contents that belong to no revision and were
not touched for AGE, and revisions that no branch, tag or name stands for any more.`,
		RunE: func(c *cobra.Command, _ []string) error {
			s, _, err := where.open(slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			found, err := s.Collect(c.Context(), age, dry)
			total, did := int64(0), "removed"
			if dry {
				did = "would be removed"
			}
			for _, g := range found {
				total += g.Bytes
				fmt.Fprintf(c.OutOrStdout(), "%s: %s %s, %s\n", g.Repo, g.What, g.Name, humanize.Bytes(uint64(g.Bytes)))
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s %s\n", humanize.Bytes(uint64(total)), did)
			return err
		},
	}
	where.add(c)
	c.Flags().DurationVar(&age, "older-than", 7*24*time.Hour, "the `AGE` from which on a download counts as abandoned")
	c.Flags().BoolVar(&dry, "dry-run", false, "only say what would be removed")
	return c
}
