package weights

import (
	"fmt"

	"github.com/dustin/go-humanize"

	"pilotlight/backends/store"
)

// Detail is a download's progress in words, without the percentage: "1.2 GB of 4.1 GB, 85 MB/s, 34s left".
func Detail(p store.Progress) string {
	switch {
	case p.Phase == store.Asking:
		return "asking what there is"
	case p.Phase == store.Publishing || p.Phase == store.Finished || p.Bytes == 0:
		return ""
	}
	text := humanize.Bytes(uint64(p.BytesDone)) + " of " + humanize.Bytes(uint64(p.Bytes))
	if p.Rate > 0 {
		text += ", " + humanize.Bytes(uint64(p.Rate)) + "/s"
	}
	if p.ETA > 0 {
		text += fmt.Sprintf(", %s left", p.ETA)
	}
	if p.Elsewhere > 0 {
		text += ", in part by another process"
	}
	return text
}
