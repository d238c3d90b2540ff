package python

import (
	"strconv"
	"strings"
)

// File is a parsed file.
type File struct {
	source   string
	tokens   []token
	imports  map[string]string // a name and what it stands for
	assigned map[string][]int  // a name and the tokens at which its values begin, at the module's top
	looking  map[string]bool   // names being looked up, so that a = a ends
	found    map[string]Value  // names that were looked up, so that each is read once
	depth    int
}

// maxDepth bounds nested brackets; people write three or four.
const maxDepth = 60

// Parse reads a file. The error is a *SyntaxError.
func Parse(source string) (*File, error) {
	tokens, err := tokenize(source)
	if err != nil {
		return nil, err
	}
	f := &File{source: strings.TrimPrefix(source, "\ufeff"), tokens: tokens, imports: map[string]string{}, assigned: map[string][]int{}, looking: map[string]bool{}, found: map[string]Value{}}
	start := true
	for i, t := range tokens {
		if start {
			f.statement(i)
		}
		start = t.kind == newline
	}
	return f, nil
}

// statement notes imports, at any depth, and assignments at the top: name = value and name: type = value.
func (f *File) statement(i int) {
	t := f.tokens[i]
	switch {
	case t.kind == name && t.value == "import":
		f.importNames(i+1, "")
	case t.kind == name && t.value == "from":
		module := ""
		for i++; f.tokens[i].value != "import" && f.tokens[i].kind != newline && f.tokens[i].kind != end; i++ {
			module += f.tokens[i].value
		}
		f.importNames(i+1, module)
	case t.kind == name && t.indent == 0:
		for j := i + 1; f.tokens[j].kind != newline && f.tokens[j].kind != end; j++ {
			op := f.tokens[j].value
			if f.tokens[j].kind != operator {
				if j == i+1 {
					return
				}
				continue
			}
			if j == i+1 && op != "=" && op != ":" && !strings.HasSuffix(op, "=") {
				return
			}
			if op == "=" || strings.HasSuffix(op, "=") && j == i+1 && op != "==" {
				at := j + 1
				if op != "=" {
					at = -1 // changed in place: its value is not known
				}
				f.assigned[t.value] = append(f.assigned[t.value], at)
				return
			}
		}
	}
}

// importNames reads "a.b as c, d" or, from a module, "(A as B, C)".
func (f *File) importNames(i int, module string) {
	for f.tokens[i].kind != newline && f.tokens[i].kind != end {
		dotted := ""
		for f.tokens[i].kind == name && f.tokens[i].value != "as" || f.tokens[i].value == "." {
			dotted += f.tokens[i].value
			i++
		}
		if dotted == "" {
			i++ // a comma or a bracket
			continue
		}
		known := dotted
		if f.tokens[i].kind == name && f.tokens[i].value == "as" && f.tokens[i+1].kind == name {
			known = f.tokens[i+1].value
			i += 2
		}
		if module != "" {
			f.imports[known] = module + "." + dotted
		} else if known != dotted {
			f.imports[known] = dotted
		}
	}
}

// Calls returns the calls, in the order of the file, of functions whose last name is this one.
func (f *File) Calls(function string) []*Call {
	var out []*Call
	for i := 0; i < len(f.tokens); i++ {
		if f.tokens[i].kind != name || i > 0 && (f.tokens[i-1].value == "." || f.tokens[i-1].value == "class" || f.tokens[i-1].value == "def") {
			continue
		}
		dotted, next := f.dotted(i)
		if f.tokens[next].value != "(" || lastName(dotted) != function {
			continue
		}
		p := &parser{f, i}
		if call, ok := p.postfix().(*Call); ok && lastName(call.Function) == function {
			call.Target = f.target(i)
			out = append(out, call)
		}
	}
	return out
}

func lastName(dotted string) string { return dotted[strings.LastIndexByte(dotted, '.')+1:] }

// target is the name to the left of "name = " or "name: type = " in front of token i.
func (f *File) target(i int) string {
	first := i
	for first > 0 && f.tokens[first-1].kind != newline {
		first--
	}
	if i == first || f.tokens[i-1].value != "=" || f.tokens[first].kind != name {
		return ""
	}
	if second := f.tokens[first+1].value; second != "=" && second != ":" {
		return ""
	}
	return f.tokens[first].value
}

// dotted reads a.b.c with its first name as it was imported, and tells where it ends.
func (f *File) dotted(i int) (string, int) {
	out := f.tokens[i].value
	if full, ok := f.imports[out]; ok {
		out = full
	}
	for i++; f.tokens[i].value == "." && f.tokens[i].kind == operator && f.tokens[i+1].kind == name; i += 2 {
		out += "." + f.tokens[i+1].value
	}
	return out, i
}

