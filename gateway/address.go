package gateway

import (
	"bytes"
	"net"
	"net/netip"

	"github.com/valyala/fasthttp"
)

// addressOfConn is where a connection comes from; the zero Addr if that is no address of IP.
func addressOfConn(c net.Conn) netip.Addr {
	if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// clientAddress is where a request comes from: the connection's address or, if that is a proxy's that the configuration trusts, the last
// one in X-Forwarded-For that is not. What stands before it anybody can have written.
func (g *Gateway) clientAddress(conn *clientConn, h *fasthttp.RequestHeader) netip.Addr {
	from := conn.from
	trusted := g.proxies.Load()
	if trusted == nil || !contains(*trusted, from) {
		return from
	}
	lines := h.PeekAll(fasthttp.HeaderXForwardedFor)
	for i := len(lines) - 1; i >= 0; i-- {
		for line := lines[i]; len(line) > 0; {
			at := bytes.LastIndexByte(line, ',')
			next, ok := parseAddress(string(bytes.TrimSpace(line[at+1:])))
			if !ok {
				return from // the nearest that is known
			}
			if from = next; !contains(*trusted, from) {
				return from
			}
			line = line[:max(at, 0)]
		}
	}
	return from
}

// parseAddress reads an address with or without a port, as proxies write it.
func parseAddress(text string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Unmap().WithZone(""), true
	}
	p, err := netip.ParseAddrPort(text)
	return p.Addr().Unmap().WithZone(""), err == nil
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
