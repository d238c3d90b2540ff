package config

// later refuses what this release reads but does not do. Ignoring it would let somebody believe that, say,
// their gateways share their limits.
func (v value) later(meanwhile string) {
	v.fail("not supported yet", meanwhile)
}

// laterTopLevel type-checks and refuses the top level's fields of later releases.
func (r *reader) laterTopLevel(f fields) {
	if v := f.get("redis"); v.given() {
		v.fields("url").get("url").expandable(false)
		v.later("run one gateway; each keeps its own state")
	}
}

// laterModel type-checks and refuses a model's fields of later releases.
func (r *reader) laterModel(f fields) {
	if v := f.get("image"); v.given() {
		v.text("")
		v.later("leave it out; the process backend runs what is installed on this machine")
	}
}
