package sse

import (
	"bytes"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
)

func sameToken(t *testing.T, doc, token []byte) {
	t.Helper()
	n, ok := indexToken(doc, token)
	if want := bytes.Index(doc, token); ok && n != want {
		t.Fatalf("%s in %q: got %d, want %d", token, doc, n, want)
	}
	if got, want := hasToken(doc, token), bytes.Contains(doc, token); got != want {
		t.Fatalf("%s in %q: got %v, want %v", token, doc, got, want)
	}
}

func FuzzHasToken(f *testing.F) {
	for _, token := range [][]byte{errorKey, detailKey, modelKey, usageKey} {
		f.Add([]byte(chunk), token)
		f.Add([]byte(strings.Repeat(`"errors"error"`, 10)), token)
		f.Add([]byte(strings.Repeat(" ", 70)+string(token)), token)
	}
	f.Fuzz(func(t *testing.T, doc, token []byte) {
		if len(token) >= 3 {
			sameToken(t, doc, token)
		}
	})
}

// A token, and what is nearly one, at every place of documents of every length around a vector's.
func TestHasToken(t *testing.T) {
	if !haveAVX2 {
		t.Skip("this processor has no AVX2, so there is only one way to search")
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	vectors := 0
	for size := range 150 {
		for at := range size {
			doc := bytes.Repeat([]byte{'x'}, size)
			copy(doc[at:], `"error"`)
			sameToken(t, doc, errorKey)
			copy(doc[rnd.IntN(size):], `eerror"`)
			copy(doc[rnd.IntN(size):], `"error`)
			sameToken(t, doc, errorKey)
			if _, ok := indexToken(doc, errorKey); ok {
				vectors++
			}
		}
	}
	if vectors < 5000 {
		t.Errorf("vectors searched %d documents, want thousands", vectors)
	}
}

// A document may end where the process's memory does.
func TestHasTokenStaysInsideTheDocument(t *testing.T) {
	page := os.Getpagesize()
	memory, err := syscall.Mmap(-1, 0, 2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Munmap(memory); err != nil {
			t.Error(err)
		}
	}()
	if err := syscall.Mprotect(memory[page:], syscall.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	for size := range 200 {
		sameToken(t, memory[page-size:page], errorKey)
	}
}
