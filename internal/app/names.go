package app

import (
	"pilotlight/gateway"
	"pilotlight/internal/config"
)

// linkModels makes the edge's models know the others that answer for them. They are in the order of c.
func linkModels(models []*gateway.Model, c *config.Config) {
	byName := make(map[string]*gateway.Model, len(models))
	for i, m := range models {
		byName[c.Models[i].Name] = m
	}
	for i, m := range models {
		names := &c.Models[i].Names
		m.Parameters = names.Parameters
		for _, s := range names.Split {
			m.Split = append(m.Split, gateway.Share{Model: byName[s.Model], Percent: s.Percent})
		}
		if names.Shadow.Model != "" {
			m.Shadow = gateway.Share{Model: byName[names.Shadow.Model], Percent: names.Shadow.Percent}
		}
		f := names.Fallback
		m.Fallback = gateway.Fallback{After: f.After, Cold: f.Cold, Full: f.Full, Failed: f.Failed}
		for _, name := range f.Models {
			m.Fallback.Models = append(m.Fallback.Models, byName[name])
		}
	}
}
