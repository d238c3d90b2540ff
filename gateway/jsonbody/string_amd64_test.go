package jsonbody

import (
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
)

// withoutVectors runs do as on a processor that has none.
func withoutVectors(do func()) {
	had := haveAVX2
	haveAVX2 = false
	defer func() { haveAVX2 = had }()
	do()
}

// The whole table, and the tests by alignment, on the code for other processors.
func TestScanWithoutVectors(t *testing.T) {
	if !haveAVX2 {
		t.Skip("this processor has no AVX2, so the other tests have run without it")
	}
	withoutVectors(func() {
		for _, c := range []struct {
			name string
			test func(*testing.T)
		}{
			{"table", TestScan},
			{"alignment", TestScanStringAtEveryAlignment},
			{"backslashes", TestScanBackslashRunsAtEveryAlignment},
			{"UTF-8", TestScanUTF8},
			{"damaged", TestScanOfDamagedBodies},
		} {
			t.Run(c.name, c.test)
		}
	})
}

// sameWithVectors fails t unless the inside of a string, and all that follows it, is read with vectors as it
// is read without.
func sameWithVectors(t *testing.T, inside []byte) {
	t.Helper()
	for _, c := range []struct{ before, inside string }{
		{`{"`, string(inside)},
		{`{"a":"`, string(inside)},
		{`{"a":"`, string(inside[len(inside)/2:])}, // may start in the middle of a character
	} {
		b, from := []byte(c.before+c.inside), len(c.before)
		end, ft := skipString(b, from)
		var wantEnd int
		var wantFt fault
		withoutVectors(func() { wantEnd, wantFt = skipString(b, from) })
		if end != wantEnd || ft != wantFt {
			t.Fatalf("%q from %d: got %d and fault %d, want %d and %d", b, from, end, ft, wantEnd, wantFt)
		}
	}
}

// FuzzSkipString holds the two ways to read a string against each other.
func FuzzSkipString(f *testing.F) {
	for _, text := range fragments {
		f.Add([]byte(strings.Repeat(text, 200/len(text)) + `" : `))
	}
	f.Fuzz(func(t *testing.T, inside []byte) { sameWithVectors(t, inside) })
}

// fragments are what strings are made of, and what they must not hold.
var fragments = []string{
	"a", "plain text of more than one word", "\x7F", " ", "é", "ß", "模", "\uFFFF", "\u0800", "😀", "\U0010FFFF", "\U00010000",
	`\n`, `\"`, `\\`, `\/`, `\u00e9`, `\ud83d\ude00`, `\b\f\r\t`,
	`\`, `\x`, `\u12`, `\ud83d`, `\ude00`, "\n", "\x00", "\x1F", "\x80", "\xBF", "\xC0\xAF", "\xC1\xBF", "\xE0\x80\xAF", "\xE0\x9F\xBF",
	"\xED\xA0\x80", "\xED\xBF\xBF", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xF8\x88\x80\x80\x80", "\xFF", "\xFE",
	"\xC3", "\xE6", "\xE6\xA8", "\xF0", "\xF0\x9F", "\xF0\x9F\x98", `"`,
}

// valid is how many of the fragments a string may hold.
const valid = 19

// Long strings of valid fragments, most with a few of the others strewn in, at every alignment to a block.
func TestVectorsAgree(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	closed, faulty := 0, 0
	for range 30_000 {
		kinds := 1 + rnd.IntN(4)
		first := rnd.IntN(valid)
		var b []byte
		for size := rnd.IntN(600); len(b) < size; {
			b = append(b, fragments[(first+rnd.IntN(kinds))%valid]...)
		}
		for range rnd.IntN(3) {
			at := rnd.IntN(len(b) + 1)
			bad := fragments[valid+rnd.IntN(len(fragments)-valid)]
			b = append(b[:at:at], append([]byte(bad), b[at:]...)...)
		}
		b = append(append(b, '"'), strings.Repeat(" ", rnd.IntN(100))...)
		sameWithVectors(t, b)
		if _, ft := skipString(append([]byte(`{"a":"`), b...), 6); ft == faultNone {
			closed++
		} else {
			faulty++
		}
	}
	if closed < 5_000 || faulty < 5_000 {
		t.Errorf("got %d valid and %d faulty strings, want thousands of both", closed, faulty)
	}
}

// Each pair and each triple of bytes around the bounds of UTF-8, across a block's end and inside a block.
func TestVectorsAgreeOnEverySequence(t *testing.T) {
	bounds := []byte{
		0x00, 0x1F, 0x20, 0x22, 0x5C, 'u', 'n', 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF,
		0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xF7, 0xF8, 0xFF,
	}
	text := make([]byte, 200)
	for _, at := range []int{61, 62, 63, 100} {
		for _, first := range bounds {
			for _, second := range bounds {
				for _, third := range bounds {
					for i := range text {
						text[i] = 'x'
					}
					text[150] = '"'
					text[at], text[at+1], text[at+2] = first, second, third
					if first >= 0xF0 {
						text[at+3] = 0x80
					}
					body := append([]byte(`{"a":"`), text...)
					end, ft := skipString(body, 6)
					var wantEnd int
					var wantFt fault
					withoutVectors(func() { wantEnd, wantFt = skipString(body, 6) })
					if end != wantEnd || ft != wantFt {
						t.Fatalf("% x at %d: got %d and fault %d, want %d and %d", body[at+6:at+10], at, end, ft, wantEnd, wantFt)
					}
				}
			}
		}
	}
}

// Every byte behind one backslash and behind two, inside a block and across a block's end.
func TestVectorsAgreeOnEveryEscape(t *testing.T) {
	for size := 60; size < 130; size++ {
		for c := range 256 {
			for _, slashes := range []string{`\`, `\\`} {
				inside := strings.Repeat("a", size) + slashes + string([]byte{byte(c)}) + strings.Repeat("b", 100) + `"`
				sameWithVectors(t, []byte(inside))
			}
		}
	}
}

// A body may end where the process's memory does: nothing behind it is read, and nothing before it.
func TestVectorsStayInsideTheBody(t *testing.T) {
	page := os.Getpagesize()
	memory, err := syscall.Mmap(-1, 0, 3*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Munmap(memory); err != nil {
			t.Error(err)
		}
	}()
	for _, guard := range [][]byte{memory[:page], memory[2*page:]} {
		if err := syscall.Mprotect(guard, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	room := memory[page : 2*page]
	for size := 5; size < 600; size++ {
		body := []byte(`{"a":"` + strings.Repeat("模", size/3) + strings.Repeat("a", size%3))
		for _, b := range [][]byte{room[page-len(body):], room[:len(body)]} {
			copy(b, body)
			if err := Scan(b, new(Fields)); !errors.Is(err, ErrSyntax) {
				t.Fatalf("%d bytes: got %v, want ErrSyntax", len(b), err)
			}
		}
	}
}
