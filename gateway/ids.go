package gateway

import (
	"encoding/hex"
	"math/rand/v2"
)

const (
	headerRequestID = "X-Request-Id"
	maxRequestID    = 128
)

// appendRequestID keeps the caller's id if it is fit for headers and logs, and makes one otherwise.
func appendRequestID(dst, given []byte) []byte {
	if len(given) == 0 || len(given) > maxRequestID {
		return appendHexID(dst)
	}
	for _, c := range given {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == ':') {
			return appendHexID(dst)
		}
	}
	return append(dst, given...)
}

// appendHexID makes 128 random bits in hex, the form of SGLang's own request ids. They are unique, not secret.
func appendHexID(dst []byte) []byte {
	var b [16]byte
	for i, v := 0, rand.Uint64(); i < 8; i, v = i+1, v>>8 {
		b[i] = byte(v)
	}
	for i, v := 8, rand.Uint64(); i < 16; i, v = i+1, v>>8 {
		b[i] = byte(v)
	}
	return hex.AppendEncode(dst, b[:])
}
