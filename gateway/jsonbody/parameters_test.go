package jsonbody

import (
	"encoding/json"
	"testing"
)

func TestParameters(t *testing.T) {
	params := []Parameter{
		{Name: "temperature", Raw: []byte("0.5")},
		{Name: "top_p", Raw: []byte("0.9"), Override: true},
		{Name: "max_tokens", Raw: []byte("10"), Unless: "max_completion_tokens"},
		{Name: "chat_template_kwargs", Raw: []byte(`{"enable_thinking":false}`)},
	}
	for _, tt := range []struct{ name, body, want string }{
		{"empty", `{}`, `{"temperature":0.5,"top_p":0.9,"max_tokens":10,"chat_template_kwargs":{"enable_thinking":false}}`},
		{"spaces", ` { } `, ` {"temperature":0.5,"top_p":0.9,"max_tokens":10,"chat_template_kwargs":{"enable_thinking":false} } `},
		{"all given", `{"temperature": 1e0 ,"top_p":[{"temperature":1}],"max_tokens":3,"chat_template_kwargs":{}}`,
			`{"temperature": 1e0 ,"top_p":0.9,"max_tokens":3,"chat_template_kwargs":{}}`},
		{"null is none", `{"temperature":null,"top_p":null,"max_tokens":null,"chat_template_kwargs":null}`,
			`{"temperature":0.5,"top_p":0.9,"max_tokens":10,"chat_template_kwargs":{"enable_thinking":false}}`},
		{"in other words", `{"max_completion_tokens":7,"temperature":1,"top_p":1,"chat_template_kwargs":1}`,
			`{"max_completion_tokens":7,"temperature":1,"top_p":0.9,"chat_template_kwargs":1}`},
		{"nested", `{"a":{"temperature":1,"top_p":"}"},"temperature":2,"top_p":3,"max_tokens":1,"chat_template_kwargs":1}`,
			`{"a":{"temperature":1,"top_p":"}"},"temperature":2,"top_p":0.9,"max_tokens":1,"chat_template_kwargs":1}`},
		{"escaped and twice", `{"top\u005fp":1,"top_p":2,"temperature":1,"max_tokens":1,"chat_template_kwargs":1}`,
			`{"top\u005fp":0.9,"top_p":0.9,"temperature":1,"max_tokens":1,"chat_template_kwargs":1}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var f Fields
			if err := Scan([]byte(tt.body), &f); err != nil {
				t.Fatal(err)
			}
			var p Patch
			p.Reset(&f)
			p.Parameters(params)
			got := string(p.AppendTo(nil))
			if got != tt.want || !json.Valid([]byte(got)) {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// Parameters and the gateway's own changes meet in one body.
func TestParametersBesideOtherChanges(t *testing.T) {
	var f Fields
	if err := Scan([]byte(`{"model":"a","priority":3,"temperature":1}`), &f); err != nil {
		t.Fatal(err)
	}
	var p Patch
	p.Reset(&f)
	p.DeleteReserved()
	p.SetString(RID, "r")
	p.SetString(Model, "served")
	p.Parameters([]Parameter{{Name: "temperature", Raw: []byte("0"), Override: true}, {Name: "seed", Raw: []byte("7")}})
	const want = `{"rid":"r","seed":7,"model":"served","temperature":0}`
	if got := string(p.AppendTo(nil)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Whatever is scanned stays JSON, the overrides count, and the rest keeps its values.
func FuzzParameters(f *testing.F) {
	for _, seed := range []string{`{}`, `{"top_p":1}`, `{"a":[1,{"top_p":2}],"temperature":null}`, `{"top\u005fp":"x","model":"m"}`} {
		f.Add([]byte(seed))
	}
	params := []Parameter{{Name: "temperature", Raw: []byte("0.5")}, {Name: "top_p", Raw: []byte("0.9"), Override: true}}
	f.Fuzz(func(t *testing.T, body []byte) {
		var fields Fields
		if Scan(body, &fields) != nil {
			return
		}
		var p Patch
		p.Reset(&fields)
		p.Parameters(params)
		var was, is map[string]any
		if err := json.Unmarshal(p.AppendTo(nil), &is); err != nil {
			t.Fatalf("%s becomes %s: %v", body, p.AppendTo(nil), err)
		}
		if err := json.Unmarshal(body, &was); err != nil {
			return // a number beyond what Go reads
		}
		if is["top_p"] != 0.9 {
			t.Errorf("%s becomes %s", body, p.AppendTo(nil))
		}
		if was["temperature"] == nil && is["temperature"] != 0.5 {
			t.Errorf("%s becomes %s", body, p.AppendTo(nil))
		}
		if len(is) < len(was) {
			t.Errorf("%s becomes %s", body, p.AppendTo(nil))
		}
	})
}
