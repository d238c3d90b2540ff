package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"sync/atomic"
	"time"
)

// table is one immutable reading of the keys, indexed by public id.
type table struct {
	number  uint64 // never 0, and no other table's
	entries map[[idLength]byte]*entry
	some    [idLength]byte // the id of one of them, if there are any
	list    []Key
}

var tables atomic.Uint64 // made so far

type entry struct {
	hash     [sha256.Size]byte
	identity Identity
	key      *Key
}

func newTable(keys []Key) (*table, error) {
	t := &table{number: tables.Add(1), entries: make(map[[idLength]byte]*entry, len(keys)), list: keys}
	for i := range keys {
		key := &keys[i]
		if err := key.validate(); err != nil {
			return nil, err
		}
		e := &entry{key: key, identity: Identity{Tenant: key.Tenant, KeyID: key.ID}}
		if key.narrows() {
			grant := key.Grant // apart, so that what remembers it does not keep the whole file
			e.identity.Grant = &grant
		}
		if _, err := hex.Decode(e.hash[:], []byte(key.Hash[len("sha256:"):])); err != nil {
			return nil, fmt.Errorf("key %s: %w", key.ID, err)
		}
		id := [idLength]byte([]byte(key.ID))
		if _, taken := t.entries[id]; taken {
			return nil, fmt.Errorf("%w: %s", errRepeated, key.ID)
		}
		t.entries[id], t.some = e, id
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
	if !known {
		e = &nobody
	}
	sum := sha256.Sum256(presented)
	if subtle.ConstantTimeCompare(sum[:], e.hash[:]) != 1 || !known {
		t.even(known)
		return Identity{}, ErrInvalidKey
	}
	if err := e.key.refusal(now); err != nil {
		return Identity{}, err
	}
	return e.identity, nil
}

// nobody stands for an unknown key; no text has this hash. noID is nobody's id: it holds what no id may.
var (
	nobody = entry{}
	noID   = [idLength]byte{}
)

// even looks up an id that is not there if one was found before, and the other way round: to find one takes some nanoseconds longer, which
// would tell over many tries whether an id exists.
func (t *table) even(found bool) {
	id := t.some
	if found {
		id = noID
	}
	if _, again := t.entries[id]; again == found && len(t.entries) > 0 {
		panic("BUG: an id of the table is not there, or one is that cannot be")
	}
}

// Known is the key that was found valid last on one connection: most connections present the same one again and again. The zero value knows
// none. It is for one goroutine. It holds no table, which would keep replaced ones in memory for as long as the connection lives.
type Known struct {
	number    uint64 // of the table
	key       Key
	identity  Identity
	presented [keyLength]byte
}

// identifyAgain compares with the key before, in constant time, and looks the key up where it is another one or the table was replaced.
func (t *table) identifyAgain(presented []byte, now time.Time, k *Known) (Identity, error) {
	if k.number == t.number && subtle.ConstantTimeCompare(presented, k.presented[:]) == 1 {
		if err := k.key.refusal(now); err != nil {
			return Identity{}, err
		}
		return k.identity, nil
	}
	identity, err := t.identify(presented, now)
	if err != nil {
		return identity, err
	}
	e := t.entries[[idLength]byte(presented[len(keyPrefix):idEnd])]
	k.number, k.key, k.identity = t.number, *e.key, identity
	copy(k.presented[:], presented)
	return identity, nil
}
