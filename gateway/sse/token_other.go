//go:build !amd64

package sse

// indexToken is where vectors would be used; see token_amd64.go.
func indexToken(_, _ []byte) (n int, ok bool) { return 0, false }
