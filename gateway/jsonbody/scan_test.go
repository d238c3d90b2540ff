package jsonbody

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

const megabyte = 1 << 20

// scanCases are bodies that some parser reads differently from another, or that once broke one.
// want is nil for bodies whose model is model, else the sentinel; at is the offset of the fault, -1
// where there is none.
var scanCases = []struct {
	name  string
	body  string
	want  error
	at    int
	model string
}{
	{name: "smallest", body: `{"model":"m"}`, model: "m"},
	{name: "white space of all kinds", body: " \t\r\n{ \"model\"\n:\t\"m\"\r} \n", model: "m"},
	{name: "model last", body: `{"messages":[{"role":"user","content":"hi"}],"model":"m"}`, model: "m"},
	{name: "escaped key", body: `{"mo\u0064el":"m"}`, model: "m"},
	{name: "wholly escaped key", body: `{"\u006d\u006f\u0064\u0065\u006C":"m"}`, model: "m"},
	{name: "escaped value", body: `{"model":"a\/b\u003a\"\ud83d\ude00"}`, model: "a/b:\"😀"},
	{name: "slash and colon", body: `{"model":"Qwen/Qwen3-0.6B:tag"}`, model: "Qwen/Qwen3-0.6B:tag"},
	{name: "non-ASCII value", body: `{"model":"模型-é-😀"}`, model: "模型-é-😀"},
	{name: "value of one space", body: `{"model":" "}`, model: " "},
	{name: "NUL by escape", body: `{"model":"a\u0000b"}`, model: "a\x00b"},
	{name: "noncharacter", body: "{\"model\":\"\uFFFF\"}", model: "\uFFFF"},
	{name: "replacement character", body: `{"model":"\ufffd"}`, model: "\uFFFD"},
	{name: "DEL is no control character", body: "{\"model\":\"a\x7Fb\"}", model: "a\x7Fb"},
	{name: "other case is another key", body: `{"Model":"x","MODEL":"y","model":"m"}`, model: "m"},
	{name: "nested in messages", body: `{"messages":[{"model":"x"}],"model":"m"}`, model: "m"},
	{name: "nested in tools", body: `{"tools":[{"type":"function","function":{"name":"f","parameters":{"properties":{"model":{"type":"string"}},"model":"x"}}}],"model":"m","metadata":{"model":"y"}}`, model: "m"},
	{name: "in a string", body: `{"messages":"\"model\":\"x\"","model":"m"}`, model: "m"},
	{name: "as a value", body: `{"a":"model","b":["model"],"model":"m"}`, model: "m"},
	{name: "as its own name", body: `{"model":"model"}`, model: "model"},
	{name: "key with NUL behind it", body: `{"model\u0000":"x","model":"m"}`, model: "m"},
	{name: "key with a space", body: `{"model ":"x"," model":"y","model":"m"}`, model: "m"},
	{name: "duplicates elsewhere", body: `{"temperature":1,"temperature":2,"":1,"":2,"model":"m"}`, model: "m"},
	{name: "duplicates below the top", body: `{"stream_options":{"model":1,"model":2},"model":"m"}`, model: "m"},
	{name: "numbers of all forms", body: `{"a":[0,-0,1,-1,10,0.5,-0.0,1e9,1E+9,1e-9,1.5e300,123456789012345678901234567890],"model":"m"}`, model: "m"},
	{name: "huge exponent", body: `{"a":1e999999999,"model":"m"}`, model: "m"},
	{name: "long number", body: `{"a":` + strings.Repeat("9", 10000) + `,"model":"m"}`, model: "m"},
	{name: "all escapes", body: `{"a":"\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00","model":"m"}`, model: "m"},
	{name: "empty containers", body: `{"a":{},"b":[],"c":[{},[],{"d":[]}],"model":"m","e":[[],{}]}`, model: "m"},
	{name: "long unknown key", body: `{"` + strings.Repeat("k", 5000) + `":1,"` + strings.Repeat(`\u006b`, 5000) + `":2,"model":"m"}`, model: "m"},
	{name: "20 MB of images first", body: `{"messages":[{"content":[{"image_url":{"url":"data:image/png;base64,` + strings.Repeat("iVBORw0KGgoAAAAN", 20*megabyte/16) + `"}}]}],"model":"m"}`, model: "m"},
	{name: "deepest allowed", body: `{"a":` + strings.Repeat("[", MaxDepth-1) + strings.Repeat("]", MaxDepth-1) + `,"model":"m"}`, model: "m"},
	{name: "deepest allowed, objects", body: `{"model":"m","a":` + strings.Repeat(`{"a":`, MaxDepth-1) + "1" + strings.Repeat("}", MaxDepth), model: "m"},

	{name: "empty", body: "", want: ErrSyntax, at: 0},
	{name: "white space only", body: " \n ", want: ErrSyntax, at: 3},
	{name: "byte order mark", body: "\xEF\xBB\xBF{\"model\":\"m\"}", want: ErrSyntax, at: 0},
	{name: "UTF-16", body: "{\x00\"\x00m\x00", want: ErrSyntax, at: 1},
	{name: "array", body: `[{"model":"m"}]`, want: ErrNotObject, at: 0},
	{name: "string", body: `"model"`, want: ErrNotObject, at: 0},
	{name: "null", body: `null`, want: ErrNotObject, at: 0},
	{name: "NUL first", body: "\x00{\"model\":\"m\"}", want: ErrNotObject, at: 0},
	{name: "multipart", body: "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b--", want: ErrNotObject, at: 0},
	{name: "NUL last", body: "{\"model\":\"m\"}\x00", want: ErrSyntax, at: 13},
	{name: "NUL between", body: "{\"model\":\x00\"m\"}", want: ErrSyntax, at: 9},
	{name: "NUL in a string", body: "{\"model\":\"a\x00b\"}", want: ErrSyntax, at: 11},
	{name: "line feed in a string", body: "{\"model\":\"a\nb\"}", want: ErrSyntax, at: 11},
	{name: "tab in a key", body: "{\"a\tb\":1,\"model\":\"m\"}", want: ErrSyntax, at: 3},
	{name: "vertical tab as space", body: "{\v\"model\":\"m\"}", want: ErrSyntax, at: 1},
	{name: "non-breaking space as space", body: "{\u00A0\"model\":\"m\"}", want: ErrSyntax, at: 1},
	{name: "second document", body: `{"model":"m"}{"model":"x"}`, want: ErrSyntax, at: 13},
	{name: "brace behind", body: `{"model":"m"}}`, want: ErrSyntax, at: 13},
	{name: "comma behind", body: `{"model":"m"},`, want: ErrSyntax, at: 13},
	{name: "trailing comma", body: `{"model":"m",}`, want: ErrSyntax, at: 13},
	{name: "trailing comma in an array", body: `{"a":[1,],"model":"m"}`, want: ErrSyntax, at: 8},
	{name: "leading comma", body: `{,"model":"m"}`, want: ErrSyntax, at: 1},
	{name: "doubled comma", body: `{"a":1,,"model":"m"}`, want: ErrSyntax, at: 7},
	{name: "comma for colon", body: `{"model","m"}`, want: ErrSyntax, at: 8},
	{name: "colon for comma", body: `{"a":1:"model":"m"}`, want: ErrSyntax, at: 6},
	{name: "colon in an array", body: `{"a":["b":1],"model":"m"}`, want: ErrSyntax, at: 9},
	{name: "no value", body: `{"model":}`, want: ErrSyntax, at: 9},
	{name: "no key", body: `{:"m"}`, want: ErrSyntax, at: 1},
	{name: "bare key", body: `{model:"m"}`, want: ErrSyntax, at: 1},
	{name: "single quotes", body: `{'model':'m'}`, want: ErrSyntax, at: 1},
	{name: "comment", body: `{/* x */"model":"m"}`, want: ErrSyntax, at: 1},
	{name: "wrong bracket", body: `{"a":[1},"model":"m"}`, want: ErrSyntax, at: 7},
	{name: "wrong brace", body: `{"a":{"b":1],"model":"m"}`, want: ErrSyntax, at: 11},
	{name: "wrong bracket, empty", body: `{"a":[},"model":"m"}`, want: ErrSyntax, at: 6},
	{name: "NaN", body: `{"a":NaN,"model":"m"}`, want: ErrSyntax, at: 5},
	{name: "Infinity", body: `{"a":-Infinity,"model":"m"}`, want: ErrSyntax, at: 6},
	{name: "True", body: `{"stream":True,"model":"m"}`, want: ErrSyntax, at: 10},
	{name: "truex", body: `{"stream":truex,"model":"m"}`, want: ErrSyntax, at: 14},
	{name: "nul", body: `{"a":nul,"model":"m"}`, want: ErrSyntax, at: 5},
	{name: "leading zero", body: `{"a":01,"model":"m"}`, want: ErrSyntax, at: 6},
	{name: "plus sign", body: `{"a":+1,"model":"m"}`, want: ErrSyntax, at: 5},
	{name: "bare minus", body: `{"a":-,"model":"m"}`, want: ErrSyntax, at: 6},
	{name: "bare point", body: `{"a":.5,"model":"m"}`, want: ErrSyntax, at: 5},
	{name: "point without digits", body: `{"a":1.,"model":"m"}`, want: ErrSyntax, at: 7},
	{name: "exponent without digits", body: `{"a":1e+,"model":"m"}`, want: ErrSyntax, at: 8},
	{name: "hexadecimal", body: `{"a":0x10,"model":"m"}`, want: ErrSyntax, at: 6},
	{name: "separated digits", body: `{"a":1_000,"model":"m"}`, want: ErrSyntax, at: 6},
	{name: "unknown escape", body: `{"model":"\x41"}`, want: ErrSyntax, at: 10},
	{name: "escaped apostrophe", body: `{"model":"\'"}`, want: ErrSyntax, at: 10},
	{name: "short u escape", body: `{"model":"\u12"}`, want: ErrSyntax, at: 10},
	{name: "u escape of no hex", body: `{"model":"\u12g4"}`, want: ErrSyntax, at: 10},
	{name: "escaped closing quote", body: `{"model":"m\"}`, want: ErrSyntax, at: 14},
	{name: "high surrogate alone", body: `{"model":"\ud83d"}`, want: ErrEncoding, at: 10},
	{name: "low surrogate alone", body: `{"model":"\ude00"}`, want: ErrEncoding, at: 10},
	{name: "surrogates swapped", body: `{"model":"\ude00\ud83d"}`, want: ErrEncoding, at: 10},
	{name: "high surrogate twice", body: `{"model":"\ud83d\ud83d\ude00"}`, want: ErrEncoding, at: 10},
	{name: "high surrogate and text", body: `{"model":"\ud83dabcdef"}`, want: ErrEncoding, at: 10},
	{name: "surrogate in a key", body: `{"a\udc00":1,"model":"m"}`, want: ErrEncoding, at: 3},
	{name: "lone continuation byte", body: "{\"model\":\"a\x80\"}", want: ErrEncoding, at: 11},
	{name: "overlong slash", body: "{\"model\":\"\xC0\xAF\"}", want: ErrEncoding, at: 10},
	{name: "overlong in three bytes", body: "{\"model\":\"\xE0\x80\xAF\"}", want: ErrEncoding, at: 10},
	{name: "overlong in four bytes", body: "{\"model\":\"\xF0\x80\x80\xAF\"}", want: ErrEncoding, at: 10},
	{name: "surrogate in UTF-8", body: "{\"model\":\"\xED\xA0\xBD\xED\xB8\x80\"}", want: ErrEncoding, at: 10},
	{name: "beyond U+10FFFF", body: "{\"model\":\"\xF4\x90\x80\x80\"}", want: ErrEncoding, at: 10},
	{name: "five byte form", body: "{\"model\":\"\xF8\x88\x80\x80\x80\"}", want: ErrEncoding, at: 10},
	{name: "byte FF", body: "{\"model\":\"\xFF\"}", want: ErrEncoding, at: 10},
	{name: "sequence cut by the quote", body: "{\"model\":\"\xE6\xA8\"}", want: ErrEncoding, at: 10},
	{name: "Latin-1", body: "{\"model\":\"caf\xE9\"}", want: ErrEncoding, at: 13},
	{name: "invalid UTF-8 in a key", body: "{\"a\xFF\":1,\"model\":\"m\"}", want: ErrEncoding, at: 3},
	{name: "one level too deep", body: `{"a":` + strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth) + `,"model":"m"}`, want: ErrDepth, at: 5 + MaxDepth - 1},
	{name: "far too deep", body: strings.Repeat(`{"a":`, megabyte), want: ErrDepth, at: 5 * MaxDepth},
	{name: "duplicate", body: `{"model":"m","model":"x"}`, want: ErrDuplicateKey, at: 13},
	{name: "duplicate of the same value", body: `{"model":"m","stream":true,"model":"m"}`, want: ErrDuplicateKey, at: 27},
	{name: "duplicate by escape", body: `{"model":"m","mod\u0065l":"x"}`, want: ErrDuplicateKey, at: 13},
	{name: "duplicate by escape first", body: `{"\u006dodel":"m","model":"x"}`, want: ErrDuplicateKey, at: 18},
	{name: "duplicate stream", body: `{"model":"m","stream":false,"stream":true}`, want: ErrDuplicateKey, at: 28},
	{name: "duplicate of null", body: `{"rid":null,"rid":"x","model":"m"}`, want: ErrDuplicateKey, at: 12},
	{name: "duplicate behind a container", body: `{"session_params":{"a":[1]},"session_params":{},"model":"m"}`, want: ErrDuplicateKey, at: 28},
	{name: "no JSON before duplicate", body: `{"model":"m","model":"x"`, want: ErrSyntax, at: 24},
	{name: "model missing", body: `{"messages":[]}`, want: ErrMissing, at: -1},
	{name: "model missing, empty object", body: `{}`, want: ErrMissing, at: -1},
	{name: "model of other case only", body: `{"Model":"m"}`, want: ErrMissing, at: -1},
	{name: "model null", body: `{"model":null}`, want: ErrType, at: 9},
	{name: "model number", body: `{"model":1}`, want: ErrType, at: 9},
	{name: "model array", body: `{"model":["m"]}`, want: ErrType, at: 9},
	{name: "model object", body: `{"model":{"id":"m"}}`, want: ErrType, at: 9},
	{name: "model boolean", body: `{"model":true}`, want: ErrType, at: 9},
	{name: "model empty", body: `{"model":""}`, want: ErrEmpty, at: 9},
}

