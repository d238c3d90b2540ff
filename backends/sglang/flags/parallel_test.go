package flags

import (
	"strings"
	"testing"
)

func TestRanks(t *testing.T) {
	for _, c := range []struct {
		args       string
		devices    int
		arithmetic string
		problem    string
		four       string // what uses four GPUs
	}{
		{"", 1, "--tp-size 1", "", "--tp-size 4"},
		{"--tp 4", 4, "--tp-size 4", "", "--tp-size 4"},
		{"--tp 2 --dp-size 2", 4, "--tp-size 2 × --dp-size 2", "", "--tp-size 2"},
		{"--tp 2 --pp-size 2 --dp-size 2", 8, "--tp-size 2 × --pp-size 2 × --dp-size 2", "", "--tp-size 1"},
		{"--tp 4 --dp-size 2 --enable-dp-attention", 4, "--tp-size 4", "", "--tp-size 4"},
		{"--tp 4 --dp-size 3 --enable-dp-attention", 4, "--tp-size 4", "--tp-size 4 is no multiple of --dp-size 3", "--tp-size 4"},
		{"--tp 4 --ep 4", 4, "--tp-size 4", "", "--tp-size 4"},
		{"--tp 4 --ep 8", 4, "--tp-size 4", "--ep-size 8 is more than --tp-size 4", "--tp-size 4"},
		{"--tp 4 --ep-size 3", 4, "--tp-size 4", "--tp-size 4 is no multiple of --ep-size 3", "--tp-size 4"},
		{"--tp 0", 1, "--tp-size 1", "--tp-size needs a whole number above zero", "--tp-size 4"},
		{"--tp 2 --base-gpu-id 2", 4, "--tp-size 2 from --base-gpu-id 2 on", "", ""},
		{"--tp 2 --gpu-id-step 2", 3, "--tp-size 2 in steps of 2", "", ""},
		{"--pp-size 3", 3, "--tp-size 1 × --pp-size 3", "", ""},
	} {
		for _, table := range []*Table{Newest(), All()[len(All())-1]} {
			line := table.Check(strings.Fields(c.args), false)
			if len(line.Errors) > 0 {
				t.Fatalf("%s: %+v", c.args, line.Errors)
			}
			r := RanksOf(line)
			message, _ := r.Problem()
			if r.Devices() != c.devices || r.Arithmetic() != c.arithmetic || !strings.HasPrefix(message, c.problem) || (c.problem == "") != (message == "") || r.Sized(4) != c.four {
				t.Errorf("%q: got %d, %q, %q, %q", c.args, r.Devices(), r.Arithmetic(), message, r.Sized(4))
			}
			if r.Given != (c.args != "") {
				t.Errorf("%q: given %t", c.args, r.Given)
			}
		}
	}
	command, extra := Newest().Check([]string{"--tp", "2"}, false), Newest().Check([]string{"--tp", "4"}, false)
	if r := RanksOf(command, extra); r.TP != 4 {
		t.Errorf("the command's own --tp wins over extra_args: %d", r.TP)
	}
}
