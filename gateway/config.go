package gateway

import (
	"net/netip"
	"time"
)

// Config is the edge's own part of the file.
type Config struct {
	// Listen is host:port; port 0 picks a free one.
	Listen string
	// MaxBodyBytes bounds a request body; larger ones are answered 413. 0 means DefaultMaxBodyBytes.
	MaxBodyBytes int
	// AccessLog writes one JSON line per request.
	AccessLog bool
	// TrustedProxies may say in X-Forwarded-For where a request comes from. Empty: nobody may.
	TrustedProxies []netip.Prefix
}

// DefaultMaxBodyBytes holds a dozen high-resolution images in base64.
const DefaultMaxBodyBytes = 64 << 20

// Cold says what clients get while their model has no ready replica (DESIGN.md §6).
type Cold struct {
	// Grace is how long a stream is held silently, so that fast failures keep their true status.
	// 0 sends headers at once.
	Grace time.Duration
	// Heartbeat is the pause between SSE comment lines. It must be positive.
	Heartbeat time.Duration
	// KeepAliveJSON answers waiting non-streaming requests with an early 200 and JSON white space.
	// A failure after that can only be shown by a broken connection.
	KeepAliveJSON bool
	// MaxWait bounds the wait for a replica.
	MaxWait time.Duration
}

// DefaultCold follows facts measured on shipping clients: beats of 10 s pass every known idle timer.
func DefaultCold() Cold {
	return Cold{Grace: 10 * time.Second, Heartbeat: 10 * time.Second, MaxWait: 10 * time.Minute}
}

// Timeouts bound one request's phases; names as in the file.
type Timeouts struct {
	Request   time.Duration // from the last byte of the request to the last of the response
	FirstByte time.Duration // from dispatch to the first byte of the upstream's response
	// FirstToken is how long a replica may take to its first byte before the request is tried at another one that has room; 0: as long as
	// FirstByte. It counts where a model has several replicas.
	FirstToken time.Duration
	IdleStream time.Duration // between two bytes of a response, in either direction
}

// DefaultTimeouts are generous: a long prefill is silent (headers come with the first token: facts/sglang.md §6.4).
func DefaultTimeouts() Timeouts {
	return Timeouts{Request: time.Hour, FirstByte: 10 * time.Minute, IdleStream: 2 * time.Minute}
}
