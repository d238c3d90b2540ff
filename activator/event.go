package activator

import "time"

// moment is a time since the model was made. 0 means never.
type moment = time.Duration

// event is something that happened. Which fields count depends on the kind.
type event struct {
	kind   eventKind
	ok     bool
	old    bool
	grant  grantResult
	id     uint64 // replica
	n      int
	limit  int
	word   word
	since  moment // idle since
	jitter float64
	ticket *Ticket
	cost   int64 // of a dispatch, in tokens
	output int64 // tokens that the answer had; 0: nothing is to be learned
	err    error
	// phase and percent are of evProgress.
	phase   string
	percent float64

	instance Instance
	change   *change
	reply    chan error // buffered; nil in the pure tests
}

type eventKind uint8

const (
	evTick eventKind = iota // a deadline has passed

	// From requests.
	evArrive // ticket
	evCancel // ticket has left
	evPoke   // a place or a watched replica became free
	evCharge // ticket, cost (what its work was more than it was charged), output

	// From operators and other parts.
	evUpdate  // change
	evScale   // n; below 0: load does not say
	evRetry   //
	evPreempt // id, ok (though it is busy), reply
	evAdopt   // id, ok (it is ready, not starting), old (of another spec), limit, instance, n (that many follow, and nothing is decided before)
	evSettled // id: no request of an earlier gateway is in flight on it
	evUnload  //
	evClose   //
	evHurry   // stop draining

	// From effects that take time.
	evReserved // id, err: devices for a start were granted or refused
	evStarted  // id, limit, instance
	evFailed   // id, err, jitter: a start
	evProgress // id, phase, percent
	evExited   // id, err, ok (it has served), jitter
	evSlept    // id, err
	evWoken    // id, err
	evStopped  // id, err

	// Results of effects that are immediate.
	evGranted  // ticket, grant, cost
	evObserved // id, word, since
	evFenced   // id, ok
	evClosed   // id, word
	evSurveyed // id: the replica that is the cheapest to lose; 0: none is open
)

// grantResult is what became of an attempt to give a waiter a place.
type grantResult uint8

const (
	grantOK   grantResult = iota
	grantFull             // no open replica has room
	grantGone             // the waiter had left
)

// change is the content of an Update. The machine reads the config and whether the spec is another one.
type change struct {
	config   Config
	launcher Launcher
	subject  Subject
	spec     uint64 // set by the owner: equal for equal hashes
}

// effect is something to be done. Immediate ones are done by the owner in order; their results are the next
// events. The others run beside it and report when they end.
type effect struct {
	kind   effectKind
	idle   bool
	held   bool
	beside bool
	from   State
	to     State
	slot   int
	id     uint64
	word   word
	ticket *Ticket
	cost   int64
	err    error
	reason string
	reply  chan error
}

type effectKind uint8

const (
	// Immediate.
	effPublish  effectKind = iota // the set of open replicas, or their limits, changed
	effOpen                       // id, slot; idle: its in flight is known. Make its admission word
	effGrant                      // ticket, cost → evGranted
	effObserve                    // id → evObserved, watched from then on if busy
	effFence                      // id, word: swap from this very word → evFenced
	effKnown                      // id: nobody else's requests are in flight any more; idleness counts from now
	effClose                      // id: fence whatever is in flight → evClosed
	effSurvey                     // → evSurveyed
	effGiveUp                     // ticket, err
	effGone                       // id, held: nothing of it is left; give its devices back if held
	effReply                      // reply, err
	effChanged                    // slot, id, from, to, reason, err: for logs and metrics
	effRollBack                   // err: the spec is the one before again
	effDone                       // the model has ended

	// Taking time.
	effReserve // id, beside (there are others, which serve: now or not at all) → evReserved
	effLaunch  // id, slot → evStarted or evFailed
	effCancel  // id: end the reserve or launch early; it still reports
	effSleep   // id → evSlept
	effWake    // id → evWoken
	effStop    // id, idle → evStopped
)
