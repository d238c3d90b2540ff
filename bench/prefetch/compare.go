package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// row is one model on one server, and what each client took for it, by round.
type row struct {
	model   model
	limited bool
	seen    map[string][]fetched
}

// result is all that one run saw.
type result struct {
	began time.Time
	load  []string // the machine's load averages over a minute, before and after
	rows  []row
	peaks []peak
}

// peak is the memory of a fetch.
type peak struct {
	bytes int64
	fetched
}

func compare(ctx context.Context, o options) error {
	if o.rounds < 1 || o.limited < 1 || o.free < 1 || o.large < 0 {
		return errors.New("rounds and sizes must be above 0")
	}
	const mib = 1 << 20
	one := func(name string, size int64) model {
		return model{name, fmt.Sprintf("one file of %d MiB", size>>20), []int64{size}}
	}
	many := func(name string, size int64) model {
		m := model{name: name, what: fmt.Sprintf("8 files of %d MiB and 20 of 10 KiB", size>>23)}
		for i := range int64(8) {
			m.sizes = append(m.sizes, size/8+i) // of one size they would be one content
		}
		for i := range int64(20) {
			m.sizes = append(m.sizes, 10<<10+i)
		}
		return m
	}
	r := result{began: time.Now(), rows: []row{
		{model: one("limited-one", o.limited*mib), limited: true},
		{model: many("limited-many", o.limited*mib), limited: true},
		{model: one("free-one", o.free*mib)},
		{model: many("free-many", o.free*mib)},
	}}
	r.load = append(r.load, loadAverage())
	var large []model
	if o.large > 0 {
		large = []model{one("large-eighth", o.large*mib/8), one("large", o.large*mib)}
	}
	limited, free, stop, err := serve(ctx, r.rows, large)
	if err != nil {
		return err
	}
	defer stop()
	if o.profile != "" {
		return inFolder(o.dir, func(dir string) error {
			_, err := command(ctx, os.Args[0], "role", "fetch", free+"/free-one/", dir, "verified", o.profile)
			return err
		})
	}
	for i := range r.rows {
		row := &r.rows[i]
		row.seen = map[string][]fetched{}
		address := free
		if row.limited {
			address = limited
		}
		for range o.rounds {
			for _, c := range clients() {
				if !c.for_(row.model) {
					continue
				}
				if err := inFolder(o.dir, func(dir string) error {
					f, err := c.fetch(ctx, address, row.model, dir)
					row.seen[c.name] = append(row.seen[c.name], f)
					return err
				}); err != nil {
					return err
				}
			}
		}
		fmt.Print(row.table())
	}
	for _, m := range large {
		if err := inFolder(o.dir, func(dir string) error {
			f, err := oursWith("verified")(ctx, free, m, dir)
			r.peaks = append(r.peaks, peak{m.total(), f})
			return err
		}); err != nil {
			return err
		}
	}
	r.load = append(r.load, loadAverage())
	text := r.text(o)
	fmt.Println(text)
	if o.out == "-" {
		return nil
	}
	return insert(filepath.Join(o.out, "RESULTS.md"), text)
}

// loadAverage is how many processes ran or wanted to in the last minute (proc_loadavg(5)): what the figures are worth depends on it.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// inFolder runs f with a fresh folder; what was written before is on disk by then, so that it takes no time of f.
func inFolder(parent string, f func(dir string) error) error {
	dir, err := os.MkdirTemp(parent, "prefetch-")
	if err != nil {
		return err
	}
	syscall.Sync()
	return errors.Join(f(dir), os.RemoveAll(dir))
}

// serve starts the server with all models.
func serve(ctx context.Context, rows []row, large []model) (limited, free string, stop func(), err error) {
	args := []string{"role", "serve"}
	for _, r := range rows {
		args = append(args, r.model.argument())
	}
	for _, m := range large {
		args = append(args, m.argument())
	}
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill() // it holds nothing
		_ = cmd.Wait()
	}
	lines := bufio.NewReader(out)
	for _, address := range []*string{&limited, &free} {
		line, err := lines.ReadString('\n')
		if err != nil {
			stop()
			return "", "", nil, errors.Join(errors.New("the server did not start"), err)
		}
		*address = strings.TrimSpace(line)
	}
	go io.Copy(io.Discard, lines)
	return limited, free, stop, nil
}

// median of seconds.
func median(seen []fetched) float64 {
	var all []float64
	for _, f := range seen {
		all = append(all, f.Seconds)
	}
	slices.Sort(all)
	return (all[len(all)/2] + all[(len(all)-1)/2]) / 2
}
