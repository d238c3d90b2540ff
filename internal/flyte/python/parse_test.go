package python

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// argument parses f(x=EXPRESSION) behind some lines and returns what x is.
func argument(t *testing.T, before, expression string) Value {
	t.Helper()
	f, err := Parse(before + "\nf(x=" + expression + ", y=1)\n")
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	calls := f.Calls("f")
	if len(calls) != 1 || calls[0].Get("y") != Number("1") {
		t.Fatalf("%s: got %+v", expression, calls)
	}
	return calls[0].Get("x")
}

func TestValues(t *testing.T) {
	for _, c := range []struct {
		before, expression string
		want               Value
	}{
		{"", `"a"`, Text("a")}, {"", `'a\n\x41\u00e9\101\q\''`, Text("a\nA\u00e9A\\q'")}, {"", `r'\n'`, Text(`\n`)},
		{"", `"""a
"b" # c"""`, Text("a\n\"b\" # c")},
		{"", `("a"
   'b' # comment
   "c")`, Text("abc")}, {"", `f"a"`, Text("a")}, {"", `f"a{b}"`, Source(`f"a{b}"`)}, {"", `"a" + "b"`, Text("ab")},
		{"", "1_000", Number("1000")}, {"", "0x10", Number("16")}, {"", "1.5e3", Number("1.5e3")}, {"", "-3", Number("-3")}, {"", ".5", Number(".5")},
		{"", "5 * 60", Number("300")}, {"", "60 * 60 * 2", Number("7200")}, {"", "1 / 0", Source("1 / 0")}, {"", "1 + 2 * 3", Source("1 + 2 * 3")},
		{"", "True", Bool(true)}, {"", "None", None{}},
		{"", "(0, 1)", List{Number("0"), Number("1")}}, {"", "(1)", Number("1")}, {"", "(1,)", List{Number("1")}}, {"", "()", List(nil)},
		{"", `["a", 2,]`, List{Text("a"), Number("2")}}, {"", `["a"] + ["b"]`, List{Text("a"), Text("b")}},
		{"", `{"a": 1, 'b': [2]}`, Dict{{Text("a"), Number("1")}, {Text("b"), List{Number("2")}}}}, {"", "{}", Dict{}},
		{"", "{1, 2}", Source("{1, 2}")}, {"", "[a for a in b]", List{Source("a for a in b")}}, {"", "a if b else c", Source("a if b else c")},
		{"", "lambda: 1", Source("lambda: 1")}, {"", "not a", Source("not a")}, {"", `"a".upper()`, Source(`"a".upper()`)}, {"", "a.b[1](2).c", Source("a.b[1](2).c")},
		{"N = 3", "N", Number("3")}, {"N: int = 3", "N", Number("3")}, {"M = 'a'\nN = M + 'b'", "N", Text("ab")}, {"N = 3\nN = 4", "N", Source("N")},
		{"N = [1]\nN += [2]", "N", Source("N")}, {"N = N", "N", Source("N")}, {"def g():\n    N = 3", "N", Source("N")}, {"N = g(1)", "N[0]", Source("N[0]")},
		{"import os", `os.environ["A"]`, &Call{Function: "os.getenv", Args: []Value{Text("A")}, Text: `os.environ["A"]`}},
		{"from a.b import (C as D,\n  E)", "D(1)", &Call{Function: "a.b.C", Args: []Value{Number("1")}, Line: 3, Text: "D(1)"}},
		{"import a.b as c", "c.D()", &Call{Function: "a.b.D", Line: 2, Text: "c.D()"}},
	} {
		if got := argument(t, c.before, c.expression); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s; %s: got %#v, want %#v", c.before, c.expression, got, c.want)
		}
	}
}

func TestCalls(t *testing.T) {
	f, err := Parse(`"""A text that says F(1)."""
from m import F
import m

# F(2)
a = F(
    name="one",  # a comment, with "quotes" (and brackets
    *rest, **more,
)
class F(object): pass
b: m.F = m.F(name="two")
def g():
    return [m.F(name="three", inner=F(name="four"))]
c.F = 3
x.y.F(name="five")
if a == F: print(F)
`)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, call := range f.Calls("F") {
		name, _ := call.Get("name").(Text)
		got = append(got, call.Target+"="+call.Function+":"+string(name))
	}
	want := "a=m.F:one b=m.F:two =m.F:three =m.F:four =x.y.F:five"
	if strings.Join(got, " ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, " "), want)
	}
	if first := f.Calls("F")[0]; first.Line != 6 || first.Named[0].Line != 7 || !reflect.DeepEqual(first.Others, []Source{"*rest", "**more"}) {
		t.Errorf("got %+v", first)
	}
}

func TestSyntaxErrors(t *testing.T) {
	for source, line := range map[string]int{"a = 'b": 1, "\n\na = \"\"\"b\n\n": 3, "a = 1)\n": 1, "\xff": 1, "a = 'b\n'": 1} {
		_, err := Parse(source)
		if e, ok := err.(*SyntaxError); !ok || e.Line != line {
			t.Errorf("%q: got %v, want line %d", source, err, line)
		}
	}
	for _, fine := range []string{"", "\n", "a", "a(", "f(x=[", "\ufeffa = 1", "a = \\\n 1", "f(x={1:", "async def f(): await g()", "match a:\n  case F(x=1): pass"} {
		f, err := Parse(fine)
		if err != nil {
			t.Errorf("%q: %v", fine, err)
			continue
		}
		f.Calls("f")
	}
}

// Names that lead to names twice each must not take twice the time for each of them.
func TestNamesAreReadOnce(t *testing.T) {
	for _, form := range []string{"a%d = [a%d, a%d]\n", "a%d = a%d + a%d\n", "a%d = g(a%d, x=a%d)\n"} {
		var b strings.Builder
		for i := range 50 {
			fmt.Fprintf(&b, form, i, i+1, i+1)
		}
		b.WriteString("a50 = 'x'\nf(x=a0)\n")
		f, err := Parse(b.String())
		if err != nil {
			t.Fatal(err)
		}
		if calls := f.Calls("f"); len(calls) != 1 || calls[0].Get("x") == nil {
			t.Errorf("%s: got %v", form, calls)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{`f(x=["a", {1: 2}], *b)`, "a = f'{b}'\nf(a)", "from a import (b as c, d)\nc(x=os.environ['A'])", "f(f(f(1)+2)*3)", "f(x=-)", "f(=,:)"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, source string) {
		file, err := Parse(source)
		if err != nil {
			return
		}
		for _, call := range file.Calls("f") {
			if !strings.Contains(source, call.Text) || call.Text == "" {
				t.Errorf("%q is no part of %q", call.Text, source)
			}
		}
	})
}
