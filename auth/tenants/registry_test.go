package tenants

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pilotlight/auth"
	"pilotlight/auth/limits"
)

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func registry(t testing.TB, rules Rules) *Registry {
	t.Helper()
	r, err := New(rules, noon, [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *Registry) of(tenant, key string, grant *auth.Grant) *Caller {
	return r.Caller(auth.Identity{Tenant: tenant, KeyID: key, Grant: grant}, &Memory{})
}

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"a", "", false}, {"", "", true}, {"*", "", true}, {"*", "org/a:1b", true},
		{"org/*", "org/a", true}, {"org/*", "org/a/b", true}, {"org/*", "other/a", false}, {"*b", "aabab", true}, {"*b", "aaba", false},
		{"a*b*c", "axxbyyc", true}, {"a*b*c", "axxcyyb", false}, {"**", "x", true}, {"A", "a", false}, {"q?en", "qwen", false}, {"*[a]", "x[a]", true},
	} {
		if got := match(tt.pattern, tt.name); got != tt.want {
			t.Errorf("match(%q, %q) = %v", tt.pattern, tt.name, got)
		}
	}
}

func TestNobodyIsLimitedWithoutRules(t *testing.T) {
	r := registry(t, Rules{})
	if c := r.of("a", "k", nil); c != nil {
		t.Errorf("got %+v", c)
	}
	if c := r.of("a", "k", &auth.Grant{Models: []string{"m"}}); c == nil || c.MayUse("x", "x") || !c.MayUse("m", "m") {
		t.Errorf("what a key says does not count: %+v", c)
	}
}

func TestRightsOfTenantAndKeyCountBoth(t *testing.T) {
	r := registry(t, Rules{Tenants: []Policy{
		{Name: "a", Rights: Rights{Models: []string{"org/*", "alias"}, MaxTokens: 100, Routes: []string{"chat"}}},
		{Name: Everybody, Rights: Rights{NoWake: true, MaxTokens: 7}},
	}})
	plain, narrow := r.of("a", "k", nil), r.of("a", "l", &auth.Grant{Models: []string{"org/x*", "alias"}, MaxTokens: 50})
	wide, other := r.of("a", "m", &auth.Grant{MaxTokens: 500}), r.of("b", "n", nil)
	for _, tt := range []struct {
		name, id    string
		plain, slim bool
	}{{"org/x", "org/x", true, true}, {"org/y", "org/y", true, false}, {"z", "z", false, false}, {"alias", "org/y", true, true}, {"alias", "z", true, true},
		{"another", "org/x", true, true}, {"another", "z", false, false}} {
		if plain.MayUse(tt.name, tt.id) != tt.plain || narrow.MayUse(tt.name, tt.id) != tt.slim || !other.MayUse(tt.name, tt.id) {
			t.Errorf("%s of %s: %v, %v, %v", tt.name, tt.id, plain.MayUse(tt.name, tt.id), narrow.MayUse(tt.name, tt.id), other.MayUse(tt.name, tt.id))
		}
	}
	if plain.MaxTokens() != 100 || narrow.MaxTokens() != 50 || wide.MaxTokens() != 100 || other.MaxTokens() != 7 {
		t.Errorf("max tokens %d %d %d %d", plain.MaxTokens(), narrow.MaxTokens(), wide.MaxTokens(), other.MaxTokens())
	}
	if !plain.MayCall("chat") || plain.MayCall("embeddings") || !other.MayCall("embeddings") || !plain.MayWake() || other.MayWake() {
		t.Error("routes or waking are wrong")
	}
}

