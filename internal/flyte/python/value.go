package python

// Value is what an expression is: Text, Number, Bool, None, List, Dict, Call, or Source for all else.
type Value any

// Text is a str; Number an int or a float as Python writes it, without underscores; Bool and None themselves. List is
// a list or a tuple.
type (
	Text   string
	Number string
	Bool   bool
	None   struct{}
	List   []Value
	Dict   []Pair
)

// Pair is an entry of a dictionary.
type Pair struct{ Key, Value Value }

// Source is the text of an expression whose value only running it would tell. Names have been looked up in vain, or
// were assigned more than once.
type Source string

// Call is a call whose function is a dotted name.
type Call struct {
	// Function is the name with its module's, as it was imported: flyte.app.Scaling for "from flyte.app import Scaling".
	Function string
	Args     []Value
	Named    []Argument
	Line     int    // of its function's name, from 1
	Target   string // the name that it is assigned to in its own line; empty: none
	Text     string // its source
	// Others are arguments that cannot be told apart without running them: *list and **dictionary.
	Others []Source
}

// Argument is a named argument.
type Argument struct {
	Name  string
	Value Value
	Line  int
}

// Get returns the named argument, or nil.
func (c *Call) Get(name string) Value {
	for _, a := range c.Named {
		if a.Name == name {
			return a.Value
		}
	}
	return nil
}
