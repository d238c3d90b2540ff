package gateway

import (
	"bytes"
	"net/url"
	"slices"
	"strings"
)

// endpoint is one kind of request that the edge knows.
type endpoint uint8

const (
	endpointNone      endpoint = iota
	endpointInference          // forwarded to a replica of the model named in the body
	endpointModels             // GET /v1/models
	endpointModel              // GET /v1/models/{id}
	endpointHealth             // the edge itself is up
	endpointStored             // responses kept by an engine; see route.stored
)

// api is the dialect of a route: which events and errors its clients understand (facts/clients.md §1.6).
type api uint8

const (
	apiOpenAI    api = iota // chat completions, completions and everything without streams
	apiResponses            // named events
)

// route is what a path means. Inference routes are reached upstream by their own canonical path, never by the client's
// spelling of it: what is not in the table cannot be reached, whatever tricks a path plays.
type route struct {
	endpoint endpoint
	api      api
	upstream string // canonical path at the replica
	metric   string // low-cardinality name for metrics and the log
	methods  string // for Allow
	// stream: the route has a streaming form, chosen by the body's stream member.
	stream bool
	// rid: SGLang takes our request id in the body, so that the request can be aborted by it.
	rid bool
}

const (
	methodsPost = "POST, OPTIONS"
	methodsGet  = "GET, HEAD, OPTIONS"
)

// routes are keyed by path without the /v1 prefix. Sources: facts/sglang.md §2.4, facts/clients.md §4.
var routes = map[string]*route{
	"/chat/completions": {endpoint: endpointInference, upstream: "/v1/chat/completions", metric: "chat", methods: methodsPost, stream: true, rid: true},
	"/completions":      {endpoint: endpointInference, upstream: "/v1/completions", metric: "completions", methods: methodsPost, stream: true, rid: true},
	"/embeddings":       {endpoint: endpointInference, upstream: "/v1/embeddings", metric: "embeddings", methods: methodsPost, rid: true},
	"/responses":        {endpoint: endpointInference, api: apiResponses, upstream: "/v1/responses", metric: "responses", methods: methodsPost, stream: true},
	"/rerank":           {endpoint: endpointInference, upstream: "/v1/rerank", metric: "rerank", methods: methodsPost},
	"/score":            {endpoint: endpointInference, upstream: "/v1/score", metric: "score", methods: methodsPost},
	"/classify":         {endpoint: endpointInference, upstream: "/v1/classify", metric: "classify", methods: methodsPost},
	"/tokenize":         {endpoint: endpointInference, upstream: "/v1/tokenize", metric: "tokenize", methods: methodsPost},
	"/detokenize":       {endpoint: endpointInference, upstream: "/v1/detokenize", metric: "detokenize", methods: methodsPost},
	"/models":           {endpoint: endpointModels, metric: "models", methods: methodsGet},
	"/health":           {endpoint: endpointHealth, metric: "health", methods: methodsGet},
	"/":                 {endpoint: endpointHealth, metric: "health", methods: methodsGet},
}

// RouteNames are the inference routes as metrics, logs and rights name them, sorted.
func RouteNames() []string {
	var names []string
	for _, r := range routes {
		if r.endpoint == endpointInference {
			names = append(names, r.metric)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

var (
	routeModel  = &route{endpoint: endpointModel, metric: "model", methods: methodsGet}
	routeStored = &route{endpoint: endpointStored, metric: "stored_response", methods: "GET, DELETE, POST, OPTIONS"}
	routeNone   = &route{metric: "other"}
)

// resolveRoute reads a request target as sent. It accepts what base URLs in the wild produce (`//v1/…`, `/v1/v1/…`, no /v1,
// a trailing slash, the absolute form) and nothing else. For a model route rest is the id, decoded exactly once.
func resolveRoute(target []byte) (r *route, rest string) {
	path := pathOf(target)
	if len(path) == 0 || path[0] != '/' {
		return routeNone, ""
	}
	// The common case, without an allocation: /v1 followed by a known path.
	if len(path) > 3 && string(path[:3]) == "/v1" && path[3] == '/' {
		if r := routes[string(path[3:])]; r != nil {
			return r, ""
		}
	}
	trimmed := trimPrefix(path)
	if tail, ok := bytes.CutPrefix(trimmed, []byte("/models/")); ok && len(tail) > 0 {
		// Matched on the raw path: decoding first would fold `a%2F..%2Fb` into another id.
		id, err := url.PathUnescape(string(tail))
		if err != nil {
			return routeNone, ""
		}
		return routeModel, id
	}
	if tail, ok := bytes.CutPrefix(trimmed, []byte("/responses/")); ok && len(tail) > 0 {
		return routeStored, ""
	}
	if r := routes[string(collapse(trimmed))]; r != nil {
		return r, ""
	}
	return routeNone, ""
}

// pathOf cuts scheme, authority, query and fragment from a request target.
func pathOf(target []byte) []byte {
	if i := bytes.IndexAny(target, "?#"); i >= 0 {
		target = target[:i]
	}
	if len(target) > 0 && target[0] != '/' {
		if i := bytes.Index(target, []byte("://")); i > 0 {
			rest := target[i+3:]
			j := bytes.IndexByte(rest, '/')
			if j < 0 {
				return []byte("/")
			}
			return rest[j:]
		}
	}
	return target
}

// trimPrefix removes leading slashes but one, and up to two /v1 in a row.
func trimPrefix(path []byte) []byte {
	for range 3 {
		for len(path) > 1 && path[1] == '/' {
			path = path[1:]
		}
		if len(path) == 3 && string(path) == "/v1" {
			return []byte("/")
		}
		if !(len(path) > 3 && string(path[:3]) == "/v1" && path[3] == '/') {
			break
		}
		path = path[3:]
	}
	return path
}

// collapse joins runs of slashes and drops a trailing one.
func collapse(path []byte) []byte {
	s := string(path)
	for strings.Contains(s, "//") {
		s = strings.ReplaceAll(s, "//", "/")
	}
	if len(s) > 1 {
		s = strings.TrimSuffix(s, "/")
	}
	return []byte(s)
}

// allows says whether the method is served here.
func (r *route) allows(method []byte) bool {
	for m := range strings.SplitSeq(r.methods, ", ") {
		if m == string(method) {
			return true
		}
	}
	return false
}
