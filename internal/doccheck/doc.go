// Package doccheck holds the documentation against the code: what the README must name it has to name, and what comments
// cite has to exist. It has tests only.
package doccheck
