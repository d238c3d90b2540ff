// Package archtest says which package may import which, and why, and checks it. Its test reads the module with `go list`;
// breaking a rule fails it. Tests may import more than the packages that they test: see layer.tests.
package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
)

// module is the path that our own packages begin with.
const module = "pilotlight"

// layer is one folder of the module, or a folder and all below it ("gateway/..."), and what of ours it may import.
type layer struct {
	packages string
	imports  []string // patterns as in packages; "..." means everything of ours but cmd
	tests    []string // what its test files may import beyond that; every test may import bench/... and internal/testtools/...
	why      string
}

// layers cover the whole module: a package that is in none of them, or in two, fails the test; one that is named in full is in that one
// only. Order does not matter.
var layers = []layer{
	{"auth", []string{"auth/limits"}, nil,
		"it decides on plain values, so that its tests need neither sockets nor a gateway; a key may hold limits"},
	{"auth/tenants", []string{"auth", "auth/limits"}, nil,
		"what a caller may do follows from who it is and from rules, whoever proved it and how"},
	{"auth/limits", nil, nil,
		"it counts and is told the time, so that its tests run in virtual time against a reference"},
	{"auth/jwt", nil, nil,
		"it reads untrusted tokens and issuers' documents; what it may say of a caller is a plain value"},
	{"activator", []string{"activator/scaling"}, nil,
		"the state machine is explored exhaustively; anything it imported would have to be explored with it"},
	{"activator/ledger", []string{"activator"}, nil,
		"who gets which device depends on what models do, not on how devices are found or engines are run"},
	{"activator/scaling", nil, nil,
		"how many replicas are wanted follows from numbers; it must not be able to start one"},
	{"backends", nil, nil,
		"these are the plain values that everybody shares; an import would be a cycle in waiting"},
	{"backends/transport", []string{"backends"}, nil,
		"the client half of a replica's HTTP knows how to reach one and nothing of who asks"},
	{"backends/sglang", []string{"backends", "backends/sglang/flags"}, nil,
		"what one engine's flags and output mean is knowledge, not action"},
	{"backends/sglang/flags", nil, nil,
		"a table and a parser of text, which configuration may use without knowing drivers"},
	{"backends/sglang/footprint", nil, nil,
		"as backends/sglang/flags"},
	{"backends/sglang/installed", []string{"backends/sglang/flags"}, nil,
		"it runs a program, so it is apart from what only reads"},
	{"backends/sglang/shard", []string{"backends", "backends/sglang", "backends/sglang/flags", "backends/sglang/installed", "backends/store"}, nil,
		"it runs a program and writes to the store; when, and on which devices, is decided elsewhere"},
	{"backends/gpu", nil, nil,
		"it knows devices; who gets them is activator/ledger's decision"},
	{"backends/process", []string{"backends", "backends/sglang"}, nil,
		"a driver starts and stops; when, is the activator's decision, which it must not be able to make"},
	{"backends/static", []string{"backends"}, nil,
		"as backends/process"},
	{"backends/store", nil, nil,
		"files of models come and stay there whoever needs them; when to fetch is decided elsewhere"},
	{"backends/store/s3", []string{"backends/store"}, nil,
		"one more place to fetch from; the store must not know which there are"},
	{"backends/stream", []string{"backends", "backends/sglang/installed", "backends/store", "backends/store/s3"}, nil,
		"it knows one loader of one engine and the place that it reads; when to start is decided elsewhere"},
	{"backends/weights", []string{"backends", "backends/store", "backends/store/s3"}, nil,
		"it knows the store and what a start may be told of it; when to fetch is decided elsewhere"},
	{"router", []string{"backends", "backends/transport", "router/prefix"}, nil,
		"it chooses among names and replicas by their plain values and by how a call failed; it starts nothing"},
	{"router/prefix", nil, nil,
		"it weighs bytes and numbers; how a replica is reached is nothing to it"},
	{"gateway", []string{"gateway/...", "auth", "auth/limits", "auth/tenants", "router", "activator", "backends", "backends/transport"}, nil,
		"the edge knows what a replica is, not how one is run: drivers stay behind the activator's interfaces"},
	{"gateway/jsonbody", nil, nil,
		"a parser of untrusted bytes is read and fuzzed on its own"},
	{"gateway/histogram", nil, nil,
		"it counts for OpenTelemetry and knows nothing of what is counted"},
	{"gateway/sse", []string{"gateway/jsonbody"}, nil,
		"as gateway/jsonbody"},
	{"bench/scaling", []string{"bench/load", "activator/scaling"}, nil,
		"it compares the product's own decisions with others'; a copy of them would prove nothing"},
	{"bench/prefetch", []string{"backends/store"}, nil,
		"it measures the product's own way to fetch"},
	{"bench/...", []string{"bench/..."}, nil,
		"the simulator is judged by the engine's behaviour; sharing code with the gateway would share its mistakes"},
	{"cmd/sglang-sim", []string{"bench/sglangsim"}, nil,
		"flags and signals only"},
	{"cmd/pilotlight", []string{"..."}, nil,
		"it wires everything"},
	{"internal/config", []string{"auth", "auth/jwt", "auth/limits", "auth/tenants", "activator", "backends", "backends/gpu", "backends/sglang/flags", "backends/sglang/footprint", "backends/store", "gateway", "router"}, nil,
		"each package owns its Config, and this one fills them in; it starts nothing, so it needs no driver"},
	{"internal/app", []string{"auth/...", "router", "activator/...", "backends/...", "gateway", "gateway/histogram", "internal/config"}, nil,
		"the one place where drivers, models and the edge meet"},
	{"internal/demo", []string{"auth", "internal/app", "internal/config", "internal/demo/..."}, nil,
		"a demonstration shows what serve runs, through the same door"},
	{"internal/demo/cpuengine", []string{"internal/demo/venv"}, []string{"internal/demo/..."},
		"an engine is a command line; who runs it does not matter here"},
	{"internal/demo/venv", nil, []string{"internal/demo/..."},
		"as internal/demo/cpuengine"},
	{"internal/testtools", []string{"internal/demo/..."}, nil,
		"tests of every package use it, so it must not lead back to them"},
	{"internal/testtools/hubtest", nil, nil,
		"it knows the hub's protocol, and nothing of who speaks it"},
	{"internal/testtools/otlptest", nil, nil,
		"it knows OpenTelemetry's protocol, and nothing of who speaks it"},
	{"internal/conformance", []string{"internal/testtools"}, nil,
		"it knows the gateway by its address only, so that it can be pointed at any server"},
	{"internal/testtools/gatewaytest", []string{"internal/app", "internal/testtools"}, nil,
		"it starts the built program as operators do, and takes from app no more than the form of its state"},
	{"internal/flyte", []string{"internal/flyte/python"}, []string{"internal/config"},
		"it writes a file that config reads; each must be able to be wrong without the other"},
	{"internal/flyte/python", nil, nil,
		"a parser of other people's files is read and fuzzed on its own"},
	{"internal/e2e/...", nil, []string{"..."},
		"tests only"},
	{"internal/smuggling", nil, nil, "tests only"},
	{"internal/archtest", nil, nil, "tests only"},
	{"internal/doccheck", nil, nil, "tests only"},
}

