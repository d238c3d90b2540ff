// Package sse handles the events of an engine's answer and writes the gateway's own: heartbeats, and
// errors in each API's dialect.
//
// [Splitter] cuts a byte stream into events whatever the fragments it arrives in. The other functions
// look at or change one event at a time and copy only what they change. What the gateway writes keeps to
// the forms that every shipping client accepts: one data line per event, no id:, no retry:, no event
// without data, a name only where the API has names.
//
// The package does no I/O and starts no goroutine. Functions may be called concurrently; a Splitter
// belongs to one goroutine at a time.
package sse
