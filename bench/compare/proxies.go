package main

import (
	"bytes"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// bareFlags are those of both bare proxies; only fasthttp's knows more than one upstream.
type bareFlags struct {
	listen, upstream string
	upstreams, pools int
}

func parseBareFlags(name string, args []string) (f bareFlags, err error) {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.StringVar(&f.listen, "listen", "", "address")
	fs.StringVar(&f.upstream, "upstream", "", "address of the engine")
	fs.IntVar(&f.upstreams, "upstreams", 1, "how many consecutive ports the engine has, taken in turn")
	fs.IntVar(&f.pools, "pools", 1, "how many pools of connections there are, taken in turn")
	return f, fs.Parse(args)
}

// runFasthttp is the least that a proxy on fasthttp can do: pass on requests, pass back answers, as a stream where one was asked for.
func runFasthttp(args []string) error {
	f, err := parseBareFlags("fasthttp", args)
	if err != nil {
		return err
	}
	host, text, err := net.SplitHostPort(f.upstream)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	pools := func(stream bool) []*fasthttp.HostClient {
		all := make([]*fasthttp.HostClient, f.pools)
		for i := range all {
			all[i] = &fasthttp.HostClient{Addr: net.JoinHostPort(host, strconv.Itoa(port+i%f.upstreams)), MaxConns: 100_000, NoDefaultUserAgentHeader: true,
				StreamResponseBody: stream, MaxIdleConnDuration: 4 * time.Second}
		}
		return all
	}
	whole, streams := pools(false), pools(true)
	var turn atomic.Uint64
	s := &fasthttp.Server{NoDefaultServerHeader: true, Handler: func(ctx *fasthttp.RequestCtx) {
		i := 0
		if f.pools > 1 {
			i = int(turn.Add(1) % uint64(f.pools))
		}
		if !bytes.Contains(ctx.PostBody(), []byte(`"stream":true`)) {
			if err := whole[i].Do(&ctx.Request, &ctx.Response); err != nil {
				ctx.Error(err.Error(), fasthttp.StatusBadGateway)
			}
			return
		}
		resp := fasthttp.AcquireResponse()
		if err := streams[i].Do(&ctx.Request, resp); err != nil {
			fasthttp.ReleaseResponse(resp)
			ctx.Error(err.Error(), fasthttp.StatusBadGateway)
			return
		}
		ctx.SetContentTypeBytes(resp.Header.ContentType())
		ctx.SetBodyStream(&upstreamBody{resp.BodyStream(), resp}, -1)
	}}
	return s.ListenAndServe(f.listen)
}

type upstreamBody struct {
	io.Reader
	resp *fasthttp.Response
}

func (b *upstreamBody) Close() error {
	err := b.resp.CloseBodyStream()
	fasthttp.ReleaseResponse(b.resp)
	return err
}

// runNethttp is the standard library's reverse proxy.
func runNethttp(args []string) error {
	f, err := parseBareFlags("nethttp", args)
	if err != nil {
		return err
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: f.upstream})
	proxy.FlushInterval = -1
	proxy.Transport = &http.Transport{MaxIdleConns: 100_000, MaxIdleConnsPerHost: 100_000, IdleConnTimeout: 4 * time.Second, DisableCompression: true}
	ln, err := net.Listen("tcp", f.listen)
	if err != nil {
		return err
	}
	return (&http.Server{Handler: proxy, ReadHeaderTimeout: time.Minute}).Serve(ln)
}
