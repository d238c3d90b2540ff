package auth

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A file of 100,000 keys takes the YAML library seconds to read, and a revoked key is to be refused within one. So what writeKeys has written,
// and nobody has changed by hand, is read line by line; readPlain gives up at the first line that it does not know for certain.

var (
	// plainText is what YAML takes for text as it stands, whoever reads it, but for notText.
	plainText = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._@/+*-]*(:[A-Za-z0-9._@/+*-]+)*$`)
	notText   = map[string]bool{"null": true, "true": true, "false": true, "yes": true, "no": true, "on": true, "off": true, "y": true, "n": true}
)

const (
	itemIndent  = "    - "
	fieldIndent = "      "
	innerIndent = "        "
)

// readPlain reads a keys file of the form that writeKeys gives it. ok is false if the file has any other: it may be valid all the same.
func readPlain(data []byte) (keys []Key, ok bool) {
	rest, found := bytes.CutPrefix(data, []byte(header+"keys:\n"))
	if !found {
		return nil, false
	}
	lines := plainLines{rest: string(rest)}
	for lines.more() {
		id, found := strings.CutPrefix(lines.line, itemIndent+"id: ")
		if !found || !plainID(id) {
			return nil, false
		}
		k := Key{ID: id}
		lines.next()
		if !lines.fields(&k) {
			return nil, false
		}
		keys = append(keys, k)
	}
	return keys, !lines.broken
}

// plainID tells ids that YAML takes for text. Some begin with a digit; they are no numbers if they have another letter than the e of an exponent.
func plainID(id string) bool {
	return idPattern.MatchString(id) && strings.ContainsAny(id, "abcdfghijklmnopqrstuvwxyz")
}

// plainLines is where the reader is. The text is one string, so that the keys' fields are parts of it.
type plainLines struct {
	line, rest string
	begun      bool
	broken     bool // the last line has no end
}

// more tells whether there is a line.
func (l *plainLines) more() bool {
	if !l.begun {
		l.begun = true
		l.next()
	}
	return l.line != ""
}

func (l *plainLines) next() {
	line, rest, ended := strings.Cut(l.rest, "\n")
	l.broken = l.broken || !ended && line != "" || ended && line == ""
	l.line, l.rest = line, rest
}

// fields reads those of one key behind its id; each may be there once.
func (l *plainLines) fields(k *Key) bool {
	seen := map[string]bool{}
	for strings.HasPrefix(l.line, fieldIndent) {
		name, value, found := strings.Cut(l.line[len(fieldIndent):], ":")
		if !found || seen[name] {
			return false
		}
		seen[name] = true
		l.next()
		if value == "" {
			if name != "models" && name != "limits" {
				return false
			}
			if name == "models" && !l.models(k) || name == "limits" && !l.limits(k) {
				return false
			}
			continue
		}
		value, found = strings.CutPrefix(value, " ")
		if !found || !k.setPlain(name, value) {
			return false
		}
	}
	return true
}

func (l *plainLines) models(k *Key) bool {
	for {
		name, found := strings.CutPrefix(l.line, innerIndent+"- ")
		if !found {
			return len(k.Models) > 0
		}
		name, ok := plainValue(name)
		if !ok {
			return false
		}
		k.Models = append(k.Models, name)
		l.next()
	}
}

func (l *plainLines) limits(k *Key) bool {
	fields := map[string]*int64{
		"requests_per_minute": &k.Limits.RequestsPerMinute, "tokens_per_minute": &k.Limits.TokensPerMinute, "tokens_per_day": &k.Limits.TokensPerDay,
		"tokens_per_month": &k.Limits.TokensPerMonth, "concurrent_requests": &k.Limits.Concurrent, "concurrent_cold_starts": &k.Limits.ColdStarts,
	}
	for strings.HasPrefix(l.line, innerIndent) {
		name, value, found := strings.Cut(l.line[len(innerIndent):], ": ")
		field := fields[name]
		if !found || field == nil || !plainNumber(value, field) {
			return false
		}
		delete(fields, name) // a second one is a mistake
		l.next()
	}
	return true
}

func (k *Key) setPlain(name, value string) (ok bool) {
	switch name {
	case "tenant":
		k.Tenant, ok = plainValue(value)
	case "name":
		k.Name, ok = plainValue(value)
	case "hash":
		k.Hash, ok = value, hashPattern.MatchString(value)
	case "created":
		k.Created, ok = plainTime(value)
	case "expires":
		k.Expires, ok = plainTime(value)
	case "revoked":
		k.Revoked, ok = plainTime(value)
	case "max_tokens":
		ok = plainNumber(value, &k.MaxTokens)
	}
	return ok
}

// plainValue reads text as it stands, or in single quotes without any within.
func plainValue(text string) (string, bool) {
	if n := len(text); n > 2 && text[0] == '\'' && text[n-1] == '\'' {
		inner := text[1 : n-1]
		for i := range len(inner) {
			if inner[i] < ' ' || inner[i] > '~' || inner[i] == '\'' {
				return "", false
			}
		}
		return inner, true
	}
	return text, plainText.MatchString(text) && !notText[strings.ToLower(text)]
}

func plainTime(text string) (time.Time, bool) {
	if len(text) != len("2006-01-02T15:04:05Z") {
		return time.Time{}, false
	}
	t, err := time.Parse("2006-01-02T15:04:05Z", text)
	return t, err == nil
}

func plainNumber(text string, n *int64) bool {
	if text == "" || text[0] < '1' || text[0] > '9' {
		return false
	}
	v, err := strconv.ParseInt(text, 10, 64)
	*n = v
	return err == nil
}