// reserved is a package that few may import.
type reserved struct {
	packages  string
	importers []string
	tests     []string // whose test files may, too
	why       string
}

var reservations = []reserved{
	{module + "/cmd/...", nil, nil,
		"commands are flags and wiring; whatever somebody else wants of them belongs elsewhere"},
	{module + "/bench/...", []string{"bench/...", "cmd/..."}, []string{"..."},
		"the product must not depend on what measures it"},
	{module + "/internal/app", []string{"cmd/...", "internal/demo", "internal/testtools/gatewaytest"}, []string{"internal/e2e/..."},
		"what needs the whole gateway is a program or an end-to-end test"},
	{module + "/internal/testtools/...", []string{"internal/conformance", "internal/testtools/..."}, []string{"..."},
		"it downloads and installs, which nothing but a test may do unasked"},
	{"github.com/valyala/fasthttp/...", []string{"gateway", "backends/transport", "bench/compare"}, nil,
		"its requests are recycled when a handler returns, so the rest of the code must not be able to hold one"},
	{"github.com/minio/minio-go/...", []string{"backends/store/s3"}, nil,
		"object stores are known in one place, so that the library can be exchanged"},
	{"github.com/spf13/cobra/...", []string{"cmd/..."}, nil,
		"command lines are the commands' business"},
	{"go.yaml.in/yaml/...", []string{"internal/config", "internal/flyte", "auth", "internal/demo", "bench/..."}, []string{"..."},
		"each kind of file is read strictly in one place; the rest gets checked values"},
}

// pkg is what `go list -json` tells of a package.
type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// list reads the packages of the module in dir.
func list(dir string) ([]pkg, error) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, stderr.Bytes())
	}
	var packages []pkg
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		switch err := decoder.Decode(&p); {
		case errors.Is(err, io.EOF):
			return packages, nil
		case err != nil:
			return nil, fmt.Errorf("go list: %w", err)
		}
		packages = append(packages, p)
	}
}

// check returns what breaks a rule, one line each, with the rule's reason.
func check(packages []pkg) []string {
	var problems []string
	for _, p := range packages {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		var in []layer
		for _, l := range layers {
			if l.packages == name {
				in = []layer{l}
				break
			}
			if covers(l.packages, name) {
				in = append(in, l)
			}
		}
		if len(in) != 1 {
			problems = append(problems, fmt.Sprintf("%s is in %d layers; give it one, with a reason", name, len(in)))
			continue
		}
		for _, imported := range p.Imports {
			problems = append(problems, in[0].judge(name, imported, false)...)
		}
		for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
			problems = append(problems, in[0].judge(name, imported, true)...)
		}
	}
	slices.Sort(problems)
	return slices.Compact(problems)
}

// judge holds one import of a package against its layer and against the reservations.
func (l layer) judge(name, imported string, test bool) []string {
	var problems []string
	who := name
	if test {
		who = "a test of " + name
	}
	for _, r := range reservations {
		if covers(r.packages, imported) && !covered(r.importers, name) && !(test && covered(r.tests, name)) {
			problems = append(problems, fmt.Sprintf("%s imports %s: %s", who, imported, r.why))
		}
	}
	ours, ok := strings.CutPrefix(imported, module+"/")
	switch {
	case !ok, ours == name, covered(l.imports, ours):
	case test && (covered(l.tests, ours) || covers("bench/...", ours) || covers("internal/testtools/...", ours)):
	default:
		problems = append(problems, fmt.Sprintf("%s imports %s: %s", who, imported, l.why))
	}
	return problems
}

func covered(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return covers(pattern, name) })
}

// covers matches as the go command does: "a/..." is a and all below it, "..." is everything.
func covers(pattern, name string) bool {
	if pattern == "..." {
		return true
	}
	if root, ok := strings.CutSuffix(pattern, "/..."); ok {
		return name == root || strings.HasPrefix(name, root+"/")
	}
	return pattern == name
}
