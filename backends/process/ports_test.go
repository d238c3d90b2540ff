package process

import (
	"errors"
	"net"
	"strconv"
	"sync"
	"testing"
)

func TestEnginePortsAvoidOutgoingOnes(t *testing.T) {
	for _, c := range []struct{ first, last, low, high int }{
		{32768, 60999, 10000, 32767}, // Linux's default
		{15000, 64999, 10000, 14999},
		{10100, 50000, 50001, 55535}, // SGLang's second port, 10000 above, must be one
		{10100, 60000, 10000, 55535},
		{60000, 65000, 10000, 55535},
		{1024, 65535, 10000, 55535},
	} {
		if low, high := enginePorts(c.first, c.last); low != c.low || high != c.high {
			t.Errorf("beside %d to %d: got %d to %d, want %d to %d", c.first, c.last, low, high, c.low, c.high)
		}
	}
	if first, last := outgoingRange(); first < 1 || last > 65535 || first > last {
		t.Errorf("got %d to %d", first, last)
	}
}

func TestPortsAreHandedOutOnce(t *testing.T) {
	p := newPorts("127.0.0.1")
	var mu sync.Mutex
	seen := map[int]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				port, err := p.acquire()
				mu.Lock()
				if err != nil || seen[port] {
					t.Errorf("got port %d again, or %v", port, err)
				}
				seen[port] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for port := range seen {
		for d := 226; d <= 240; d++ {
			if seen[port+d] {
				t.Errorf("ports %d and %d are %d apart", port, port+d, d)
			}
		}
		if err := p.release(port); err != nil {
			t.Error(err)
		}
	}
	if len(p.taken) != 0 {
		t.Errorf("still taken: %v", p.taken)
	}
}

func TestPortsSkipThoseInUseAndRunOut(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, text, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	used, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	p := newPorts("127.0.0.1")
	p.low, p.high, p.next = used, used, used
	if port, err := p.acquire(); !errors.Is(err, errNoPort) {
		t.Errorf("got port %d, %v; want none", port, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if port, err := p.acquire(); port != used || err != nil {
		t.Errorf("got port %d, %v; want %d", port, err, used)
	}
	if port, err := p.acquire(); !errors.Is(err, errNoPort) {
		t.Errorf("got port %d, %v; want none", port, err)
	}
	other := newPorts("127.0.0.1") // another gateway of this machine
	other.low, other.high, other.next = used, used, used
	if port, err := other.acquire(); !errors.Is(err, errNoPort) {
		t.Errorf("got port %d, %v; want none, another gateway has it", port, err)
	}
	if err := p.release(used); err != nil {
		t.Error(err)
	}
	if _, err := other.acquire(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(other.release(used), p.release(used)); err != nil { // the latter has none
		t.Error(err)
	}
}

func TestPortsKeepADistance(t *testing.T) {
	p := newPorts("127.0.0.1")
	first, err := p.acquire()
	if err != nil {
		t.Fatal(err)
	}
	p.next = first + 226
	if p.next > p.high-20 {
		p.next = first - 240
	}
	began := p.next
	second, err := p.acquire()
	if err != nil || second < began+15 {
		t.Errorf("got port %d, %v; want one from %d on, the others are too near %d", second, err, began+15, first)
	}
	if err := errors.Join(p.release(first), p.release(second)); err != nil {
		t.Error(err)
	}
}
