package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"pilotlight/activator"
	"pilotlight/auth"
	"pilotlight/backends"
	"pilotlight/backends/transport"
	"pilotlight/gateway/jsonbody"
	"pilotlight/gateway/sse"
)

// apiError is what a client is told: OpenAI's error object plus the status and the retry advice. Message is for
// the client and says what to do next; Cause is for the log and never leaves the machine.
type apiError struct {
	Status  int
	Type    string
	Code    string
	Param   string // empty: null
	Message string
	// RetryAfter goes out in whole seconds, 1..59: several SDKs ignore or misread anything else (facts/clients.md §1.3).
	// 0: no header.
	RetryAfter time.Duration
	// Retry overrides the SDKs' own reading of the status: +1 x-should-retry true, -1 false, 0 no header.
	Retry  int
	Cause  error
	engine bool // the engine said so
	// foreign: Code is the engine's word, which may be anything.
	foreign bool
}

// label is the code for metrics and logs: one of a bounded set.
func (e *apiError) label() string {
	if e.foreign {
		return defaultCode(e.Status)
	}
	return e.Code
}

func (e *apiError) Error() string {
	if e.Cause != nil {
		return e.Code + ": " + e.Cause.Error()
	}
	return e.Code + ": " + e.Message
}

func (e *apiError) Unwrap() error { return e.Cause }

const (
	typeInvalidRequest = "invalid_request_error"
	typeServer         = "server_error"
)

// The errors of the edge itself.
var (
	errNoKey = &apiError{Status: 401, Type: typeInvalidRequest, Code: "invalid_api_key",
		Message: "No API key was given. Send it in an Authorization header (Authorization: Bearer YOUR_KEY); `pilotlight keys new` makes one."}
	errWrongKey = &apiError{Status: 401, Type: typeInvalidRequest, Code: "invalid_api_key",
		Message: "The API key is not valid: it is unknown, expired or revoked. Ask the operator of this endpoint for a new one."}
	errUnknownRoute = &apiError{Status: 404, Type: typeInvalidRequest, Code: "unknown_url",
		Message: "There is nothing at this address. Inference lives under /v1, for example POST /v1/chat/completions; GET /v1/models lists the models."}
	errStored = &apiError{Status: 404, Type: typeInvalidRequest, Code: "not_found",
		Message: "Responses are not kept by this endpoint once they are answered. Send the conversation again with POST /v1/responses."}
	errPreviousResponse = &apiError{Status: 404, Type: typeInvalidRequest, Code: "previous_response_not_found", Param: "previous_response_id",
		Message: "The previous response is not known here any more: the server that kept it was stopped, or it is too old. Send the whole conversation as input, without previous_response_id."}
	errMethod = &apiError{Status: 405, Type: typeInvalidRequest, Code: "method_not_allowed",
		Message: "This address does not take that method; the Allow header names those that it does."}
	errEncoded = &apiError{Status: 415, Type: typeInvalidRequest, Code: "unsupported_content_encoding",
		Message: "Compressed request bodies are not accepted. Send the JSON as it is, without Content-Encoding."}
	errBackground = &apiError{Status: 400, Type: typeInvalidRequest, Code: "unsupported_parameter", Param: "background",
		Message: "background: true is not supported by this endpoint. Leave it out and read the answer as a stream."}
	errClientLeft = &apiError{Status: 499, Type: typeInvalidRequest, Code: "client_closed_request",
		Message: "The client closed the connection."}
	errRequestTimeout = &apiError{Status: 504, Type: typeServer, Code: "request_timeout", Retry: -1,
		Message: "The request took longer than this model's time limit. Ask for fewer tokens, or have the operator raise timeouts.request."}
	errFirstByte = &apiError{Status: 504, Type: typeServer, Code: "first_byte_timeout",
		Message: "The model accepted the request but did not begin to answer in time. Try again, or shorten the prompt."}
	errStalled = &apiError{Status: 504, Type: typeServer, Code: "stream_stalled",
		Message: "The model stopped in the middle of its answer. Try again."}
	errEngineGone = &apiError{Status: 502, Type: typeServer, Code: "backend_unavailable",
		Message: "The model's server went away before it had answered. Try again: it is being replaced."}
	errNotStream = &apiError{Status: 502, Type: typeServer, Code: "backend_unavailable",
		Message: "The model's server did not answer with a stream although one was asked for."}
	errEngineTooLong = &apiError{Status: 502, Type: typeServer, Code: "backend_response_too_large",
		Message: "The model's answer is larger than this endpoint passes on. Ask for less, or as a stream."}
	errShutdown = &apiError{Status: 503, Type: typeServer, Code: "shutting_down", RetryAfter: time.Second, Retry: 1,
		Message: "This endpoint is restarting. Try again in a moment."}
)

