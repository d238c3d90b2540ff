// Package e2e holds tests of the whole gateway as its users meet it: the built program, a configuration file, real processes and
// sockets. Engines are the simulator; package conformance puts official SDKs and a real engine in its place.
//
// Counts are small by default, so that the suite ends in a minute; PILOTLIGHT_SCALE=full runs the figures that the README states.
package e2e
