package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pilotlight/internal/testtools"
)

func TestReports(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Authorization"), "bad") {
			w.WriteHeader(401)
			fmt.Fprint(w, `{"error":{"code":"</script><b>"}}`)
			return
		}
		stream(w, streamed)
	})
	r, err := Run(t.Context(), Options{URL: url, Callers: []Caller{{"good", "k"}, {"<evil>", "bad"}}, Models: []Share{{"m", 1}}, Stream: 1, Plan: plan(10, time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	var text, object, html bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteJSON(&object); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteHTML(&html); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"10 sent, 5 ok", "first token", "between tokens", "end to end", "http 401"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, &text)
		}
	}
	var back Result
	if err := json.Unmarshal(object.Bytes(), &back); err != nil || back.OK != 5 || back.TTFT.Count != 5 || back.TTFT.P99 <= 0 {
		t.Errorf("%v: %s", err, &object)
	}
	for _, want := range []string{"first token", "end to end", "http 401"} {
		if !strings.Contains(html.String(), want) {
			t.Errorf("no %q in the page", want)
		}
	}
	if _, err := os.Stat("page/uPlot.LICENSE"); err != nil {
		t.Error(err)
	}
	checkStandsAlone(t, html.String())
	checkRuns(t, html.String())
}

// checkStandsAlone looks for whatever makes a browser ask for something else, and for text of servers that became code.
func checkStandsAlone(t *testing.T, html string) {
	t.Helper()
	if !strings.Contains(html, `content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"`) {
		t.Error("the page allows requests")
	}
	if n := strings.Count(html, "</script>"); n != 2 {
		t.Errorf("%d ends of scripts", n)
	}
	if ref := regexp.MustCompile(`(?i)<(link|img|iframe|object|embed|script\s)|\b(src|href)\s*=|@import|url\(|\bfetch\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon|\bimport\b|</script><b>|<evil>`).FindString(html); ref != "" {
		t.Errorf("the page holds %q", ref)
	}
	// The one address that is there is a comment of uPlot's licence.
	addresses := regexp.MustCompile(`https?://[^\s"'<]+`).FindAllString(strings.ReplaceAll(html, "https://github.com/leeoniya/uPlot", ""), -1)
	for _, a := range addresses {
		if !strings.HasPrefix(a, "http://127.0.0.1:") {
			t.Errorf("the page holds %s", a)
		}
	}
}

// checkRuns runs the page's own script with a stand-in for the charts that checks what they are given.
func checkRuns(t *testing.T, html string) {
	t.Helper()
	node, dir := testtools.Node(t)
	scripts := regexp.MustCompile(`(?s)<script>(.*?)</script>`).FindAllStringSubmatch(html, -1)
	program := `
const document = {getElementById: id => { if (!` + "`" + `${page}` + "`" + `.includes('id="' + id + '"')) throw new Error("no place " + id); return {id, clientWidth: 800}; }};
let charts = 0;
class uPlot { constructor(options, data, place) {
  charts++;
  if (options.series.length !== data.length) throw new Error(place.id + ": " + options.series.length + " series, " + data.length + " columns");
  data.forEach((column, i) => {
    if (column.length !== data[0].length) throw new Error(place.id + ": column " + i + " is not as long as the first");
    column.forEach(v => { if (v !== null && !Number.isFinite(v)) throw new Error(place.id + ": " + v + " in column " + i); });
    if (options.scales.y && options.scales.y.distr === 3 && i > 0 && column.some(v => v !== null && v <= 0)) throw new Error(place.id + ": no logarithm of 0");
  });
  if (data[0].length === 0 || data[0].some((v, i) => i > 0 && v < data[0][i - 1])) throw new Error(place.id + ": empty or out of order");
  const labels = options.series.map(s => s.label);
  if (place.id === "errors" && !labels.some(l => l.startsWith("http 401"))) throw new Error("errors of " + labels);
  if (place.id === "shares" && (labels.length !== 4 || options.axes[0].values(null, [1, 2]).join() !== "90 %,99 %")) throw new Error("shares of " + labels);
} }
` + scripts[1][1] + `
if (charts !== 5) throw new Error(charts + " charts");
`
	file := filepath.Join(t.TempDir(), "page.js")
	placed, err := json.Marshal(regexp.MustCompile(`(?s)<script>.*`).ReplaceAllString(html, ""))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("const page = "+string(placed)+";\n"+program), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), node, file)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Few failures among many answers are all drawn, whatever is left out.
func TestPointsAreThinnedByKind(t *testing.T) {
	var calls []Call
	for i := range 35_000 {
		c := Call{At: time.Duration(i) * time.Millisecond, Total: 1}
		switch {
		case i%1000 == 7:
			c.Error = "cut"
		case i%1000 == 8:
			c.Error = errDropped
		}
		calls = append(calls, c)
	}
	list, answers, failures := points(calls)
	failed := 0
	for i, p := range list {
		if p.Error {
			failed++
		}
		if i > 0 && p.At < list[i-1].At {
			t.Fatal("out of order")
		}
	}
	if answers != 4 || failures != 1 || failed != 35 || len(list)-failed != 8733 {
		t.Errorf("one in %d and one in %d, %d points, %d failed", answers, failures, len(list), failed)
	}
}

func TestCurvesEndWhereTheirMeasurementsDo(t *testing.T) {
	h := newHistogram(fine)
	for i := 1; i <= 100; i++ {
		h.add(time.Duration(i) * time.Second)
	}
	c := curveOf("x", h)
	at := func(nine float64) *float64 { return c.Seconds[int(math.Round(nine*20))-1] }
	if !near(*at(1), 90) || !near(*at(2), 99) || at(2.05) != nil || at(4) != nil || !near(*at(0.05), 11) {
		t.Errorf("%v %v %v", *at(0.05), *at(1), *at(2))
	}
}

// A run without an answer has a page, too.
func TestReportOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		r, err := Run(ctx, Options{URL: "http://x/v1", sleep: time.Sleep, Models: []Share{{"m", 1}}, Plan: plan(1, 0), Transport: engine(nil)})
		if err != nil || r.Sent != 0 || !r.Interrupted {
			t.Fatal(r, err)
		}
		var text, object, html bytes.Buffer
		if err := errors.Join(r.WriteText(&text), r.WriteJSON(&object), r.WriteHTML(&html)); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(text.String(), "interrupted") || !strings.Contains(html.String(), "series = []") || !strings.Contains(object.String(), `"series": []`) {
			t.Errorf("%s\n%s", &text, &object)
		}
	})
}
