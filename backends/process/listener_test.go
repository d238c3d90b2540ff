package process

import (
	"net"
	"net/netip"
	"os"
	"testing"
)

func TestKernelAddr(t *testing.T) {
	for text, want := range map[string]string{
		"0100007F":                         "127.0.0.1",
		"00000000":                         "0.0.0.0",
		"00000000000000000000000001000000": "::1",
		"0000000000000000FFFF00000100007F": "127.0.0.1",
		"B80D0120000000000000000001000000": "2001:db8::1",
	} {
		got, err := kernelAddr(text)
		if err != nil || got != netip.MustParseAddr(want) {
			t.Errorf("%s: got %v, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0100007", "xx00007F", "0100007F01"} {
		if got, err := kernelAddr(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

func TestListener(t *testing.T) {
	self, err := memberOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	stranger := family{group: 1 << 30, mark: "nobody", since: self.start}
	for _, c := range []struct {
		network, address string
		want             owner // as seen by a stranger, at 127.0.0.1
	}{
		{"tcp4", "127.0.0.1:0", foreign},
		{"tcp4", "0.0.0.0:0", foreign},
		{"tcp", "[::]:0", foreign},
		{"tcp4", "127.0.0.2:0", nobody},
	} {
		l, err := net.Listen(c.network, c.address)
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		if got, err := stranger.listener("127.0.0.1", port); err != nil || got != c.want {
			t.Errorf("%s: got %d, %v; want %d", c.address, got, err, c.want)
		}
		own := map[string]bool{}
		self.sockets(own)
		if len(own) == 0 {
			t.Error("this process has no sockets")
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := stranger.listener("127.0.0.1", port); err != nil || got != nobody {
			t.Errorf("%s after close: got %d, %v; want nobody", c.address, got, err)
		}
	}
}

func TestParseStat(t *testing.T) {
	const tail = " S 10 20 20 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 3456 10 5\n"
	for _, name := range []string{"python3", "a b", ") R 1 1", "((", ""} {
		m, err := parseStat(7, []byte("7 ("+name+")"+tail))
		if want := (member{pid: 7, parent: 10, group: 20, start: 3456}); err != nil || m != want {
			t.Errorf("%q: got %+v, %v; want %+v", name, m, err, want)
		}
	}
	if m, err := parseStat(7, []byte("7 (x) Z 10 20 20 0 -1 0 1 0 0 0 0 0 0 0 20 0 1 0 3456\n")); err != nil || !m.dead {
		t.Errorf("got %+v, %v for a zombie", m, err)
	}
	for _, text := range []string{"", "7", "7 (x) S 1 2", "7 (x) S a b c d e f g h i j k l m n o p q r s"} {
		if m, err := parseStat(7, []byte(text)); err == nil {
			t.Errorf("%q: got %+v, want an error", text, m)
		}
	}
}
