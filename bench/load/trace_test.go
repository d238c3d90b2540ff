package load

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestTrace(t *testing.T) {
	p, err := Trace(strings.NewReader("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.9799600,3180,0\n"), 2, 0, 0)
	if err != nil || len(p) != 2 || p[1] != (Arrival{500 * time.Millisecond, 3180, 1}) {
		t.Errorf("%v, %v", p, err)
	}
	if p, err := Trace(strings.NewReader("\ufeffarrival,input_tokens,output_tokens\r\n0.5,1,2\r\n1.5,3,4\r\n"), 0, 1, 0); err != nil || len(p) != 1 || p[0].At != 0 {
		t.Errorf("%v, %v", p, err)
	}
	for _, bad := range []string{"", "a,b,c\n", "TIMESTAMP,ContextTokens\n", "TIMESTAMP,ContextTokens,GeneratedTokens\n", "TIMESTAMP,ContextTokens,GeneratedTokens\nx,1,1\n",
		"TIMESTAMP,ContextTokens,GeneratedTokens\n1,-1,1\n", "TIMESTAMP,ContextTokens,GeneratedTokens\n2,1,1\n1,1,1\n", "TIMESTAMP,ContextTokens,GeneratedTokens\n1,1\n",
		"TIMESTAMP,ContextTokens,GeneratedTokens\n1,1,99999999999999999999\n"} {
		if _, err := Trace(strings.NewReader(bad), 1, 0, 0); err == nil {
			t.Errorf("%q makes a plan", bad)
		}
	}
	if _, err := Trace(strings.NewReader("time,prompt,output\n1,1,1\n"), math.Inf(1), 0, 0); err == nil {
		t.Error("infinite speed")
	}
	many := "time,prompt,output\n0,1,1\n10,1,1\n20,1,1\n"
	if p, err := Trace(strings.NewReader(many), 2, 0, 10*time.Second); err != nil || len(p) != 2 || p[1].At != 5*time.Second {
		t.Errorf("%v, %v", p, err)
	}
	// Columns that merely sound alike are not taken for those before them; BurstGPT; seconds since 1970.
	if p, err := Trace(strings.NewReader("Timestamp,Model,Request tokens,Response tokens,Total tokens,response time\n1700000000.5,x,7,8,15,3\n1700000001,x,9,1,10,2\n"), 1, 0, 0); err != nil || len(p) != 2 ||
		p[0] != (Arrival{0, 7, 8}) || p[1] != (Arrival{500 * time.Millisecond, 9, 1}) {
		t.Errorf("%v, %v", p, err)
	}
	if p, err := Trace(strings.NewReader("Time,Prompt,Output\n2023-11-16T18:17:03Z,1,1\n2023-11-16T19:17:04+01:00,1,1\n"), 1, 0, 0); err != nil || p[1].At != time.Second {
		t.Errorf("%v, %v", p, err)
	}
	for _, bad := range []string{"time,prompt,output\n1,99999999,1\n", "time,prompt,output\n0,1,1\n99999999,1,1\n", "time,prompt,output\n\"1,1,1\n", "time,prompt,output\nNaN,1,1\n", "time,prompt,output\n0001-01-01T00:00:00Z,1,1\n"} {
		if _, err := Trace(strings.NewReader(bad), 1, 0, 0); err == nil {
			t.Errorf("%q makes a plan", bad)
		}
	}
}

// Whatever is in the file, a plan is in the order of time, begins at 0, and asks for something.
func FuzzTrace(f *testing.F) {
	f.Add("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.9799600,3180,0\n", 2.0)
	f.Add("time,prompt,output\n-1,1,1\n9e9,1,1\n", 1e-6)
	f.Add("time,prompt,output\n0001-01-01T00:00:00Z,1,1\n9999-12-31T23:59:59Z,1,1\n", 1.0)
	f.Add("time,prompt,output\n\n\"\n", 0.0)
	f.Fuzz(func(t *testing.T, text string, speed float64) {
		p, err := Trace(strings.NewReader(text), speed, 0, 0)
		if (err == nil) != (len(p) > 0) {
			t.Fatalf("%d requests, %v", len(p), err)
		}
		for i, a := range p {
			if i == 0 && a.At != 0 || i > 0 && a.At < p[i-1].At || a.At > maxLength || a.PromptTokens < 1 || a.MaxTokens < 1 || a.PromptTokens > maxTokens || a.MaxTokens > maxTokens {
				t.Fatalf("request %d is %+v", i, a)
			}
		}
	})
}
