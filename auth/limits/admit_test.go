package limits

import (
	"testing"
	"time"
)

func TestEachLimitRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limits Limits
		first  int64 // tokens of the request that is admitted
		second int64
		now    time.Duration // of the second
		want   Refusal       // without its standing
	}{
		{"requests", Limits{RequestsPerMinute: 1}, 1, 1, 10 * time.Second,
			Refusal{Kind: RequestsPerMinute, Limit: 1, RetryAfter: 51 * time.Second}},
		{"tokens", Limits{TokensPerMinute: 100}, 60, 41, 0,
			Refusal{Kind: TokensPerMinute, Limit: 100, RetryAfter: 61 * time.Second}},
		{"tokens, never", Limits{TokensPerMinute: 100}, 60, 101, 0,
			Refusal{Kind: TokensPerMinute, Limit: 100, TooLarge: true}},
		{"day", Limits{TokensPerDay: 100}, 60, 41, time.Hour,
			Refusal{Kind: TokensPerDay, Limit: 100, RetryAfter: 11 * time.Hour}},
		{"day, never", Limits{TokensPerDay: 100}, 60, 101, time.Hour,
			Refusal{Kind: TokensPerDay, Limit: 100, TooLarge: true}},
		{"month", Limits{TokensPerMonth: 100}, 60, 41, 24 * time.Hour,
			Refusal{Kind: TokensPerMonth, Limit: 100, RetryAfter: (5*24 + 12) * time.Hour}},
		{"concurrent", Limits{Concurrent: 1}, 1, 1, time.Hour,
			Refusal{Kind: Concurrent, Limit: 1}},
		{"what never fits wins", Limits{TokensPerMinute: 50, TokensPerDay: 100}, 50, 51, 0,
			Refusal{Kind: TokensPerMinute, Limit: 50, TooLarge: true}},
		{"the longest wait wins", Limits{RequestsPerMinute: 1, TokensPerDay: 100, Concurrent: 1}, 60, 41, 0,
			Refusal{Kind: TokensPerDay, Limit: 100, RetryAfter: 12 * time.Hour}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, by := one(tt.limits)
			admit(t, b, by, tt.first, noon)
			got := refuse(t, b, by, tt.second, at(tt.now))
			got.Standing, tt.want.Scope = Standing{}, Tenant
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestRetryAfterIsTrue(t *testing.T) {
	b, by := one(Limits{TokensPerMinute: 100})
	for i, tokens := range []int64{30, 30, 40} {
		admit(t, b, by, tokens, at(time.Duration(i)*700*time.Millisecond))
	}
	now := at(5 * time.Second)
	wait := refuse(t, b, by, 50, now).RetryAfter
	refuse(t, b, by, 50, now.Add(wait-1))
	admit(t, b, by, 50, now.Add(wait))
}

func TestRefusedRequestsCountNowhere(t *testing.T) {
	b := NewBook(noon)
	by := Payers{Total: b.Account(Total, ""), Model: b.Account(Model, "m"), Tenant: b.Account(Tenant, "t"), Key: b.Account(Key, "k")}
	wide := Limits{RequestsPerMinute: 10, TokensPerMinute: 1000, TokensPerDay: 1000, Concurrent: 10}
	for _, a := range []*Account{by.Total, by.Model, by.Tenant} {
		a.SetLimits(wide)
	}
	by.Key.SetLimits(Limits{Concurrent: 1})
	r := admit(t, b, by, 10, noon)
	for range 100 {
		if got := refuse(t, b, by, 10, noon); got.Scope != Key || got.Kind != Concurrent {
			t.Fatalf("got %v, want the key's concurrency", got)
		}
	}
	r.GiveBack(noon)
	for _, a := range []*Account{by.Total, by.Model, by.Tenant} {
		if a.requests.sum != 0 || a.tokens.sum != 0 || a.running != 0 || a.dayTokens != 0 {
			t.Errorf("%v: something is still counted: %d requests, %d tokens, %d running, %d today", a.scope, a.requests.sum, a.tokens.sum, a.running, a.dayTokens)
		}
	}
}

func TestSettle(t *testing.T) {
	for _, tt := range []struct {
		name     string
		settle   func(r *Reservation)
		requests int64
		tokens   int64
	}{
		{"less", func(r *Reservation) { r.Settle(30, at(time.Second)) }, 1, 30},
		{"more", func(r *Reservation) { r.Settle(130, at(time.Second)) }, 1, 130},
		{"twice", func(r *Reservation) { r.Settle(30, at(time.Second)); r.Settle(10, noon); r.GiveBack(noon) }, 1, 30},
		{"negative", func(r *Reservation) { r.Settle(-5, at(time.Second)) }, 1, 0},
		{"given back", func(r *Reservation) { r.GiveBack(at(time.Second)) }, 0, 0},
		{"in the next minute", func(r *Reservation) { r.Settle(30, at(61*time.Second)) }, 0, 0},
		{"more in the next minute", func(r *Reservation) { r.Settle(130, at(61*time.Second)) }, 0, 30},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, by := one(Limits{RequestsPerMinute: 5, TokensPerMinute: 200, TokensPerDay: 1000})
			tt.settle(admit(t, b, by, 100, noon))
			a := by.Tenant
			if a.requests.sum != tt.requests || a.tokens.sum != tt.tokens || a.running != 0 {
				t.Errorf("got %d requests, %d tokens, %d running; want %d, %d, 0", a.requests.sum, a.tokens.sum, a.running, tt.requests, tt.tokens)
			}
		})
	}
}

