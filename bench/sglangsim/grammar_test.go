package sglangsim

import (
	"regexp"
	"strings"
	"testing"
)

func TestAnswersMatchARegularExpression(t *testing.T) {
	for _, pattern := range []string{
		`(red|green|blue)-[0-9]{3}`, `[^a-z\s]+@example\.com`, `\d{4}-\d\d(T\d+)?`, `(?i)yes|no`, `a*b+c?.`, `^x{2,5}$`, `(\w+ ){3}end`, `[\p{Greek}]x`,
	} {
		p := sampling{Regex: pattern}
		text, err := p.forcedText()
		if err != nil || !regexp.MustCompile(`^(?:`+pattern+`)$`).MatchString(*text) {
			t.Errorf("%s: got %v, %v", pattern, text, err)
		}
	}
}

func TestAnswersFollowAGrammar(t *testing.T) {
	for _, c := range []struct{ grammar, want string }{
		{`root ::= "yes" | "no"`, "yes"},
		{"root ::= answer \", \" (\"surely\" | \"perhaps\")\nanswer ::= \"yes\" | \"no\"", "yes, surely"},
		{"# a list\nroot ::= \"[\" item (\",\" item)* \"]\"\nitem ::= [0-9]+ # digits\n", "[0]"},
		{"root ::= expr\nexpr ::= expr \"+\" expr\n  | \"(\" expr \")\"\n  | [a-z]", "a"},
		{`root ::= "a\n\"b\"" tail?` + "\n" + `tail ::= "x" tail`, "a\n\"b\""},
		{"root ::= [^a-z]", "!"},
		{`root ::= "#" "|"`, "#|"},
	} {
		p := sampling{EBNF: c.grammar}
		if text, err := p.forcedText(); err != nil || *text != c.want {
			t.Errorf("%s: got %v, %v, want %q", c.grammar, text, err, c.want)
		}
	}
}

func TestBadGrammarsAreRefused(t *testing.T) {
	for _, p := range []sampling{
		{Regex: "("}, {EBNF: "root ::= missing"}, {EBNF: `start ::= "x"`}, {EBNF: `root ::= "x`}, {EBNF: `root ::= ("x"`}, {EBNF: "root ::= [a"}, {EBNF: `root ::= "x" )`},
		{EBNF: `"x"`}, {EBNF: "root ::= root"}, {EBNF: "root ::= a a a\na ::= b b b\nb ::= a"}, {EBNF: "root ::= %"}, {Regex: "a", EBNF: `root ::= "a"`},
	} {
		if text, err := p.forcedText(); err == nil {
			t.Errorf("%+v gives %q", p, *text)
		}
	}
}

func FuzzGrammar(f *testing.F) {
	f.Add(`root ::= "a" | b`+"\n"+`b ::= [x] (b)* # c`, `(a|b){2}`)
	f.Fuzz(func(t *testing.T, ebnf, regex string) {
		_, _ = (&sampling{EBNF: ebnf}).forcedText()
		p := sampling{Regex: regex}
		text, err := p.forcedText()
		if err != nil || text == nil || strings.ContainsAny(regex, `$^\`) { // assertions may be impossible to meet
			return
		}
		if re, err := regexp.Compile(`(?s)^(?:` + regex + `)$`); err == nil && !re.MatchString(*text) && !strings.Contains(regex, "[^") {
			t.Errorf("%q does not match %q", *text, regex)
		}
	})
}
