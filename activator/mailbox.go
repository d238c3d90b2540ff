package activator

import "sync"

// mailbox carries events to the owner. Sending never blocks, so an effect that ends can always report, and
// the owner may send to itself. Its length is bounded by what may send: two events per ticket (arrive,
// cancel), and tickets are bounded by the queue's limits; a handful per slot; pokes and progress at most once.
type mailbox struct {
	ready chan struct{} // holds a token while events may be there

	mu     sync.Mutex // guards the fields below
	events []event
	closed bool
}

func newMailbox() *mailbox { return &mailbox{ready: make(chan struct{}, 1)} }

// send reports false once the mailbox is closed: nobody will read the event.
func (b *mailbox) send(e event) bool {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return false
	}
	b.events = append(b.events, e)
	b.mu.Unlock()
	select {
	case b.ready <- struct{}{}:
	default:
	}
	return true
}

// spareEvents is how much memory for events an owner keeps after a burst.
const spareEvents = 256

// take returns the events and leaves spare's memory for the next ones, unless it is much.
func (b *mailbox) take(spare []event) []event {
	if cap(spare) > spareEvents {
		spare = nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := b.events
	b.events = spare[:0]
	return taken
}

// close refuses what comes from now on and returns what came before.
func (b *mailbox) close() []event {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return b.events
}