// parser reads expressions from token at on.
type parser struct {
	f  *File
	at int
}

func (p *parser) token() token { return p.f.tokens[p.at] }
func (p *parser) is(op string) bool {
	return p.token().kind == operator && p.token().value == op
}

// expression reads up to a comma, colon, closing bracket or line end that is not inside brackets of its own. Whatever
// follows a value there makes it an expression that is not understood: only + between texts, lists and numbers is.
func (p *parser) expression() Value {
	from := p.at
	value := p.sum()
	if p.ends() {
		return value
	}
	p.skip()
	return p.source(from)
}

func (p *parser) ends() bool {
	t := p.token()
	return t.kind == newline || t.kind == end || t.kind == operator && strings.Contains(",:)]}=", t.value)
}

// skip goes to the end of the expression.
func (p *parser) skip() {
	for depth := 0; ; p.at++ {
		t := p.token()
		switch {
		case t.kind == end || t.kind == newline && depth == 0:
			return
		case depth == 0 && t.kind == operator && strings.Contains(",)]}", t.value):
			return
		case t.kind == operator && strings.Contains("([{", t.value):
			depth++
		case t.kind == operator && strings.Contains(")]}", t.value):
			depth--
		}
	}
}

func (p *parser) source(from int) Source {
	if p.at == from {
		return ""
	}
	return Source(p.f.source[p.f.tokens[from].from:p.f.tokens[p.at-1].to])
}

// sum adds, multiplies and divides what can be: "a" + "b", [x] + [y], 5 * 60.
func (p *parser) sum() Value {
	from := p.at
	value := p.unary()
	for p.token().kind == operator {
		op := p.token().value
		if op != "+" && op != "*" && op != "-" && op != "/" {
			return value
		}
		p.at++
		value = combine(op, value, p.unary(), p.source(from))
		if _, unknown := value.(Source); unknown {
			p.skip()
			return p.source(from)
		}
		if op == "+" || op == "-" {
			// A product that follows binds first; one is rare enough to leave it to people.
			if next := p.token(); next.kind == operator && (next.value == "*" || next.value == "/") {
				p.skip()
				return p.source(from)
			}
		}
	}
	return value
}

// maxLength ends sums that double and double; no argument is longer.
const maxLength = 100_000

func combine(op string, a, b Value, source Source) Value {
	switch a := a.(type) {
	case Text:
		if b, ok := b.(Text); ok && op == "+" && len(a)+len(b) <= maxLength {
			return a + b
		}
	case List:
		if b, ok := b.(List); ok && op == "+" && len(a)+len(b) <= maxLength {
			return append(a[:len(a):len(a)], b...)
		}
	case Number:
		b, ok := b.(Number)
		x, err1 := strconv.ParseFloat(string(a), 64)
		y, err2 := strconv.ParseFloat(string(b), 64)
		if !ok || err1 != nil || err2 != nil {
			break
		}
		switch op {
		case "+":
			x += y
		case "-":
			x -= y
		case "*":
			x *= y
		case "/":
			if y == 0 {
				return source
			}
			x /= y
		}
		return Number(strconv.FormatFloat(x, 'f', -1, 64))
	}
	return source
}

func (p *parser) unary() Value {
	if p.is("-") || p.is("+") {
		from, sign := p.at, p.token().value
		p.at++
		if n, ok := p.unary().(Number); ok {
			if sign == "-" {
				return "-" + n
			}
			return n
		}
		return p.source(from)
	}
	return p.postfix()
}

// postfix reads a value and the calls, members and attributes that follow it.
func (p *parser) postfix() Value {
	from := p.at
	p.f.depth++
	defer func() { p.f.depth-- }()
	if p.f.depth > maxDepth {
		p.skip()
		return p.source(from)
	}
	t := p.token()
	switch t.kind {
	case text, format:
		return p.texts()
	case number:
		p.at++
		return numberOf(t.value)
	case operator:
		switch t.value {
		case "(":
			items, tuple := p.items(")")
			if len(items) == 1 && !tuple {
				return p.further(from, items[0])
			}
			return List(items)
		case "[":
			items, _ := p.items("]")
			return p.further(from, List(items))
		case "{":
			return p.further(from, p.dict())
		case "*":
			p.at++
			p.skip()
			return p.source(from)
		}
		p.skip()
		return p.source(from)
	case name:
		switch t.value {
		case "True", "False":
			p.at++
			return Bool(t.value == "True")
		case "None":
			p.at++
			return None{}
		case "lambda", "await", "yield", "not", "async":
			p.skip()
			return p.source(from)
		}
		dotted, next := p.f.dotted(p.at)
		p.at = next
		if p.is("(") {
			call := p.call(dotted, t.line)
			call.Text = string(p.source(from))
			return p.further(from, call)
		}
		if p.is("[") {
			return p.further(from, Source(dotted))
		}
		return p.lookup(dotted, from)
	}
	p.skip()
	return p.source(from)
}

