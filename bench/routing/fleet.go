package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"pilotlight/bench/sglangsim"
)

// fleet is simulated replicas in this process, with empty caches.
type fleet struct {
	servers []*sglangsim.Server
	addrs   []string
	end     context.CancelFunc
	done    sync.WaitGroup
}

const servedModel = "bench/model"

func newFleet(p *parameters) (*fleet, error) {
	ctx, cancel := context.WithCancel(context.Background())
	f := &fleet{end: cancel}
	for range p.replicas {
		o := sglangsim.Defaults()
		o.ModelPath, o.ServedModelName, o.InstantHealth, o.CacheReport = servedModel, servedModel, true, true
		o.PrefillRate, o.CacheTokens, o.ContextLength = p.prefill, p.cache, 1<<20
		o.TTFT, o.ITL, o.ITLPerRunning, o.MaxRunningRequests = 5*time.Millisecond, p.itl, 0, p.concurrency
		s, err := sglangsim.New(o)
		if err != nil {
			f.close()
			return nil, err
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			f.close()
			return nil, err
		}
		f.servers, f.addrs = append(f.servers, s), append(f.addrs, ln.Addr().String())
		f.done.Go(func() { _ = s.Serve(ctx, ln) }) // how it ends does not matter once it is over
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		ready := 0
		for _, s := range f.servers {
			if s.Ready() {
				ready++
			}
		}
		if ready == len(f.servers) {
			return f, nil
		}
		if time.Now().After(end) {
			f.close()
			return nil, errors.New("the simulated replicas do not come up")
		}
	}
}

func (f *fleet) close() {
	f.end()
	f.done.Wait()
}

// hits is the share of the prompts' tokens that was cached, and how unevenly the requests came: the most at one replica over the mean.
func (f *fleet) hits() (share, skew float64) {
	prompt, cached, most, all := 0, 0, 0, 0
	for _, s := range f.servers {
		c := s.Cache()
		prompt, cached = prompt+c.PromptTokens, cached+c.Cached
		most, all = max(most, c.Requests), all+c.Requests
	}
	return float64(cached) / float64(max(1, prompt)), float64(most*len(f.servers)) / float64(max(1, all))
}

func (f *fleet) urls() (urls []string) {
	for _, a := range f.addrs {
		urls = append(urls, fmt.Sprintf("http://%s", a))
	}
	return urls
}
