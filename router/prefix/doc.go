// Package prefix chooses the replica that will be done first with a prompt: the work that waits there, less what it need not compute again
// because its cache holds the beginning of the prompt. What a cache holds is not asked for but remembered: a replica that was given a
// prompt has its blocks, up to a bound per replica, the longest unused going first.
//
// A prompt is cut into blocks of bytes, not tokens, so no tokenizer is needed; each block's hash also covers what stands before it. Hashes
// are seeded per process: a client cannot make up prompts that collide. A collision or a wrong memory costs a detour, never a wrong
// answer.
//
// An Index is safe for concurrent use. Choosing and dispatching are one step under one lock, so that of a burst each request sees the
// ones before it.
package prefix