func (e *apiError) withCause(err error) *apiError {
	c := *e
	c.Cause = err
	return &c
}

func errBodyTooLarge(limit int) *apiError {
	return &apiError{Status: 413, Type: typeInvalidRequest, Code: "request_too_large",
		Message: fmt.Sprintf("The request body is larger than %d bytes, the most that this endpoint takes.", limit)}
}

// OpenAI's status and code for a model that exists and that a project may not use.
func errModelForbidden(id string) *apiError {
	return &apiError{Status: 403, Type: typeInvalidRequest, Code: "model_not_found", Param: "model",
		Message: fmt.Sprintf("You do not have access to the model %s. GET /v1/models lists the models that you may use.", strconv.Quote(id))}
}

var (
	errRouteForbidden = &apiError{Status: 403, Type: typeInvalidRequest, Code: "route_not_allowed",
		Message: "You may not use this address. Ask the operator of this endpoint for access."}
	// Not 403: somebody else may start the model at any moment.
	errMayNotWake = &apiError{Status: 503, Type: typeServer, Code: "model_cold", RetryAfter: 30 * time.Second, Retry: -1,
		Message: "The model is not running, and you may not start it. Use another one, or try again when it runs; GET /v1/models/ID tells."}
	errNoIssuer = &apiError{Status: 503, Type: typeServer, Code: "identity_unavailable", RetryAfter: 5 * time.Second, Retry: 1,
		Message: "Your token cannot be checked at the moment, because its issuer does not give its keys. Try again in a moment."}
	errManyWrongKeys = &apiError{Status: 429, Type: "requests", Code: "rate_limit_exceeded", Retry: 1,
		Message: "Too many wrong API keys came from your address. Check the key, and try again in a minute."}
)

func errTooManyTokens(k jsonbody.Key, most int64) *apiError {
	return &apiError{Status: 400, Type: typeInvalidRequest, Code: "invalid_parameter", Param: k.String(),
		Message: fmt.Sprintf("%s may be at most %d for you. Ask for fewer tokens, or leave it out.", k, most)}
}

func errContextForbidden(prompt, answer, most int64) *apiError {
	return &apiError{Status: 400, Type: typeInvalidRequest, Code: "context_length_exceeded", Param: "messages",
		Message: fmt.Sprintf("The prompt (some %d tokens) and the answer (up to %d) are more than the %d tokens that you may use at once. Shorten the prompt, or ask for fewer tokens.", prompt, answer, most)}
}

// errChunkedTooLarge is for bodies that would be taken if they told their length.
var errChunkedTooLarge = &apiError{Status: 413, Type: typeInvalidRequest, Code: "request_too_large",
	Message: fmt.Sprintf("The request body came in chunks and is larger than %d bytes; send it with a Content-Length, or try again later.", smallChunked)}

func errModelNotFound(id string) *apiError {
	const most = 200
	if len(id) > most {
		id = id[:most] + "…"
	}
	return &apiError{Status: 404, Type: typeInvalidRequest, Code: "model_not_found", Param: "model",
		Message: fmt.Sprintf("The model %s does not exist or you do not have access to it. GET /v1/models lists the models that you may use.", strconv.Quote(id))}
}

