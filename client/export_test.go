package client

// What tests outside the package look at.
const (
	FrameBytes = frameBytes
	LookupsMax = lookupsMax
	Tick       = tick
)

// Held is what counts against the core's bounds.
func (c *Core) Held() (ops, bytes int64) { return c.held.ops.Load(), c.held.bytes.Load() }

// WhenOpened is called within a turn.
func (c *Core) WhenOpened(done func(error)) { c.post(func() { c.whenOpened(done) }) }

// Alarms is how many alarms are set. It is called between turns.
func (c *Core) Alarms() int { return c.alarms.count }
