package conformance

import (
	"fmt"
	"time"
)

// coldSlack is for a busy machine and the answer itself.
const coldSlack = 15 * time.Second

// SharedColdCase is ColdCase for a model that others ask for too: who comes later waits less.
func SharedColdCase(name, model string, stream bool, start time.Duration) Case {
	return coldCase(name, model, stream, 0, start)
}

// ColdCase asks for a model that has no replica and takes start to get one: the client must notice nothing but the wait. The
// caller sees to it that model is cold when the case's turn comes, for example by giving each case a model of its own, and
// gives the target a Timeout that holds all the starts.
func ColdCase(name, model string, stream bool, start time.Duration) Case {
	return coldCase(name, model, stream, start, start)
}

// coldCase wants an answer between least and start, give or take.
func coldCase(name, model string, stream bool, least, start time.Duration) Case {
	return Case{
		Scenario: Scenario{Name: name, Op: "chat", Model: model, Stream: stream},
		Check: func(target Target, o Outcome) error {
			target.Model = model
			if err := all(answered, named, traced)(target, o); err != nil {
				return err
			}
			low, high := least.Seconds(), (start + coldSlack).Seconds()
			if o.Elapsed < low || o.Elapsed > high {
				return fmt.Errorf("got an answer after %.2f s, want it between %.2f and %.2f", o.Elapsed, low, high)
			}
			return nil
		},
	}
}

// ImpatientCase asks for a model that takes longer than the client's own time-out of one second.
func ImpatientCase(name, model string, stream bool) Case {
	return Case{
		Scenario: Scenario{Name: name, Op: "chat", Model: model, Stream: stream, Timeout: 1, MaxRetries: noRetry},
		Check: func(target Target, o Outcome) error {
			if err := timedOut(target, o); err != nil {
				return err
			}
			if o.Elapsed < 0.9 || o.Elapsed > 10 {
				return fmt.Errorf("the client gave up after %.2f s, want about 1", o.Elapsed)
			}
			return nil
		},
	}
}
