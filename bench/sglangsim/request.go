package sglangsim

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
)

// stringList is a JSON string or a list of them.
type stringList []string

func (l *stringList) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		if string(data) != "null" {
			*l = stringList{one}
		}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(l))
}

// sampling is what all generating routes of the OpenAI kind share. Unknown fields are ignored, as SGLang does.
type sampling struct {
	Model         string          `json:"model"`
	RID           json.RawMessage `json:"rid"`
	Stream        bool            `json:"stream"`
	StreamOptions *struct {
		IncludeUsage         bool `json:"include_usage"`
		ContinuousUsageStats bool `json:"continuous_usage_stats"`
	} `json:"stream_options"`
	MaxTokens         *int       `json:"max_tokens"`
	N                 *int       `json:"n"`
	Stop              stringList `json:"stop"`
	Seed              *int64     `json:"seed"`
	NoStopTrim        bool       `json:"no_stop_trim"`
	Temperature       *float64   `json:"temperature"`
	TopP              *float64   `json:"top_p"`
	MinP              *float64   `json:"min_p"`
	TopK              *int       `json:"top_k"`
	FrequencyPenalty  *float64   `json:"frequency_penalty"`
	PresencePenalty   *float64   `json:"presence_penalty"`
	RepetitionPenalty *float64   `json:"repetition_penalty"`
	MinTokens         int        `json:"min_tokens"`
	LoraPath          any        `json:"lora_path"`
	Regex             string     `json:"regex"` // what the answer must match; SGLang's own, as ebnf
	EBNF              string     `json:"ebnf"`
}

func (p *sampling) seed(fallback int64) int64 {
	if p.Seed != nil {
		return *p.Seed
	}
	return fallback
}

func (p *sampling) model() string {
	if p.Model == "" {
		return "default"
	}
	return p.Model
}

func (p *sampling) count() int {
	if p.N == nil {
		return 1
	}
	return *p.N
}

func (p *sampling) limit() int {
	if p.MaxTokens == nil {
		return 0
	}
	return *p.MaxTokens
}

// wantsUsage tells whether the stream ends with a usage chunk, and whether each chunk has one.
func (p *sampling) wantsUsage(byDefault bool) (atEnd, always bool) {
	if p.StreamOptions == nil {
		return byDefault, false
	}
	return byDefault || p.StreamOptions.IncludeUsage, p.StreamOptions.ContinuousUsageStats
}

// rid is the request's own id when it chose one, else a fresh one of 32 hexadecimal digits.
func (p *sampling) rid() (string, error) {
	var rid string
	if len(p.RID) > 0 && string(p.RID) != "null" {
		if err := json.Unmarshal(p.RID, &rid); err != nil {
			return "", badRequest("rid must be a string")
		}
	}
	if rid == "" {
		rid = newID()
	}
	return rid, nil
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}

// mostChoices is a bound of the simulator's own, OpenAI's.
const mostChoices = 128

// check applies SGLang's ranges.
func (p *sampling) check() error {
	outside := func(v *float64, low, high float64, openLow bool) bool {
		return v != nil && (*v < low || *v > high || openLow && *v == low)
	}
	switch {
	case p.MaxTokens != nil && *p.MaxTokens <= 0:
		return badRequest("max_tokens must be positive")
	case p.N != nil && *p.N < 1:
		return badRequest("n must be at least 1, got %d.", *p.N)
	case p.count() > mostChoices:
		return badRequest("n must be at most %d, got %d.", mostChoices, *p.N)
	case p.Temperature != nil && *p.Temperature < 0:
		return badRequest("temperature must be non-negative, got %v.", *p.Temperature)
	case outside(p.TopP, 0, 1, true):
		return badRequest("top_p must be in (0, 1], got %v.", *p.TopP)
	case outside(p.MinP, 0, 1, false):
		return badRequest("min_p must be in [0, 1], got %v.", *p.MinP)
	case p.TopK != nil && *p.TopK < 1 && *p.TopK != -1:
		return badRequest("top_k must be -1 (disable) or at least 1, got %d.", *p.TopK)
	case outside(p.FrequencyPenalty, -2, 2, false):
		return badRequest("frequency_penalty must be in [-2, 2], got %v.", *p.FrequencyPenalty)
	case outside(p.PresencePenalty, -2, 2, false):
		return badRequest("presence_penalty must be in [-2, 2], got %v.", *p.PresencePenalty)
	case outside(p.RepetitionPenalty, 0, 2, true):
		return badRequest("repetition_penalty must be in (0, 2], got %v.", *p.RepetitionPenalty)
	case p.MaxTokens != nil && p.MinTokens > *p.MaxTokens:
		return badRequest("min_tokens must be in [0, max_new_tokens(%d)], got %d.", *p.MaxTokens, p.MinTokens)
	}
	adapter := ""
	if _, name, ok := strings.Cut(p.Model, ":"); ok {
		adapter = name
	} else if path, ok := p.LoraPath.(string); ok {
		adapter = path
	}
	if adapter != "" {
		return badRequest("LoRA adapter '%s' was requested, but LoRA is not enabled. Please launch the server with --enable-lora flag and preload adapters using --lora-paths or /load_lora_adapter endpoint.", adapter)
	}
	return nil
}

