package jsonbody

// Parameter is a top-level member that the gateway gives a request's body.
type Parameter struct {
	Name string
	Raw  []byte // its value in JSON; never changed
	// Override replaces what the client has written. Otherwise the value counts where the client has written none, or null.
	Override bool
	// Unless names a member that says the same in other words: a default counts only where that is absent, too. Empty: there is none.
	Unless string
}

// Parameters gives the body these members. It takes one pass over the body's top level, and looks into no value. A Name is one that no other change
// of the patch concerns, and comes once. A member that the body has twice is changed wherever it stands, since parsers differ in which
// one counts.
func (p *Patch) Parameters(list []Parameter) {
	const most = 64
	var given, absent [most]bool
	list = list[:min(len(list), most)]
	doc := p.f.body
	for i := p.f.open; ; {
		keyStart := skipSpace(doc, i+1)
		if keyStart >= len(doc) || doc[keyStart] != '"' {
			break // an empty object
		}
		keyEnd := passString(doc, keyStart+1)
		if keyEnd < 0 {
			break
		}
		key := doc[keyStart+1 : keyEnd-1]
		start := skipSpace(doc, skipSpace(doc, keyEnd)+1)
		end, kind := passValue(doc, start)
		if kind == Absent {
			break
		}
		for k := range list {
			q := &list[k]
			if q.Unless != "" && kind != Null && equalKey(key, q.Unless) {
				absent[k] = true
			}
			if !equalKey(key, q.Name) {
				continue
			}
			given[k] = true
			if q.Override || kind == Null {
				p.changes = append(p.changes, Edit{start, end, q.Raw})
			}
		}
		if i = skipSpace(doc, end); i >= len(doc) || doc[i] != ',' {
			break
		}
	}
	for k := range list {
		q := &list[k]
		if given[k] || absent[k] && !q.Override {
			continue
		}
		p.insertNamed(q.Name, q.Raw)
	}
}
