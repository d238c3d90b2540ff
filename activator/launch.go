package activator

import (
	"context"
	"time"
)

// Launcher starts replicas of one model.
type Launcher interface {
	// Launch starts one replica and blocks until it is ready, has failed, or ctx ended. On an error nothing
	// of it is left, neither process nor memory. It may call progress from any goroutine until it returns.
	// ctx belongs to the start alone and is cancelled after it: the replica must not hang on it.
	// An error in whose chain `IsPermanent() bool` answers true is not tried again without a change.
	Launch(ctx context.Context, start Start, progress func(Progress)) (Instance, error)
}

// Preparer is a Launcher that has something to do for a start before devices are reserved for it, such as bringing files to this machine.
type Preparer interface {
	// Prepare blocks until it is done, has failed, or ctx ended; its error is the start's, as one of Launch would be. ctx is the one that Launch
	// gets, and ends when the start has, if it comes to no Launch. It may call progress from any goroutine until it returns; of the
	// Progress, Percent is that of the preparation alone.
	Prepare(ctx context.Context, start Start, progress func(Progress)) error
}

// Start names one start.
type Start struct {
	// ID is unique among all starts of the model in this process, and is the replica's id from then on.
	ID uint64
	// Slot is 0 to Max−1, or Max with Config.Surge. No two replicas that exist at the same time share one, so it can choose among
	// fixed resources such as a list of addresses.
	Slot int
}

// Instance is one running replica.
type Instance interface {
	// Exited is closed once the replica is gone, whoever ended it.
	Exited() <-chan struct{}
	// Cause says why it is gone. Valid after Exited is closed.
	Cause() error
	// Stop ends the replica and returns when it is gone and its memory is back; also when it had exited by
	// itself. idle: nothing is in flight, so there is no reason to be gentle for long. ctx has no deadline:
	// how long a stop may take is the instance's own business. An error means that it may still be there;
	// Stop is then called again, up to three times in all.
	Stop(ctx context.Context, idle bool) error
	// Sleep gives device memory back and keeps the process. It is called at zero in flight, with admission
	// closed, and never twice without a Wake in between.
	Sleep(ctx context.Context) error
	// Wake undoes Sleep and returns when the replica can serve.
	Wake(ctx context.Context) error
	// Concurrency is the engine's own limit of requests at once; 0: not known.
	Concurrency() int
}

// Settler is an Instance whose engine tells how much it has to do.
type Settler interface {
	// Settle returns once no request that an earlier gateway has sent is in flight, as far as the engine knows; those that were admitted
	// here may be. An error means that nobody will ever know. Called once, for adopted replicas, when they are ready.
	Settle(ctx context.Context) error
}

// Progress is how far a start has come.
type Progress struct {
	// Phase is a word for people, such as "weights".
	Phase string
	// Share of the phase that is over, 0 to 1. 0 also means not known.
	Share float64
	// Percent is of the whole start, 0 to 100. 0 also means not known. Where start times were learned, they are the better guess.
	Percent float64
	// ReadBytes is what the replica's processes have read from files and sockets since the start began. 0 also means not known.
	ReadBytes int64
	// Detail is more about the phase in words for clients, such as how fast it goes; usually empty.
	Detail string
	// Left is how long the phase still takes, where it can tell for itself; 0: not known. It counts in a preparation only.
	Left time.Duration
}

// Ledger hands out devices. A nil Ledger always grants.
type Ledger interface {
	// Reserve blocks until the devices for one replica are free, or ctx ended. Meanwhile it may say why it waits, in words for
	// clients, from any goroutine. ErrUnwanted, in the chain of its error, undoes the start; any other error is a failed one.
	Reserve(ctx context.Context, model string, replica uint64, because func(reason string)) error
	// ReserveNow is Reserve for a replica that is to take the place of one which still has its devices: it gives what nobody uses and nobody
	// waits for, else it returns ErrNoRoom. It does not block.
	ReserveNow(model string, replica uint64) error
	// Room is for how many more replicas of the model ReserveNow would find devices, at most so many. It does not block.
	Room(model string, atMost int) int
	// Release gives them back. It does not block. Called once for each Reserve that succeeded, after the
	// memory is back.
	Release(model string, replica uint64)
}
