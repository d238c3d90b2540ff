package config

import (
	"errors"
	"strings"

	"github.com/dustin/go-humanize"

	"pilotlight/backends"
	"pilotlight/backends/store"
)

// Stored is what the store has of some weights.
type Stored struct {
	Path  string
	Bytes int64
}

// store shows where models are kept, and what is fetched at the start.
func (d *describer) store() {
	if d.config.Store.Path == "" {
		return
	}
	limit := "no limit but the disk"
	if n := d.config.Store.MaxBytes; n > 0 {
		limit = "at most " + humanize.IBytes(uint64(n))
	}
	d.line(0, "store        %s, %s", d.config.Store.Path, limit)
	if d.config.Store.Remote != "" {
		d.line(0, "remote       %s, asked first, and given what is prefetched", d.config.Store.Remote)
	}
	for _, p := range d.config.Prefetch {
		d.line(0, "prefetch     %s%s", described(p.Weights), d.presence(p.Weights, "fetched when the gateway starts"))
	}
}

// weights shows where a model's weights come from, if the store has to do with them.
func (d *describer) weights(m *Model) {
	w := m.Spec.Weights
	if tp := m.Spec.Shard.TP; tp > 0 {
		defer d.line(1, "parts        cut up for --tp-size %d by SGLang, once: by the first start, or pilotlight prefetch --all; loaded with --load-format sharded_state", tp)
	}
	if w.Label() == "" {
		return
	}
	otherwise := "fetched before the first start"
	if m.Spec.Stream {
		d.line(1, "weights      streamed from %s to the device, without a copy on disk", m.Spec.ModelPath)
		d.line(1, "other files  of the same place%s", d.presence(m.Spec.Weights, otherwise))
		return
	}
	switch {
	case w.IfPresent:
		otherwise = "the engine fetches them itself"
	case m.Prefetch:
		otherwise = "fetched when the gateway starts"
	}
	d.line(1, "weights      %s%s", described(w), d.presence(w, otherwise))
}

// presence is where weights are, or else what becomes of that.
func (d *describer) presence(w backends.Weights, otherwise string) string {
	if d.stored == nil {
		return "; if not in the store, " + otherwise
	}
	found, err := d.stored(w)
	switch {
	case err == nil:
		return ": in the store, " + humanize.IBytes(uint64(found.Bytes)) + " at " + found.Path
	case errors.Is(err, store.ErrIncomplete):
		return ": not in the store, " + otherwise
	}
	return ": " + err.Error()
}

// described is what some weights are.
func described(w backends.Weights) string {
	text := w.Label()
	switch {
	case w.Origin == "":
		text = storePrefix + text
	case w.Name != "" && w.Name != w.Origin:
		text = storePrefix + text + ", of " + w.Origin
	}
	if w.Revision != "" {
		text += " at " + maskArgs([]string{w.Revision})[0]
	}
	if len(w.Include) > 0 {
		text += ", only " + strings.Join(w.Include, " ")
	}
	if len(w.Exclude) > 0 {
		text += ", without " + strings.Join(w.Exclude, " ")
	}
	return text
}
