package jsonbody

import "testing"

func TestTopLevelString(t *testing.T) {
	for _, c := range []struct {
		name, doc, want string // want is empty when nothing may be found
	}{
		{"first", `{"model":"m","a":1}`, `"m"`},
		{"last", `{"a":[{"model":"x"}],"b":"\"model\":\"y\"","c":{"model":"z"}, "model" : "m" }`, `"m"`},
		{"escaped key", `{"mo\u0064el":"m"}`, `"m"`},
		{"escapes in the value", `{"model":"a\\\"b\\"}`, `"a\\\"b\\"`},
		{"brackets in strings", `{"a":"}]","b":["]}",{"c":"\"}"}],"model":"m"}`, `"m"`},
		{"nested only", `{"response":{"model":"x"}}`, ""},
		{"as a value", `{"a":"model","b":"m"}`, ""},
		{"longer key", `{"model_name":"x","xmodel":"y"}`, ""},
		{"number", `{"model":1}`, ""},
		{"null", `{"model":null}`, ""},
		{"array document", `[{"model":"x"}]`, ""},
		{"string document", `"{\"model\":\"m\"}"`, ""},
		{"empty", ``, ""},
		{"empty object", `{}`, ""},
		{"cut in the value", `{"model":"m`, ""},
		{"cut behind the value", `{"model":"m"`, ""},
		{"cut in the key", `{"model`, ""},
		{"cut before the colon", `{"model"`, ""},
		{"cut behind the colon", `{"model":`, ""},
		{"cut in a container before", `{"a":[1,{"b":2}`, ""},
		{"cut in a string in a container", `{"a":["`, ""},
		{"no value", `{"model":,"a":1}`, ""},
		{"no comma", `{"a":1 "model":"m"}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			start, end, ok := TopLevelString([]byte(c.doc), "model")
			if ok != (c.want != "") || c.doc[start:end] != c.want {
				t.Errorf("got %s, %v, want %s", c.doc[start:end], ok, c.want)
			}
		})
	}
}

func TestLocateKinds(t *testing.T) {
	doc := ` {"s":"x" ,"n":-1.5e3,"t":true,"f":false,"z":null,"a":[1,[2]],"o":{"p":{}},"e":[],"l":0}`
	for key, want := range map[string]struct {
		kind Kind
		raw  string
	}{
		"s": {String, `"x"`}, "n": {Number, "-1.5e3"}, "t": {True, "true"}, "f": {False, "false"}, "z": {Null, "null"},
		"a": {Array, "[1,[2]]"}, "o": {Object, `{"p":{}}`}, "e": {Array, "[]"}, "l": {Number, "0"},
	} {
		m, ok := Locate([]byte(doc), key)
		if !ok || m.Kind != want.kind || doc[m.Start:m.End] != want.raw {
			t.Errorf("%s: got %+v, %v, want %+v", key, m, ok, want)
		}
	}
}
