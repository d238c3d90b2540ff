package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// even is a small shape whose heads and rows divide by two.
var even = shape{hidden: 1024, inter: 2816, layers: 8, heads: 16, kvHeads: 8, headDim: 64, layersPerFile: 4}

// evenModel is the folder of such a model with random weights; it is made if it is not there.
func evenModel(ctx context.Context, o *options) (string, error) {
	if o.Even != "" {
		return o.Even, nil
	}
	dir := filepath.Join(os.TempDir(), "pilotlight-even")
	return dir, makeRandom(ctx, o.Model, dir, even)
}

const (
	pairIdle = "6s" // long enough for what is looked at between two questions
	pairGone = 2 * time.Minute
)

// onPair is a model on two GPUs.
func onPair(name, path string, fields map[string]any) model {
	m := model{Name: name, Path: path, Args: slices.Concat(quickStart, []string{"--tp-size", "2"}), Fields: map[string]any{"resources": map[string]any{"gpu": "2"}}}
	maps.Copy(m.Fields, fields)
	return m
}

// twoScene is one model on two GPUs, whole and cut up.
var twoScene = scene{
	name: "two", about: "one model on two GPUs, cut up and loaded as sharded_state, the same answer, kill -9 of one rank (two GPUs)", limit: 9 * time.Minute,
	models: func(ctx context.Context, o *options) ([]model, error) {
		dir, err := evenModel(ctx, o)
		idle := map[string]any{"scaledown_after": pairIdle}
		return []model{
			onPair("pair", dir, map[string]any{"scaling": idle}),
			onPair("parts", dir, map[string]any{"scaling": idle, "prefetch": map[string]any{"shard": map[string]any{"engine": "sglang", "tp": 2}}}),
		}, err
	},
	more: func(*options) map[string]any { return map[string]any{"store": map[string]any{"path": storeDir}} },
	steps: []step{
		{name: "cold start on both GPUs", vital: true, do: func(ctx context.Context, p *play) error {
			return errors.Join(coldStart("pair")(ctx, p), p.holds(ctx, "pair", "pair"), p.loadFigure("pair"))
		}},
		{name: "it answers", vital: true, do: tells("pair", func(p *play, text string) error { p.said = text; return nil })},
		{name: "idle, gone, both GPUs free", vital: true, do: gone("pair")},
		{name: "the first start cuts the weights up on both", vital: true, do: func(ctx context.Context, p *play) error {
			if err := coldStart("parts")(ctx, p); err != nil {
				return errors.Join(err, p.cutLog("parts"))
			}
			return errors.Join(p.holds(ctx, "parts", "parts"), p.isSharded(ctx, "parts"), p.cutFigure(), p.loadFigure("parts"))
		}},
		{name: "it answers the same", do: tells("parts", same)},
		{name: "kill -9 of one rank", do: killRank},
		{name: "the next request starts it again, from the parts", do: func(ctx context.Context, p *play) error {
			return errors.Join(again("parts")(ctx, p), p.isSharded(ctx, "parts"), p.loadFigure("parts"))
		}},
		{name: "it answers the same still", do: tells("parts", same)},
		{name: "idle, gone, both GPUs free again", do: gone("parts")},
	},
}

// besideScene is two models on a GPU each, and one that wants both.
var besideScene = scene{
	name: "beside", about: "two models side by side on a GPU each, and one that asks for both (two GPUs)", limit: 9 * time.Minute,
	models: func(ctx context.Context, o *options) ([]model, error) {
		dir, err := evenModel(ctx, o)
		one := map[string]any{"resources": map[string]any{"gpu": "1"}}
		return []model{{Name: "left", Args: quickStart, Fields: one}, {Name: "right", Args: quickStart, Fields: one}, onPair("pair", dir, nil)}, err
	},
	steps: []step{
		{name: "two at once, each on a GPU of its own", vital: true, do: sideBySide},
		{name: "clients of both", do: bothAsked},
		{name: "a model that wants both, while both are idle", do: func(ctx context.Context, p *play) error {
			return errors.Join(coldStart("pair")(ctx, p), p.holds(ctx, "pair", "pair"))
		}},
		{name: "one of them comes back", vital: true, do: func(ctx context.Context, p *play) error {
			_, err := p.ask(ctx, chat("left", "Say hello.", nil))
			return err
		}},
		{name: "a model that wants both, while one is busy", do: whileBusy},
	},
}

// tells asks for words that follow from the weights alone, however random they are.
func tells(name string, then func(p *play, text string) error) func(ctx context.Context, p *play) error {
	return func(ctx context.Context, p *play) error {
		a, err := p.ask(ctx, telling(name))
		if err != nil {
			return err
		}
		if a.Text == "" {
			return errors.New("no text: " + a.text())
		}
		return then(p, a.Text)
	}
}

// gone waits until an idle model has left its GPUs.
func gone(name string) func(ctx context.Context, p *play) error {
	return func(ctx context.Context, p *play) error {
		began := time.Now()
		err := until(ctx, pairGone, name+" is gone", func() (bool, error) {
			m, err := p.gateway.model(ctx, name)
			return err == nil && m.State == "cold" && len(p.gateway.processes()) == 0, err
		})
		if err != nil {
			return err
		}
		p.figure("gone after", time.Since(began))
		return errors.Join(p.memoryBack(ctx, p.free), p.holds(ctx))
	}
}

