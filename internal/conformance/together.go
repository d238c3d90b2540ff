package conformance

import (
	"sync"
	"testing"
)

// Play is what one run of a client's driver does.
type Play struct {
	// Name tells the plays of one client apart; it may be empty where there is one.
	Name   string
	Target Target
	Cases  []Case
}

// CheckTogether runs drivers of all clients at the same time, whatever the test binary's -parallel says: what they do is mostly wait.
// plays says what each client is to do, each of them in a process of its own. Every play is judged in a subtest. It
// returns the outcomes of all clients by the plays' names; a client whose language is missing has none, and its subtest is skipped.
func CheckTogether(t *testing.T, plays func(Client) []Play) map[string][]Outcome {
	t.Helper()
	type running struct {
		client   Client
		play     Play
		argv     []string
		outcomes []Outcome
		err      error
	}
	var all []*running
	for _, client := range Clients() {
		// In a subtest, so that one missing language does not skip the others.
		there := false
		t.Run(client.Name+" is there", func(t *testing.T) {
			client.command(t)
			there = true
		})
		if !there {
			continue
		}
		argv := client.command(t) // again, for what lives as long as its test
		for _, play := range plays(client) {
			all = append(all, &running{client: client, play: play, argv: argv})
		}
	}
	var wg sync.WaitGroup
	for _, r := range all {
		wg.Go(func() { r.outcomes, r.err = drive(t.Context(), r.argv, r.play.Target, scenariosOf(r.play.Cases)) })
	}
	wg.Wait()
	outcomes := map[string][]Outcome{}
	for _, r := range all {
		name := r.client.Name
		if r.play.Name != "" {
			name += " " + r.play.Name
		}
		t.Run(name, func(t *testing.T) {
			if r.err != nil {
				t.Fatal(r.err)
			}
			judge(t, r.client, r.play.Target, r.play.Cases, r.outcomes)
		})
		outcomes[r.play.Name] = append(outcomes[r.play.Name], r.outcomes...)
	}
	return outcomes
}
