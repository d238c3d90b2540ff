package gateway

import "bytes"

const (
	// bytesPerToken is how much text makes a token, JSON around it included. Tokenizers of present models need some 4 bytes of English or
	// Chinese, less of code. It is an estimate until the engine tells.
	bytesPerToken = 4
	// imageTokens is what an image counts: one of 1024 × 1024 takes 765 tokens at OpenAI and some 1,300 in Qwen's models.
	imageTokens = 1300
	// leastImage is the smallest body that is searched for images.
	leastImage = 4 << 10
)

var base64Mark = []byte(";base64,")

// promptTokens estimates the tokens of a request's prompt by the size of its body. Images and sounds that are part of it count by their
// number, since their bytes are no text.
func promptTokens(body []byte) int64 {
	size, media := len(body), int64(0)
	if size >= leastImage {
		for rest := body; ; media++ {
			at := bytes.Index(rest, base64Mark)
			if at < 0 {
				break
			}
			rest = rest[at+len(base64Mark):]
			end := bytes.IndexByte(rest, '"')
			if end < 0 {
				break
			}
			size -= end
			rest = rest[end:]
		}
	}
	return int64(size)/bytesPerToken + media*imageTokens
}
