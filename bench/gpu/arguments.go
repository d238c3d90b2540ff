package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// argumentsScene passes arguments through, in SGLang's spelling and in vLLM's, to two engines on one GPU.
var argumentsScene = scene{
	name: "arguments", about: "--context-length, --mem-fraction-static, --trust-remote-code and vLLM's --max-model-len reach the engine", limit: 5 * time.Minute,
	models: func(context.Context, *options) ([]model, error) { return argumentsModels(), nil },
	steps: []step{
		{name: "check explains them, and refuses unknown ones", do: explain},
		// Not at once: SGLang takes what is free before and after it has loaded its weights for its own doing, and one that starts beside
		// it on the same GPU spoils the sum (seen with 0.5.15: the first to look again found no memory for its cache).
		{name: "both start, one after the other", vital: true, do: func(ctx context.Context, p *play) error {
			for _, name := range []string{"sglang", "vllm"} {
				began := time.Now()
				a, err := p.client.ask(ctx, p.gateway, chat(name, "Say hello.", nil))
				if err != nil {
					return err
				}
				if a.Status != 200 || a.Text == "" {
					return errors.New(a.text())
				}
				p.figure(name+" answers after", time.Since(began))
			}
			return nil
		}},
		{name: "the engines say that they have them", do: func(ctx context.Context, p *play) error {
			return errors.Join(
				p.has(ctx, "sglang", map[string]string{"context_length": "2048", "mem_fraction_static": "0.2", "trust_remote_code": "true"}),
				p.has(ctx, "vllm", map[string]string{"context_length": "1024", "mem_fraction_static": "0.2", "trust_remote_code": "false"}))
		}},
		{name: "a prompt that is too long for them is refused", do: func(ctx context.Context, p *play) error {
			for name, words := range map[string]int{"sglang": 3000, "vllm": 1500} {
				a, err := p.client.ask(ctx, p.gateway, chat(name, strings.Repeat("word ", words), nil))
				if err != nil {
					return err
				}
				if a.Status != 400 || a.Code != "context_length_exceeded" {
					return fmt.Errorf("%s with %d words: %s", name, words, a.text())
				}
			}
			return nil
		}},
	},
}

func argumentsModels() []model {
	return []model{
		{Name: "sglang", Fraction: "own", Args: []string{"--context-length", "2048", "--mem-fraction-static", "0.2", "--trust-remote-code"}},
		{Name: "vllm", Fraction: "own", Args: "--max-model-len 1024 --mem-fraction-static=0.2"},
	}
}

// has compares what an engine says of itself with what it must have.
func (p *play) has(ctx context.Context, name string, want map[string]string) error {
	e, err := p.gateway.engine(name)
	if err != nil {
		return err
	}
	settings, err := e.settings(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for key, value := range want {
		if got := fmt.Sprint(settings[key]); got != value {
			err = errors.Join(err, fmt.Errorf("%s: %s is %s, want %s", name, key, got, value))
		}
	}
	return err
}

// explain asks the gateway's program what it makes of the scene's arguments, and of one that no SGLang has.
func explain(ctx context.Context, p *play) error {
	models := argumentsModels()
	text, status, err := p.gateway.check(ctx, "check", p.config(models))
	if err != nil {
		return err
	}
	if status != 0 || !strings.Contains(text, "--max-model-len") || !strings.Contains(text, "--context-length 1024") {
		return fmt.Errorf("check ends with %d and does not tell of --max-model-len as --context-length 1024:\n%s", status, text)
	}
	models[0].Args = []string{"--context-lenght", "2048"}
	text, status, err = p.gateway.check(ctx, "refused", p.config(models))
	if err != nil {
		return err
	}
	if status != 2 || !strings.Contains(text, "--context-lenght") || !strings.Contains(text, "--context-length") {
		return fmt.Errorf("check ends with %d for --context-lenght:\n%s", status, text)
	}
	return nil
}
