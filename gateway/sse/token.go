package sse

import "bytes"

// hasToken tells whether doc holds token, a quoted key, anywhere. Looking for one is cheaper than walking over
// members, and nearly all events hold none of those that mean something to us. A plain search for text stops at each
// of the many quotes.
func hasToken(doc, token []byte) bool {
	n, ok := indexToken(doc, token)
	if !ok {
		return bytes.Contains(doc, token)
	}
	return n >= 0
}
