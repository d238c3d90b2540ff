package flags

import (
	"strings"

	"github.com/agnivade/levenshtein"
)

// Nearest returns the option's name that is a few typing errors away from this one, or nothing.
func (t *Table) Nearest(name string) string { return nearest(name, t.names) }

func nearest(s string, candidates []string) string {
	if len(s) > 100 {
		return "" // no typing error, and the distance takes quadratic time
	}
	best, bestDistance := "", max(1, len(strings.TrimLeft(s, "-"))/3)+1
	for _, candidate := range candidates {
		d := levenshtein.ComputeDistance(strings.ToLower(s), strings.ToLower(candidate))
		if d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}
