package sglang

import "regexp"

// Mask stands where a secret was.
const Mask = "***"

// secrets are the shapes in which an engine's output shows keys and tokens. Each has the text to keep in
// its first group; the rest of the match is masked.
var secrets = []*regexp.Regexp{
	// ServerArgs(…, api_key='…', admin_api_key='…'): the first line that a server logs. Also JSON's spelling.
	regexp.MustCompile(`((?i:api_key|hf_token|password|secret)["']?\s*[=:]\s*)(?:'[^']*'|"[^"]*")`),
	// An argument vector, as usage errors repeat it: --api-key K, --api-key=K, ['--api-key', 'K'].
	regexp.MustCompile(`(--(?:admin-)?api-key(?:[= ]+|['"],\s*['"]))[^\s'",\]]+`),
	regexp.MustCompile(`((?i:\bbearer)\s+)[A-Za-z0-9._~+/=-]+`),
	// Hugging Face and OpenAI style tokens wherever they stand.
	regexp.MustCompile(`(\bhf_)[A-Za-z0-9]{8,}`),
	regexp.MustCompile(`(\bsk-)[A-Za-z0-9_-]{16,}`),
	// User and password of a URL.
	regexp.MustCompile(`(\b[a-z][a-z0-9+.-]*://)[^\s/@:]+:[^\s/@]+@`),
}

// Redact returns line with keys and tokens masked. It knows shapes, not values: a caller that knows a
// secret's value masks that as well. Safe for concurrent use.
func Redact(line string) string {
	for _, re := range secrets {
		line = re.ReplaceAllString(line, "${1}"+Mask)
	}
	return line
}
