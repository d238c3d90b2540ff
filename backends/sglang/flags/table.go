// Package flags knows the options of SGLang's server, release by release: which there are, what they take, which
// of them belong to the gateway, and what an option of another engine is called here. It reads a command line as
// SGLang's own parser (Python's argparse) would, reports everything that would end a start with exit status 2, and
// rewrites abbreviations and foreign names to full ones. It runs nothing; package installed asks an interpreter
// for its release.
//
// options.json is made by generate/table.py from the packages, and generate/oracle.py holds it against the
// parser of each release. All values are immutable; everything here is safe for concurrent use.
package flags

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

//go:generate python3 -B generate/update.py

//go:embed options.json
var optionsJSON []byte

// Option is one option of one release.
type Option struct {
	Name    string   // with its dashes, such as --tp-size
	Aliases []string // other names, and the --no- form of an option that has one
	Type    Type
	Arity   Arity
	Choices []string // nil: any value of the type
	Default string   // as text; empty: none, or made when the server starts
	// Deprecated options work and draw a warning; Instead names the new one, if the release says so.
	Deprecated bool
	Instead    string
	// Stops is an option that is known only to end the start with a message.
	Stops bool
}

// Type is how a value is read.
type Type string

const (
	Text  Type = "str"   // anything, also values that SGLang itself reads in some way of its own
	Int   Type = "int"   // as Python's int()
	Float Type = "float" // as Python's float()
	Size  Type = "size"  // an int, or 32k, 1.5M, 64Ki
	JSON  Type = "json"
)

// Arity is how many values an option takes, in argparse's words.
type Arity string

const (
	One      Arity = ""
	None     Arity = "0"
	Optional Arity = "?"
	Some     Arity = "+" // at least one
	Any      Arity = "*"
)

// Table holds the options of one release.
type Table struct {
	version string
	options []*Option
	byName  map[string]*Option // by each name
	names   []string           // all names, sorted, for prefixes
}

// Version is the release that the table was read from.
func (t *Table) Version() string { return t.version }

// Option returns the option that has exactly this name, or nil.
func (t *Table) Option(name string) *Option { return t.byName[name] }

// Options lists all options by name.
func (t *Table) Options() []*Option { return slices.Clone(t.options) }

// tables are all releases, oldest first.
var tables = sync.OnceValue(func() []*Table {
	out, err := readTables(optionsJSON)
	if err != nil {
		panic("BUG: the embedded options do not parse: " + err.Error())
	}
	return out
})

// readTables reads what generate/table.py wrote.
func readTables(data []byte) ([]*Table, error) {
	var file struct {
		Versions []string
		Options  []struct {
			Name       string
			Aliases    []string
			In         []string
			Type       Type
			NArgs      Arity
			Choices    []any
			Default    any
			Deprecated bool
			Instead    string
			Stops      bool
		}
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	var out []*Table
	byVersion := map[string]*Table{}
	for _, version := range file.Versions {
		t := &Table{version: version, byName: map[string]*Option{}}
		out, byVersion[version] = append(out, t), t
	}
	for _, o := range file.Options {
		option := &Option{Name: o.Name, Aliases: o.Aliases, Type: o.Type, Arity: o.NArgs, Deprecated: o.Deprecated, Instead: o.Instead, Stops: o.Stops}
		if option.Type == "" {
			option.Type = Text
		}
		for _, choice := range o.Choices {
			option.Choices = append(option.Choices, fmt.Sprint(choice))
		}
		if o.Default != nil {
			option.Default = fmt.Sprint(o.Default)
		}
		for _, version := range o.In {
			t := byVersion[version]
			if t == nil {
				return nil, fmt.Errorf("%s is in an unlisted release %s", o.Name, version)
			}
			t.options = append(t.options, option)
			for _, name := range append([]string{o.Name}, o.Aliases...) {
				if t.byName[name] != nil {
					return nil, fmt.Errorf("%s: %s is declared twice", version, name)
				}
				t.byName[name] = option
			}
		}
	}
	for _, t := range out {
		t.names = slices.Sorted(maps.Keys(t.byName))
		slices.SortFunc(t.options, func(a, b *Option) int { return strings.Compare(a.Name, b.Name) })
	}
	return out, nil
}

// Newest is the latest release whose options are known.
func Newest() *Table { all := tables(); return all[len(all)-1] }

// All lists the releases whose options are known, newest first.
func All() []*Table {
	all := slices.Clone(tables())
	slices.Reverse(all)
	return all
}
