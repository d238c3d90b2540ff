package sglangsim

import (
	"strings"
	"testing"
	"time"
)

func TestPrefixCacheKnowsBeginnings(t *testing.T) {
	c := newPrefixCache(10_000)
	now := time.Unix(1000, 0)
	system := strings.Repeat("you are a model ", 100) // 1600 bytes, 25 pages
	for i, tt := range []struct {
		text string
		min  int
		max  int
	}{
		{system + strings.Repeat("first ", 50), 0, 0},
		{system + strings.Repeat("other ", 50), 320, 340}, // of 400 tokens, 16/19
		{system + strings.Repeat("first ", 50), 380, 399},
		{"x" + system, 0, 0},
		{"", 0, 0},
	} {
		got, done := c.enter(tt.text, 400, 1000, now)
		if got < tt.min || got > tt.max {
			t.Errorf("text %d: %d of 400 tokens cached, want %d to %d", i, got, tt.min, tt.max)
		}
		if i == 0 && done.Sub(now) != 400*time.Millisecond {
			t.Errorf("prefill of 400 tokens takes %v at 1000 a second", done.Sub(now))
		}
	}
	if _, done := c.enter("y", 100, 1000, now); done.Sub(now) < 900*time.Millisecond {
		t.Errorf("prefill waits %v for those before it", done.Sub(now))
	}
	c.keep(system + "first answer " + strings.Repeat("and more ", 40))
	if got, _ := c.enter(system+"first answer "+strings.Repeat("and more ", 40)+"next", 400, 0, now); got < 370 {
		t.Errorf("%d of 400 tokens cached of what was generated", got)
	}
	if n := c.seen(); n.Requests != 7 || n.PromptTokens != 5*400+100+400 || n.Cached == 0 {
		t.Errorf("counts %+v", n)
	}
	c.clear()
	if got, _ := c.enter(system, 400, 0, now); got != 0 {
		t.Errorf("%d tokens cached after a flush", got)
	}
}

func TestPrefixCacheForgetsTheLongestUnused(t *testing.T) {
	c := newPrefixCache(1000) // 62 pages
	now := time.Unix(1000, 0)
	text := func(word string) string { return strings.Repeat(word, 400) } // 1600 bytes, 25 pages
	for _, word := range []string{"aaaa", "bbbb", "aaaa", "cccc"} {
		c.enter(text(word), 400, 0, now)
	}
	if got, _ := c.enter(text("aaaa"), 400, 0, now); got < 380 {
		t.Errorf("%d tokens left of what was used last", got)
	}
	if got, _ := c.enter(text("bbbb"), 400, 0, now); got > 300 {
		t.Errorf("%d tokens left of what was used longest ago", got)
	}
}
