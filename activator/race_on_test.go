//go:build race

package activator

const raceEnabled = true
