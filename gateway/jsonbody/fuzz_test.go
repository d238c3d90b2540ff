package jsonbody

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"unicode/utf8"
)

func seedBodies(f *testing.F) {
	for _, c := range scanCases {
		if len(c.body) < 4<<10 {
			f.Add([]byte(c.body))
		}
	}
}

// Scan accepts exactly what the reference accepts, and reads the same members from it.
func FuzzScan(f *testing.F) {
	seedBodies(f)
	f.Fuzz(checkScan)
}

// Bodies of the table with a few bytes changed, which reach the grammar's corners faster than a fuzzer.
func TestScanOfDamagedBodies(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	const alphabet = "\"\"\\\\{}[]::,, \n0123456789-+.eEtruefalsn\x00\x1F\x7F\x80\xBF\xC3\xA9\xED\xA0\xF0\x9F\xFFu0dD8cC"
	for _, c := range scanCases {
		if len(c.body) > 1<<10 {
			continue
		}
		for range 200 {
			body := []byte(c.body)
			for range 1 + rnd.IntN(3) {
				at := rnd.IntN(len(body) + 1)
				fresh := alphabet[rnd.IntN(len(alphabet))]
				switch {
				case rnd.IntN(3) == 0 || at == len(body):
					body = slices.Insert(body, at, fresh)
				case rnd.IntN(2) == 0:
					body = slices.Delete(body, at, at+1)
				default:
					body[at] = fresh
				}
			}
			if checkScan(t, body); t.Failed() {
				t.Fatalf("the body was %q", body)
			}
		}
	}
}

func checkScan(t *testing.T, body []byte) {
	var fields Fields
	err := Scan(body, &fields)
	if !refAccepts(body) {
		if err == nil || errors.Is(err, ErrDuplicateKey) {
			t.Fatalf("got %v for what a strict parser refuses", err)
		}
		return
	}
	members := refMembers(body)
	if key, duplicate := refDuplicate(members); duplicate {
		var e *Error
		if !errors.As(err, &e) || e.Err != ErrDuplicateKey || e.Param != key {
			t.Fatalf("got %v, want a duplicate of %s", err, key)
		}
		return
	}
	if err != nil {
		t.Fatalf("got %v for what a strict parser accepts", err)
	}
	want := map[Key]string{}
	for _, m := range members {
		if k := keyOf([]byte(m.key)); k != noKey {
			want[k] = m.raw
		}
	}
	for k := range numKeys {
		if got := string(fields.Raw(k)); got != want[k] {
			t.Errorf("%v: got %q, want %q", k, got, want[k])
		}
	}
	var text string
	if model, err := fields.Model(); err == nil {
		if jerr := json.Unmarshal([]byte(want[Model]), &text); jerr != nil || text != string(model) {
			t.Errorf("model: got %q, want %q (%v)", model, text, jerr)
		}
	} else if json.Unmarshal([]byte(want[Model]), &text) == nil && text != "" {
		t.Errorf("model: got %v, want %q", err, text)
	}
	var stream *bool
	switch v, ok, err := fields.Bool(Stream); {
	case want[Stream] == "":
		if ok || err != nil {
			t.Errorf("stream: got %v, %v, want absent", ok, err)
		}
	case json.Unmarshal([]byte(want[Stream]), &stream) != nil:
		if !errors.Is(err, ErrType) {
			t.Errorf("stream: got %v, want ErrType", err)
		}
	case err != nil || ok != (stream != nil) || ok && v != *stream:
		t.Errorf("stream: got %v, %v, %v for %s", v, ok, err, want[Stream])
	}
}

// A patched body holds the members that were asked for, and all others byte for byte and in order.
func FuzzPatch(f *testing.F) {
	for i, c := range scanCases {
		if len(c.body) < 4<<10 {
			f.Add([]byte(c.body), uint32(i)*2654435761, uint32(i)*40503, "new \"name\"")
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, deletes, sets uint32, text string) {
		var fields Fields
		if Scan(body, &fields) != nil {
			return
		}
		var p Patch
		p.Reset(&fields)
		value := string(AppendString(nil, text))
		var want []refMember
		for k := range numKeys {
			if sets>>k&1 == 1 {
				p.SetString(k, text)
				if !fields.Has(k) {
					want = append(want, refMember{k.String(), value})
				}
			}
			if deletes>>k&1 == 1 {
				p.Delete(k)
			}
		}
		for _, m := range refMembers(body) {
			switch k := keyOf([]byte(m.key)); {
			case k == noKey:
			case sets>>k&1 == 1:
				m.raw = value
			case deletes>>k&1 == 1:
				continue
			}
			want = append(want, m)
		}
		got := p.AppendTo([]byte("kept"))
		if string(got[:4]) != "kept" {
			t.Fatalf("what was in dst became %q", got[:4])
		}
		got = got[4:]
		if !refAccepts(got) {
			t.Fatalf("%q became %q, which is no JSON", body, got)
		}
		members := refMembers(got)
		if len(members) != len(want) {
			t.Fatalf("%q became %q, want members %q", body, got, want)
		}
		for i := range want {
			if members[i] != want[i] {
				t.Fatalf("%q became %q, want members %q", body, got, want)
			}
		}
		var joined []byte
		for _, piece := range Pieces(nil, body, p.Edits()) {
			joined = append(joined, piece...)
		}
		if string(joined) != string(got) || Size(body, p.Edits()) != len(got) {
			t.Fatalf("pieces give %q of size %d, want %q", joined, Size(body, p.Edits()), got)
		}
		if utf8.ValidString(text) {
			if back := StringValue([]byte(value)); string(back) != text {
				t.Fatalf("%q came back as %q", text, back)
			}
		}
	})
}

// Locate agrees with a full parser on every object, and stays in bounds on everything else.
func FuzzLocate(f *testing.F) {
	seedBodies(f)
	f.Fuzz(func(t *testing.T, doc []byte) {
		for _, key := range []string{"model", "error", "a", ""} {
			m, ok := Locate(doc, key)
			if ok && (m.Before < 0 || m.Before >= m.KeyStart || m.KeyStart >= m.Start || m.Start >= m.End || m.End > m.After || m.After >= len(doc)) {
				t.Fatalf("got %+v in a document of %d bytes", m, len(doc))
			}
			if !refAccepts(doc) {
				continue
			}
			var first, last string
			for _, r := range refMembers(doc) {
				if r.key == key {
					if first == "" {
						first = r.raw
					}
					last = r.raw
				}
			}
			if got := string(doc[m.Start:m.End]); ok != (first != "") || got != first {
				t.Errorf("%q: got %q, %v, want %q", key, got, ok, first)
			}
			m, ok = locateLast(doc, key)
			if got := string(doc[m.Start:m.End]); ok != (last != "") || got != last {
				t.Errorf("last %q: got %q, %v, want %q", key, got, ok, last)
			}
		}
	})
}