func TestScan(t *testing.T) {
	for _, c := range scanCases {
		t.Run(c.name, func(t *testing.T) {
			var f Fields
			err := Scan([]byte(c.body), &f)
			scanned := err == nil
			var model []byte
			if scanned {
				model, err = f.Model()
			}
			if !errors.Is(err, c.want) {
				t.Fatalf("got error %v, want %v", err, c.want)
			}
			if c.want == nil {
				if string(model) != c.model {
					t.Errorf("got model %q, want %q", model, c.model)
				}
			} else {
				var e *Error
				if !errors.As(err, &e) || e.Offset != c.at {
					t.Errorf("got %v, want an *Error at byte %d", err, c.at)
				}
			}
			if len(c.body) < megabyte {
				duplicate := errors.Is(err, ErrDuplicateKey)
				if want := refAccepts([]byte(c.body)); (scanned || duplicate) != want {
					t.Errorf("accepted: got %v, but the reference says %v", scanned, want)
				}
			}
		})
	}
}

// A string is read in words and vectors: every byte must mean the same wherever it stands in them.
func TestScanStringAtEveryAlignment(t *testing.T) {
	for size := range 75 {
		for c := range 256 {
			body := []byte(`{"model":"` + strings.Repeat("a", size) + string([]byte{byte(c)}) + strings.Repeat("b", 75-size) + `"}`)
			got := Scan(body, new(Fields)) == nil
			if want := refAccepts(body); got != want {
				t.Fatalf("byte %#02x after %d: got %v, want %v", c, size, got, want)
			}
		}
	}
}

