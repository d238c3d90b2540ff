package jsonbody

import "slices"

// Edit replaces the bytes from Start to End (exclusive) by Text.
type Edit struct {
	Start, End int
	Text       []byte
}

// Apply appends body to dst with edits made. Edits must be in order and must not overlap; anything else
// is a bug and panics.
func Apply(dst, body []byte, edits []Edit) []byte {
	checkEdits(edits, len(body))
	dst = slices.Grow(dst, Size(body, edits))
	at := 0
	for _, e := range edits {
		dst = append(dst, body[at:e.Start]...)
		dst = append(dst, e.Text...)
		at = e.End
	}
	return append(dst, body[at:]...)
}

// Pieces appends to dst the slices that, one after the other, make body with edits made: what Apply
// gives, without copying a large body.
func Pieces(dst [][]byte, body []byte, edits []Edit) [][]byte {
	checkEdits(edits, len(body))
	at := 0
	for _, e := range edits {
		if at < e.Start {
			dst = append(dst, body[at:e.Start])
		}
		if len(e.Text) > 0 {
			dst = append(dst, e.Text)
		}
		at = e.End
	}
	if at < len(body) {
		dst = append(dst, body[at:])
	}
	return dst
}

// Size is the length in bytes of what Apply gives.
func Size(body []byte, edits []Edit) int {
	n := len(body)
	for _, e := range edits {
		n += len(e.Text) - (e.End - e.Start)
	}
	return n
}

func checkEdits(edits []Edit, size int) {
	at := 0
	for _, e := range edits {
		if e.Start < at || e.End < e.Start || e.End > size {
			panic("BUG: edits of a body overlap, are out of order or lie outside of it")
		}
		at = e.End
	}
}

// Patch collects changes to the top-level members of a scanned body. Use Reset to begin, and again for
// the next body: it keeps its memory.
type Patch struct {
	f       *Fields
	deleted [numKeys]bool
	changed [numKeys]bool
	changes []Edit
	front   []byte // members to insert, joined by commas
	text    []byte // what SetString wrote; changes keep referring to it when it moves
	edits   []Edit
}

// Reset forgets all changes and begins a patch of the body that f describes.
func (p *Patch) Reset(f *Fields) {
	clear(p.changes)
	clear(p.edits)
	*p = Patch{f: f, changes: p.changes[:0], front: p.front[:0], text: p.text[:0], edits: p.edits[:0]}
}

// Delete drops a member; nothing happens when the body has none, or when the patch sets it.
func (p *Patch) Delete(k Key) {
	p.deleted[k] = p.f.Has(k) && !p.changed[k]
}

// DeleteReserved drops all members that only the gateway may set.
func (p *Patch) DeleteReserved() {
	for _, k := range reserved {
		p.Delete(k)
	}
}

// Set gives a member the value that is written in raw, which must be JSON and must not change before the
// patch is applied: it replaces the body's own value, or becomes a new first member. A key that is set
// twice, or set after a part of its value was changed, is a bug and panics. Set wins over Delete.
func (p *Patch) Set(k Key, raw []byte) {
	p.once(k)
	if m := &p.f.members[k]; m.Kind != Absent {
		p.changes = append(p.changes, Edit{m.Start, m.End, raw})
		return
	}
	p.insert(k, raw)
}

// SetString is Set with the text of a string.
func (p *Patch) SetString(k Key, text string) {
	from := len(p.text)
	p.text = AppendString(p.text, text)
	p.Set(k, p.text[from:])
}

// SetBytes is SetString for text in bytes, which may change afterwards.
func (p *Patch) SetBytes(k Key, text []byte) {
	from := len(p.text)
	p.text = AppendString(p.text, text)
	p.Set(k, p.text[from:])
}

// What IncludeUsage writes; never changed.
var (
	usageOptions = []byte(`{"include_usage":true}`)
	usageMember  = []byte(`"include_usage":true,`)
	trueLiteral  = []byte("true")
)

// IncludeUsage makes stream_options ask for the usage chunk and leaves its other members as they are.
// Nothing happens when it asks already, or is neither an object nor null (the engine will refuse that).
func (p *Patch) IncludeUsage() {
	m := p.f.Get(StreamOptions)
	switch m.Kind {
	case Absent, Null:
		p.Set(StreamOptions, usageOptions)
	case Object:
		raw := p.f.Raw(StreamOptions)
		edit := Edit{Start: m.Start + 1, End: m.Start + 1, Text: usageMember}
		if v, ok := locateLast(raw, "include_usage"); ok {
			if v.Kind == True {
				return
			}
			edit = Edit{Start: m.Start + v.Start, End: m.Start + v.End, Text: trueLiteral}
		} else if raw[skipSpace(raw, 1)] == '}' {
			edit.Text = usageMember[:len(usageMember)-1] // no comma
		}
		p.once(StreamOptions)
		p.changes = append(p.changes, edit)
	}
}

func (p *Patch) once(k Key) {
	if p.changed[k] {
		panic("BUG: the member " + k.String() + " is changed twice")
	}
	p.changed[k], p.deleted[k] = true, false
}

func (p *Patch) insert(k Key, raw []byte) { p.insertNamed(k.String(), raw) }

func (p *Patch) insertNamed(name string, raw []byte) {
	if len(p.front) > 0 {
		p.front = append(p.front, ',')
	}
	p.front = AppendString(p.front, name)
	p.front = append(p.front, ':')
	p.front = append(p.front, raw...)
}

// Edits gives the changes as edits of the body, in order. They are valid until Reset.
func (p *Patch) Edits() []Edit {
	p.edits = p.edits[:0]
	gone := 0
	for k, deleted := range p.deleted {
		if deleted {
			p.edits = append(p.edits, Edit{Start: k}) // the key, for now
			gone++
		}
	}
	p.joinDeletions()
	p.edits = append(p.edits, p.changes...)
	if len(p.front) > 0 {
		text := p.front
		if p.f.count > gone {
			text = append(text, ',')
			p.front = text[:len(p.front)]
		}
		p.edits = append(p.edits, Edit{Start: p.f.open + 1, End: p.f.open + 1, Text: text})
	}
	slices.SortFunc(p.edits, func(a, b Edit) int {
		if a.Start != b.Start {
			return a.Start - b.Start
		}
		return a.End - b.End // the insertion before a deletion at the same place
	})
	return p.edits
}

// joinDeletions turns the keys in p.edits into deletions. Neighbours become one deletion that takes one
// comma more than lies between them: the one behind, or at the object's end the one before.
func (p *Patch) joinDeletions() {
	member := func(e Edit) *Member { return &p.f.members[e.Start] }
	slices.SortFunc(p.edits, func(a, b Edit) int { return member(a).KeyStart - member(b).KeyStart })
	n := 0
	for i := 0; i < len(p.edits); {
		first := member(p.edits[i])
		last := first
		for i++; i < len(p.edits) && member(p.edits[i]).Before == last.After; i++ {
			last = member(p.edits[i])
		}
		cut := Edit{Start: first.KeyStart, End: last.End}
		switch {
		case p.f.body[last.After] == ',':
			cut.End = last.After + 1
		case p.f.body[first.Before] == ',':
			cut.Start = first.Before
		}
		p.edits[n] = cut
		n++
	}
	p.edits = p.edits[:n]
}

// AppendTo appends the changed body to dst.
func (p *Patch) AppendTo(dst []byte) []byte {
	return Apply(dst, p.f.body, p.Edits())
}
