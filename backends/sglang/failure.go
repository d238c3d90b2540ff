package sglang

import (
	"fmt"
	"slices"
	"strings"
	"syscall"

	"pilotlight/backends"
)

// ExitStatus is how a process ended. The zero value is an exit with code 0. The status alone never tells
// a good end from a crash (SGLang ends both by killing itself), so it only breaks ties between signatures.
type ExitStatus struct {
	Code   int
	Signal syscall.Signal // 0: it exited by itself
	// Unknown is true for a process that was not our child, whose status nobody can ask for.
	Unknown bool
}

// String says it as a shell user would: "exit code 2", "signal killed".
func (e ExitStatus) String() string {
	switch {
	case e.Unknown:
		return "exit status unknown"
	case e.Signal != 0:
		return "signal " + e.Signal.String()
	default:
		return fmt.Sprintf("exit code %d", e.Code)
	}
}

// signal is the signal that ended the process or, behind a shell, its child (code 128 + n).
func (e ExitStatus) signal() syscall.Signal {
	if e.Signal == 0 && e.Code > 128 && e.Code < 128+65 {
		return syscall.Signal(e.Code - 128)
	}
	return e.Signal
}

// kept is how many last lines a Failure carries for the log.
const kept = 40

// Classify names the cause of an engine's end from its last lines and exit status. It never returns nil:
// without a known signature the cause is ClassKilled or ClassExited. Message and Advice are fixed texts,
// with figures and the names of flags, modules and architectures from the output. args, the launch arguments, serve to say
// what a figure was before; they may be left out.
func Classify(tail []string, exit ExitStatus, args ...string) *backends.Failure {
	return classify(tail, exit, args, true)
}

// ClassifyAny is Classify for engines that are not SGLang: it knows only what any server may print, and
// gives no advice in SGLang's words.
func ClassifyAny(tail []string, exit ExitStatus) *backends.Failure {
	return classify(tail, exit, nil, false)
}

func classify(tail []string, exit ExitStatus, args []string, sglang bool) *backends.Failure {
	f := &backends.Failure{}
	lower := make([]string, len(tail))
	for i, line := range tail {
		lower[i] = strings.ToLower(line)
	}
	for i := range signatures {
		s := &signatures[i]
		if !sglang && !s.any {
			continue
		}
		at := s.find(lower)
		if at < 0 {
			continue
		}
		f.Class, f.Message, f.Advice, f.Permanent = s.class, s.message, s.advice, s.permanent
		if s.detail != nil {
			s.detail(f, evidence{tail: tail, at: at, args: args, any: !sglang})
		}
		break
	}
	if f.Class == "" {
		byStatus(f, lower, exit)
	}
	f.Lines = make([]string, 0, kept)
	for _, line := range tail[max(0, len(tail)-kept):] {
		f.Lines = append(f.Lines, Redact(line))
	}
	f.Err = fmt.Errorf("engine ended: %s", exit)
	return f
}

// byStatus is for output without a signature.
func byStatus(f *backends.Failure, lower []string, exit ExitStatus) {
	// A server that loses a child says so and kills itself; the signal is then no hint at a killer.
	childFailed := slices.ContainsFunc(lower, func(line string) bool { return strings.Contains(line, "sigquit") })
	switch signal := exit.signal(); {
	case signal == syscall.SIGKILL && !childFailed:
		f.Class = backends.ClassKilled
		f.Message = "the engine was killed from outside"
		f.Advice = "if nobody did it, the machine ran out of memory: give the model more, or run fewer beside it"
	case (signal == syscall.SIGTERM || signal == syscall.SIGINT || signal == syscall.SIGHUP) && !childFailed:
		f.Class = backends.ClassKilled
		f.Message = "the engine was asked to end by somebody else"
		f.Advice = "leave stopping engines to the gateway; to stop a model, remove it from the configuration"
	case signal != 0 && !childFailed:
		f.Class = backends.ClassExited
		f.Message = "the engine crashed"
		f.Advice = "see the last lines of its log"
	case childFailed:
		f.Class = backends.ClassExited
		f.Message = "a part of the engine crashed"
		f.Advice = "see the last lines of its log"
	case exit.Code == 2:
		// argparse's code, and that of most command line parsers.
		f.Class, f.Permanent = backends.ClassBadFlag, true
		f.Message = "the engine refused its launch arguments"
		f.Advice = "check the model's extra_args against the installed version's --help"
	default:
		f.Class = backends.ClassExited
		f.Message = "the engine exited by itself"
		f.Advice = "see the last lines of its log"
	}
}
