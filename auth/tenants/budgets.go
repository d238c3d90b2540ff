package tenants

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"pilotlight/auth/limits"
)

// Ledger keeps in a file what outlives a restart: what was spent of days and months, and the secret of the cache salts. Its methods are
// for one goroutine at a time.
type Ledger struct {
	path  string
	salt  [32]byte
	saved []byte // what the file holds
	spent []entry
}

// entry is one account's part of the file.
type entry struct {
	Scope string `json:"scope"`
	Name  string `json:"name"`
	limits.Spent
}

type ledgerFile struct {
	Salt  string  `json:"salt"`
	Spent []entry `json:"spent"`
}

// scopesKept are those that have budgets.
var scopesKept = [...]limits.Scope{limits.Total, limits.Model, limits.Tenant, limits.Key}

// OpenLedger reads the file at path, or begins it with a new secret.
func OpenLedger(path string) (*Ledger, error) {
	l := &Ledger{path: path}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := rand.Read(l.salt[:]); err != nil {
			return nil, fmt.Errorf("drawing a secret: %w", err)
		}
		return l, l.write(ledgerFile{Salt: hex.EncodeToString(l.salt[:])})
	}
	if err != nil {
		return nil, fmt.Errorf("reading what was spent: %w", err)
	}
	var file ledgerFile
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("reading what was spent: %s: %w", path, err)
	}
	salt, err := hex.DecodeString(file.Salt)
	if err != nil || len(salt) != len(l.salt) {
		return nil, fmt.Errorf("reading what was spent: %s: its salt is not 64 hex digits", path)
	}
	l.salt, l.saved, l.spent = [32]byte(salt), data, file.Spent
	return l, nil
}

// Salt is the secret for New.
func (l *Ledger) Salt() [32]byte { return l.salt }

// Restore tells r what was spent before the restart, once.
func (l *Ledger) Restore(r *Registry, now time.Time) {
	for _, e := range l.spent {
		for _, scope := range scopesKept {
			if scope.String() == e.Scope {
				r.book.Account(scope, e.Name).Restore(e.Spent, now)
			}
		}
	}
	l.spent = nil
}

// Save writes what r has spent, if it is another sum than before. Reservations of requests in progress count as spent: after a crash
// nobody knows what they took.
func (l *Ledger) Save(r *Registry, now time.Time) error {
	file := ledgerFile{Salt: hex.EncodeToString(l.salt[:]), Spent: []entry{}}
	for _, scope := range scopesKept {
		for _, a := range r.book.Accounts(scope) {
			if s := a.Spent(now); s.DayTokens != 0 || s.MonthTokens != 0 {
				file.Spent = append(file.Spent, entry{scope.String(), a.Name(), s})
			}
		}
	}
	return l.write(file)
}

func (l *Ledger) write(file ledgerFile) error {
	slices.SortFunc(file.Spent, func(a, b entry) int {
		return cmp.Or(strings.Compare(a.Scope, b.Scope), strings.Compare(a.Name, b.Name))
	})
	data, err := json.Marshal(file)
	if err != nil {
		return fmt.Errorf("writing what was spent: %w", err)
	}
	if string(data) == string(l.saved) {
		return nil
	}
	if err := replaceFile(l.path, data); err != nil {
		return fmt.Errorf("writing what was spent: %w", err)
	}
	l.saved = data
	return nil
}

// replaceFile writes beside the file and renames, so that there is always a whole one. It is not flushed to the disk: a lost second
// of use is worth less than the wait.
func replaceFile(path string, data []byte) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = temporary.Write(data)
	if err := errors.Join(err, temporary.Close()); err != nil {
		return errors.Join(err, os.Remove(temporary.Name()))
	}
	if err := os.Rename(temporary.Name(), path); err != nil {
		return errors.Join(err, os.Remove(temporary.Name()))
	}
	return nil
}
