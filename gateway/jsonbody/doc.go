// Package jsonbody reads what the gateway must know from a JSON request body, and changes it, without
// ever building the document in memory.
//
// [Scan] validates a whole body as strict JSON in one pass and notes where a fixed set of top-level
// members lies. [Patch] turns wishes (drop this member, set that one) into splices of the original bytes,
// so that everything the gateway does not care about reaches the engine as the client wrote it: number
// precision, key order and white space included. [Locate] finds a member of a document that is already
// trusted to be JSON, such as an engine's answer.
//
// JSON parsers disagree about duplicate keys, trailing data, byte order marks and lone surrogates. A
// gateway that reads one model and an engine that reads another is a hole, so Scan accepts only what all
// strict parsers read the same way.
//
// Long strings are read with AVX2 vectors where the processor has them, and in words of 8 bytes elsewhere; what
// is accepted, and what is said of the rest, is the same.
//
// The package does no I/O, keeps no state between calls and starts no goroutine. Functions may be called
// concurrently; a Fields or Patch value belongs to one goroutine at a time.
package jsonbody
