package jwt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
)

// Caller is who a token belongs to. Its slices are shared and must not be changed.
type Caller struct {
	Tenant  string
	Issuer  string
	Subject string // for logs; may be empty
	Scopes  []string
	Models  []string         // names or patterns that the token restricts its bearer to; nil: it restricts none; empty: it allows none
	Limits  map[string]int64 // what the claim of Mapping.Limits holds, none of it below zero; nil: nothing
	Expires time.Time        // the exp claim, without leeway
	// Meaning is what Options.Mean has made of the rest, when the token was verified.
	Meaning any
}

// tenantPattern is that of API keys' tenants: fit for metric labels.
var tenantPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

const anonymousTenant = "anonymous" // of callers who prove nothing

func (m Mapping) read(claims map[string]any) (tenant string, scopes, models []string, err error) {
	name := m.Tenant
	if name == "" {
		name = "sub"
	}
	value, ok := lookUp(claims, name).(string)
	tenant = m.TenantPrefix + value
	if !ok || value == "" || !tenantPattern.MatchString(tenant) || tenant == anonymousTenant {
		return "", nil, nil, fmt.Errorf("its claim %q names no tenant of 1 to 64 letters, digits and . _ @ -", name)
	}
	if name = m.Scopes; name == "" {
		name = "scope"
	}
	if scopes, err = words(lookUp(claims, name)); err != nil {
		return "", nil, nil, fmt.Errorf("its claim %q: %w", name, err)
	}
	if m.Models == "" {
		return tenant, scopes, nil, nil
	}
	if models, err = words(lookUp(claims, m.Models)); err != nil { // misread, it must not be taken for no restriction
		return "", nil, nil, fmt.Errorf("its claim %q: %w", m.Models, err)
	}
	return tenant, scopes, models, nil
}

// lookUp finds a claim by its name, which may hold dots itself (https://example.com/tenant), or by a path of names.
func lookUp(claims map[string]any, name string) any {
	if value, ok := claims[name]; ok {
		return value
	}
	head, rest, ok := strings.Cut(name, ".")
	if !ok {
		return nil
	}
	inner, _ := claims[head].(map[string]any)
	return lookUp(inner, rest)
}

func words(value any) ([]string, error) {
	switch value := value.(type) {
	case nil:
		return nil, nil
	case string:
		return append([]string{}, strings.Fields(value)...), nil
	case []any:
		list := make([]string, 0, len(value))
		for _, v := range value {
			word, ok := v.(string)
			if !ok {
				return nil, errors.New("is a list of other things than strings")
			}
			list = append(list, word)
		}
		return list, nil
	}
	return nil, errors.New("is neither a string nor a list of strings")
}

// amounts reads an object of whole numbers.
func amounts(value any) (map[string]int64, error) {
	if value == nil {
		return nil, nil
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("is no object")
	}
	all := make(map[string]int64, len(object))
	for name, v := range object {
		number, _ := v.(json.Number)
		n, err := number.Int64()
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%.40q is not a whole number", name)
		}
		all[name] = n
	}
	return all, nil
}

const maxDepth = 16

var errRepeated = errors.New("a name occurs twice in one object")

// checkUnique refuses JSON in which an object has a name twice, which parsers understand differently (RFC 7519 §4), or which is nested
// deeper than anybody needs.
func checkUnique(data []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := uniqueValue(decoder, 0); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON")
	}
	return nil
}

func uniqueValue(decoder *json.Decoder, depth int) error {
	token, err := decoder.Token()
	if err != nil {
		return err
	}
	delimiter, nested := token.(json.Delim)
	if !nested {
		return nil
	}
	if depth == maxDepth {
		return errors.New("too deeply nested")
	}
	seen := map[string]bool{}
	for decoder.More() {
		if delimiter == '{' {
			name, err := decoder.Token()
			if err != nil {
				return err
			}
			key, _ := name.(string) // the decoder takes nothing else here
			if seen[key] {
				return errRepeated
			}
			seen[key] = true
		}
		if err := uniqueValue(decoder, depth+1); err != nil {
			return err
		}
	}
	_, err = decoder.Token() // the end
	return err
}
