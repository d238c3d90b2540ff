package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"pilotlight/internal/app"
)

// Introduce prints how to use the running gateway.
func (d *Demo) Introduce(a *app.App) {
	d.say("")
	d.say("Pilotlight is up. Engine: %s.", d.about)
	d.say("  base URL  %s", a.BaseURL())
	d.say("  API key   %s", d.key)
	d.say("  model     %s   (0 replicas now; gone again %v after its last request)", modelID, d.opts.ScaledownAfter)
	d.say("  admin     %s/api/state   and /metrics", a.AdminURL())
	d.say("")
	d.say("Try it from another terminal:")
	d.say("  curl -N %s/chat/completions -H 'Authorization: Bearer %s' -H 'Content-Type: application/json' \\", a.BaseURL(), d.key)
	d.say(`    -d '{"model": "%s", "stream": true, "messages": [{"role": "user", "content": "What is the capital of France?"}]}'`, modelID)
	d.say("")
}

// Show sends one streamed request, then watches the replica until it is gone. It returns early when ctx ends.
func (d *Demo) Show(ctx context.Context, a *app.App) error {
	d.say("--- now one request of the demo's own, to a model that has no replica:")
	if err := d.ask(ctx, a); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("the demo's request: %w", err)
	}
	d.watchIdle(ctx, a)
	return nil
}

// ask streams one answer to the person, heartbeats included.
func (d *Demo) ask(ctx context.Context, a *app.App) error {
	const prompt = "Say hello and tell me one fact about lighthouses."
	body := fmt.Sprintf(`{"model":%q,"stream":true,"max_tokens":60,"messages":[{"role":"user","content":%q}]}`, modelID, prompt)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.BaseURL()+"/chat/completions", strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+d.key)
	req.Header.Set("Content-Type", "application/json")
	start := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		if err != nil {
			return err
		}
		return fmt.Errorf("status %d: %s", resp.StatusCode, text)
	}
	d.say("    > %s", prompt)
	first := true
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if comment, ok := strings.CutPrefix(line, ":"); ok {
			d.say("    %4.1f s%s", time.Since(start).Seconds(), comment)
			continue
		}
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok || data == "[DONE]" {
			continue
		}
		var chunk struct {
			Error   *struct{ Message string }
			Choices []struct{ Delta struct{ Content string } }
		}
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			return fmt.Errorf("an event that is no JSON: %w", err)
		}
		if chunk.Error != nil {
			fmt.Fprintln(d.opts.Out)
			return fmt.Errorf("%s", chunk.Error.Message)
		}
		for _, choice := range chunk.Choices {
			if choice.Delta.Content == "" {
				continue
			}
			if first {
				first = false
				d.say("    %4.1f s first token; the answer:", time.Since(start).Seconds())
				fmt.Fprint(d.opts.Out, "    ")
			}
			fmt.Fprint(d.opts.Out, strings.ReplaceAll(choice.Delta.Content, "\n", "\n    "))
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	fmt.Fprintln(d.opts.Out)
	d.say("    %4.1f s done", time.Since(start).Seconds())
	return nil
}

// watchIdle counts down to the eviction and tells what it gave back.
func (d *Demo) watchIdle(ctx context.Context, a *app.App) {
	idleFrom := time.Now()
	pid, memory := 0, ""
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	said := -1
	for {
		m := a.State().Models[0]
		if len(m.Replicas) > 0 && m.Replicas[0].PID != 0 {
			pid = m.Replicas[0].PID
			if rss := residentMemory(pid); rss != "" {
				memory = rss
			}
		}
		if m.State == "cold" && pid != 0 {
			d.say("--- idle for %v: process %d is gone, and its %s of memory with it. Evictions so far: %d.", d.opts.ScaledownAfter, pid, memory, m.Evictions)
			d.say("    The next request starts it again; try the curl line above. Ctrl-C ends the demo.")
			return
		}
		if m.State == "ready" && m.Replicas[0].InFlight > 0 {
			idleFrom = time.Now() // somebody uses it: the curl line works
		}
		left := int((d.opts.ScaledownAfter - time.Since(idleFrom)).Round(time.Second) / time.Second)
		if m.State == "ready" && left != said && left >= 0 && (left%5 == 0 || left <= 3) {
			d.say("    idle; process %d (%s resident) leaves in %d s", pid, memory, left)
			said = left
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// residentMemory reads how much memory a process holds, for people; empty when it is gone.
func residentMemory(pid int) string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return ""
	}
	pages, err := strconv.Atoi(fields[1])
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%d MB", pages*os.Getpagesize()/1_000_000)
}
