package flags

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Given is one option of a command line with its values as they were written.
type Given struct {
	Option  *Option
	Written string // the name as written: full, an alias or an abbreviation
	Full    string // the name or alias that Written is, or begins
	Values  []string
	At, End int // its arguments are args[At:End]
	Joined  bool
}

// Kind is what is wrong with an argument.
type Kind int

const (
	Unknown   Kind = iota // no option, and the beginning of none
	Ambiguous             // the beginning of several options
	Stray                 // a value that belongs to no option
	Count                 // too few values, or a value where none is taken
	Value                 // a value that does not fit the type or the choices
)

// Mistake is one thing that would make SGLang refuse a command line.
type Mistake struct {
	Kind    Kind
	At      int    // the argument that is wrong
	Name    string // the option as written; empty: Stray
	Value   string // the offending value; empty: none. It may be a secret.
	Message string // what is wrong, to be read behind name and value; it does not hold the value
	Fix     string // what to write instead; may be empty
}

// item is an argument that begins with a dash and was not taken for a value.
type item struct {
	option   *Option // nil: unknown
	written  string
	full     string
	explicit string // behind '='
	joined   bool
	mistake  *Mistake
}

// Parse reads arguments as Python's argparse (3.10 and later) does for the parser of this release:
// --name value, --name=value, aliases, any beginning that only one name has, and values that look like negative
// numbers. Unlike argparse it does not end at the first mistake. Options may repeat; the last one counts. That
// --model-path is needed is not checked, because the gateway gives it.
func (t *Table) Parse(args []string) ([]Given, []Mistake) {
	var given []Given
	var mistakes []Mistake
	items := make([]*item, len(args))
	plain := len(args) // from here on, behind "--", everything is a value
	for i, arg := range args {
		if arg == "--" {
			plain = i
			break
		}
		items[i] = t.classify(arg)
	}
	value := func(i int) bool { return i < len(args) && i != plain && items[i] == nil }
	for i := 0; i < len(args); {
		o := items[i]
		if o == nil {
			if !strings.HasPrefix(args[i], "-") || i > plain || negativeNumber.MatchString(args[i]) {
				mistakes = append(mistakes, Mistake{Kind: Stray, At: i, Value: args[i], Message: "belongs to no option",
					Fix: "remove it, or give it with an option; quote a value that holds spaces"})
			} else if strings.Contains(args[i], " ") {
				option, _, _ := strings.Cut(args[i], " ")
				mistakes = append(mistakes, Mistake{Kind: Stray, At: i, Name: option, Message: "and its value are one argument",
					Fix: "write two list entries, or " + option + "=VALUE"})
			} else {
				mistakes = append(mistakes, Mistake{Kind: Stray, At: i, Value: args[i], Message: "is no option and belongs to none", Fix: "remove it"})
			}
			i++
			continue
		}
		end := i + 1
		if o.option == nil {
			m := *o.mistake
			m.At = i
			mistakes = append(mistakes, m)
			if !o.joined {
				for value(end) { // they were meant for it; naming each would say the same again
					end++
				}
			}
			i = end
			continue
		}
		g := Given{Option: o.option, Written: o.written, Full: o.full, At: i, Joined: o.joined}
		most := map[Arity]int{None: 0, One: 1, Optional: 1, Some: len(args), Any: len(args)}[o.option.Arity]
		if o.joined {
			g.Values = []string{o.explicit}
		} else {
			for len(g.Values) < most && value(end) {
				g.Values = append(g.Values, args[end])
				end++
			}
		}
		g.End = end
		if m := g.check(); m != nil {
			mistakes = append(mistakes, *m)
		}
		given = append(given, g)
		i = end
	}
	return given, mistakes
}

// negativeNumber is what argparse takes for a value although it begins with a dash, as no option looks so.
var negativeNumber = regexp.MustCompile(`^-\d+$|^-\d*\.\d+$`)

// classify tells what an argument is: nil for a value.
func (t *Table) classify(arg string) *item {
	if len(arg) < 2 || arg[0] != '-' {
		return nil
	}
	if o := t.byName[arg]; o != nil {
		return &item{option: o, written: arg, full: arg}
	}
	name, explicit, joined := strings.Cut(arg, "=")
	if o := t.byName[name]; o != nil && joined {
		return &item{option: o, written: name, full: name, explicit: explicit, joined: true}
	}
	switch matches := t.prefixed(name); {
	case len(matches) > 1:
		return &item{written: name, joined: joined, mistake: &Mistake{Kind: Ambiguous, Name: name,
			Message: "begins more than one option", Fix: "write " + alternatives(matches)}}
	case len(matches) == 1:
		return &item{option: t.byName[matches[0]], written: name, full: matches[0], explicit: explicit, joined: joined}
	case negativeNumber.MatchString(arg) || strings.Contains(arg, " "):
		return nil
	}
	fix := ""
	if near := t.Nearest(name); near != "" {
		fix = "did you mean " + near + "?"
	}
	return &item{written: name, joined: joined, mistake: &Mistake{Kind: Unknown, Name: name,
		Message: "is not an option of SGLang " + t.version, Fix: fix}}
}