// bodyError tells what is wrong with a request body.
func bodyError(err error) *apiError {
	e := &apiError{Status: 400, Type: typeInvalidRequest, Code: "invalid_json", Message: "The request body could not be read.", Cause: err}
	var bad *jsonbody.Error
	if errors.As(err, &bad) {
		e.Message, e.Param = bad.Message(), bad.Param
	}
	switch {
	case errors.Is(err, jsonbody.ErrMissing):
		e.Code = "missing_required_parameter"
	case errors.Is(err, jsonbody.ErrType), errors.Is(err, jsonbody.ErrEmpty), errors.Is(err, jsonbody.ErrDuplicateKey):
		e.Code = "invalid_parameter"
	}
	return e
}

// identifyError maps auth's sentinels.
func identifyError(err error) *apiError {
	if errors.Is(err, auth.ErrNoKey) {
		return errNoKey
	}
	if errors.Is(err, auth.ErrUnavailable) {
		return errNoIssuer.withCause(err)
	}
	return errWrongKey.withCause(err)
}

// coldError is the answer to a request whose model is not ready and whose wait is over.
func coldError(status activator.WaitStatus, eta time.Duration) *apiError {
	if status.State == activator.Ready {
		return &apiError{Status: 503, Type: typeServer, Code: "queue_timeout", RetryAfter: clampRetry(eta), Retry: 1,
			Message: "The model is busy and the request waited as long as it may. Try again in a moment."}
	}
	if status.Reason != "" { // words of the ledger: names of models, and nothing of who uses them
		return &apiError{Status: 503, Type: typeServer, Code: "gpus_busy", RetryAfter: time.Duration(activator.RetryAfter(0)) * time.Second, Retry: 1,
			Message: "The model is " + status.Reason + ". Try again in a moment, which keeps its place, or ask for a stream, which can wait longer."}
	}
	msg := "The model is starting and not ready yet; the start goes on."
	if status.State == activator.Asleep {
		msg = "The model was asleep and is waking up."
	}
	if eta > 0 {
		msg += fmt.Sprintf(" It should be ready in about %d s.", int(math.Ceil(eta.Seconds())))
	}
	after := time.Duration(activator.RetryAfter(eta)) * time.Second
	return &apiError{Status: 503, Type: typeServer, Code: "model_cold", RetryAfter: after, Retry: 1,
		Message: msg + " Try again then, or ask for a stream, which can wait longer."}
}

// activatorError maps what the activator says when it does not give a replica.
func activatorError(err error, eta time.Duration) *apiError {
	var start *activator.StartFailedError
	switch {
	case errors.As(err, &start):
		return startError(start)
	case errors.Is(err, activator.ErrQueueFull):
		return &apiError{Status: 503, Type: typeServer, Code: "queue_full", RetryAfter: clampRetry(eta), Retry: 1, Cause: err,
			Message: "Too many requests wait for this model already. Try again in a moment."}
	case errors.Is(err, activator.ErrUnloaded):
		return &apiError{Status: 503, Type: typeServer, Code: "model_removed", RetryAfter: time.Second, Cause: err,
			Message: "The model is being removed from this endpoint. GET /v1/models lists those that remain."}
	case errors.Is(err, activator.ErrShuttingDown):
		return errShutdown.withCause(err)
	default:
		return internalError(err)
	}
}

// startError tells why a model did not start, in the words of the failure's class: what happened and what an operator can
// do, never paths, addresses or output.
func startError(start *activator.StartFailedError) *apiError {
	e := &apiError{Status: 503, Type: typeServer, Code: "model_start_failed", Cause: start,
		Message: "The model did not start."}
	var f *backends.Failure
	if errors.As(start, &f) {
		e.Code = string(f.Class)
		e.Message = "The model did not start: " + f.Message + "."
		if f.Advice != "" {
			e.Message += " For the operator: " + f.Advice + "."
		}
	}
	if start.Permanent {
		e.Retry = -1
		e.Message += " It will not be tried again until its configuration changes."
		return e
	}
	e.Retry = 1
	e.RetryAfter = clampRetry(start.RetryAfter)
	return e
}

