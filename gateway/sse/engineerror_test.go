package sse

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestErrorOf(t *testing.T) {
	const silent = "the model server gave an error without a message"
	for _, c := range []struct {
		name, data string
		want       *EngineError // nil: none
	}{
		{"nested, string code", `{"error":{"message":"m","type":"invalid_request_error","param":"model","code":"model_not_found"}}`, &EngineError{Message: "m", Type: "invalid_request_error", Param: "model", Code: "model_not_found"}},
		{"nested, integer code", `{"error":{"object":"error","message":"The request queue is full.","type":"SERVICE_UNAVAILABLE","param":null,"code":503}}`, &EngineError{Message: "The request queue is full.", Type: "SERVICE_UNAVAILABLE", Code: "503", Status: 503}},
		{"nested, status as text", `{"error":{"message":"m","code":"400"}}`, &EngineError{Message: "m", Code: "400", Status: 400}},
		{"nested, code no status", `{"error":{"message":"m","code":1234}}`, &EngineError{Message: "m", Code: "1234"}},
		{"nested, code of success", `{"error":{"message":"m","code":200}}`, &EngineError{Message: "m", Code: "200"}},
		{"nested, nulls", `{"error":{"message":"m","type":null,"param":null,"code":null}}`, &EngineError{Message: "m"}},
		{"nested, escapes", `{ "id": 1, "error" : {"message":"a\"b\u00e9\n"} }`, &EngineError{Message: "a\"bé\n"}},
		{"nested, message no text", `{"error":{"message":{"a":1}}}`, &EngineError{Message: `{"a":1}`}},
		{"nested, empty", `{"error":{}}`, &EngineError{Message: silent}},
		{"flat", `{"object":"error","message":"m","type":"BadRequest","param":null,"code":400}`, &EngineError{Message: "m", Type: "BadRequest", Code: "400", Status: 400}},
		{"flat, Responses", `{"type":"error","sequence_number":3,"code":"server_error","message":"m","param":null}`, &EngineError{Message: "m", Type: "error", Code: "server_error"}},
		{"Anthropic", `{"type":"error","error":{"type":"overloaded_error","message":"m"}}`, &EngineError{Message: "m", Type: "overloaded_error"}},
		{"text", `{"error":"Unauthorized"}`, &EngineError{Message: "Unauthorized"}},
		{"list", `{"error":["a"]}`, &EngineError{Message: `["a"]`}},
		{"detail", `{"detail":"Not Found"}`, &EngineError{Message: "Not Found"}},
		{"detail of FastAPI", `{"detail":[{"loc":["body","max_tokens"],"msg":"Input should be valid","type":"int"},{"loc":["body",0],"msg":"x"}]}`, &EngineError{Message: "body.max_tokens: Input should be valid; body.0: x"}},
		{"detail, object", `{"detail":{"a":1}}`, &EngineError{Message: `{"a":1}`}},
		{"detail, empty list", `{"detail":[]}`, nil},
		{"detail, null", `{"detail":null}`, nil},
		{"detail in an answer", `{"id":"x","choices":[],"detail":"high"}`, nil},
		{"null", `{"error":null,"choices":[]}`, nil},
		{"false", `{"error":false}`, nil},
		{"no text", `{"error":""}`, nil},
		{"answer", chunk, nil},
		{"failed response", `{"object":"response","status":"failed","error":{"code":"server_error","message":"m"}}`, nil},
		{"nested deeper", `{"response":{"error":{"message":"m"}}}`, nil},
		{"in the text", `{"choices":[{"delta":{"content":"{\"error\":{\"message\":\"m\"},\"detail\":1}"}}]}`, nil},
		{"as a value", `{"status":"error","detail_level":"detail"}`, nil},
		{"done", `[DONE]`, nil},
		{"no JSON", `"error" "detail"`, nil},
		{"cut", `{"error":{"message":"m"`, nil},
		{"malformed inside", `{"error":{message}}`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := ErrorOf([]byte(c.data))
			if ok != (c.want != nil) {
				t.Fatalf("got %+v, %v, want %+v", got, ok, c.want)
			}
			if ok && *got != *c.want {
				t.Errorf("got %+v, want %+v", *got, *c.want)
			}
		})
	}
}

