package config

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"go.yaml.in/yaml/v3"
)

// scalar returns the value's text and tag; ok is false for an absent value and, after a report, for a
// mapping or a list.
func (v value) scalar(what string) (text, tag string, ok bool) {
	if v.node == nil {
		return "", "", false
	}
	if v.node.Kind != yaml.ScalarNode {
		v.expected(what, "")
		return "", "", false
	}
	return v.node.Value, v.node.ShortTag(), true
}

// raw reads non-empty text as it is written.
func (v value) raw(what string) (string, bool) {
	text, tag, ok := v.scalar(what)
	if !ok {
		return "", false
	}
	if tag != "!!str" {
		fix := ""
		if (tag == "!!int" || tag == "!!float" || tag == "!!bool" || tag == "!!timestamp") && !v.secret {
			fix = "put it in quotes: " + strconv.Quote(text)
		}
		v.expected(what, fix)
		return "", false
	}
	if text == "" {
		v.fail("must not be empty", "remove the field, or give it a value")
		return "", false
	}
	if strings.ContainsRune(text, 0) {
		v.fail("must not hold a zero byte", "")
		return "", false
	}
	return text, true
}

// text reads non-empty text in which ${ has no place.
func (v value) text(def string) string {
	text, ok := v.raw("text")
	if !ok || !v.plain(text) {
		return def
	}
	return text
}

// plain reports a variable where none is read.
func (v value) plain(text string) bool {
	if strings.Contains(text, "${") {
		v.fail("variables are read only in env_vars, keys, tokens and URLs", "write the value itself")
		return false
	}
	return true
}

// argument reads one word of a command line: text, or a number or boolean as it is written.
func (v value) argument() (string, bool) {
	text, tag, ok := v.scalar("text or a number")
	if !ok {
		return "", false
	}
	switch tag {
	case "!!str", "!!int", "!!float", "!!bool":
	default:
		v.expected("text or a number", "")
		return "", false
	}
	if strings.ContainsRune(text, 0) {
		v.fail("must not hold a zero byte", "")
		return "", false
	}
	return text, v.plain(text)
}

func (v value) boolean(def bool) bool {
	text, tag, ok := v.scalar("true or false")
	if !ok {
		return def
	}
	if tag != "!!bool" {
		fix := ""
		switch strings.ToLower(text) { // YAML 1.1 words, and quoted booleans
		case "yes", "on", "y", "true":
			fix = "write true"
		case "no", "off", "n", "false":
			fix = "write false"
		}
		v.expected("true or false", fix)
		return def
	}
	return strings.EqualFold(text, "true")
}

var wholeNumber = regexp.MustCompile(`^[+-]?(0|[1-9][0-9]*)$`) // 010 is eight to some readers and ten to others

// integer reads a whole number between lo and hi.
func (v value) integer(def, lo, hi int64) int64 {
	text, tag, ok := v.scalar("a whole number")
	if !ok {
		return def
	}
	if tag != "!!int" && tag != "!!float" || !wholeNumber.MatchString(text) { // above 64 bits it is a !!float
		v.expected("a whole number", "")
		return def
	}
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil || n > hi:
		v.fail("is above "+strconv.FormatInt(hi, 10), "")
	case n < lo:
		v.fail("is below "+strconv.FormatInt(lo, 10), "")
	default:
		return n
	}
	return def
}

// fraction reads a number.
func (v value) fraction() (float64, bool) {
	text, tag, ok := v.scalar("a number")
	if !ok {
		return 0, false
	}
	f, err := strconv.ParseFloat(text, 64)
	if (tag != "!!int" && tag != "!!float") || err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		v.expected("a number", "")
		return 0, false
	}
	return f, true
}

// maxSeconds bounds durations far inside what a time.Duration holds: ten years.
const maxSeconds = 10 * 365 * 24 * 3600

// duration reads seconds, as Flyte writes them, or a Go duration, and checks that it is at least lo.
func (v value) duration(def, lo time.Duration) time.Duration {
	const what = "seconds or a duration"
	const fix = "write seconds such as 90, or 90s, 10m, 1h30m"
	text, tag, ok := v.scalar(what)
	if !ok {
		return def
	}
	var d time.Duration
	switch tag {
	case "!!int", "!!float":
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(seconds) {
			v.expected(what, fix)
			return def
		}
		if math.Abs(seconds) > maxSeconds {
			v.fail("is out of range", "the most is ten years")
			return def
		}
		d = time.Duration(seconds * float64(time.Second))
	case "!!str":
		var err error
		if d, err = time.ParseDuration(text); err != nil {
			v.fail("is not a duration", fix)
			return def
		}
		if d.Abs() > maxSeconds*time.Second {
			v.fail("is out of range", "the most is ten years")
			return def
		}
	default:
		v.expected(what, fix)
		return def
	}
	switch {
	case d >= lo:
		return d
	case d < 0:
		v.fail("must not be negative", "")
	case d == 0 && def == 0:
		v.fail("must be more than zero", "remove the field")
	case d == 0:
		v.fail("must be more than zero", "remove the field for the default of "+def.String())
	default:
		v.fail("is below "+lo.String(), "")
	}
	return def
}

// size reads bytes: a whole number, or text with a unit as Kubernetes (16Gi, 500M) or people (16 GiB) write it.
func (v value) size(def, lo int64) int64 {
	const what = "a size"
	const fix = "write a size such as 16Gi, 256MiB or 500MB"
	text, tag, ok := v.scalar(what)
	if !ok {
		return def
	}
	if tag != "!!str" && (tag != "!!int" || !wholeNumber.MatchString(text)) {
		v.expected(what, fix)
		return def
	}
	n, err := humanize.ParseBytes(text)
	if err != nil || n > math.MaxInt64 {
		v.fail("is not a size", fix)
		return def
	}
	if int64(n) < lo {
		v.fail("is "+humanize.IBytes(n)+", less than the least sensible "+humanize.IBytes(uint64(lo)), fix)
		return def
	}
	return int64(n)
}
