package app

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"pilotlight/auth"
)

// keyring identifies callers by a keys file that a reload may replace by another.
type keyring struct {
	log  *slog.Logger
	keys atomic.Pointer[auth.Keys]
}

func (k *keyring) Identify(presented []byte, now time.Time) (auth.Identity, error) {
	return k.keys.Load().Identify(presented, now)
}

// follow takes over the file at path. If it cannot be read, the one before stays in force.
func (k *keyring) follow(path string) error {
	keys, err := auth.Open(path, k.log)
	if err != nil {
		return fmt.Errorf("auth.keys_file: %w", err)
	}
	if old := k.keys.Swap(keys); old != nil {
		old.Close()
	}
	return nil
}

func (k *keyring) close() { k.keys.Load().Close() }
