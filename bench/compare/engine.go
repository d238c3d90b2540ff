package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The engine answers what it is asked for at the start of the message, which every proxy passes on: "frames=N,every=MS" gives a stream of N
// frames, one each MS milliseconds, and anything else plainAnswer. Frames are numbered, so that the client can tell whether all came, in order.
const frameWord = "frames="

var frameKey = []byte(`"content":"` + frameWord)

var plainAnswer = func() []byte {
	body := `{"id":"chatcmpl-0","object":"chat.completion","created":1,"model":"bench","choices":[{"index":0,"message":{"role":"assistant","content":"` +
		strings.Repeat("y", 420) + `"},"finish_reason":"stop"}],"usage":{"prompt_tokens":200,"completion_tokens":100,"total_tokens":300}}`
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\ncontent-length: %d\r\ncontent-type: application/json\r\n\r\n%s", len(body), body)
}()

// information answers the questions of routers: what the engine is, and that it is well.
const information = `{"status":"ok","object":"list","data":[{"id":"bench","object":"model","owned_by":"sglang"}],"model_path":"bench","served_model_name":"bench",` +
	`"tokenizer_path":"","is_generation":true,"max_running_requests":100000,"version":"0.5.15"}`

func runEngine(args []string) error {
	fs := flag.NewFlagSet("engine", flag.ContinueOnError)
	addr := fs.String("listen", "127.0.0.1:0", "address")
	ports := fs.Int("ports", 1, "how many consecutive ports to listen on")
	if err := fs.Parse(args); err != nil {
		return err
	}
	host, first, err := net.SplitHostPort(*addr)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(first)
	if err != nil {
		return err
	}
	failed := make(chan error, *ports)
	for i := range *ports {
		ln, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port+i)))
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					failed <- err
					return
				}
				go answerAll(c)
			}
		}()
	}
	return <-failed
}

var errBody = errors.New("a request without a length")

func answerAll(c net.Conn) {
	defer c.Close()
	br := bufio.NewReaderSize(c, 4<<10)
	for {
		body, get, err := readRequest(br)
		if err != nil {
			return
		}
		switch i := bytes.Index(body, frameKey); {
		case get:
			_, err = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s", len(information), information)
		case i < 0:
			_, err = c.Write(plainAnswer)
		default:
			var frames, every int
			if _, err := fmt.Sscanf(string(body[i+len(frameKey):]), "%d,every=%d", &frames, &every); err != nil {
				return
			}
			err = sendFrames(c, frames, time.Duration(every)*time.Millisecond)
		}
		if err != nil {
			return
		}
	}
}

var bodies = sync.Pool{New: func() any { b := make([]byte, 0, 8<<10); return &b }}

// readRequest returns the body, which is valid until the next call for this reader.
func readRequest(br *bufio.Reader) (body []byte, get bool, err error) {
	length := -1
	for first := true; ; first = false {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return nil, false, err
		}
		if first {
			get = bytes.HasPrefix(line, []byte("GET "))
		}
		if len(line) <= 2 {
			break
		}
		if n := len("content-length:"); len(line) > n && line[0]|0x20 == 'c' && bytes.EqualFold(line[:n], []byte("content-length:")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[n:]))); err != nil {
				return nil, false, err
			}
		}
	}
	if get {
		return nil, true, nil
	}
	if length < 0 {
		return nil, false, errBody
	}
	if length <= br.Size() {
		body, err = br.Peek(length)
		if err == nil {
			_, err = br.Discard(length)
		}
		return body, false, err
	}
	buffer, _ := bodies.Get().(*[]byte)
	defer bodies.Put(buffer)
	for got := 0; got < length; { // larger than any that asks for frames
		n, err := br.Read((*buffer)[:min(cap(*buffer), length-got)])
		if err != nil {
			return nil, false, err
		}
		got += n
	}
	return nil, false, nil
}

func sendFrames(c net.Conn, frames int, every time.Duration) error {
	if _, err := c.Write([]byte("HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n")); err != nil {
		return err
	}
	t := time.NewTicker(every)
	defer t.Stop()
	var chunk, event []byte
	for i := range frames {
		<-t.C
		event = append(event[:0], `data: {"id":"chatcmpl-0","object":"chat.completion.chunk","created":1,"model":"bench","choices":[{"index":0,"delta":{"content":"`...)
		event = fmt.Appendf(event, "%08d ", i)
		event = append(event, `and some text"},"logprobs":null,"finish_reason":null,"matched_stop":null}]}`+"\n\n"...)
		chunk = fmt.Appendf(chunk[:0], "%x\r\n%s\r\n", len(event), event)
		if _, err := c.Write(chunk); err != nil {
			return err
		}
	}
	_, err := c.Write([]byte("e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"))
	return err
}
