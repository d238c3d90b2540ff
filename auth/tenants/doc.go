// Package tenants says what a caller may do, and which accounts pay for it: it joins who somebody is (auth) with the rules of the
// configuration, whichever way it was proven.
//
// It proves nobody's identity, and reads no requests: what one asks is the gateway's to find out. A Registry is safe for concurrent use.
package tenants