func TestParseError(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   string
		want   EngineError
	}{
		{"SGLang, flat", 400, `{"object":"error","message":"too long","type":"BadRequestError","param":null,"code":400}`, EngineError{Message: "too long", Type: "BadRequestError", Code: "400"}},
		{"SGLang, nested", 500, `{"error":{"message":"m","type":"t","param":null,"code":500}}`, EngineError{Message: "m", Type: "t", Code: "500"}},
		{"status wins", 502, `{"error":{"message":"m","code":400}}`, EngineError{Message: "m", Code: "400"}},
		{"SGLang, auth", 401, ` {"error":"Unauthorized"} `, EngineError{Message: "Unauthorized"}},
		{"FastAPI", 404, `{"detail":"Not Found"}`, EngineError{Message: "Not Found"}},
		{"bare message", 500, `{"message":"m","code":"c"}`, EngineError{Message: "m", Code: "c"}},
		{"byte order mark", 500, "\xEF\xBB\xBF{\"error\":\"m\"}", EngineError{Message: "m"}},
		{"other JSON", 500, `{"success":false}`, EngineError{Message: `{"success":false}`}},
		{"cut JSON", 500, `{"error":{"message":"m`, EngineError{Message: `{"error":{"message":"m`}},
		{"JSON and more", 500, `{"error":"m"}{}`, EngineError{Message: `{"error":"m"}{}`}},
		{"JSON text", 500, `"out of memory"`, EngineError{Message: "out of memory"}},
		{"list", 500, `[1]`, EngineError{Message: "[1]"}},
		{"HTML", 502, "<html>\n<head><TITLE>502 Bad\n Gateway &amp; more</TITLE></head><body><h1>x</h1></body></html>", EngineError{Message: "502 Bad Gateway & more"}},
		{"HTML without a title", 502, "<h1>Bad Gateway</h1>", EngineError{Message: "<h1>Bad Gateway</h1>"}},
		{"HTML with an empty title", 502, "<title> </title>", EngineError{Message: "the model server gave an error without a message"}},
		{"plain", 500, "Internal Server Error\n", EngineError{Message: "Internal Server Error"}},
		{"nothing", 503, "", EngineError{Message: "the model server answered 503 Service Unavailable"}},
		{"white space", 599, " \n", EngineError{Message: "the model server answered 599"}},
		{"invalid UTF-8", 500, "a\xFFb", EngineError{Message: "a\uFFFDb"}},
		{"invalid UTF-8 in JSON", 500, "{\"error\":\"a\xFFb\"}", EngineError{Message: "a\uFFFDb"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.want.Status = c.status
			if got := ParseError(c.status, []byte(c.body)); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestErrorTextIsBounded(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("a", MaxErrorMessage+1), strings.Repeat("模", 2*MaxErrorMessage), strings.Repeat("a\xFF", 8*MaxErrorMessage),
		strings.Repeat("\xFF", 8*MaxErrorMessage), strings.Repeat("\x80", MaxErrorMessage+1), "a" + strings.Repeat("😀", MaxErrorMessage),
	} {
		for _, body := range []string{text, `{"error":{"message":"` + text + `","type":"` + text + `"}}`, `{"detail":"` + text + `"}`} {
			e := ParseError(500, []byte(body))
			for _, got := range []string{e.Message, e.Type} {
				if len(got) > MaxErrorMessage || !utf8.ValidString(got) {
					t.Errorf("%.20q: got %d bytes, valid UTF-8 %v", body, len(got), utf8.ValidString(got))
				}
			}
			if len(text) > 4*MaxErrorMessage && !strings.HasSuffix(e.Message, "…") {
				t.Errorf("%.20q: got %.20q…, which does not show that it was cut", body, e.Message)
			}
		}
	}
	exact := strings.Repeat("a", MaxErrorMessage)
	if e := ParseError(500, []byte(exact)); e.Message != exact {
		t.Errorf("a message of exactly the limit was cut to %d bytes", len(e.Message))
	}
}

func TestEngineErrorIsAnError(t *testing.T) {
	e := ParseError(500, []byte("m"))
	var target *EngineError
	if err := error(&e); !errors.As(err, &target) || err.Error() != "engine: m" {
		t.Errorf("got %v", err)
	}
}

func FuzzParseError(f *testing.F) {
	f.Add(400, []byte(`{"error":{"message":"m","type":1,"code":"x","param":[]}}`))
	f.Add(500, []byte("<title>\xFF</title>"))
	f.Add(422, []byte(`{"detail":[{"loc":["a",1],"msg":"m"}]}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		e := ParseError(status, body)
		if e.Message == "" || e.Status != status {
			t.Errorf("%q: got %+v", body, e)
		}
		for _, text := range []string{e.Message, e.Type, e.Param, e.Code} {
			if len(text) > MaxErrorMessage || !utf8.ValidString(text) {
				t.Errorf("%q: got %q", body, text)
			}
		}
		if e, ok := ErrorOf(body); ok && e.Message == "" {
			t.Errorf("%q: got no message", body)
		}
	})
}
