// Package router turns the model name of a request into the model that serves it, and says when a request that failed at one
// replica may go to another. It does not start replicas or talk to them.
//
// A Table never changes once made: a reload builds a new one and swaps the pointer, so Resolve takes no lock.
package router

import (
	"errors"
	"fmt"
	"slices"
)

// ErrModelNotFound says that no model has the name.
var ErrModelNotFound = errors.New("model not found")

// Entry is a model with all the names that clients may use for it: the model_id first, then aliases.
type Entry[M any] struct {
	Names []string
	Model M
}

// Table maps names to models of type M. Names are opaque and case-sensitive, as at OpenAI.
type Table[M any] struct {
	byName map[string]named[M]
	models []M
}

type named[M any] struct {
	name  string
	model M
}

// NewTable refuses a name that stands for two models.
func NewTable[M any](entries []Entry[M]) (*Table[M], error) {
	t := &Table[M]{byName: make(map[string]named[M], len(entries))}
	for _, e := range entries {
		t.models = append(t.models, e.Model)
		for _, name := range e.Names {
			if _, taken := t.byName[name]; taken {
				return nil, fmt.Errorf("two models are named %q", name)
			}
			t.byName[name] = named[M]{name, e.Model}
		}
	}
	return t, nil
}

// Resolve finds the model by exact name.
func (t *Table[M]) Resolve(name string) (M, error) {
	found, ok := t.byName[name]
	if !ok {
		return found.model, ErrModelNotFound
	}
	return found.model, nil
}

// ResolveBytes is Resolve without an allocation: known is name as the table has it, and may be kept.
func (t *Table[M]) ResolveBytes(name []byte) (m M, known string, err error) {
	found, ok := t.byName[string(name)]
	if !ok {
		return m, "", ErrModelNotFound
	}
	return found.model, found.name, nil
}

// Models lists all models in the order of the configuration.
func (t *Table[M]) Models() []M { return slices.Clone(t.models) }
