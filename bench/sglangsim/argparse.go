package sglangsim

import (
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// usageError is a command line that argparse refuses: usage and message on stderr, exit code 2.
type usageError string

func (e usageError) Error() string { return string(e) }

// errHelp is returned for -h and --help.
var errHelp = errors.New("help requested")

// parsedArgs holds what the command line said, by attribute name; a list option keeps all its values.
type parsedArgs struct {
	values map[string][]string
	sim    map[string]string // the simulator's own flags, by name without dashes
}

func (p *parsedArgs) last(dest string) (string, bool) {
	v := p.values[dest]
	if len(v) == 0 {
		return "", false
	}
	return v[len(v)-1], true
}

func (p *parsedArgs) bool(dest string) bool { v, _ := p.last(dest); return v == "True" }

// negativeNumber is argparse's own pattern for values that begin with a dash and are no options.
var negativeNumber = regexp.MustCompile(`^-\d+$|^-\d*\.\d+$`)

// parseArgs reads args as SGLang's parser would: exact names, --name=value, unique prefixes (argparse's allow_abbrev),
// and everything unknown collected into one message. The simulator's flags match by their exact name only, so that
// they cannot make an abbreviation of a real flag ambiguous.
func parseArgs(args []string) (*parsedArgs, error) {
	positional := false
	switch {
	case len(args) >= 2 && args[0] == "-m" && args[1] == "sglang.launch_server": // stands in for the Python interpreter
		args = args[2:]
	case len(args) >= 1 && args[0] == "launch_server":
		args = args[1:]
	case len(args) >= 1 && args[0] == "serve": // `sglang serve MODEL`
		args, positional = args[1:], true
	}
	args, err := expandConfig(args)
	if err != nil {
		return nil, err
	}
	p := &parsedArgs{values: map[string][]string{}, sim: map[string]string{}}
	var unknown []string
	for i := 0; i < len(args); {
		arg := args[i]
		i++
		if arg == "-h" || arg == "--help" {
			return nil, errHelp
		}
		if !looksLikeOption(arg) {
			if _, has := p.last("model_path"); positional && !has {
				p.values["model_path"] = []string{arg}
			} else {
				unknown = append(unknown, arg)
			}
			continue
		}
		name, value, hasValue := strings.Cut(arg, "=")
		if strings.HasPrefix(name, "--sim-") {
			used, err := p.takeSim(name, value, hasValue, args[i:])
			if err != nil {
				return nil, err
			}
			if used < 0 {
				unknown = append(unknown, arg)
				continue
			}
			i += used
			continue
		}
		f, err := findFlag(name)
		if err != nil {
			return nil, err
		}
		if f == nil {
			unknown = append(unknown, arg)
			continue
		}
		used, err := p.take(f, name, value, hasValue, args[i:])
		if err != nil {
			return nil, err
		}
		i += used
	}
	if _, ok := p.last("model_path"); !ok {
		return nil, usageError("the following arguments are required: --model-path/--model")
	}
	if len(unknown) > 0 {
		return nil, usageError("unrecognized arguments: " + strings.Join(unknown, " "))
	}
	return p, nil
}

func looksLikeOption(arg string) bool {
	return len(arg) > 1 && arg[0] == '-' && !negativeNumber.MatchString(arg) && !strings.Contains(arg, " ") ||
		strings.HasPrefix(arg, "--") && strings.Contains(arg, "=")
}

// findFlag resolves a name or a unique prefix of one; nil means that there is none.
func findFlag(name string) (*flagSpec, error) {
	if !strings.HasPrefix(name, "--") {
		return nil, nil
	}
	var hits []string
	var hit *flagSpec
	for _, f := range knownFlags() {
		if slices.Contains(f.names, name) {
			return f, nil
		}
		for _, n := range f.names {
			if strings.HasPrefix(n, name) {
				hits, hit = append(hits, n), f
			}
		}
	}
	if len(hits) > 1 {
		return nil, usageError(fmt.Sprintf("ambiguous option: %s could match %s", name, strings.Join(hits, ", ")))
	}
	return hit, nil
}

// take stores one option and tells how many of the following arguments were its values.
func (p *parsedArgs) take(f *flagSpec, name, value string, hasValue bool, rest []string) (int, error) {
	if f.kind == kindBool || f.kind == kindNegate {
		if hasValue {
			return 0, usageError(fmt.Sprintf("argument %s: ignored explicit argument '%s'", f.display(), value))
		}
		p.values[f.dest] = []string{"True"}
		if f.kind == kindNegate && strings.HasPrefix(name, "--no-") {
			p.values[f.dest] = []string{"False"}
		}
		return 0, nil
	}
	var values []string
	used := 0
	if hasValue {
		values = []string{value}
	} else {
		for used < len(rest) && !looksLikeOption(rest[used]) && (used == 0 || f.kind == kindList) {
			values = append(values, rest[used])
			used++
		}
	}
	if len(values) == 0 {
		if f.kind == kindList {
			return 0, usageError(fmt.Sprintf("argument %s: expected at least one argument", f.display()))
		}
		return 0, usageError(fmt.Sprintf("argument %s: expected one argument", f.display()))
	}
	for i, v := range values {
		v, err := f.check(v)
		if err != nil {
			return 0, err
		}
		values[i] = v
	}
	p.values[f.dest] = values
	return used, nil
}

// check validates one value and brings numbers to plain digits.
func (f *flagSpec) check(v string) (string, error) {
	switch f.kind {
	case kindInt:
		if _, err := strconv.Atoi(v); err != nil {
			return "", usageError(fmt.Sprintf("argument %s: invalid int value: '%s'", f.display(), v))
		}
	case kindFloat:
		if _, err := strconv.ParseFloat(v, 64); err != nil {
			return "", usageError(fmt.Sprintf("argument %s: invalid float value: '%s'", f.display(), v))
		}
	case kindHuman:
		n, err := humanInt(v)
		if err != nil {
			return "", usageError(fmt.Sprintf("argument %s: %v", f.display(), err))
		}
		return strconv.Itoa(n), nil
	case kindChoice:
		if !slices.Contains(f.choices, v) {
			return "", usageError(fmt.Sprintf("argument %s: invalid choice: '%s' (choose from '%s')", f.display(), v, strings.Join(f.choices, "', '")))
		}
	}
	return v, nil
}

// humanInt reads 8192, 32k, 1M (decimal) or 64Ki (binary), as SGLang's size options do.
func humanInt(v string) (int, error) {
	digits := strings.TrimRight(v, "kKmMgGtTi")
	unit := v[len(digits):]
	n, err := strconv.ParseFloat(digits, 64)
	factor, ok := map[string]float64{
		"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12,
		"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40,
	}[strings.ToLower(unit)]
	if err != nil || !ok || n != math.Trunc(n) && factor == 1 {
		return 0, fmt.Errorf("invalid human_readable_int value: '%s'", v)
	}
	return int(n * factor), nil
}

// expandConfig replaces `--config FILE` by the options that the YAML file holds, before all others, so that the
// command line wins. True booleans become bare flags; false ones are left out.
func expandConfig(args []string) ([]string, error) {
	i := slices.Index(args, "--config")
	if i < 0 {
		return args, nil
	}
	if i+1 >= len(args) {
		return nil, usageError("argument --config: expected one argument")
	}
	data, err := os.ReadFile(args[i+1])
	if err != nil {
		return nil, fmt.Errorf("reading the configuration file: %w", err)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return nil, fmt.Errorf("reading the configuration file: %w", err)
	}
	if len(root.Content) != 1 || root.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("config file must contain a dictionary at root level")
	}
	var expanded []string
	pairs := root.Content[0].Content
	for k := 0; k+1 < len(pairs); k += 2 {
		name, value := "--"+strings.ReplaceAll(pairs[k].Value, "_", "-"), pairs[k+1]
		switch {
		case value.Tag == "!!bool" && strings.EqualFold(value.Value, "true"):
			expanded = append(expanded, name)
		case value.Tag == "!!bool", value.Tag == "!!null":
		case value.Kind == yaml.SequenceNode:
			expanded = append(expanded, name)
			for _, item := range value.Content {
				expanded = append(expanded, item.Value)
			}
		default:
			expanded = append(expanded, name, value.Value)
		}
	}
	return slices.Concat(expanded, args[:i], args[i+2:]), nil
}
