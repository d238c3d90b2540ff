// Package smuggling holds a corpus of requests whose end two readers may see in different places, and plays it against the built
// gateway and against HAProxy, each in front of an engine that records every byte. The test fails where the gateway lets
// through what could be read as a second request; docs/smuggling.md is what it saw. It is tests only, and needs haproxy.
package smuggling