func TestScanBackslashRunsAtEveryAlignment(t *testing.T) {
	for size := range 40 {
		for run := range 20 {
			for _, tail := range []string{`"`, `x"`, `n"`, `u0041"`, `\ud83d\ude00"`, `"}`} {
				body := []byte(`{"a":"` + strings.Repeat("a", size) + strings.Repeat(`\`, run) + tail + `,"model":"m"}`)
				var f Fields
				got := Scan(body, &f) == nil
				if want := refAccepts(body); got != want {
					t.Fatalf("%s: got %v, want %v", body, got, want)
				}
				if got && string(f.Raw(Model)) != `"m"` {
					t.Fatalf("%s: got model %s", body, f.Raw(Model))
				}
			}
		}
	}
}

// Every pair of bytes that could start a UTF-8 sequence, followed by two that could end one.
func TestScanUTF8(t *testing.T) {
	for first := 0x80; first < 256; first++ {
		for second := range 256 {
			for _, tail := range []string{"", "\x80", "\xBF\xBF", "\x80a", "aa"} {
				body := []byte(`{"a":"` + string([]byte{byte(first), byte(second)}) + tail + `"}`)
				got := Scan(body, new(Fields)) == nil
				if want := refAccepts(body); got != want {
					t.Fatalf("% x: got %v, want %v", body[6:], got, want)
				}
			}
		}
	}
}

func TestScanRefusesEveryPrefix(t *testing.T) {
	const sample = `{"messages":[{"role":"user","content":"é \ud83d\ude00 模 \n"},{}],"stop":[],"model":"m","stream":true,` +
		`"temperature":-1.5e+3,"seed":0,"user":null,"tools":[{"a":{"b":[1,2,false]}}]}`
	var f Fields
	if err := Scan([]byte(sample), &f); err != nil {
		t.Fatal(err)
	}
	for n := range len(sample) {
		var e *Error
		err := Scan([]byte(sample[:n]), &f)
		if !errors.As(err, &e) {
			t.Fatalf("%s: got %v, want an *Error", sample[:n], err)
		}
		if e.Offset < 0 || e.Offset > n {
			t.Errorf("%s: got offset %d, want one in the body", sample[:n], e.Offset)
		}
	}
}

func TestScanNotesEveryKey(t *testing.T) {
	for k := range numKeys {
		for _, value := range []struct {
			raw  string
			kind Kind
		}{
			{"null", Null},
			{"true", True},
			{"false", False},
			{"-1.5e3", Number},
			{`"a\"b"`, String},
			{`[1,{"model":[]}]`, Array},
			{`[]`, Array},
			{`{}`, Object},
			{`{"model": "x"}`, Object},
		} {
			member := fmt.Sprintf("%q : %s", k, value.raw)
			body := fmt.Sprintf(`{ "x": [1] , %s , "y": 2}`, member)
			var f Fields
			if err := Scan([]byte(body), &f); err != nil {
				t.Fatalf("%s: %v", body, err)
			}
			m := f.Get(k)
			if m.Kind != value.kind || body[m.Start:m.End] != value.raw || body[m.KeyStart:m.End] != member ||
				body[m.Before] != ',' || body[m.After] != ',' {
				t.Errorf("%s: got %+v", body, m)
			}
			for other := range numKeys {
				if f.Has(other) != (other == k) {
					t.Errorf("%s: Has(%v) is %v", body, other, f.Has(other))
				}
			}
		}
	}
	if got := numKeys.String(); got != "unknown" {
		t.Errorf("got %q for no key", got)
	}
}

func TestErrorsDoNotQuoteTheBody(t *testing.T) {
	for _, body := range []string{
		`{"model":"SECRET","model":"SECRET"}`, `{"model":"SECRET`, `SECRET`, `{"SECRET":SECRET}`, `{"SECRET" "SECRET"}`,
		`{"a":"SECRET\xSECRET"}`, `{"model":["SECRET"]}`, `{"stream":"SECRET"}`, `{"n":"SECRET"}`,
	} {
		var f Fields
		err := Scan([]byte(body), &f)
		if err == nil {
			if _, err = f.Model(); errors.Is(err, ErrMissing) {
				if _, _, err = f.Bool(Stream); err == nil {
					_, _, err = f.Int(N)
				}
			}
		}
		var e *Error
		if !errors.As(err, &e) {
			t.Fatalf("%s: got %v, want an *Error", body, err)
		}
		if strings.Contains(e.Error(), "SECRET") || e.Message() == "" {
			t.Errorf("%s: got message %q", body, e.Error())
		}
	}
}

func TestFieldReaders(t *testing.T) {
	body := `{"stream":true,"background":null,"n":3,"max_tokens":1.0,"max_completion_tokens":99999999999999999999,` +
		`"max_output_tokens":-9223372036854775808,"user":"a\u0062","previous_response_id":7,"stream_options":{"include_usage":false,"include_usage":true}}`
	var f Fields
	if err := Scan([]byte(body), &f); err != nil {
		t.Fatal(err)
	}
	if v, ok, err := f.Bool(Stream); !v || !ok || err != nil {
		t.Errorf("stream: got %v, %v, %v", v, ok, err)
	}
	for _, k := range []Key{Background, RID} {
		if v, ok, err := f.Bool(k); v || ok || err != nil {
			t.Errorf("%v: got %v, %v, %v, want absent", k, v, ok, err)
		}
	}
	if _, _, err := f.Bool(N); !errors.Is(err, ErrType) {
		t.Errorf("n as a boolean: got %v, want ErrType", err)
	}
	if v, ok, err := f.Int(N); v != 3 || !ok || err != nil {
		t.Errorf("n: got %v, %v, %v", v, ok, err)
	}
	if v, ok, err := f.Int(MaxOutputTokens); v != -1<<63 || !ok || err != nil {
		t.Errorf("max_output_tokens: got %v, %v, %v", v, ok, err)
	}
	for _, k := range []Key{MaxTokens, MaxCompletionTokens, User} {
		if _, ok, err := f.Int(k); ok || !errors.Is(err, ErrType) {
			t.Errorf("%v as an integer: got %v, %v, want ErrType", k, ok, err)
		}
	}
	if _, ok, err := f.Int(Priority); ok || err != nil {
		t.Errorf("priority: got %v, %v, want absent", ok, err)
	}
	if v, ok, err := f.Text(User); string(v) != "ab" || !ok || err != nil {
		t.Errorf("user: got %q, %v, %v", v, ok, err)
	}
	if _, ok, err := f.Text(Background); ok || err != nil {
		t.Errorf("background as text: got %v, %v, want absent", ok, err)
	}
	if _, _, err := f.Text(PreviousResponseID); !errors.Is(err, ErrType) {
		t.Errorf("previous_response_id: got %v, want ErrType", err)
	}
	if !f.IncludeUsage() {
		t.Error("include_usage: got false, but engines take the last of duplicates")
	}
	if f.Raw(RID) != nil || string(f.Body()) != body {
		t.Errorf("got rid %s and body %s", f.Raw(RID), f.Body())
	}
}

func TestScanEveryNumberedEscape(t *testing.T) {
	var f Fields
	for r := range 0x10000 {
		for _, format := range []string{`{"model":"\u%04x"}`, `{"model":"é\u0041\u%04X"}`} {
			body := fmt.Sprintf(format, r)
			err := Scan([]byte(body), &f)
			if half := r >= 0xD800 && r <= 0xDFFF; half != errors.Is(err, ErrEncoding) || half != (err != nil) {
				t.Fatalf("%s: got %v", body, err)
			}
			if err == nil {
				name, err := f.Model()
				if err != nil || !strings.HasSuffix(string(name), string(rune(r))) {
					t.Fatalf("%s: got model %q, %v", body, name, err)
				}
			}
		}
	}
	for _, valid := range []string{`\u0041`, `\uABCD`, `\ud83d\uDE00`} {
		for at := range valid {
			for c := range 256 {
				body := []byte(`{"model":"\u00e9` + valid[:at] + string([]byte{byte(c)}) + valid[at+1:] + `"}`)
				if got, want := Scan(body, &f) == nil, refAccepts(body); got != want {
					t.Fatalf("%s: got %v, want %v", body, got, want)
				}
			}
		}
	}
}
