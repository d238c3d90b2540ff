// Command sglang-sim is a simulated SGLang server as a program. It takes SGLang's command line and behaves like the real thing
// in what a gateway can notice; see package sglangsim, and --help for its own switches.
package main

import (
	"context"
	"fmt"
	"os"

	"pilotlight/bench/sglangsim"
)

func main() {
	exe, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "sglang-sim: finding the program's own file:", err)
		os.Exit(1)
	}
	os.Exit(sglangsim.Run(context.Background(), sglangsim.Process{
		Args: os.Args[1:], Getenv: os.Getenv, Stdout: os.Stdout, Stderr: os.Stderr, Executable: exe,
	}))
}