// Tenants without an entry each have the account of their own, under the common limits; each key has one within its tenant.
func TestAccounts(t *testing.T) {
	r := registry(t, Rules{Total: limits.Limits{Concurrent: 4}, Tenants: []Policy{
		{Name: "a", Limits: limits.Limits{Concurrent: 3}, KeyLimits: limits.Limits{Concurrent: 2}},
		{Name: Everybody, Limits: limits.Limits{Concurrent: 1}}}})
	admit := func(c *Caller) limits.Scope {
		refusal, ok := c.Admit(new(limits.Reservation), nil, netip.Addr{}, 1, noon)
		if ok {
			return limits.Address + 1
		}
		return refusal.Scope
	}
	const yes = limits.Address + 1
	for i, tt := range []struct {
		caller *Caller
		want   limits.Scope
	}{
		{r.of("a", "k", nil), yes}, {r.of("a", "k", nil), yes}, {r.of("a", "k", nil), limits.Key},
		{r.of("a", "l", &auth.Grant{Limits: limits.Limits{Concurrent: 9}}), yes}, {r.of("a", "l", &auth.Grant{Limits: limits.Limits{Concurrent: 9}}), limits.Tenant},
		{r.of("b", "m", nil), yes}, {r.of("b", "m", nil), limits.Total}, {r.of("c", "n", nil), limits.Total},
	} {
		if got := admit(tt.caller); got != tt.want {
			t.Errorf("%d: %v, want %v", i, got, tt.want)
		}
	}
	for _, c := range r.Counts() {
		if c.Tenant == "a" && (c.Running != 3 || c.Requests != 3 || c.Refused[limits.Concurrent] != 2) {
			t.Errorf("counts %+v", c)
		}
	}
}

func TestAdjustKeepsWhatWasUsed(t *testing.T) {
	policy := func(n int64) Rules {
		return Rules{WrongKeys: 1, Anonymous: limits.Limits{RequestsPerMinute: 1}, Models: map[string]limits.Limits{"m": {RequestsPerMinute: n}},
			Tenants: []Policy{{Name: "a", Limits: limits.Limits{RequestsPerMinute: n}}}}
	}
	r, home := registry(t, policy(2)), netip.MustParseAddr("10.0.0.1")
	var memory Memory
	who := auth.Identity{Tenant: "a", KeyID: "k"}
	admit := func(model *limits.Account) bool {
		_, ok := r.Caller(who, &memory).Admit(new(limits.Reservation), model, home, 1, noon)
		return ok
	}
	anonymous := func() bool {
		_, ok := r.of("anonymous", "", nil).Admit(new(limits.Reservation), nil, home, 1, noon)
		return ok
	}
	if !admit(r.Model("m")) || !anonymous() || r.WrongKey(home, noon) != 0 {
		t.Fatal("the first is refused")
	}
	if err := r.Adjust(policy(1)); err != nil {
		t.Fatal(err)
	}
	if admit(nil) {
		t.Error("the tenant's use was forgotten")
	}
	if anonymous() {
		t.Error("the address' use was forgotten")
	}
	if wait := r.WrongKey(home, noon); wait < 58*time.Second || wait > time.Minute+time.Second {
		t.Errorf("a second wrong key waits %v", wait)
	}
	who.Tenant = "b"
	if admit(r.Model("m")) {
		t.Error("the model's use was forgotten")
	}
	if err := r.Adjust(Rules{Tenants: []Policy{{Name: "a"}, {Name: "a"}}}); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("Adjust: %v", err)
	}
	if who.Tenant = "a"; admit(nil) {
		t.Error("rules that were refused are in force")
	}
}

// Where a request does not say how long its answer may be, what is reserved follows what the tenant's answers have been.
func TestExpectedAnswer(t *testing.T) {
	r := registry(t, Rules{Tenants: []Policy{{Name: "a"}, {Name: "b"}}})
	a, b := r.of("a", "k", nil), r.of("b", "l", nil)
	if a.Answer() != DefaultAnswer {
		t.Errorf("at first %d", a.Answer())
	}
	a.Learn(100)
	if got := a.Answer(); got != 300 { // 100 + 4 · 50
		t.Errorf("after one answer %d, want 300", got)
	}
	for range 200 {
		a.Learn(100)
	}
	if got := a.Answer(); got < 100 || got > 101 {
		t.Errorf("after many equal ones %d", got)
	}
	a.Learn(900) // the deviation grows by 200, the mean by 100
	if got := a.Answer(); got < 999 || got > 1002 {
		t.Errorf("after a long one %d, want 1000", got)
	}
	if b.Answer() != DefaultAnswer {
		t.Errorf("another tenant: %d", b.Answer())
	}
	a.Learn(0)
	if got := registry(t, Rules{Answer: 7, Tenants: []Policy{{Name: "a"}}}).of("a", "k", nil).Answer(); got != 7 {
		t.Errorf("where the rules say it: %d", got)
	}
}

