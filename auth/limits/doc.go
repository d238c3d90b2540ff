// Package limits decides whether a request may be served now: requests and tokens a minute, tokens a day and a
// month, requests at the same time and models woken at the same time, for the gateway as a whole, a model, a tenant and a key,
// all of them together. A request is admitted by every limit that applies to it, or by none.
//
// Tokens are reserved on admission and settled with what was used. All of a request's tokens count at the moment of its
// admission: the promise is that the requests admitted in any 60 seconds used no more than the limit, or hold no more
// than that while they run. Only an engine that uses more than was reserved for it can pass a limit.
//
// It reads no clock (callers pass the time), starts no goroutine and keeps what it knows in memory: who wants
// budgets to outlive a restart saves Account.Spent and gives it to Account.Restore. Everything but Reservation is safe for
// concurrent use.
package limits
