package config

import (
	"regexp"
	"strings"
)

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expandable reads text in which ${NAME} stands for a variable of the gateway's environment; "$${" is a
// literal "${". fromEnv tells whether any was used. Undefined variables are reported by name. The text is
// kept out of messages, since it may hold a secret.
func (v value) expandable(mayBeEmpty bool) (text string, fromEnv, ok bool) {
	v = v.asSecret()
	var raw string
	if mayBeEmpty {
		var tag string
		if raw, tag, ok = v.scalar("text"); !ok {
			return "", false, false
		}
		switch tag {
		case "!!str", "!!int", "!!float", "!!bool":
		default:
			v.expected("text", "")
			return "", false, false
		}
	} else if raw, ok = v.raw("text"); !ok {
		return "", false, false
	}
	text, fromEnv, ok = v.expand(raw)
	if !ok {
		return "", fromEnv, false
	}
	if text == "" && !mayBeEmpty {
		v.fail("is empty after its variables are filled in", "set them in the gateway's environment")
		return "", fromEnv, false
	}
	if strings.ContainsRune(text, 0) {
		v.fail("must not hold a zero byte", "")
		return "", fromEnv, false
	}
	return text, fromEnv, true
}

func (v value) expand(raw string) (text string, fromEnv, ok bool) {
	var b strings.Builder
	ok = true
	for rest := raw; ; {
		before, after, found := strings.Cut(rest, "${")
		if !found {
			b.WriteString(rest)
			return b.String(), fromEnv, ok
		}
		if literal, escaped := strings.CutSuffix(before, "$"); escaped {
			b.WriteString(literal + "${")
			rest = after
			continue
		}
		b.WriteString(before)
		name, behind, closed := strings.Cut(after, "}")
		if !closed || !variableName.MatchString(name) {
			v.fail("${ must be followed by a variable's name and }", "write ${NAME}, or $${ for the characters themselves")
			return "", fromEnv, false
		}
		fromEnv = true
		filled, defined := v.r.env(name)
		if !defined {
			v.fail("the variable "+name+" is not defined", "set "+name+" in the gateway's environment")
			ok = false
		}
		b.WriteString(filled)
		rest = behind
	}
}

var secretName = regexp.MustCompile(`(?i)(^|_)(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$|PASSWORD$`)

// secretText knows the prefixes of Hugging Face, OpenAI-style, our own, and AWS and GitHub credentials.
var secretText = regexp.MustCompile(`^(hf_|sk-|pl-[a-z2-7]{12}-|AKIA|ghp_|github_pat_)`)

// looksSecret tells whether a variable's name or text is what people use for credentials.
func looksSecret(name, text string) bool {
	return text != "" && (secretName.MatchString(name) || secretText.MatchString(text))
}
