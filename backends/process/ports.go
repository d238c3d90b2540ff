package process

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
)

// ports hands out ports for engines. One is never given twice while it is in use, also not by another
// gateway of this machine, and was free a moment before it is given; another program can still take it
// before the engine binds it, minutes later.
//
// They are chosen outside the range from which the kernel picks ports of outgoing connections, which is
// where most thefts come from: the gateway's own connections to its replicas would do it.
type ports struct {
	host      string
	low, high int

	mu    sync.Mutex // guards the fields below
	next  int
	taken map[int]net.Listener // with the lock that keeps other gateways off
}

// errNoPort means that every port of the range is in use.
var errNoPort = errors.New("no free port")

func newPorts(host string) *ports {
	p := &ports{host: host, taken: make(map[int]net.Listener)}
	p.low, p.high = enginePorts(outgoingRange())
	// Start anywhere, so that gateways of one machine seldom try the same ports.
	p.next = p.low + rand.IntN(p.high-p.low+1)
	return p
}

// enginePorts picks the range beside that of outgoing connections, first to last. It ends at 55535, because SGLang derives a
// second port 10000 above its own and refuses to start where that is none (SGLANG_GRPC_PORT, seen with 0.5.15).
func enginePorts(first, last int) (low, high int) {
	const lowest, highest, enough = 10000, 55535, 1000
	switch {
	case first-lowest >= enough:
		return lowest, min(first-1, highest)
	case highest-last >= enough:
		return last + 1, highest
	default: // the kernel uses nearly all
		return lowest, highest
	}
}

// outgoingRange reads the kernel's setting, or gives its default.
func outgoingRange() (first, last int) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		_, err = fmt.Sscan(string(b), &first, &last)
	}
	if err != nil || first < 1 || last > 65535 || first > last {
		return 32768, 60999
	}
	return first, last
}

// acquire reserves a free port; release gives it back.
func (p *ports) acquire() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range p.high - p.low + 1 {
		port := p.next
		// In turn and not at random: a port just released, to which a connection of the last replica may
		// still lead, comes last.
		if p.next++; p.next > p.high {
			p.next = p.low
		}
		if p.taken[port] != nil || p.nearLocked(port) || !bindable(p.host, port) {
			continue
		}
		lock, err := lockPort(port)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("reserving port %d: %w", port, err)
		}
		p.taken[port] = lock
		return port, nil
	}
	return 0, fmt.Errorf("%w between %d and %d", errNoPort, p.low, p.high)
}

// claim reserves a port on which a replica of an earlier gateway listens, or is about to.
func (p *ports) claim(port int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	lock, err := lockPort(port)
	if err != nil {
		return fmt.Errorf("reserving port %d: %w", port, err)
	}
	p.taken[port] = lock
	return nil
}

func (p *ports) release(port int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	lock := p.taken[port]
	delete(p.taken, port)
	if lock == nil {
		return nil
	}
	return lock.Close()
}

// lockPort reserves a port among gateways by a unix socket in the abstract namespace, which has no file,
// reaches exactly as far as the port does (the network namespace), and goes with its process.
func lockPort(port int) (net.Listener, error) {
	return net.Listen("unix", "@pilotlight-port-"+strconv.Itoa(port))
}

// nearLocked reports whether port is 226 to 240 away from another. SGLang with data-parallel attention
// takes ports from 233 above its own on, and would meet those of a neighbour.
func (p *ports) nearLocked(port int) bool {
	for distance := 226; distance <= 240; distance++ {
		if p.taken[port-distance] != nil || p.taken[port+distance] != nil {
			return true
		}
	}
	return false
}

// bindable tries the port. net.Listen sets SO_REUSEADDR as servers do, so that connections of an earlier
// server that linger in TIME_WAIT do not count.
func bindable(host string, port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
