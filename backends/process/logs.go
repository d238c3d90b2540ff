package process

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

func (d *Driver) logPath(name string) string { return filepath.Join(d.logDir(), name+".log") }

// openLog makes the file that an engine appends to, mode 0600: its first line shows the API key. A log of
// the same name, from before a restart of the gateway, takes the place of its predecessor.
func openLog(path string) (*os.File, error) {
	if err := os.Rename(path, path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("engine log: %w", err)
	}
	// O_APPEND is what lets us truncate it under the writer.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("engine log: %w", err)
	}
	return f, nil
}

// pruneLogs keeps a model's last logs, and those of its living replicas whatever their age.
func (d *Driver) pruneLogs(model string) error {
	entries, err := os.ReadDir(d.logDir())
	if err != nil {
		return fmt.Errorf("engine logs: %w", err)
	}
	type log struct {
		path  string
		mtime time.Time
	}
	// Anchored, because "a-1" is a model's name as well as the log of the first replica of model "a".
	own := regexp.MustCompile(`^(` + regexp.QuoteMeta(model) + `-\d+)\.log$`)
	var logs []log
	for _, entry := range entries {
		m := own.FindStringSubmatch(entry.Name())
		if m == nil || d.alive(m[1]) {
			continue
		}
		info, err := entry.Info()
		if err != nil {
			continue // pruned by another launch
		}
		logs = append(logs, log{d.logPath(m[1]), info.ModTime()})
	}
	slices.SortFunc(logs, func(a, b log) int {
		return cmp.Or(b.mtime.Compare(a.mtime), cmp.Compare(b.path, a.path))
	})
	var problems error
	for _, old := range logs[min(len(logs), keptLogs-1):] { // one more is about to come
		for _, path := range []string{old.path, old.path + ".1"} {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				problems = errors.Join(problems, err)
			}
		}
	}
	return problems
}
