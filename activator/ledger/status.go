package ledger

import "time"

// Status is who holds what, for operators. It is a copy.
type Status struct {
	Devices []DeviceStatus
	// Waiting are those who wait, next first.
	Waiting []WaitStatus
}

// DeviceStatus is one device.
type DeviceStatus struct {
	Device
	// Condition is usable, settling, quarantined or missing.
	Condition string
	Since     time.Time
	// Problem is why it is quarantined.
	Problem string
	Holders []HolderStatus
}

// HolderStatus is a replica on a device.
type HolderStatus struct {
	Replica
	// Share in thousandths; 1000: the whole device.
	Share   int
	Since   time.Time
	Leaving bool
}

// WaitStatus is a replica that waits for devices.
type WaitStatus struct {
	Replica
	Since  time.Time
	Reason string
}

// Status is a snapshot.
func (l *Ledger) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.core.status()
}

func (c *core) status() Status {
	var s Status
	for i, d := range c.devices {
		condition := d.condition.String()
		if d.Missing {
			condition = "missing"
		}
		ds := DeviceStatus{Device: d.Device, Condition: condition, Since: d.since, Problem: d.detail()}
		for _, h := range c.on(i) {
			ds.Holders = append(ds.Holders, HolderStatus{h.who, h.share, h.since, h.leaving})
		}
		s.Devices = append(s.Devices, ds)
	}
	for _, w := range c.ordered() {
		s.Waiting = append(s.Waiting, WaitStatus{w.who, w.since, w.reason})
	}
	return s
}

// reasonOf is why a replica waits.
func (c *core) reasonOf(who Replica) string {
	if w := c.wantOf(who); w != nil {
		return w.reason
	}
	return ""
}
