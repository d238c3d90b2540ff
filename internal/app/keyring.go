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

func (k *keyring) IdentifyAgain(presented []byte, now time.Time, known *auth.Known) (auth.Identity, error) {
	return k.keys.Load().IdentifyAgain(presented, now, known)
}

// open reads the file at path, for follow.
func (k *keyring) open(path string) (*auth.Keys, error) {
	keys, err := auth.Open(path, k.log)
	if err != nil {
		return nil, fmt.Errorf("auth.keys_file: %w", err)
	}
	return keys, nil
}

// follow puts keys in the place of those before.
func (k *keyring) follow(keys *auth.Keys) {
	if old := k.keys.Swap(keys); old != nil {
		old.Close()
	}
}

func (k *keyring) close() { k.keys.Load().Close() }
