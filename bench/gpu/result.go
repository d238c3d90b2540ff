package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// result is what playing a scene has shown.
type result struct {
	Scene    string        `json:"scene"`
	Passed   bool          `json:"passed"` // all steps were done and held
	Began    time.Time     `json:"began"`
	Seconds  float64       `json:"seconds"`
	Machine  machineText   `json:"machine"`
	Versions versionsText  `json:"versions"`
	Model    string        `json:"model"` // name of its folder
	Steps    []*stepResult `json:"steps"`
}

type stepResult struct {
	Name    string   `json:"name"`
	OK      bool     `json:"ok"`
	Seconds float64  `json:"seconds"`
	Error   string   `json:"error,omitempty"`
	Figures []figure `json:"figures,omitempty"`
	Notes   []string `json:"notes,omitempty"`
}

// figure is one measured value.
type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"` // "s", "MiB"; empty for counts
}

func (f figure) text() string {
	switch {
	case f.Unit == "s" && f.Value < 1:
		return fmt.Sprintf("%s %.1f ms", f.Name, f.Value*1000)
	case f.Unit == "s":
		return fmt.Sprintf("%s %.2f s", f.Name, f.Value)
	}
	return strings.TrimSpace(fmt.Sprintf("%s %.0f %s", f.Name, f.Value, f.Unit))
}

// facts are figures and notes in one line.
func (s *stepResult) facts() string {
	var parts []string
	for _, f := range s.Figures {
		parts = append(parts, f.text())
	}
	return strings.Join(append(parts, s.Notes...), "; ")
}

// text is the step in one line of progress.
func (s *stepResult) text() string {
	word := "ok"
	if !s.OK {
		word = "FAILED"
	}
	out := fmt.Sprintf("%s  %s (%.2f s)", word, s.Name, s.Seconds)
	if facts := s.facts(); facts != "" {
		out += ": " + facts
	}
	if s.Error != "" {
		out += "\n        " + strings.ReplaceAll(s.Error, "\n", "\n        ")
	}
	return out
}

// judge settles Passed: so many steps, all good.
func (r *result) judge(steps int) {
	r.Passed = len(r.Steps) == steps
	for _, s := range r.Steps {
		r.Passed = r.Passed && s.OK
	}
}

// write leaves the result in dir, under the scene's name.
func (r *result) write(dir string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, r.Scene+".json"), append(text, '\n'), 0o600)
}

// readResults reads what write has left, in the order of scenes.
func readResults(dir string) ([]result, error) {
	var out []result
	for _, s := range scenes {
		text, err := os.ReadFile(filepath.Join(dir, s.name+".json"))
		if os.IsNotExist(err) {
			continue
		}
		var r result
		if err == nil {
			err = json.Unmarshal(text, &r)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		out = append(out, r)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no results in %s", dir)
	}
	return out, nil
}
