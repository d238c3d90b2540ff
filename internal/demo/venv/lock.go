package venv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Lock takes the file lock at path, making the file if needed, and waits for it until ctx ends. waiting, if not
// nil, is called once if somebody else holds it. The lock belongs to the returned file: it is given back by
// Unlock, or by the kernel once every process that inherited the file has ended. Locks of one process exclude each
// other too, since each opens the file anew.
func Lock(ctx context.Context, path string, waiting func()) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for told := false; ; {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), file.Close())
		}
		if !told && waiting != nil {
			told = true
			waiting()
		}
		// Polling, because a blocked flock cannot be cancelled.
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), file.Close())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Unlock gives the lock back at once, even if a child still has the file open. The file stays: removing it
// would let two processes hold locks on two files of one name.
func Unlock(file *os.File) error {
	return errors.Join(unix.Flock(int(file.Fd()), unix.LOCK_UN), file.Close())
}