// prefixed lists the names that begin with this one, which is not one of them itself.
func (t *Table) prefixed(name string) []string {
	if !strings.HasPrefix(name, "--") {
		return nil // argparse looks among names of one dash then, and SGLang has none but -h
	}
	from, _ := slices.BinarySearch(t.names, name)
	to := from
	for to < len(t.names) && strings.HasPrefix(t.names[to], name) {
		to++
	}
	return t.names[from:to]
}

// alternatives names a few, and says how many more there are.
func alternatives(names []string) string {
	const most = 4
	if len(names) > most {
		return fmt.Sprintf("%s or one of %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// check holds an option's values against its arity, type and choices.
func (g *Given) check() *Mistake {
	o := g.Option
	wrong := func(kind Kind, message, fix string) *Mistake {
		return &Mistake{Kind: kind, At: g.At, Name: g.Written, Message: message, Fix: fix}
	}
	switch {
	case o.Arity == None && g.Joined:
		return wrong(Count, "takes no value", "write "+o.Name+" alone, or leave it out")
	case o.Arity == One && len(g.Values) == 0:
		return wrong(Count, "has no value", "write "+o.Name+" "+o.example())
	case o.Arity == Some && len(g.Values) == 0:
		return wrong(Count, "has no values", "write "+o.Name+" "+o.example())
	case g.Joined && g.Values[0] == "--":
		return wrong(Value, "loses its value: Python takes -- for the end of the options", "use another value")
	case o.Stops:
		return wrong(Value, "only ends the start with a message that it is no longer there", "remove it")
	}
	for i, text := range g.Values {
		canonical, what := o.read(text)
		if what == "" && o.Choices != nil && !slices.Contains(o.Choices, canonical) {
			what = "is not one of its values"
		}
		if what == "" {
			continue
		}
		m := wrong(Value, what, o.suggest(text))
		m.Value = text
		if !g.Joined {
			m.At = g.At + 1 + i
		}
		return m
	}
	return nil
}

// example is a fitting value.
func (o *Option) example() string {
	switch {
	case len(o.Choices) > 0 && o.Default != "":
		return o.Default
	case len(o.Choices) > 0:
		return o.Choices[0]
	case o.Type == Int:
		return "1"
	case o.Type == Float:
		return "0.8"
	case o.Type == Size:
		return "8192"
	}
	return "VALUE"
}

func (o *Option) suggest(text string) string {
	switch {
	case o.Choices != nil:
		if near := nearest(text, o.Choices); near != "" {
			return "did you mean " + near + "?"
		}
		return "use " + alternativesOf(o.Choices)
	case o.Type == Size:
		return "write a whole number, or one such as 32k (32,000) or 32Ki (32,768)"
	case o.Type == Int:
		return "write a whole number"
	case o.Type == Float:
		return "write a number such as 0.8"
	case o.Type == JSON:
		return "write JSON in single quotes"
	}
	return ""
}

func alternativesOf(choices []string) string {
	if len(choices) == 1 {
		return choices[0]
	}
	return alternatives(choices)
}

// Numbers as Python reads them: white space around, underscores between digits.
var (
	pythonInt   = regexp.MustCompile(`^[+-]?\d+(_\d+)*$`)
	pythonFloat = regexp.MustCompile(`^[+-]?((\d+(_\d+)*)?\.\d+(_\d+)*|\d+(_\d+)*\.?)([eE][+-]?\d+(_\d+)*)?$`)
	pythonWords = regexp.MustCompile(`^(?i)[+-]?(inf|infinity|nan)$`)
	sizeSuffix  = regexp.MustCompile(`^\d+(\.\d+)?(k|M|G|T)$|^\d+(Ki|Mi|Gi|Ti)$`)
)

// read checks one value and returns it as the choices are written; what says in a few words why it does not fit.
func (o *Option) read(text string) (canonical, what string) {
	trimmed := strings.TrimSpace(text)
	switch o.Type {
	case Int:
		if !pythonInt.MatchString(trimmed) {
			return "", "is not a whole number"
		}
		return strings.TrimPrefix(strings.ReplaceAll(trimmed, "_", ""), "+"), ""
	case Size:
		if !pythonInt.MatchString(trimmed) && !sizeSuffix.MatchString(trimmed) {
			return "", "is not a number of tokens"
		}
	case Float:
		if !pythonFloat.MatchString(trimmed) && !pythonWords.MatchString(trimmed) {
			return "", "is not a number"
		}
	case JSON:
		if !json.Valid([]byte(text)) {
			return "", "is not JSON"
		}
	}
	return text, ""
}