// room is how many tokens an answer may have beside a prompt of that length.
func (s *Server) room(promptTokens *int, limit int) (int, error) {
	size := s.opts.ContextLength
	if *promptTokens >= size {
		if !s.opts.AutoTruncate {
			return 0, badRequest("The input (%d tokens) is longer than the model's context length (%d tokens).", *promptTokens, size)
		}
		*promptTokens = size - 1
	}
	if total := *promptTokens + limit; total > size && !s.opts.AutoTruncate {
		return 0, badRequest("Requested token count exceeds the model's maximum context length of %d tokens. You requested a total of %d tokens: %d tokens from the input messages and %d tokens for the completion. Please reduce the number of tokens in the input messages or the completion to fit within the limit.", size, total, *promptTokens, limit)
	}
	return size - *promptTokens, nil
}

// apiError is an answer in SGLang's flat shape.
type apiError struct {
	Object  string  `json:"object"`
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    int     `json:"code"`
}

func (e *apiError) Error() string { return e.Message }

func badRequest(format string, args ...any) error {
	return &apiError{Object: "error", Message: fmt.Sprintf(format, args...), Type: "BadRequestError", Code: http.StatusBadRequest}
}

// invalid is what FastAPI's validation turns into.
func invalid(format string, args ...any) error {
	return &apiError{Object: "error", Message: fmt.Sprintf(format, args...), Type: "Bad Request", Code: http.StatusBadRequest}
}

// toAPIError gives an error from the engine or a check its form and status.
func toAPIError(err error) *apiError {
	var e *apiError
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, errQueueFull):
		return &apiError{Object: "error", Message: err.Error(), Type: "503", Code: http.StatusServiceUnavailable}
	case errors.Is(err, errDuplicateRID):
		return &apiError{Object: "error", Message: err.Error(), Type: "BadRequest", Code: http.StatusBadRequest}
	}
	return &apiError{Object: "error", Message: err.Error(), Type: "InternalServerError", Code: http.StatusInternalServerError}
}

func writeError(w http.ResponseWriter, err error) {
	e := toAPIError(err)
	writeJSON(w, e.Code, e)
}

// decode reads a JSON body into v, with the refusals of SGLang's routes.
func decode(r *http.Request, v any) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return invalid("Unsupported Media Type: Only 'application/json' is allowed")
	}
	return decodeAny(r, v)
}

// decodeAny is decode for native routes, which do not look at the content type.
func decodeAny(r *http.Request, v any) error {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return fmt.Errorf("reading the body: %w", err)
	}
	err = json.Unmarshal(data, v)
	var mismatch *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &mismatch):
		return invalid("1 validation error:\n  {'type': '%s_type', 'loc': ('body', '%s'), 'msg': 'Input should be a valid %s'}", mismatch.Type, mismatch.Field, mismatch.Type)
	case errors.As(err, &syntax):
		return invalid("1 validation error:\n  {'type': 'json_invalid', 'loc': ('body', %d), 'msg': 'JSON decode error'}", syntax.Offset)
	case err != nil:
		return invalid("1 validation error:\n  {'type': 'value_error', 'loc': ('body',), 'msg': %q}", err.Error())
	}
	return nil
}

func missing(field string) error {
	return invalid("1 validation error:\n  {'type': 'missing', 'loc': ('body', '%s'), 'msg': 'Field required'}", field)
}

// writeJSON answers v without HTML escapes and without a final newline, as SGLang does.
func writeJSON(w http.ResponseWriter, status int, v any) {
	data := marshal(v)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	w.WriteHeader(status)
	_, _ = w.Write(data) // fails when the client left, which ends the exchange anyhow
}

// marshal encodes values that always have a JSON form.
func marshal(v any) []byte {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("BUG: an answer holds only plain values: " + err.Error())
	}
	return []byte(strings.TrimSuffix(b.String(), "\n"))
}
