package flyte

import (
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"

	"pilotlight/internal/flyte/python"
)

func (m *model) scaling() {
	call := m.call("scaling", "Scaling")
	if call == nil {
		return
	}
	node := &yaml.Node{Kind: yaml.MappingNode}
	switch v := call.Get("replicas").(type) {
	case nil:
	case python.Number:
		add(node, "replicas", number(v))
	case python.List:
		list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, item := range v {
			if n, ok := item.(python.Number); ok {
				list.Content = append(list.Content, number(n))
			} else {
				m.unknown("scaling.replicas", item)
			}
		}
		add(node, "replicas", list)
	default:
		m.unknown("scaling.replicas", v)
	}
	switch metric := call.Get("metric").(type) {
	case nil, python.None:
	case *python.Call:
		name := map[string]string{"Concurrency": "concurrency", "RequestRate": "request_rate"}[last(metric.Function)]
		value := metric.Get("val")
		if len(metric.Args) > 0 {
			value = metric.Args[0]
		}
		if n, ok := value.(python.Number); ok && name != "" {
			add(node, "metric", mapping(name, number(n)))
		} else {
			m.unknown("scaling.metric", metric)
		}
	default:
		m.unknown("scaling.metric", metric)
	}
	if seconds, ok := m.seconds("scaling.scaledown_after", call.Get("scaledown_after")); ok {
		add(node, "scaledown_after", seconds)
	}
	if len(node.Content) > 0 {
		m.put("scaling", node, "")
	}
}

// seconds reads a number of seconds or timedelta(minutes=5).
func (m *model) seconds(field string, value python.Value) (*yaml.Node, bool) {
	switch v := value.(type) {
	case nil, python.None:
		return nil, false
	case python.Number:
		return number(v), true
	case *python.Call:
		total, ok := 0.0, last(v.Function) == "timedelta"
		unit := map[string]float64{"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1, "milliseconds": 0.001, "weeks": 7 * 86400}
		arguments := slices.Clone(v.Named)
		for i, item := range v.Args {
			if i > 1 {
				ok = false
				break
			}
			arguments = append(arguments, python.Argument{Name: []string{"days", "seconds"}[i], Value: item})
		}
		for _, a := range arguments {
			n, isNumber := a.Value.(python.Number)
			f, err := strconv.ParseFloat(string(n), 64)
			if !isNumber || err != nil || unit[a.Name] == 0 {
				ok = false
			}
			total += f * unit[a.Name]
		}
		if ok {
			return scalar("", strconv.FormatFloat(total, 'f', -1, 64)), true
		}
	}
	m.unknown(field, value)
	return nil, false
}
