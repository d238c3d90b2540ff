package app

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pilotlight/backends"
)

// drowsy is a replica whose GPUs have so many bytes in use, read after read; the last one stays.
type drowsy struct {
	replica
	reads  []int64
	broken bool // they cannot be measured
	sleep  error
	wake   error
}

func (d *drowsy) Endpoint() backends.Endpoint { return backends.Endpoint{} }
func (d *drowsy) Sleep(context.Context) error { return d.sleep }
func (d *drowsy) Wake(context.Context) error  { return d.wake }

func (d *drowsy) used(context.Context) (map[string]int64, error) {
	if d.broken {
		return nil, errors.New("no driver")
	}
	n := d.reads[0]
	if len(d.reads) > 1 {
		d.reads = d.reads[1:]
	}
	return map[string]int64{"a": n, "b": n, "other": 1 << 50}, nil
}

func TestASleepMustFreeMemory(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		name    string
		engine  drowsy
		devices []string
		freed   int64
		says    string // of the error; empty: none
	}{
		{"frees it at once", drowsy{reads: []int64{44 * gib, 2 * gib}}, []string{"a"}, 42 * gib, ""},
		{"of two GPUs", drowsy{reads: []int64{44 * gib, 2 * gib}}, []string{"a", "b"}, 84 * gib, ""},
		{"answers before it has", drowsy{reads: []int64{44 * gib, 44 * gib, 44 * gib, 2 * gib}}, []string{"a"}, 42 * gib, ""},
		{"frees nothing", drowsy{reads: []int64{44 * gib}}, []string{"a"}, 0, "47244640256 bytes in use, 47244640256 before"},
		{"takes more", drowsy{reads: []int64{4 * gib, 44 * gib}}, []string{"a"}, 0, "before"},
		{"fails", drowsy{reads: []int64{44 * gib}, sleep: errors.New("no")}, []string{"a"}, 0, "no"},
		{"nothing is measured", drowsy{}, nil, 0, ""},
		{"nothing can be measured", drowsy{broken: true}, []string{"a"}, 0, ""},
		{"one GPU is unknown", drowsy{reads: []int64{44 * gib}}, []string{"a", "z"}, 0, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			i := newInstance(&c.engine, nil)
			defer i.pool.Close()
			i.memory = memory{used: c.engine.used, devices: c.devices}
			began := time.Now()
			err := i.Sleep(t.Context())
			if (err != nil) != (c.says != "") || err != nil && !strings.Contains(err.Error(), c.says) || i.freed.Load() != c.freed {
				t.Errorf("%s: got %v, freed %d, want %q and %d", c.name, err, i.freed.Load(), c.says, c.freed)
			}
			if took := time.Since(began); took > freedWithin+freedPause {
				t.Errorf("%s: took %v", c.name, took)
			}
			if err == nil {
				if err := i.Wake(t.Context()); err != nil || i.freed.Load() != 0 {
					t.Errorf("%s: awake with %v, freed %d", c.name, err, i.freed.Load())
				}
			}
		})
	}
}
