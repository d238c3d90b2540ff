package doccheck

import (
	"regexp"
	"strconv"
	"testing"
	"time"
)

// systemd must not lose patience before the gateway does: --drain, then 30 s for an engine with work in flight and 15 s for the sweep.
func TestServiceWaitsLongerThanTheDrain(t *testing.T) {
	unit := read(t, "deploy/pilotlight.service")
	find := func(pattern string) string {
		m := regexp.MustCompile(pattern).FindStringSubmatch(unit)
		if m == nil {
			t.Fatalf("the unit has nothing like %s", pattern)
		}
		return m[1]
	}
	drain, err := time.ParseDuration(find(`(?m)^ExecStart=.* --drain (\S+)$`))
	if err != nil {
		t.Fatal(err)
	}
	seconds, err := strconv.Atoi(find(`(?m)^TimeoutStopSec=(\d+)$`))
	if err != nil {
		t.Fatal(err)
	}
	if stop := time.Duration(seconds) * time.Second; stop < drain+45*time.Second {
		t.Errorf("TimeoutStopSec is %v, and a drain of %v may take %v", stop, drain, drain+45*time.Second)
	}
	if mode := find(`(?m)^KillMode=(\w+)$`); mode != "process" {
		t.Errorf("KillMode=%s would kill engines under requests that are still being answered", mode)
	}
}
