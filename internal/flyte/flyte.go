// Package flyte reads Python files that deploy models with Flyte's SGLangAppEnvironment, and writes the configuration
// that serves the same models here. The files are parsed and never run, so that what only running them would tell
// (variables, functions, what a deployment resolves) becomes a comment for a person to fill in.
//
// The fields and their meaning are those of flyteplugins-sglang as of flyte-sdk 2.5. Everything here is safe for
// concurrent use.
package flyte

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"pilotlight/internal/flyte/python"
)

// File is one Python file.
type File struct {
	Name   string // as it is named in comments and errors
	Source string
}

// Result is a configuration made of files.
type Result struct {
	YAML   []byte
	Models int
	// Open counts the comments that ask a person for something.
	Open int
}

// ErrNoApp is files without an SGLangAppEnvironment.
var ErrNoApp = errors.New("no SGLangAppEnvironment(…) in it")

// Import reads the files together: apps of one may be cloned only in the same. The error is ErrNoApp, or names the
// file and line that is not Python.
func Import(files ...File) (*Result, error) {
	var apps []*app
	var names []string
	for _, file := range files {
		parsed, err := python.Parse(file.Source)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file.Name, err)
		}
		apps = append(apps, appsOf(file.Name, parsed)...)
		names = append(names, file.Name)
	}
	if len(apps) == 0 {
		return nil, fmt.Errorf("%s: %w", strings.Join(names, ", "), ErrNoApp)
	}
	result := &Result{Models: len(apps)}
	models := &yaml.Node{Kind: yaml.SequenceNode}
	for _, a := range apps {
		node, open := a.node()
		models.Content = append(models.Content, node)
		result.Open += open
	}
	head := "Made from " + oneLine(strings.Join(names, ", ")) + " by pilotlight import. Check it with: pilotlight check -c FILE"
	if result.Open > 0 {
		head += "\nLines with (!) ask for something that the file does not say, or that works otherwise here."
	}
	root := &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: "models", HeadComment: head}, models}}
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(root); err != nil {
		return nil, fmt.Errorf("writing the configuration: %w", err)
	}
	if err := encoder.Close(); err != nil {
		return nil, fmt.Errorf("writing the configuration: %w", err)
	}
	result.YAML = out.Bytes()
	return result, nil
}

// app is one environment: its arguments, with those of a clone on top.
type app struct {
	file      string
	line      int
	target    string // the variable that it is assigned to
	fields    []python.Argument
	declared  []python.Argument // fields before the app was cloned under its own name, as clones under other names see them
	others    []python.Source
	downloads map[string]string // prefetched repositories by the variable of their run, and by artifact
}

// get returns a field, nil if it is absent or None.
func (a *app) get(name string) python.Value {
	for i := len(a.fields) - 1; i >= 0; i-- {
		if a.fields[i].Name == name {
			if _, none := a.fields[i].Value.(python.None); none {
				return nil
			}
			return a.fields[i].Value
		}
	}
	return nil
}

// appsOf finds the environments of a file, and the clones of those that are variables.
func appsOf(file string, parsed *python.File) []*app {
	downloads := prefetched(parsed)
	var out []*app
	for _, call := range parsed.Calls("SGLangAppEnvironment") {
		out = append(out, &app{file: file, line: call.Line, target: call.Target, fields: call.Named, declared: call.Named, others: call.Others, downloads: downloads})
	}
	for _, call := range parsed.Calls("clone_with") {
		variable := strings.TrimSuffix(call.Function, ".clone_with")
		var base *app
		for _, a := range out {
			if a.target == variable && variable != "" {
				base = a
			}
		}
		if base == nil {
			continue
		}
		fields := append(base.declared[:len(base.declared):len(base.declared)], call.Named...)
		if name := call.Get("name"); name == python.Source(variable+".name") || name == base.get("name") || name == nil {
			// The same app, as it is served: its name stays that of the base.
			base.fields = append(fields, python.Argument{Name: "name", Value: base.get("name")})
			continue
		}
		out = append(out, &app{file: file, line: call.Line, target: call.Target, fields: fields, declared: fields, others: base.others, downloads: downloads})
	}
	return out
}

// prefetched finds what flyte.prefetch.hf_model brings: a repository by "VARIABLE.name" of its run, and by the name of
// its artifact, which is the repository's last part with dashes for dots.
func prefetched(parsed *python.File) map[string]string {
	out := map[string]string{}
	for _, call := range parsed.Calls("hf_model") {
		repo, ok := call.Get("repo").(python.Text)
		if !ok && len(call.Args) > 0 {
			repo, ok = call.Args[0].(python.Text)
		}
		if !ok || !strings.HasSuffix(call.Function, "prefetch.hf_model") && call.Function != "hf_model" {
			continue
		}
		if call.Target != "" {
			out[call.Target+".name"] = string(repo)
		}
		artifact := strings.ReplaceAll(string(repo[strings.LastIndexByte(string(repo), '/')+1:]), ".", "-")
		if name, ok := call.Get("artifact_name").(python.Text); ok {
			artifact = string(name)
		}
		out["artifact "+artifact] = string(repo)
	}
	return out
}
