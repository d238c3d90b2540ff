package tenants

import (
	"errors"
	"fmt"
	"slices"

	"pilotlight/auth/limits"
)

// Everybody is the name of the policy of all tenants that have none of their own.
const Everybody = "*"

// Rules are what the configuration says of tenants. The zero value limits nobody.
type Rules struct {
	// Total limits all requests together.
	Total limits.Limits
	// Answer is how many tokens are reserved for an answer whose request names no limit. 0: what few of the tenant's answers have exceeded
	// lately (their mean and four mean deviations), and DefaultAnswer before the first.
	Answer int64
	// Models limits all requests for a model together, by its id.
	Models map[string]limits.Limits
	// Tenants are by name; each may be there once.
	Tenants []Policy
	// Anonymous limits callers without a key, each address apart.
	Anonymous limits.Limits
	// WrongKeys is how many wrong keys in a minute an address may present until it is told to slow down. 0: DefaultWrongKeys.
	WrongKeys int64
}

const (
	// DefaultAnswer is above what most chats answer, and an eighth of a common limit of 8,192.
	DefaultAnswer = 1024
	// DefaultWrongKeys leaves room for an office of clients that all begin with an old key.
	DefaultWrongKeys = 60
)

// Policy is one tenant's.
type Policy struct {
	Name   string        // Everybody, or a tenant's name
	Limits limits.Limits // of the tenant as a whole
	// KeyLimits are those of each of its keys that says nothing else.
	KeyLimits limits.Limits
	Rights
}

// Rights are what a tenant may do. The zero value allows everything.
type Rights struct {
	// Models are names, or patterns in which * stands for any text, of the models that may be used. A model may be used by all its names if
	// its id matches, and else by those names that match. nil: all.
	Models []string
	// Routes are those that may be called, by the names that the metrics have: chat, completions, responses, …. nil: all.
	Routes []string
	// NoWake keeps the tenant from starting models; what runs, or is being started for others, it may use.
	NoWake bool
	// MaxTokens is the most tokens that one answer may have, and what it gets if the request names no number. 0: as many as the model has.
	MaxTokens int64
	// MaxContext bounds prompt and answer of one request together, the prompt as estimated. 0: the model's own limit.
	MaxContext int64
	// Priority: higher ones wait less; from −9 to 9. Weight is the share among those of the same, 1 to 1000; 0 means 1.
	Priority, Weight int
	// CacheSalt keeps the tenant's prompts apart from others' in the engine's prefix cache, so that nobody learns by timing what others asked.
	CacheSalt bool
}

// Bounds of Rights.
const (
	LeastPriority, MostPriority = -9, 9
	MostWeight                  = 1000
)

func (r *Rules) validate() error {
	errs := []error{r.Total.Validate(), r.Anonymous.Validate()}
	var names []string
	for _, p := range r.Tenants {
		if p.Name == "" {
			errs = append(errs, errors.New("a tenant has no name"))
		}
		if slices.Contains(names, p.Name) {
			errs = append(errs, fmt.Errorf("tenant %s is there twice", p.Name))
		}
		names = append(names, p.Name)
		errs = append(errs, p.Limits.Validate(), p.KeyLimits.Validate())
	}
	for _, l := range r.Models {
		errs = append(errs, l.Validate())
	}
	return errors.Join(errs...)
}

// silent tells whether the rules say nothing, so that only keys can.
func (r *Rules) silent() bool {
	return r.Total == (limits.Limits{}) && r.Anonymous == (limits.Limits{}) && len(r.Tenants) == 0 && len(r.Models) == 0
}

// match tells whether a name fits a pattern, in which * stands for any text, also with slashes.
func match(pattern, name string) bool {
	// The usual two places to go back to: the last star, and where in name it was tried last.
	p, n, star, mark := 0, 0, -1, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case p < len(pattern) && pattern[p] == name[n]:
			p++
			n++
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

func matchAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if p == name || match(p, name) {
			return true
		}
	}
	return false
}
