package activator

// The times are in arbitrary units: only their order matters to the machine.
func exploreConfig(limits ...int) Config {
	c := Config{Min: 0, Max: 1, ScaledownAfter: 1, DrainTimeout: 1, BackoffMin: 1, BackoffMax: 1, Concurrency: 1}
	if len(limits) > 0 {
		c.Max = limits[0]
	}
	if len(limits) > 1 {
		c.Concurrency = limits[1]
	}
	return c
}

func scenarios() []*scenario {
	with := func(c Config, change func(*Config)) Config { change(&c); return c }
	surge := func(c *Config) { c.Surge = true }
	return []*scenario{
		{
			name: "idle", tenants: []string{"a", "b"}, budget: budget{crash: 1, cancel: 1}, config: exploreConfig(1, 1),
		},
		{
			name: "shared", tenants: []string{"a", "a", "a"}, budget: budget{crash: 1}, config: exploreConfig(1, 2),
		},
		{
			name: "cancels", tenants: []string{"a", "b", "a"}, budget: budget{cancel: 2}, config: exploreConfig(1, 1),
		},
		{
			name: "priorities", tenants: []string{"a", "A", "b"}, budget: budget{cancel: 1}, config: exploreConfig(1, 1),
		},
		{
			name: "charges", tenants: []string{"a", "b", "a"}, charges: true, budget: budget{crash: 1}, config: exploreConfig(1, 1),
		},
		{
			name: "scale", tenants: []string{"a", "a", "a"}, budget: budget{scale: 1}, scaleTo: 2, config: exploreConfig(2, 1),
		},
		{
			name: "scale and back", tenants: []string{"a"}, budget: budget{scale: 2, crash: 1}, scaleTo: 2,
			config: with(exploreConfig(2, 1), func(c *Config) { c.Min = 1 }),
		},
		{
			name: "surplus", tenants: []string{"a", "a"}, budget: budget{scale: 2}, scaleTo: 2, config: exploreConfig(2, 1),
		},
		{
			name: "surplus of one that hangs", tenants: []string{"a", "a"}, hung: 2, budget: budget{scale: 2}, scaleTo: 2, config: exploreConfig(2, 1),
		},
		{
			name: "surplus of two", tenants: []string{"a"}, budget: budget{scale: 2}, scaleTo: 3, config: exploreConfig(3, 1),
		},
		{
			name: "no room for one more", tenants: []string{"a"}, budget: budget{scale: 2, deny: 1, yield: 1}, scaleTo: 2, ledger: true, unwanted: true, config: exploreConfig(2, 1),
		},
		{
			name: "one more fails", tenants: []string{"a"}, budget: budget{scale: 1, startFail: 1, crash: 1}, scaleTo: 2, mayFail: true, permanent: true, config: exploreConfig(2, 1),
		},
		{
			name: "scale and update", tenants: []string{"a"}, budget: budget{scale: 2, update: 1}, scaleTo: 2, config: with(exploreConfig(2, 1), func(c *Config) { c.Min, c.Surge = 1, true }),
		},
		{
			name: "scale and sleep", tenants: []string{"a", "a"}, budget: budget{scale: 2}, scaleTo: 2,
			config: with(exploreConfig(2, 1), func(c *Config) { c.SleepAfter, c.ScaledownAfter = 1, 2 }),
		},
		{
			name: "bound", tenants: []string{"a", "a", "a"}, bound: 1, budget: budget{cancel: 1}, config: exploreConfig(1, 1), mayFail: true,
		},
		{
			name: "start failures", tenants: []string{"a", "a"}, budget: budget{startFail: 2, cancel: 1, crash: 1}, config: exploreConfig(1, 1), mayFail: true,
		},
		{
			name: "long backoff", tenants: []string{"a", "a"}, budget: budget{startFail: 1, crash: 1, retry: 1}, mayFail: true,
			config: with(exploreConfig(1, 1), func(c *Config) { c.BackoffMin, c.BackoffMax = 2*patience, 2*patience }),
		},
		{
			name: "permanent failure", tenants: []string{"a", "a"}, budget: budget{startFail: 1, retry: 1, scale: 1}, scaleTo: 2, mayFail: true, permanent: true,
			config: with(exploreConfig(2, 1), func(c *Config) { c.Min = 1 }),
		},
		{
			name: "failure and update", tenants: []string{"a", "a"}, budget: budget{startFail: 1, update: 1}, mayFail: true, permanent: true,
			config: exploreConfig(1, 1),
		},
		{
			name: "failing stops", tenants: []string{"a", "a"}, budget: budget{stopFail: stopTries - 1}, config: exploreConfig(1, 1),
		},
		{
			name: "sleep", tenants: []string{"a", "a"}, budget: budget{sleepFail: 1, wakeFail: 1, crash: 1},
			config: with(exploreConfig(1, 1), func(c *Config) { c.SleepAfter, c.ScaledownAfter = 1, 2 }),
		},
		{
			name: "sleep goes wrong", tenants: []string{"a", "a", "a"}, budget: budget{sleepFail: 2, wakeFail: 2, retry: 1},
			config: with(exploreConfig(1, 1), func(c *Config) { c.SleepAfter, c.ScaledownAfter = 1, 2 }),
		},
		{
			name: "two sleepers", tenants: []string{"a", "a"}, budget: budget{scale: 2, wakeFail: 1}, scaleTo: 2,
			config: with(exploreConfig(2, 1), func(c *Config) { c.SleepAfter, c.ScaledownAfter = 1, 2 }),
		},
		{
			name: "sleep and update", tenants: []string{"a", "a"}, budget: budget{update: 1, sleepFail: 1, wakeFail: 1, crash: 1},
			config: with(exploreConfig(1, 1), func(c *Config) { c.SleepAfter, c.ScaledownAfter = 1, 2 }),
		},
		{
			name: "sleep and yield", tenants: []string{"a", "a"}, budget: budget{yield: 1, preempt: 1, deny: 1, wakeFail: 1}, ledger: true, unwanted: true,
			config: with(exploreConfig(1, 1), func(c *Config) { c.SleepAfter, c.ScaledownAfter = 1, 2 }),
		},
		{
			name: "unload of a sleeper", tenants: []string{"a", "a"}, budget: budget{unload: 1, cancel: 1, sleepFail: 1, wakeFail: 1}, mayFail: true,
			config: with(exploreConfig(1, 1), func(c *Config) { c.SleepAfter, c.ScaledownAfter = 1, 2 }),
		},
		{
			name: "adopt and sleep", tenants: []string{"a", "a"}, budget: budget{adopt: 1, crash: 1, sleepFail: 1},
			config: with(exploreConfig(1, 2), func(c *Config) { c.SleepAfter, c.ScaledownAfter = 1, 2 }),
		},
		{
			name: "sleep and preemption", tenants: []string{"a", "a"}, budget: budget{preempt: 2}, ledger: true,
			config: with(exploreConfig(2, 1), func(c *Config) { c.SleepAfter, c.ScaledownAfter = 1, 2 }),
		},
		{
			name: "devices", tenants: []string{"a", "a"}, budget: budget{preempt: 1, deny: 1, update: 1}, ledger: true, mayFail: true, config: exploreConfig(1, 1),
		},
		{
			name: "yield", tenants: []string{"a", "a"}, budget: budget{yield: 1, preempt: 1, update: 1, deny: 1}, ledger: true, unwanted: true, config: exploreConfig(1, 1),
		},
		{
			name: "yield of one that hangs", tenants: []string{"a", "a"}, hung: 1, budget: budget{yield: 1, unload: 1, crash: 1}, mayFail: true, ledger: true, config: exploreConfig(2, 2),
		},
		{
			name: "update", tenants: []string{"a", "a"}, budget: budget{update: 2, crash: 1}, config: exploreConfig(1, 1),
		},
		{
			name: "update of two", tenants: []string{"a", "a"}, budget: budget{update: 1}, hung: 1, config: with(exploreConfig(2, 2), func(c *Config) { c.Min = 1 }),
		},
		{
			name: "replace", tenants: []string{"a", "a"}, budget: budget{update: 1, startFail: 1, crash: 1}, mayFail: true, config: with(exploreConfig(1, 1), surge),
		},
		{
			name: "replace again", tenants: []string{"a"}, budget: budget{update: 2, startFail: 1}, mayFail: true,
			config: with(exploreConfig(1, 1), func(c *Config) { c.Min, c.Surge = 1, true }),
		},
		{
			name: "replace in vain", tenants: []string{"a", "a"}, budget: budget{update: 1, startFail: 1, retry: 1}, mayFail: true, permanent: true, config: with(exploreConfig(1, 1), surge),
		},
		{
			name: "replace where there is room", tenants: []string{"a", "a"}, budget: budget{update: 1, deny: 1, preempt: 1}, ledger: true, mayFail: true, config: with(exploreConfig(1, 1), surge),
		},
		{
			name: "replace one who yields", tenants: []string{"a", "a"}, budget: budget{update: 1, deny: 1, yield: 1}, ledger: true, unwanted: true, config: with(exploreConfig(1, 1), surge),
		},
		{
			name: "replace two", tenants: []string{"a"}, budget: budget{update: 1, crash: 1},
			config: with(exploreConfig(2, 1), func(c *Config) { c.Min, c.Surge = 2, true }),
		},
		{
			name: "replace two one by one", tenants: []string{"a"}, budget: budget{update: 1, crash: 1}, config: with(exploreConfig(2, 1), func(c *Config) { c.Min = 2 }),
		},
		{
			name: "roll back", tenants: []string{"a", "a"}, budget: budget{update: 1, startFail: 1}, permanent: true, failNew: true, config: with(exploreConfig(1, 1), surge),
		},
		{
			name: "roll back after some tries", tenants: []string{"a", "a"}, budget: budget{update: 1, startFail: rollTries + 1}, failNew: true, config: with(exploreConfig(1, 1), surge),
		},
		{
			name: "roll back without room", tenants: []string{"a", "a"}, budget: budget{update: 1, startFail: 1, crash: 1}, failNew: true,
			config: with(exploreConfig(1, 1), func(c *Config) { c.Min = 1 }),
		},
		{
			name: "roll two back", tenants: []string{"a"}, budget: budget{update: 1, startFail: 1, deny: 1}, permanent: true, failNew: true, ledger: true, unwanted: true,
			config: with(exploreConfig(2, 1), func(c *Config) { c.Min, c.Surge = 2, true }),
		},
		{
			name: "there and back", tenants: []string{"a", "a"}, budget: budget{update: 2, startFail: 1}, back: true, failNew: true, config: with(exploreConfig(1, 1), surge),
		},
		{
			name: "two there and back", tenants: []string{"a"}, budget: budget{update: 2}, back: true,
			config: with(exploreConfig(2, 1), func(c *Config) { c.Min = 2 }),
		},
		{
			name: "replace and unload", tenants: []string{"a", "a"}, budget: budget{update: 1, unload: 1}, hung: 1, mayFail: true, config: with(exploreConfig(1, 2), surge),
		},
		{
			name: "replace those found", tenants: []string{"a"}, budget: budget{adopt: 2, deny: 1}, ledger: true, mayFail: true, config: with(exploreConfig(1, 1), surge),
		},
		{
			name: "replace sleepers", tenants: []string{"a", "a"}, budget: budget{update: 1, wakeFail: 1},
			config: with(exploreConfig(1, 1), func(c *Config) { c.SleepAfter, c.ScaledownAfter, c.Surge = 1, 2, true }),
		},
		{
			name: "unload", tenants: []string{"a", "a", "a"}, budget: budget{unload: 1, startFail: 1}, hung: 1, mayFail: true, config: exploreConfig(1, 1),
		},
		{
			name: "close sleepers", tenants: []string{"a", "a"}, budget: budget{close: 1, crash: 1}, mayFail: true, ledger: true,
			config: with(exploreConfig(1, 1), func(c *Config) { c.SleepAfter, c.ScaledownAfter = 1, 2 }),
		},
		{
			name: "adopt", tenants: []string{"a", "a"}, budget: budget{adopt: 1, preempt: 1, update: 1}, ledger: true, config: exploreConfig(1, 2),
		},
		{
			name: "close", tenants: []string{"a", "a", "a"}, budget: budget{unload: 1, close: 1, hurry: 1}, hung: 1, mayFail: true, config: exploreConfig(1, 1),
		},
		{
			// The one that closes 3 requests × 2 replicas × 2 crashes. Without pauses after crashes, which
			// "idle" has; with them it is five times as large.
			name: "crashes", coarse: true, tenants: []string{"a", "a", "a"}, budget: budget{crash: 2},
			config: with(exploreConfig(2, 1), func(c *Config) { c.Min, c.BackoffMin, c.BackoffMax = 2, 0, 0 }),
		},
	}
}
