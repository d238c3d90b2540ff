package jsonbody

import (
	"slices"
	"strings"
	"testing"
)

func scan(t *testing.T, body string) *Fields {
	t.Helper()
	var f Fields
	if err := Scan([]byte(body), &f); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return &f
}

func TestPatch(t *testing.T) {
	del := func(keys ...Key) func(*Patch) {
		return func(p *Patch) {
			for _, k := range keys {
				p.Delete(k)
			}
		}
	}
	for _, c := range []struct {
		name, body string
		change     func(*Patch)
		want       string
	}{
		{"nothing", ` { "model" : "m" } `, func(*Patch) {}, ` { "model" : "m" } `},
		{"delete first", `{"rid":"x","model":"m"}`, del(RID), `{"model":"m"}`},
		{"delete middle", `{"a":1, "rid":"x", "model":"m"}`, del(RID), `{"a":1,  "model":"m"}`},
		{"delete last", `{"model":"m", "rid":"x" }`, del(RID), `{"model":"m" }`},
		{"delete only", `{ "rid":"x" }`, del(RID), `{  }`},
		{"delete absent", `{"model":"m"}`, del(RID), `{"model":"m"}`},
		{"delete first two", `{"rid":"x","priority":1,"model":"m"}`, del(RID, Priority), `{"model":"m"}`},
		{"delete last two", `{"model":"m","rid":"x","priority":1}`, del(RID, Priority), `{"model":"m"}`},
		{"delete middle two", `{"a":1,"rid":"x","priority":1,"model":"m"}`, del(RID, Priority), `{"a":1,"model":"m"}`},
		{"delete first and last", `{"rid":"x","model":"m","priority":1}`, del(Priority, RID), `{"model":"m"}`},
		{"delete every other", `{"rid":"x","a":1,"priority":1,"b":2,"session_id":"s"}`, del(RID, Priority, SessionID), `{"a":1,"b":2}`},
		{"delete all", `{"rid":"x","priority":1,"session_id":{"a":[]}}`, del(RID, Priority, SessionID), `{}`},
		{"delete a key written with escapes", `{"r\u0069d":"x","model":"m"}`, del(RID), `{"model":"m"}`},
		{"reserved", `{"rid":1,"priority":1,"bootstrap_host":1,"model":"m","bootstrap_port":1,"bootstrap_room":1,"session_id":1,"session_params":1,"n":1,"custom_logit_processor":1}`, (*Patch).DeleteReserved, `{"model":"m","n":1}`},
		{"replace", `{"a" : [ 1 ],"model" : "m" ,"b":1}`, func(p *Patch) { p.Set(Model, []byte(`"x"`)) }, `{"a" : [ 1 ],"model" : "x" ,"b":1}`},
		{"replace a container", `{"session_params":{"a":"}"},"model":"m"}`, func(p *Patch) { p.Set(SessionParams, []byte(`null`)) }, `{"session_params":null,"model":"m"}`},
		{"insert", `{"model":"m"}`, func(p *Patch) { p.SetString(RID, `a"b`) }, `{"rid":"a\"b","model":"m"}`},
		{"insert before space", ` { "model":"m"}`, func(p *Patch) { p.SetString(RID, "x") }, ` {"rid":"x", "model":"m"}`},
		{"insert in an empty object", `{ }`, func(p *Patch) { p.SetString(RID, "x") }, `{"rid":"x" }`},
		{"insert two", `{"model":"m"}`, func(p *Patch) { p.SetString(RID, "x"); p.Set(Stream, []byte("true")) }, `{"rid":"x","stream":true,"model":"m"}`},
		{"insert while all is deleted", `{"priority":1,"session_id":"s"}`, func(p *Patch) { p.DeleteReserved(); p.SetString(RID, "x") }, `{"rid":"x"}`},
		{"insert while the first is deleted", `{"priority":1,"model":"m"}`, func(p *Patch) { p.DeleteReserved(); p.SetString(RID, "x") }, `{"rid":"x","model":"m"}`},
		{"set after delete", `{"rid":"x","model":"m"}`, func(p *Patch) { p.DeleteReserved(); p.SetString(RID, "y") }, `{"rid":"y","model":"m"}`},
		{"delete after set", `{"rid":"x","model":"m"}`, func(p *Patch) { p.SetString(RID, "y"); p.DeleteReserved() }, `{"rid":"y","model":"m"}`},
		{"all together", `{"priority":1,"messages":[{"model":"n"}],"model":"m","rid":"z"}`, func(p *Patch) {
			p.DeleteReserved()
			p.SetString(Model, "served")
			p.SetString(RID, "r")
			p.IncludeUsage()
		}, `{"stream_options":{"include_usage":true},"messages":[{"model":"n"}],"model":"served","rid":"r"}`},
		{"usage, no options", `{"model":"m"}`, (*Patch).IncludeUsage, `{"stream_options":{"include_usage":true},"model":"m"}`},
		{"usage, null options", `{"stream_options":null,"model":"m"}`, (*Patch).IncludeUsage, `{"stream_options":{"include_usage":true},"model":"m"}`},
		{"usage, empty options", `{"stream_options":{ }}`, (*Patch).IncludeUsage, `{"stream_options":{"include_usage":true }}`},
		{"usage, other options", `{"stream_options":{"a":[{"include_usage":true}]}}`, (*Patch).IncludeUsage, `{"stream_options":{"include_usage":true,"a":[{"include_usage":true}]}}`},
		{"usage, asked for", `{"stream_options":{"include_usage":true}}`, (*Patch).IncludeUsage, `{"stream_options":{"include_usage":true}}`},
		{"usage, declined", `{"stream_options":{"include_usage": false, "b":1}}`, (*Patch).IncludeUsage, `{"stream_options":{"include_usage": true, "b":1}}`},
		{"usage, null", `{"stream_options":{"include_usage":null}}`, (*Patch).IncludeUsage, `{"stream_options":{"include_usage":true}}`},
		{"usage, twice", `{"stream_options":{"include_usage":true,"include_usage":false}}`, (*Patch).IncludeUsage, `{"stream_options":{"include_usage":true,"include_usage":true}}`},
		{"usage, wrong type", `{"stream_options":[]}`, (*Patch).IncludeUsage, `{"stream_options":[]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p Patch
			p.Reset(scan(t, c.body))
			c.change(&p)
			for range 2 { // edits may be asked for again
				if got := string(p.AppendTo(nil)); got != c.want {
					t.Errorf("got %s, want %s", got, c.want)
				}
			}
			scan(t, c.want)
		})
	}
}

func TestPatchIsReusable(t *testing.T) {
	var p Patch
	p.Reset(scan(t, `{"model":"m","rid":"x"}`))
	p.Delete(RID)
	p.SetString(Model, "y")
	p.SetString(User, "u")
	p.Edits()
	p.Reset(scan(t, `{"rid":"x","model":"m"}`))
	if got, want := string(p.AppendTo(nil)), `{"rid":"x","model":"m"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestPatchManyStrings(t *testing.T) {
	var p Patch
	f := scan(t, `{"model":"m","user":"u","rid":"r"}`)
	for range 2 { // with a small buffer, then with one that fits
		p.Reset(f)
		p.SetString(Model, "a")
		p.SetString(User, strings.Repeat("b", 1000))
		p.SetString(RID, "c")
		want := `{"model":"a","user":"` + strings.Repeat("b", 1000) + `","rid":"c"}`
		if got := string(p.AppendTo(nil)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestMisusePanics(t *testing.T) {
	for name, misuse := range map[string]func(){
		"set twice": func() {
			var p Patch
			p.Reset(scan(t, `{"model":"m"}`))
			p.SetString(Model, "a")
			p.SetString(Model, "b")
		},
		"usage, then options": func() {
			var p Patch
			p.Reset(scan(t, `{"stream_options":{}}`))
			p.IncludeUsage()
			p.Set(StreamOptions, []byte("{}"))
		},
		"overlap":      func() { Apply(nil, []byte("abc"), []Edit{{0, 2, nil}, {1, 3, nil}}) },
		"out of order": func() { Apply(nil, []byte("abc"), []Edit{{2, 3, nil}, {0, 1, nil}}) },
		"backwards":    func() { Apply(nil, []byte("abc"), []Edit{{2, 1, []byte("long enough")}}) },
		"outside":      func() { Pieces(nil, []byte("abc"), []Edit{{2, 4, nil}}) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if r, ok := recover().(string); !ok || !strings.HasPrefix(r, "BUG: ") {
					t.Errorf("got panic %v, want one that begins with BUG:", r)
				}
			}()
			misuse()
		})
	}
}

func TestApply(t *testing.T) {
	body := []byte("abcdef")
	edits := []Edit{{0, 0, []byte("<")}, {0, 1, nil}, {2, 3, []byte("CC")}, {3, 3, []byte("|")}, {6, 6, []byte(">")}}
	if got, want := string(Apply([]byte("x"), body, edits)), "x<bCC|def>"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	pieces := Pieces(nil, body, edits)
	if got, want := string(slices.Concat(pieces...)), "<bCC|def>"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if &pieces[1][0] != &body[1] {
		t.Error("a piece of the body was copied")
	}
}
