package sse

import "bytes"

// hasToken tells whether doc holds token, a quoted key, anywhere. Looking for one is cheaper than walking over
// members, and nearly all events hold none of those that mean something to us. A plain search for text stops at each
// of the many quotes.
func hasToken(doc, token []byte) bool {
	return findToken(doc, token) >= 0
}

// findToken gives the first place of token; -1: there is none.
func findToken(doc, token []byte) int {
	n, ok := indexToken(doc, token)
	if !ok {
		return bytes.Index(doc, token)
	}
	return n
}
