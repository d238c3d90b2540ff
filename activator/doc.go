// Package activator keeps one state machine per model: it starts a replica when requests wait for one,
// lets the waiters out in fair order, and stops the replica again when nobody uses it.
//
// What decides is pure: machine.step takes an event and a time and returns effects (state.go has the
// diagram and the table). What acts is one owner goroutine per model, which runs the effects and feeds
// their results back as events. It never waits for anything but its mailbox and its timer.
//
// A warm request does not meet the owner at all. TryAcquire reads an atomic snapshot of the open replicas
// and swaps one word, which holds the replica's requests in flight and its fence in one place (word.go), so
// that "nobody uses it" and "nobody may use it any more" are one compare-and-swap.
//
// The package knows no HTTP, no process and no configuration file: a Launcher starts replicas, and callers
// carry the requests. Exported methods are safe for concurrent use unless they say otherwise.
package activator
