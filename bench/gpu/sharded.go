package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// shardedScene has SGLang's own code cut the model's weights up, for one rank, and compares what is loaded from them with the model itself.
var shardedScene = scene{
	name: "sharded", about: "weights that SGLang's own code has cut up, loaded as sharded_state, and the same answer as without", limit: 8 * time.Minute,
	models: func(context.Context, *options) ([]model, error) { return shardedModels(), nil },
	more:   func(*options) map[string]any { return map[string]any{"store": map[string]any{"path": storeDir}} },
	steps: []step{
		{name: "the first start cuts the weights up on its own GPU", vital: true, do: func(ctx context.Context, p *play) error {
			if err := coldStart("cut")(ctx, p); err != nil {
				return errors.Join(err, p.cutLog("cut"))
			}
			if err := p.readsBelow(ctx, "cut", storeDir+"/models--sharded--"+filepath.Base(p.Model)); err != nil {
				return err
			}
			if err := p.isSharded(ctx, "cut"); err != nil {
				return err
			}
			return errors.Join(p.cutFigure(), p.loadFigure("cut"))
		}},
		{name: "it answers", vital: true, do: told("cut", func(p *play, text string) error { p.said = text; return nil })},
		{name: "another gateway's start finds them", vital: true, do: func(ctx context.Context, p *play) error {
			if err := p.gateway.stop(ctx); err != nil {
				return err
			}
			if err := p.gateway.start(ctx); err != nil {
				return err
			}
			if err := coldStart("cut")(ctx, p); err != nil {
				return err
			}
			return errors.Join(p.isSharded(ctx, "cut"), p.loadFigure("cut"))
		}},
		{name: "it answers the same", do: told("cut", same)},
		{name: "cold start of the model itself", vital: true, do: func(ctx context.Context, p *play) error {
			return errors.Join(coldStart("whole")(ctx, p), p.loadFigure("whole"))
		}},
		{name: "it answers the same, too", do: told("whole", same)},
		{name: "what does not fit is refused before a start", do: func(ctx context.Context, p *play) error {
			return p.refusesShards(ctx)
		}},
	},
}

func shardedModels() []model {
	return []model{
		{Name: "cut", Args: slices.Concat(quickStart, []string{"--tp-size", "1"}), Fields: map[string]any{
			"resources": map[string]any{"gpu": "1"}, "prefetch": map[string]any{"shard": map[string]any{"engine": "sglang", "tp": 1}},
		}},
		{Name: "whole", Args: quickStart},
	}
}

// told asks a question that has one answer, and hands it on.
func told(name string, then func(p *play, text string) error) func(ctx context.Context, p *play) error {
	return func(ctx context.Context, p *play) error {
		a, err := p.ask(ctx, chat(name, "What is the capital of France, and what is it known for?", map[string]any{"max_tokens": 48}))
		if err != nil {
			return err
		}
		if a.Text == "" {
			return errors.New("no text: " + a.text())
		}
		p.note("%q", a.Text)
		return then(p, a.Text)
	}
}

func same(p *play, text string) error {
	if text != p.said {
		return fmt.Errorf("it says %q, and it was %q", text, p.said)
	}
	return nil
}

// isSharded sees that a model's engine loads sharded weights.
func (p *play) isSharded(ctx context.Context, name string) error {
	return p.has(ctx, name, map[string]string{"load_format": "sharded_state"})
}

var loadTook = regexp.MustCompile(`Load weight end\. elapsed=([0-9.]+) s`)

// loadFigure is how long a model's engine took to load its weights, by its own account. Ranks do so side by side; the slowest counts.
func (p *play) loadFigure(name string) error {
	logs, err := filepath.Glob(filepath.Join(p.gateway.stateDir(), "logs", name+"-*.log"))
	if err != nil || len(logs) == 0 {
		return fmt.Errorf("no log of %s: %w", name, err)
	}
	newest := slices.MaxFunc(logs, func(a, b string) int { return modified(a).Compare(modified(b)) })
	text, err := os.ReadFile(newest)
	if err != nil {
		return err
	}
	seconds := -1.0
	for _, m := range loadTook.FindAllStringSubmatch(string(text), -1) {
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return err
		}
		seconds = max(seconds, n)
	}
	if seconds < 0 {
		return fmt.Errorf("%s does not say how long it loaded", filepath.Base(newest))
	}
	p.number("weights loaded in", seconds, "s")
	return nil
}

func modified(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{} // gone: never the newest
	}
	return info.ModTime()
}

// cutFigure is how long cutting up took, by the gateway's log.
func (p *play) cutFigure() error {
	text, err := os.ReadFile(p.gateway.logFile())
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		var l struct {
			Msg     string  `json:"msg"`
			Seconds float64 `json:"seconds"`
		}
		if json.Unmarshal([]byte(line), &l) == nil && l.Msg == "weights are cut up" {
			p.number("weights cut up in", l.Seconds, "s")
			return nil
		}
	}
	return errors.New("the gateway's log does not tell of weights that were cut up")
}

// cutLog is the end of what SGLang said while it cut, as an error.
func (p *play) cutLog(name string) error {
	return errors.New("its log ends with: " + tail(filepath.Join(p.gateway.stateDir(), "logs", "shard-"+name+".log")))
}

// refusesShards asks check what it makes of a replica with more ranks than the weights are cut for.
func (p *play) refusesShards(ctx context.Context) error {
	models := shardedModels()
	models[0].Args = slices.Concat(quickStart, []string{"--tp-size", "2"})
	models[0].Fields["resources"] = map[string]any{"gpu": "2"}
	text, status, err := p.gateway.check(ctx, "refused", p.config(models))
	if err != nil {
		return err
	}
	if status != 2 || !strings.Contains(text, "cuts the weights up for --tp-size 1") || !strings.Contains(text, "write tp: 2") {
		return fmt.Errorf("check ends with %d:\n%s", status, text)
	}
	return nil
}
