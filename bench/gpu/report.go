package main

import (
	"fmt"
	"io"
	"strings"
)

// writeReport writes results as a page. It holds what was measured and nothing else.
func writeReport(w io.Writer, results []result) error {
	var b strings.Builder
	b.WriteString("# With SGLang on a GPU\n\n")
	b.WriteString("What `bench/gpu` has seen with real engines: the built gateway, SGLang as a process of the same machine, an official client. Each table is one scene,\n" +
		"with one row for each step; times are from one run. The simulator plays the same scenes in `go test ./bench/gpu`. To repeat a scene on a machine with SGLang and a GPU:\n\n" +
		"```sh\nCGO_ENABLED=0 go build -o . ./cmd/pilotlight ./bench/gpu\nBIN=. PYTHON=python3 MODEL=/models/SmolLM2-135M-Instruct bench/gpu/run.sh results cold\n./gpu -report results > docs/gpu.md\n```\n")
	var starts []string
	for _, r := range results {
		for _, s := range r.Steps {
			f := map[string]figure{}
			for _, v := range s.Figures {
				f[v.Name] = v
			}
			if gateway, ok := f["of it the gateway"]; ok {
				starts = append(starts, fmt.Sprintf("| %s: %s | %s | %s | %s | %s |\n", r.Scene, s.Name,
					value(f["engine ready after"]), value(f["ready to first byte"]), value(f["of it the engine"]), value(gateway)))
			}
		}
	}
	if len(starts) > 0 {
		b.WriteString("\n## The gateway's share of cold starts\n\nFrom the moment that the engine says it is ready, asked every 5 ms beside the gateway, to the first byte that the waiting client reads. " +
			"The engine's part is from the request's dispatch to its first byte.\n\n" +
			"| start | engine ready after | ready to first byte | engine's part | gateway's part |\n|---|---|---|---|---|\n")
		b.WriteString(strings.Join(starts, ""))
	}
	for _, r := range results {
		verdict := "all steps held"
		if !r.Passed {
			verdict = "not all steps held"
		}
		fmt.Fprintf(&b, "\n## %s: %s\n\n%s in %.0f s, %s. %s. %s. Model: %s.\n\n", r.Scene, about(r.Scene), strings.ToUpper(verdict[:1])+verdict[1:], r.Seconds,
			r.Began.Format("2006-01-02"), r.Machine.text(), r.Versions.text(), r.Model)
		b.WriteString("| step | held | seconds | seen |\n|---|---|---|---|\n")
		for _, s := range r.Steps {
			held, facts := "yes", s.facts()
			if !s.OK {
				held, facts = "**no**", strings.Trim(facts+"; "+s.Error, "; ")
			}
			fmt.Fprintf(&b, "| %s | %s | %.1f | %s |\n", s.Name, held, s.Seconds, cell(facts))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// value is a figure without its name; nothing for one that was not measured.
func value(f figure) string {
	return strings.TrimSpace(strings.TrimPrefix(f.text(), f.Name))
}

func about(name string) string {
	s, err := find(name)
	if err != nil {
		return ""
	}
	return s.about
}

// cell is a text that does not break its table.
func cell(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > 1200 {
		text = string(runes[:1200]) + "…"
	}
	return strings.NewReplacer("|", "\\|", "<", "&lt;").Replace(text)
}