// callError maps a failed exchange with a replica.
func callError(err error) *apiError {
	var te *transport.Error
	if errors.As(err, &te) || errors.Is(err, transport.ErrCancelled) {
		return errEngineGone.withCause(err)
	}
	return internalError(err)
}

// engineError rewrites an engine's error, whatever its shape, into the nested one that every SDK reads.
func engineError(in sse.EngineError, status int) *apiError {
	e := &apiError{Status: status, Type: typeInvalidRequest, Code: in.Code, Param: in.Param, Message: in.Message, engine: true}
	switch {
	case status == 401 || status == 403: // the replica refused our own key: nothing that the client could mend
		return errEngineGone.withCause(fmt.Errorf("the engine answered %d", status))
	case status == 422:
		e.Status = 400
	case status == 404 && in.Code == "":
		e.Message = "The model's server does not serve this route."
	case status >= 500:
		e.Type = typeServer
	}
	switch {
	case isContextLength(in.Message), in.Type == "exceed_context_size_error":
		e.Code = "context_length_exceeded"
		return e
	case status == 503 && in.Message == "The request queue is full.":
		e.Code, e.RetryAfter, e.Retry = "queue_full", time.Second, 1
		return e
	case status == 503:
		e.RetryAfter = time.Second
	}
	e.foreign = true
	if e.Code == "" || isNumber(e.Code) {
		e.Code = defaultCode(e.Status)
	}
	if e.Message == "" {
		e.Message = fmt.Sprintf("The model's server answered %d without an explanation.", status)
	}
	return e
}

// isContextLength recognises SGLang's words for a prompt that is too long (facts/sglang.md §6.5), and llama.cpp's type of it.
func isContextLength(message string) bool {
	return strings.Contains(message, "longer than the model's context length") ||
		strings.Contains(message, "exceeds the maximum allowed length") ||
		strings.HasPrefix(message, "Requested token count exceeds")
}

func defaultCode(status int) string {
	switch {
	case status == 404:
		return "not_found"
	case status == 429:
		return "rate_limit_exceeded"
	case status >= 500:
		return "backend_error"
	default:
		return "invalid_request"
	}
}

func internalError(err error) *apiError {
	return &apiError{Status: 500, Type: typeServer, Code: "internal_error", Cause: err,
		Message: "Something went wrong inside this endpoint. Try again; if it stays, give its operator the x-request-id of this answer."}
}

func isNumber(s string) bool {
	_, err := strconv.Atoi(s)
	return err == nil
}

// clampRetry keeps a retry advice within 1..59 whole seconds (facts/clients.md §0.5).
func clampRetry(d time.Duration) time.Duration {
	s := time.Duration(math.Ceil(d.Seconds())) * time.Second
	return min(max(s, time.Second), 59*time.Second)
}

// MarshalJSON gives OpenAI's error object with all four members; code is a string always (facts/clients.md §1.1).
func (e *apiError) MarshalJSON() ([]byte, error) {
	var param *string
	if e.Param != "" {
		param = &e.Param
	}
	return json.Marshal(struct {
		Error any `json:"error"`
	}{struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    string  `json:"code"`
	}{e.Message, e.Type, param, e.Code}})
}

// write puts the error into a response whose status is not sent yet.
func (e *apiError) write(resp *fasthttp.Response) {
	body, err := e.MarshalJSON()
	if err != nil {
		panic("BUG: an error of four strings is JSON: " + err.Error())
	}
	resp.ResetBody()
	resp.SetStatusCode(e.Status)
	resp.Header.SetContentType("application/json")
	if e.RetryAfter > 0 {
		resp.Header.Set("Retry-After", strconv.Itoa(int(clampRetry(e.RetryAfter)/time.Second)))
	}
	switch e.Retry {
	case 1:
		resp.Header.Set("X-Should-Retry", "true")
	case -1:
		resp.Header.Set("X-Should-Retry", "false")
	}
	resp.SetBody(body)
}