// further makes what has another call, member or attribute behind it into source, but for os.environ["NAME"].
func (p *parser) further(from int, value Value) Value {
	if !p.is("(") && !p.is("[") && !p.is(".") {
		return value
	}
	environ := value == Source("os.environ") && p.is("[")
	var inside Value
	for p.is("(") || p.is("[") || p.is(".") {
		switch {
		case p.is("."):
			p.at += 2
		case p.is("("):
			p.call("", 0)
		default:
			items, _ := p.items("]")
			if environ && len(items) == 1 {
				inside = items[0]
			}
		}
		if p.token().kind == end {
			break
		}
		if environ && !p.is("(") && !p.is("[") && !p.is(".") && inside != nil {
			return &Call{Function: "os.getenv", Args: []Value{inside}, Text: string(p.source(from))}
		}
	}
	return p.source(from)
}

// lookup returns what a name was assigned at the module's top, if it was once.
func (p *parser) lookup(dotted string, from int) Value {
	places := p.f.assigned[dotted]
	if len(places) != 1 || places[0] < 0 || p.f.looking[dotted] {
		return p.source(from)
	}
	if value, ok := p.f.found[dotted]; ok {
		return value
	}
	p.f.looking[dotted] = true
	value := (&parser{p.f, places[0]}).expression()
	delete(p.f.looking, dotted)
	p.f.found[dotted] = value
	return value
}

// texts joins adjacent literals.
func (p *parser) texts() Value {
	from, known := p.at, true
	var b strings.Builder
	for p.token().kind == text || p.token().kind == format {
		known = known && (p.token().kind == text || !strings.ContainsAny(p.token().value, "{}"))
		b.WriteString(p.token().value)
		p.at++
	}
	if p.is(".") || p.is("[") || p.is("(") {
		return p.further(from, Text(""))
	}
	if !known {
		return p.source(from)
	}
	return Text(b.String())
}

func numberOf(written string) Value {
	plain := strings.ReplaceAll(written, "_", "")
	if n, err := strconv.ParseInt(plain, 0, 64); err == nil && (len(plain) < 2 || plain[0] != '0' || !isDigit(plain[1])) {
		return Number(strconv.FormatInt(n, 10))
	}
	if _, err := strconv.ParseFloat(plain, 64); err == nil {
		return Number(plain)
	}
	return Source(written)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// items reads a bracketed list; tuple tells whether a comma was in it.
func (p *parser) items(closing string) (items []Value, tuple bool) {
	p.at++
	for !p.is(closing) && p.token().kind != end {
		before := p.at
		items = append(items, p.expression())
		if p.is(",") {
			tuple = true
			p.at++
		} else if !p.is(closing) && p.at == before {
			p.at++
		} else if !p.is(closing) {
			p.skipOne()
		}
	}
	if p.token().kind != end {
		p.at++
	}
	return items, tuple
}

// skipOne steps over a token that does not belong there.
func (p *parser) skipOne() {
	if p.token().kind != end {
		p.at++
	}
}

func (p *parser) dict() Value {
	from := p.at
	out, known := Dict{}, true
	p.at++
	for !p.is("}") && p.token().kind != end {
		before := p.at
		key := p.expression()
		if !p.is(":") {
			known = false // a set, or **other
		} else {
			p.at++
			out = append(out, Pair{key, p.expression()})
		}
		if p.is(",") || p.at == before {
			p.skipOne()
		} else if !p.is("}") {
			p.skipOne()
			known = false
		}
	}
	if p.token().kind != end {
		p.at++
	}
	if !known {
		return p.source(from)
	}
	return out
}

// call reads the arguments of a call whose "(" is next.
func (p *parser) call(function string, line int) *Call {
	c := &Call{Function: function, Line: line}
	p.at++
	for !p.is(")") && p.token().kind != end {
		before := p.at
		switch {
		case p.is("*"), p.is("**"):
			p.skip()
			c.Others = append(c.Others, p.source(before))
		case p.token().kind == name && p.f.tokens[p.at+1].kind == operator && p.f.tokens[p.at+1].value == "=":
			a := Argument{Name: p.token().value, Line: p.token().line}
			p.at += 2
			a.Value = p.expression()
			c.Named = append(c.Named, a)
		default:
			c.Args = append(c.Args, p.expression())
		}
		if p.is(",") || p.at == before {
			p.skipOne()
		} else if !p.is(")") {
			p.skipOne()
		}
	}
	if p.token().kind != end {
		p.at++
	}
	return c
}
