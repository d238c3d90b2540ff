package flyte

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"pilotlight/internal/flyte/python"
)

func scalar(tag, value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
}

// str is text, plain if it can be: the encoder's blocks of several lines do not always read as they were.
func str(value string) *yaml.Node {
	node := scalar("!!str", value)
	if strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }) {
		node.Style = yaml.DoubleQuotedStyle
	}
	return node
}

// quoted keeps text text that looks like a number.
func quoted(value string) *yaml.Node {
	node := str(value)
	node.Style = yaml.DoubleQuotedStyle
	return node
}

// number has no tag, so that it is written as it is.
func number(n python.Number) *yaml.Node { return scalar("", string(n)) }

func add(node *yaml.Node, name string, value *yaml.Node) {
	node.Content = append(node.Content, str(name), value)
}

// mapping is one of names and nodes in turn, on one line.
func mapping(pairs ...any) *yaml.Node {
	node := &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
	for i := 0; i < len(pairs); i += 2 {
		add(node, pairs[i].(string), pairs[i+1].(*yaml.Node))
	}
	return node
}

// shown is a value as a comment names it.
func shown(value python.Value) string {
	switch v := value.(type) {
	case python.Source:
		return string(v)
	case python.Text:
		return strconv.Quote(string(v))
	case python.Number:
		return string(v)
	case *python.Call:
		return v.Text
	case python.List:
		var items []string
		for _, item := range v {
			items = append(items, shown(item))
		}
		return "(" + strings.Join(items, ", ") + ")"
	case nil, python.None:
		return "None"
	}
	return fmt.Sprint(value)
}

// oneLine makes source fit for a comment.
func oneLine(s string) string {
	const most = 200
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' ' // YAML ends lines at more of them than one expects, and refuses others
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if runes := []rune(s); len(runes) > most {
		s = string(runes[:most-1]) + "…"
	}
	return s
}
