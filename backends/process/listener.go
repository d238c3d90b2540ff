package process

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// owner says whose a listening port is.
type owner int

const (
	nobody  owner = iota // nothing listens, or the replica is about to be gone
	ours                 // a process of the family
	foreign              // somebody else, so an answer from the port means nothing
)

// listener tells whose the listening socket at host:port is: its inode in the kernel's list must be an
// open descriptor of one of the family's processes. Sockets of processes that we may not look into, such
// as those of another user, count as foreign.
func (f family) listener(host string, port int) (owner, error) {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return nobody, err
	}
	sockets, err := listening("/proc/net/tcp", addr, port)
	if err == nil && len(sockets) == 0 {
		// A listener on :: takes IPv4 connections as well, if nobody listens on the IPv4 address. It is
		// asked for last because the kernel takes milliseconds to list nothing. Without IPv6 no such list.
		if sockets, err = listening("/proc/net/tcp6", addr, port); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err != nil || len(sockets) == 0 {
		return nobody, err
	}
	own := make(map[string]bool)
	// Nearly always the main process is the one that listens, and the list of all processes need not be read: twenty-five
	// models that become ready at once would read it twenty-five times.
	if m, err := memberOf(f.group); f.group != 0 && err == nil && f.includes(m) && m.sockets(own) && ownsAll(own, sockets) {
		return ours, nil
	}
	members, err := f.members()
	if err != nil {
		return nobody, err
	}
	living := false
	for _, m := range members {
		if m.sockets(own) && m.pid == f.group {
			living = true
		}
	}
	for _, socket := range sockets {
		if own[socket] {
			continue
		}
		if !living {
			// Dying processes lose their descriptors before their sockets are closed: it may have been ours.
			return nobody, nil
		}
		return foreign, nil
	}
	return ours, nil
}

func ownsAll(own map[string]bool, sockets []string) bool {
	for _, socket := range sockets {
		if !own[socket] {
			return false
		}
	}
	return true
}

// listening returns the sockets of a kernel list (proc_net_tcp(5)) that accept connections to host:port, as
// the link targets of their descriptors.
//
// Linux lists listening sockets before the others, so the reading ends early once something was found: a
// gateway has ten thousand connections and few listeners.
func listening(path string, host netip.Addr, port int) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("listing sockets: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	const tcpListen = "0A"
	suffix := fmt.Sprintf(":%04X", port)
	var found []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// sl local_address rem_address st tx_queue:rx_queue tr:when retrnsmt uid timeout inode …
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || fields[0] == "sl" {
			continue
		}
		if fields[3] != tcpListen {
			if len(found) > 0 {
				break
			}
			continue
		}
		address, ok := strings.CutSuffix(fields[1], suffix)
		if !ok {
			continue
		}
		local, err := kernelAddr(address)
		if err != nil {
			return nil, fmt.Errorf("listing sockets: %w", err)
		}
		inode, err := strconv.ParseUint(fields[9], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("listing sockets: %w", err)
		}
		if local.IsUnspecified() || local == host {
			found = append(found, fmt.Sprintf("socket:[%d]", inode))
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("listing sockets: %w", err)
	}
	return found, nil
}

// kernelAddr reads an address as the kernel prints it: words of 32 bits in the machine's byte order.
func kernelAddr(text string) (netip.Addr, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b)%4 != 0 {
		return netip.Addr{}, fmt.Errorf("address %q is not in the kernel's form", text)
	}
	for word := b; len(word) > 0; word = word[4:] {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	addr, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.Addr{}, fmt.Errorf("address %q is not in the kernel's form", text)
	}
	return addr.Unmap(), nil
}
