package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"pilotlight/bench/mockengine"
)

// engineCommand as first argument makes this program a mock engine, with SGLang's flags.
const engineCommand = "engine"

// engine serves until SIGTERM, and then adds its record to a file.
func engine(args []string) error {
	flags := flag.NewFlagSet(engineCommand, flag.ContinueOnError)
	record := flags.String("record", "", "")
	flags.Int("generation", 0, "")               // a flag that a reload can change
	flags.Bool("enable-cache-report", false, "") // the gateway's, where there are replicas to choose among
	host := flags.String("host", "", "")
	port := flags.String("port", "", "")
	for _, ignored := range []string{"model-path", "served-model-name", "api-key"} {
		flags.String(ignored, "", "")
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	ln, err := net.Listen("tcp", net.JoinHostPort(*host, *port))
	if err != nil {
		return err
	}
	var s mockengine.Server
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	select {
	case err := <-served:
		return err
	case <-end:
	}
	r := s.Record() // before Close, which looks like clients that leave
	s.Close()
	return errors.Join(<-served, appendRecord(*record, r))
}

// appendRecord adds a line to a file that several engines write.
func appendRecord(file string, r mockengine.Record) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

// readRecords sums what engines have written, and tells how many they were.
func readRecords(file string) (sum mockengine.Record, engines int, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return sum, 0, err
	}
	for line := range strings.Lines(string(text)) {
		var r mockengine.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return sum, engines, fmt.Errorf("%s: %w", file, err)
		}
		sum = sum.Add(r)
		engines++
	}
	return sum, engines, nil
}
