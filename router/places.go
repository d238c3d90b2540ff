package router

import "github.com/hashicorp/golang-lru/v2/simplelru"

// places remembers which replica something is at, for as many things as it has room for. Not safe for concurrent use.
type places struct {
	lru *simplelru.LRU[uint64, uint64]
}

func newPlaces(size int) *places {
	lru, err := simplelru.NewLRU[uint64, uint64](size, nil)
	if err != nil {
		panic("BUG: a cache without room: " + err.Error())
	}
	return &places{lru}
}

// get is 0 for what is not known.
func (p *places) get(key uint64) uint64 {
	id, _ := p.lru.Get(key)
	return id
}

func (p *places) set(key, id uint64) { p.lru.Add(key, id) }