func TestBudgetsBeginAnewWithTheirDayAndMonth(t *testing.T) {
	b, by := one(Limits{TokensPerDay: 100, TokensPerMonth: 150})
	late := time.Date(2026, 11, 29, 23, 59, 59, 0, time.UTC)
	overnight := admit(t, b, by, 100, late)
	refuse(t, b, by, 1, late)
	next := late.Add(time.Second)
	admit(t, b, by, 50, next)
	overnight.Settle(20, next) // yesterday's day budget, this month's month budget
	if got := by.Tenant.Spent(next); got.DayTokens != 50 || got.MonthTokens != 70 {
		t.Errorf("got %d today and %d this month, want 50 and 70", got.DayTokens, got.MonthTokens)
	}
	if refusal := refuse(t, b, by, 81, next); refusal.Kind != TokensPerMonth && refusal.Kind != TokensPerDay {
		t.Errorf("got %v, want a budget", refusal)
	}
	if got := refuse(t, b, by, 51, late); got.Kind != TokensPerDay {
		t.Errorf("a clock set back: got %v, want the day's budget", got)
	}
	december := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	admit(t, b, by, 100, december)
	spent := by.Tenant.Spent(december)
	if !spent.Day.Equal(december) || !spent.Month.Equal(december) || spent.DayTokens != 100 || spent.MonthTokens != 100 {
		t.Errorf("got %+v, want 100 of the first of December", spent)
	}

	january := december.AddDate(0, 1, 0)
	b, by = one(Limits{TokensPerMonth: 100})
	long := admit(t, b, by, 40, december)
	admit(t, b, by, 50, january)
	long.Settle(10, january)
	if got := by.Tenant.Spent(january); got.MonthTokens != 50 || got.DayTokens != 50 {
		t.Errorf("got %d this month and %d today, want 50: what December's request left is not January's", got.MonthTokens, got.DayTokens)
	}

	restarted, by := one(Limits{TokensPerDay: 120})
	by.Tenant.Restore(Spent{Day: noon, Month: noon, DayTokens: 119, MonthTokens: 119}, december.Add(time.Hour)) // both are over
	if got := by.Tenant.Spent(december.Add(time.Hour)); got.DayTokens != 0 || got.MonthTokens != 0 {
		t.Errorf("got %+v of a month that is over, want nothing", got)
	}
	by.Tenant.Restore(spent, december.Add(time.Hour))
	if got := refuse(t, restarted, by, 21, december.Add(time.Hour)); got.Kind != TokensPerDay {
		t.Errorf("after a restart: got %v, want the day's budget", got)
	}
	admit(t, restarted, by, 20, december.Add(time.Hour))
}

