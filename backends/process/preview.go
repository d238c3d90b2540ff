package process

import "pilotlight/backends"

// Preview is the command line that a launch of spec would run, for people: with an example's port, and *** in the place of
// the replica's own API key.
func Preview(spec *backends.Spec) []string {
	const examplePort = 40000
	argv, _ := commandLine(spec, backends.Placement{}, "127.0.0.1", examplePort, "***")
	return argv
}
