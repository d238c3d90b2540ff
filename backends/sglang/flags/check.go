package flags

import (
	"maps"
	"slices"
	"strings"
)

// Line is a command line as it was checked, and as SGLang gets it.
type Line struct {
	Table *Table
	// Args is what to give to SGLang: as written, but abbreviations written out, because a later release may have two
	// options that begin so, and other engines' names translated. It is complete only without Errors.
	Args []string
	// Options are the options of Args, in their order.
	Options          []Explained
	Errors, Warnings []Finding
}

// Explained is one option of a line and where it comes from.
type Explained struct {
	Option *Option
	Name   string // as SGLang gets it; may be an alias of Option.Name
	Values []string
	At     int    // the argument that it was written at
	From   string // what was written instead of Name, such as --max-model-len; empty: Name itself
	args   []string
}

// Args are the option's arguments as SGLang gets them.
func (e Explained) Args() []string { return e.args }

// Finding is an error or a warning about one argument.
type Finding struct {
	At      int    // the argument
	Name    string // the option as written; empty: the argument is none
	Value   string // what was given, if it is known to be no secret; empty otherwise
	Message string
	Fix     string
}

// Check reads the arguments that follow SGLang's own command, as a configuration holds them. lenient lets options
// pass that this release does not know, with a warning and without their being understood: for builds that are not
// a release.
func (t *Table) Check(args []string, lenient bool) *Line {
	line := &Line{Table: t}
	// origin[i] is the argument of args that translated[i] comes from; from[i] its name there.
	var translated, from []string
	var origin []int
	for i := 0; i < len(args); {
		n, replacement, was := t.translate(line, args, i)
		if n == 0 {
			translated, origin, from = append(translated, args[i]), append(origin, i), append(from, "")
			i++
			continue
		}
		for range replacement {
			origin, from = append(origin, i), append(from, was)
		}
		translated = append(translated, replacement...)
		i += n
	}
	given, mistakes := t.Parse(translated)
	for _, m := range mistakes {
		f := Finding{At: origin[m.At], Name: m.Name, Message: m.Message, Fix: m.Fix}
		if m.Kind == Value {
			f.Value = m.Value
		}
		if m.Kind == Unknown && f.Fix == "" {
			f.Fix = t.nearestForeign(m.Name)
		}
		if m.Kind == Unknown && lenient {
			f.Message += "; it is passed on as it is"
			line.Warnings = append(line.Warnings, f)
			continue
		}
		line.Errors = append(line.Errors, f)
	}
	at := 0
	for _, g := range given {
		line.Args = append(line.Args, translated[at:g.At]...) // what no option owns: errors, or a lenient build's own
		at = g.End
		e := Explained{Option: g.Option, Name: g.Full, Values: g.Values, At: origin[g.At], From: from[g.At]}
		if e.From == "" && g.Written != g.Full {
			e.From = g.Written
		}
		if g.Joined {
			e.args = []string{g.Full + "=" + g.Values[0]}
		} else {
			e.args = append([]string{g.Full}, g.Values...)
		}
		line.Args = append(line.Args, e.args...)
		line.Options = append(line.Options, e)
		line.judge(g, e)
	}
	line.Args = append(line.Args, translated[at:]...)
	return line
}

// judge holds an option that SGLang accepts against what the gateway needs.
func (l *Line) judge(g Given, e Explained) {
	name := e.From
	if name == "" {
		name = g.Written
	}
	for _, known := range append([]string{g.Option.Name}, g.Option.Aliases...) {
		if fix, ok := owned[known]; ok {
			l.Errors = append(l.Errors, Finding{At: e.At, Name: name, Message: "is set by the gateway", Fix: fix})
			return
		}
	}
	if message, fix := broken(g.Option, g.Values); message != "" {
		l.Errors = append(l.Errors, Finding{At: e.At, Name: name, Message: message, Fix: fix})
		return
	}
	if g.Option.Name == "--config" && g.Joined {
		l.Errors = append(l.Errors, Finding{At: e.At, Name: name, Message: "is not seen by SGLang when its value is joined to it",
			Fix: "write two arguments, --config and the file"})
	}
	if g.Option.Instead != "" && e.From == "" { // a translation chose the name that every release has
		l.Warnings = append(l.Warnings, Finding{At: e.At, Name: name, Message: "is deprecated in SGLang " + l.Table.version,
			Fix: "write " + g.Option.Instead})
	}
}

// Value returns what the option with this name (any of its names) was last given, and whether it was given at all.
// An option without a value counts as given with an empty one.
func (l *Line) Value(name string) (string, bool) {
	o := l.Table.Option(name)
	for i := len(l.Options) - 1; i >= 0; i-- {
		if l.Options[i].Option == o && o != nil {
			return first(l.Options[i].Values), true
		}
	}
	return "", false
}

// Int is Value as a whole number, or the option's default; 0 if there is neither.
func (l *Line) Int(name string) int {
	text, ok := l.Value(name)
	if o := l.Table.Option(name); !ok && o != nil {
		text = o.Default
	}
	n, ok := SizeValue(text)
	if !ok || n != int64(int(n)) {
		return 0
	}
	return int(n)
}

// Accepting returns the newest release that accepts all of these lines, or the newest of all: for a release that is
// not known, it is the one to check with, so that nothing is refused that some release takes.
func Accepting(lenient bool, lines ...[]string) *Table {
	for _, t := range All() {
		accepted := true
		for _, args := range lines {
			accepted = accepted && len(t.Check(args, lenient).Errors) == 0
		}
		if accepted {
			return t
		}
	}
	return Newest()
}

// Begins tells how many leading words of a command start SGLang itself, and whether any do: what follows them are
// SGLang's options. Other programs (wrappers, containers, the simulator) have options of their own there.
func Begins(command []string) (n int, ok bool) {
	for i, word := range command {
		name := word[strings.LastIndexByte(word, '/')+1:]
		switch {
		case word == "sglang.launch_server" && i > 0 && command[i-1] == "-m", name == "launch_server.py":
			return i + 1, true
		case name == "sglang" && i+1 < len(command) && command[i+1] == "serve":
			return i + 2, true
		}
	}
	return 0, false
}

// Owned tells what to do instead of an option that the gateway sets, by its full name or a beginning of at least two
// letters; empty: it sets none of that name. It is for options of programs around SGLang, which may pass them on.
func Owned(name string) string {
	if fix, ok := owned[name]; ok {
		return fix
	}
	if name == "--model" {
		return owned["--model-path"]
	}
	if len(name) < len("--po") {
		return ""
	}
	for _, option := range slices.Sorted(maps.Keys(owned)) {
		if strings.HasPrefix(option, name) {
			return owned[option]
		}
	}
	return ""
}