func TestCacheSaltsAreApart(t *testing.T) {
	rules := Rules{Tenants: []Policy{{Name: "a", Rights: Rights{CacheSalt: true}}, {Name: "b", Rights: Rights{CacheSalt: true}}, {Name: "c"}}}
	r, other := registry(t, rules), registry(t, rules)
	other.salt[0] = 2
	a := r.of("a", "k", nil).CacheSalt()
	if len(a) != 32 || a == r.of("b", "k", nil).CacheSalt() || a != r.of("a", "l", nil).CacheSalt() || a == other.of("a", "k", nil).CacheSalt() ||
		r.of("c", "k", nil).CacheSalt() != "" {
		t.Errorf("salt %q", a)
	}
}

func TestLedger(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spent.json")
	rules := Rules{Tenants: []Policy{{Name: "a", Limits: limits.Limits{TokensPerDay: 100, TokensPerMonth: 1000}, KeyLimits: limits.Limits{TokensPerMonth: 500}}}}
	l, err := OpenLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(rules, noon, l.Salt())
	if err != nil {
		t.Fatal(err)
	}
	var held, running limits.Reservation
	for _, h := range []*limits.Reservation{&held, &running} {
		if refusal, ok := r.of("a", "k", nil).Admit(h, nil, netip.Addr{}, 40, noon); !ok {
			t.Fatal(refusal)
		}
	}
	held.Settle(30, noon)
	if err := l.Save(r, noon); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name               string
		now                time.Time
		day, month, keysMo int64
	}{{"the same day", noon.Add(time.Hour), 70, 70, 70}, {"the next day", noon.AddDate(0, 0, 1), 0, 70, 70}, {"the next month", noon.AddDate(0, 1, 0), 0, 0, 0}} {
		t.Run(tt.name, func(t *testing.T) {
			again, err := OpenLedger(path)
			if err != nil || again.Salt() != l.Salt() {
				t.Fatalf("%v, another salt: %v", err, again.Salt() != l.Salt())
			}
			next, err := New(rules, tt.now, again.Salt())
			if err != nil {
				t.Fatal(err)
			}
			again.Restore(next, tt.now)
			again.Restore(next, tt.now) // counts once
			if got := next.Spent(limits.Tenant, "a", tt.now); got.DayTokens != tt.day || got.MonthTokens != tt.month {
				t.Errorf("tenant: %+v", got)
			}
			if got := next.Spent(limits.Key, "k", tt.now); got.MonthTokens != tt.keysMo {
				t.Errorf("key: %+v", got)
			}
		})
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if before.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", before.Mode())
	}
	if err := l.Save(r, noon.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was written although nothing was spent: %v", err)
	}
	for name, text := range map[string]string{"cut": `{"salt`, "no salt": `{}`, "a short salt": `{"salt":"00"}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenLedger(path); err == nil || !strings.Contains(err.Error(), "spent.json") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkCaller(b *testing.B) {
	r := registry(b, Rules{Tenants: []Policy{{Name: "a"}}})
	who, memory := auth.Identity{Tenant: "a", KeyID: "abcdefghijkl"}, Memory{}
	b.ReportAllocs()
	for b.Loop() {
		if r.Caller(who, &memory) == nil {
			b.Fatal("nobody")
		}
	}
}
