package process

import (
	"os"
	"strconv"
	"strings"
)

// LastID is the largest id of a replica of model that left a log or a record in the state folder; 0 if none did. Larger
// ones name no file that exists.
func (d *Driver) LastID(model string) (last uint64) {
	for _, dir := range []string{d.logDir(), d.recordDir()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // New has made it; a folder that vanished since holds no ids
		}
		for _, e := range entries {
			name, ok := strings.CutPrefix(e.Name(), model+"-")
			if !ok {
				continue
			}
			name, _, _ = strings.Cut(name, ".")
			if id, err := strconv.ParseUint(name, 10, 64); err == nil {
				last = max(last, id)
			}
		}
	}
	return last
}