func TestStandingIsThatOfTheTightest(t *testing.T) {
	b := NewBook(noon)
	by := Payers{Tenant: b.Account(Tenant, "t"), Key: b.Account(Key, "k")}
	by.Tenant.SetLimits(Limits{RequestsPerMinute: 100, TokensPerMinute: 1000})
	by.Key.SetLimits(Limits{RequestsPerMinute: 10, TokensPerMinute: 5000})
	got := admit(t, b, by, 400, at(300*time.Millisecond)).Standing()
	reset := 61*time.Second - 300*time.Millisecond
	want := Standing{Requests: Rate{Limit: 10, Remaining: 9, Reset: reset}, Tokens: Rate{Limit: 1000, Remaining: 600, Reset: reset}}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	refused := refuse(t, b, by, 700, at(300*time.Millisecond)).Standing
	if refused != want {
		t.Errorf("refused: got %+v, want %+v", refused, want)
	}
	if got := admit(t, NewBook(noon), Payers{}, 5, noon).Standing(); got != (Standing{}) {
		t.Errorf("without limits: got %+v, want nothing", got)
	}
}

func TestLimitsThatChange(t *testing.T) {
	b, by := one(Limits{TokensPerMinute: 100})
	old := admit(t, b, by, 100, noon)
	by.Tenant.SetLimits(Limits{TokensPerMinute: 150})
	refuse(t, b, by, 51, noon)
	by.Tenant.SetLimits(Limits{})
	by.Tenant.SetLimits(Limits{TokensPerMinute: 100})
	admit(t, b, by, 90, noon)
	old.Settle(0, noon) // was counted before the limit was taken away, so it has no part in the new one
	refuse(t, b, by, 11, noon)
	b.Forget(Tenant, "t")
	if b.Account(Tenant, "t") == by.Tenant {
		t.Error("a forgotten account came back")
	}
}

func TestColdStartsCountModels(t *testing.T) {
	b, by := one(Limits{ColdStarts: 1})
	first, second, other := admit(t, b, by, 1, noon), admit(t, b, by, 1, noon), admit(t, b, by, 1, noon)
	for _, r := range []*Reservation{first, second} {
		if refusal, ok := r.Wake("a"); !ok {
			t.Fatalf("the same model: %v", refusal)
		}
	}
	if refusal, ok := other.Wake("b"); ok || refusal.Kind != ColdStarts || refusal.Scope != Tenant || refusal.Limit != 1 {
		t.Fatalf("another model: got %v, %v, want a refusal", refusal, ok)
	}
	first.Woken()
	first.Woken()
	if _, ok := other.Wake("b"); ok {
		t.Fatal("admitted while a request still waits for the first model")
	}
	second.Settle(1, noon)
	if refusal, ok := other.Wake("b"); !ok {
		t.Fatalf("nobody waits: %v", refusal)
	}
	other.GiveBack(noon)
	if n := len(by.Tenant.waking); n != 0 {
		t.Errorf("got %d models that somebody waits for, want 0", n)
	}
}

func TestAppendReset(t *testing.T) {
	for _, d := range []time.Duration{0, 1, -5, time.Millisecond, 999 * time.Millisecond, time.Second - 1, time.Second, 1500 * time.Millisecond,
		59*time.Second + 999*time.Millisecond, time.Minute, 6 * time.Minute, 61 * time.Second, time.Hour, 25*time.Hour + 3*time.Second + 40*time.Millisecond} {
		want := ((max(d, 0) + time.Millisecond - 1) / time.Millisecond * time.Millisecond).String()
		if got := string(AppendReset(nil, d)); got != want {
			t.Errorf("%d: got %q, want %q", d, got, want)
		}
	}
}
