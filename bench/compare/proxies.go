package main

import (
	"bytes"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"github.com/valyala/fasthttp"
)

func proxyFlags(name string, args []string) (listen, upstream string, err error) {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.StringVar(&listen, "listen", "", "address")
	fs.StringVar(&upstream, "upstream", "", "address of the engine")
	return listen, upstream, fs.Parse(args)
}

// runFasthttp is the least that a proxy on fasthttp can do: pass on requests, pass back answers, as a stream where one was asked for.
func runFasthttp(args []string) error {
	listen, upstream, err := proxyFlags("fasthttp", args)
	if err != nil {
		return err
	}
	whole := &fasthttp.HostClient{Addr: upstream, MaxConns: 100_000, NoDefaultUserAgentHeader: true, MaxIdleConnDuration: 4 * time.Second}
	streams := &fasthttp.HostClient{Addr: upstream, MaxConns: 100_000, NoDefaultUserAgentHeader: true, StreamResponseBody: true, MaxIdleConnDuration: 4 * time.Second}
	s := &fasthttp.Server{NoDefaultServerHeader: true, Handler: func(ctx *fasthttp.RequestCtx) {
		if !bytes.Contains(ctx.PostBody(), []byte(`"stream":true`)) {
			if err := whole.Do(&ctx.Request, &ctx.Response); err != nil {
				ctx.Error(err.Error(), fasthttp.StatusBadGateway)
			}
			return
		}
		resp := fasthttp.AcquireResponse()
		if err := streams.Do(&ctx.Request, resp); err != nil {
			fasthttp.ReleaseResponse(resp)
			ctx.Error(err.Error(), fasthttp.StatusBadGateway)
			return
		}
		ctx.SetContentTypeBytes(resp.Header.ContentType())
		ctx.SetBodyStream(&upstreamBody{resp.BodyStream(), resp}, -1)
	}}
	return s.ListenAndServe(listen)
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
	listen, upstream, err := proxyFlags("nethttp", args)
	if err != nil {
		return err
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: upstream})
	proxy.FlushInterval = -1
	proxy.Transport = &http.Transport{MaxIdleConns: 100_000, MaxIdleConnsPerHost: 100_000, IdleConnTimeout: 4 * time.Second, DisableCompression: true}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	return (&http.Server{Handler: proxy, ReadHeaderTimeout: time.Minute}).Serve(ln)
}
