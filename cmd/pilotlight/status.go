package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"pilotlight/internal/app"
)

func statusCommand() *cobra.Command {
	var admin adminFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "status [-c FILE | --admin URL]",
		Short: "Show a running gateway's models, replicas and queues",
		Long: `Show a running gateway's models, replicas and queues, and why a model's last start failed.
Exit status: 0 when the gateway has answered, 1 when it has not, 2 for a wrong command line or configuration.`,
		RunE: func(c *cobra.Command, _ []string) error {
			url, body, err := admin.ask(c.Context(), http.MethodGet, "/api/state")
			if err != nil {
				return err
			}
			if asJSON {
				_, err := c.OutOrStdout().Write(append(body, '\n'))
				return err
			}
			var state app.State
			if err := json.Unmarshal(body, &state); err != nil {
				return fmt.Errorf("%s did not answer as a Pilotlight admin listener does: %w", url, err)
			}
			return printState(c.OutOrStdout(), &state, time.Now())
		},
	}
	admin.add(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print the state as JSON")
	return c
}

func printState(w io.Writer, s *app.State, now time.Time) error {
	fmt.Fprintf(w, "pilotlight %s, up %s, %s, %d client connections\n", s.Version, since(s.Started, now), s.BaseURL, s.Clients)
	fmt.Fprintf(w, "configuration %s, loaded %s ago\n", s.Config.File, since(s.Config.Loaded, now))
	if s.Config.Error != "" {
		fmt.Fprintf(w, "  the file's present version is NOT in force:\n    %s\n", strings.ReplaceAll(s.Config.Error, "\n", "\n    "))
	}
	for _, setting := range s.Config.NeedsRestart {
		fmt.Fprintf(w, "  %s has changed and waits for a restart\n", setting)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MODEL\tSTATE\tREPLICAS\tIN FLIGHT\tQUEUE\tETA\tSTARTS\tFAILED\tCRASHES\tEVICTIONS")
	for _, m := range s.Models {
		flying, ready := 0, 0
		for _, r := range m.Replicas {
			flying += r.InFlight
			if r.State == "ready" {
				ready++
			}
		}
		state, eta := m.State, "-"
		if m.Leaving {
			state += " (leaving)"
		}
		if m.ETASeconds > 0 {
			eta = seconds(m.ETASeconds)
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%s\t%d\t%d\t%d\t%d\n", m.ModelID, state, ready, flying, m.QueuedRequests, eta,
			m.Starts, m.StartFailures, m.Crashes, m.Evictions)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, d := range s.Devices {
		fmt.Fprintln(w, deviceLine(&d, now))
	}
	for _, p := range s.Prefetch {
		fmt.Fprintln(w, prefetchLine(&p, now))
	}
	for _, m := range s.Models {
		for _, r := range m.Replicas {
			line := fmt.Sprintf("%s replica %d: %s for %s", m.ModelID, r.ID, r.State, since(r.Since, now))
			if r.Reason != "" {
				line += ", " + r.Reason
			} else if r.State == "asleep" {
				if r.Phase != "" {
					line += ", " + r.Phase
				}
				if r.Freed > 0 {
					line += ", " + humanize.IBytes(uint64(r.Freed)) + " of GPU memory given back"
				}
			} else if r.Phase != "" {
				line += fmt.Sprintf(", phase %s, %.0f %%", r.Phase, r.Percent)
				if r.Detail != "" {
					line += ", " + r.Detail
				}
				if r.ETA > 0 {
					line += ", ready in about " + seconds(r.ETA)
				}
			}
			if r.PID != 0 {
				line += fmt.Sprintf(", pid %d at %s, %d of %d places taken", r.PID, r.Addr, r.InFlight, r.Limit)
			} else if r.Addr != "" {
				line += fmt.Sprintf(", %s, %d of %d places taken", r.Addr, r.InFlight, r.Limit)
			}
			if r.Unknown {
				line += ", requests of the gateway before may be in flight"
			}
			fmt.Fprintln(w, line)
		}
		if d := m.Scaling; d != nil {
			unit := "requests in flight"
			if d.Metric == "request_rate" {
				unit = "requests per second"
			}
			fmt.Fprintf(w, "%s wants %d (%s): a load of %.3g %s, %.3g for each replica\n", m.ModelID, d.Want, d.Reason, d.Load, unit, d.Target)
		}
		if m.Sleepless {
			fmt.Fprintf(w, "%s is not put to sleep any more: it went wrong twice in a row\n", m.ModelID)
		}
		if slow := m.Slow; slow != nil {
			fmt.Fprintf(w, "%s: %s\n", m.ModelID, slow.Text)
			if slow.Remedy != "" {
				fmt.Fprintf(w, "  advice: %s\n", slow.Remedy)
			}
		}
		if f := m.RolledBack; f != nil {
			fmt.Fprintf(w, "%s is NOT as configured: no replica of the changed model became ready, so it stays as it was before (%s ago)\n", m.ModelID, since(f.At, now))
			fmt.Fprintf(w, "  %s: %s\n", f.Class, f.Message)
			if f.Advice != "" {
				fmt.Fprintf(w, "  advice: %s\n", f.Advice)
			}
			fmt.Fprintf(w, "  it is tried again when its configuration changes, or by: pilotlight retry %s\n", m.ModelID)
			for _, l := range f.Lines {
				fmt.Fprintf(w, "  | %s\n", l)
			}
		}
		if f := m.Failure; f != nil {
			fmt.Fprintf(w, "%s failed %s ago (%s): %s\n", m.ModelID, since(f.At, now), f.Class, f.Message)
			if f.Advice != "" {
				fmt.Fprintf(w, "  advice: %s\n", f.Advice)
			}
			if f.Permanent {
				fmt.Fprintf(w, "  it is not tried again until its configuration changes, or by: pilotlight retry %s\n", m.ModelID)
			} else if f.RetryAt != nil && f.RetryAt.After(now) {
				fmt.Fprintf(w, "  it is not tried again for %s, or by: pilotlight retry %s\n", since(now, *f.RetryAt), m.ModelID)
			}
			for _, l := range f.Lines {
				fmt.Fprintf(w, "  | %s\n", l)
			}
		}
	}
	return nil
}

// prefetchLine says how far a model of the configuration's is on its way into the store.
func prefetchLine(p *app.PrefetchState, now time.Time) string {
	line := "prefetch " + p.Name + ": " + p.State
	if p.State == "downloading" {
		line += fmt.Sprintf(", %.0f %%", p.Percent)
	}
	if p.Detail != "" {
		line += ", " + p.Detail
	}
	if f := p.Failure; f != nil {
		line += fmt.Sprintf(", failed %s ago (%s): %s", since(f.At, now), f.Class, f.Message)
		if f.RetryAt != nil && f.RetryAt.After(now) {
			line += "; tried again in " + since(now, *f.RetryAt)
		}
		if f.Advice != "" {
			line += "\n  advice: " + f.Advice
		}
	}
	return line
}

// deviceLine says who holds a GPU.
func deviceLine(d *app.DeviceState, now time.Time) string {
	var holders []string
	for _, h := range d.Holders {
		text := fmt.Sprintf("%s replica %d", h.Model, h.Replica)
		if h.Share < 1 {
			text += fmt.Sprintf(" (%g)", h.Share)
		}
		if h.Leaving {
			text += ", leaving"
		}
		holders = append(holders, text)
	}
	line := "GPU " + strings.TrimPrefix(d.Label, "GPU ") + ": "
	switch {
	case d.State != "usable":
		line += fmt.Sprintf("%s for %s", d.State, since(d.Since, now))
		if d.Problem != "" {
			line += ", " + d.Problem
		}
		if len(holders) > 0 {
			line += "; held by " + strings.Join(holders, ", ")
		}
	case len(holders) > 0:
		line += "held by " + strings.Join(holders, ", ")
	default:
		line += "free"
	}
	return line
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Second).String()
}

func since(t, now time.Time) string { return now.Sub(t).Round(time.Second).String() }
