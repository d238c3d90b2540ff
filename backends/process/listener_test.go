package process

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
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
	// A family that has nothing to do with the listeners below, and one without a living process.
	sleeper := exec.Command("sleep", "60")
	sleeper.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer sleeper.Wait()         //nolint:errcheck // it is killed
	defer sleeper.Process.Kill() //nolint:errcheck // it is ours and lives
	stranger := family{group: sleeper.Process.Pid, mark: "nobody", since: self.start}
	nobodys := family{group: 1 << 30, mark: "nobody", since: self.start}
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
		if got, err := nobodys.listener("127.0.0.1", port); err != nil || got != nobody {
			t.Errorf("%s: got %d, %v for a family that is gone; want nobody", c.address, got, err)
		}
		own := map[string]bool{}
		if !self.sockets(own) || len(own) == 0 {
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
	if m, err := parseStat(7, []byte("7 (kworker/0:1) I 2 0 0 0 -1 69238880 0 0 0 0 0 0 0 0 20 0 1 0 3456\n")); err != nil || !m.kernel {
		t.Errorf("got %+v, %v for a thread of the kernel", m, err)
	}
	for _, text := range []string{"", "7", "7 (x) S 1 2", "7 (x) S a b c d e f g h i j k l m n o p q r s"} {
		if m, err := parseStat(7, []byte(text)); err == nil {
			t.Errorf("%q: got %+v, want an error", text, m)
		}
	}
}
