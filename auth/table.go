package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"time"
)

// table is one immutable reading of the keys, indexed by public id.
type table struct {
	entries map[[idLength]byte]entry
	list    []Key
}

type entry struct {
	hash     [sha256.Size]byte
	identity Identity
	key      *Key
}

func newTable(keys []Key) (*table, error) {
	t := &table{entries: make(map[[idLength]byte]entry, len(keys)), list: keys}
	for i := range keys {
		key := &keys[i]
		if err := key.validate(); err != nil {
			return nil, err
		}
		e := entry{key: key, identity: Identity{Tenant: key.Tenant, KeyID: key.ID}}
		if _, err := hex.Decode(e.hash[:], []byte(key.Hash[len("sha256:"):])); err != nil {
			return nil, fmt.Errorf("key %s: %w", key.ID, err)
		}
		id := [idLength]byte([]byte(key.ID))
		if _, taken := t.entries[id]; taken {
			return nil, fmt.Errorf("%w: %s", errRepeated, key.ID)
		}
		t.entries[id] = e
	}
	return t, nil
}

// identify allocates nothing, whatever it is given. The id is public and may be found by timing; the secret
// is compared as a hash and in constant time, and before anything about the key is told apart.
func (t *table) identify(presented []byte, now time.Time) (Identity, error) {
	if len(presented) == 0 {
		return Identity{}, ErrNoKey
	}
	if len(presented) != keyLength || string(presented[:len(keyPrefix)]) != keyPrefix || presented[idEnd] != '-' {
		return Identity{}, ErrInvalidKey
	}
	e, known := t.entries[[idLength]byte(presented[len(keyPrefix):idEnd])]
	sum := sha256.Sum256(presented)
	if subtle.ConstantTimeCompare(sum[:], e.hash[:]) != 1 || !known {
		return Identity{}, ErrInvalidKey
	}
	if err := e.key.refusal(now); err != nil {
		return Identity{}, err
	}
	return e.identity, nil
}