// holders are the models on each GPU, by the gateway's account.
func (p *play) holders(ctx context.Context) (names []string, err error) {
	var state struct {
		Devices []struct {
			State   string `json:"state"`
			Holders []struct {
				Model string `json:"model"`
			} `json:"holders"`
		} `json:"devices"`
	}
	if err := fetch(ctx, p.gateway.admin+"/api/state", "", &state); err != nil {
		return nil, err
	}
	for _, d := range state.Devices {
		name := ""
		for _, h := range d.Holders {
			name += h.Model
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// holds sees that the GPUs are these models', one each, and no one's else. Those that are given back take a moment.
func (p *play) holds(ctx context.Context, models ...string) error {
	return until(ctx, p.within(20*time.Second), "the GPUs are held as they should be", func() (bool, error) {
		have, err := p.holders(ctx)
		if err != nil {
			return false, err
		}
		have = slices.DeleteFunc(have, func(name string) bool { return name == "" })
		return slices.Equal(have, models), fmt.Errorf("they are %q's", have)
	})
}

// killRank kills one of the engine's ranks. The engine must go with it, and both GPUs be free.
func killRank(ctx context.Context, p *play) error {
	e, err := p.gateway.engine("parts")
	if err != nil {
		return err
	}
	before, err := p.gateway.model(ctx, "parts")
	if err != nil {
		return err
	}
	all := descendants(e.PID)
	rank := 0
	for pid, title := range all {
		if strings.Contains(title, "scheduler_TP1") {
			rank = pid
		}
	}
	if rank == 0 {
		return fmt.Errorf("no second rank among the engine's processes: %v", all)
	}
	began := time.Now()
	if err := syscall.Kill(rank, syscall.SIGKILL); err != nil {
		return err
	}
	err = until(ctx, p.within(30*time.Second), "the gateway counts a crash", func() (bool, error) {
		m, err := p.gateway.model(ctx, "parts")
		return err == nil && m.Crashes > before.Crashes && len(p.gateway.processes()) == 0, err
	})
	if err != nil {
		return err
	}
	p.figure("all of it gone after", time.Since(began))
	return errors.Join(p.memoryBack(ctx, p.free), p.holds(ctx))
}

// sideBySide asks two cold models at once.
func sideBySide(ctx context.Context, p *play) error {
	began := time.Now()
	problems := make([]error, 2)
	var wg sync.WaitGroup
	for i, name := range []string{"left", "right"} {
		wg.Go(func() {
			a, err := plain{}.ask(ctx, p.gateway, chat(name, "Say hello.", nil))
			if err == nil && (a.Status != 200 || a.Text == "") {
				err = errors.New(name + ": " + a.text())
			}
			problems[i] = err
		})
	}
	wg.Wait()
	p.figure("both answer after", time.Since(began))
	return errors.Join(append(problems, p.holds(ctx, "left", "right"))...)
}

const (
	besideClients = 3 // of each model
	besideTime    = 10 * time.Second
)

// bothAsked has clients ask both models for a while. None may fail.
func bothAsked(ctx context.Context, p *play) error {
	var answered, failed atomic.Int64
	var wg sync.WaitGroup
	end := time.Now().Add(besideTime)
	for _, name := range []string{"left", "right"} {
		for range besideClients {
			wg.Go(func() {
				for time.Now().Before(end) && ctx.Err() == nil {
					a, err := plain{}.ask(ctx, p.gateway, chat(name, "Say hello.", nil))
					if err != nil || a.Status != 200 || a.Text == "" {
						failed.Add(1)
						return
					}
					answered.Add(1)
				}
			})
		}
	}
	wg.Wait()
	p.number("answered", float64(answered.Load()), "")
	p.number("failed", float64(failed.Load()), "")
	if failed.Load() > 0 || answered.Load() == 0 {
		return errors.New("not all were answered")
	}
	return p.holds(ctx, "left", "right")
}

// whileBusy asks the model that wants both GPUs while one of the others is at work: the work ends undisturbed, and then it is its turn.
func whileBusy(ctx context.Context, p *play) error {
	s, err := p.streaming(ctx, "left", p.LongAnswer)
	if err != nil {
		return err
	}
	defer s.close()
	began := time.Now()
	answer := make(chan error, 1)
	var at time.Time
	go func() {
		a, err := plain{}.ask(ctx, p.gateway, chat("pair", "Say hello.", map[string]any{"ignore_eos": true}))
		at = time.Now()
		if err == nil && a.Status != 200 {
			err = errors.New(a.text())
		}
		answer <- err
	}()
	for {
		text, err := s.next()
		if err != nil {
			return errors.Join(fmt.Errorf("the stream broke: %w", err), <-answer)
		}
		if text == "[DONE]" {
			break
		}
	}
	done := time.Now()
	p.figure("stream over after", done.Sub(began))
	if err := <-answer; err != nil {
		return err
	}
	p.figure("the other's answer after the stream", at.Sub(done))
	if at.Before(done) {
		return errors.New("the other answered before the stream was over")
	}
	return p.holds(ctx, "pair", "pair")
}
