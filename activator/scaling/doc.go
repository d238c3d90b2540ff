// Package scaling says how many replicas of a model are wanted. It starts and stops nothing, reads no clock and is not safe for
// concurrent use: whoever owns the model tells it what is seen, about once a second, and gets a number back.
//
// Load is what arrives, not what waits. A queue that grew while a replica started is work to be done once, so it counts only if the
// replicas at hand could not do it before one more would be ready. By concurrency, load is therefore the rate of arrivals times the time
// that a request is in flight (Little's law), which in the steady state is the number in flight and after a cold start is not.
package scaling
