package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
)

// Between these lines lies what this program has written into a file that others write, too.
const (
	begin = "<!-- begin: routing -->"
	end   = "<!-- end: routing -->"
)

// mean is a workload at a subject over all seeds.
type mean struct {
	workload, subject    string
	n, requests, failed  int
	hits, p50, p95, skew float64
	ratios               []float64 // p95 over round robin's, by seed
}

// means are the results over all seeds, in the order of their first.
func means(all []result) []mean {
	var out []mean
	robin := map[string]float64{}
	for _, r := range all {
		if r.Subject == "round robin" {
			robin[fmt.Sprint(r.Workload, r.Seed)] = r.P95
		}
		i := slices.IndexFunc(out, func(m mean) bool { return m.workload == r.Workload && m.subject == r.Subject })
		if i < 0 {
			i = len(out)
			out = append(out, mean{workload: r.Workload, subject: r.Subject})
		}
		m := &out[i]
		m.n++
		m.requests += r.Requests
		m.failed += r.Failed
		m.hits += r.Hits
		m.p50 += r.P50
		m.p95 += r.P95
		m.skew += r.Skew
		if base := robin[fmt.Sprint(r.Workload, r.Seed)]; base > 0 {
			m.ratios = append(m.ratios, r.P95/base)
		}
	}
	for i := range out {
		m := &out[i]
		n := float64(m.n)
		m.hits, m.p50, m.p95, m.skew = m.hits/n, m.p50/n, m.p95/n, m.skew/n
	}
	return out
}

// table is the report in Markdown.
func table(all []result, p *parameters, version, command string) string {
	var b strings.Builder
	b.WriteString("## Choosing among replicas\n")
	fmt.Fprintf(&b, "\nBy `%s`, with %s on %d cores: %d simulated replicas, each computing %.0f prompt tokens a second, one prompt after the other, with a cache of %d tokens; %d tokens of answer, %s apart. "+
		"Requests arrive for %s, as many as would keep %.0f %% of the fleet busy if nothing were cached. Each pair of workload and subject begins with empty caches. Time to the first token in seconds, as clients see it; "+
		"means over seeds, and the range of the seeds' p95 over round robin's.", strings.TrimSpace(command), runtime.Version(), runtime.NumCPU(), p.replicas, p.prefill, p.cache, p.output, p.itl, p.length, 100*p.load)
	if version != "" {
		fmt.Fprintf(&b, " smg is %s.", version)
	}
	b.WriteString("\n\n| workload | who chooses | requests | failed | prompt tokens cached | first token p50 | p95 | p95 over round robin's | busiest replica over the mean |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, m := range means(all) {
		ratio := "–"
		if len(m.ratios) > 0 {
			ratio = fmt.Sprintf("%.2f to %.2f", slices.Min(m.ratios), slices.Max(m.ratios))
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %.0f %% | %.3f | %.3f | %s | %.2f |\n", m.workload, m.subject, m.requests, m.failed, 100*m.hits, m.p50, m.p95, ratio, m.skew)
	}
	b.WriteString("\n")
	for i := range workloads {
		fmt.Fprintf(&b, "- %s.\n", workloads[i].describe())
	}
	return b.String()
}

// insert puts the report into a file: in the place of an earlier one, else at its end.
func insert(file, report string) error {
	old, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	before, rest, found := strings.Cut(string(old), begin)
	after := "\n"
	if found {
		if _, after, found = strings.Cut(rest, end); !found {
			return fmt.Errorf("%s: %s without %s", file, begin, end)
		}
	} else {
		before = strings.TrimRight(before, "\n") + "\n\n"
	}
	return os.WriteFile(file, []byte(before+begin+"\n\n"+strings.TrimSpace(report)+"\n\n"+end+after), 0o644)
}
