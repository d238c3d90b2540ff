package jsonbody

import "testing"

func TestSeveral(t *testing.T) {
	for _, tt := range []struct {
		prompt string
		want   int
	}{
		{`"one, [\"not two\"]"`, 1}, {`[]`, 1}, {`["a"]`, 1}, {`["a","b,c", "d" ]`, 3}, {`[ "a" , "]" ]`, 2}, {`[1,2,3]`, 1},
		{`[[1,2],[3],[4,5,6]]`, 3}, {`[["a"],"b"]`, 2}, {`null`, 1}, {`5`, 1}, {`["1","2","3","4","5","6"]`, 5}, {`["a",1]`, 1},
	} {
		var f Fields
		if err := Scan([]byte(`{"prompt": `+tt.prompt+`, "n": 1}`), &f); err != nil {
			t.Fatal(err)
		}
		if got := f.Several(Prompt, 5); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.prompt, got, tt.want)
		}
	}
	if got := new(Fields).Several(Prompt, 5); got != 1 {
		t.Errorf("no body: %d, want 1", got)
	}
}
