package naming

// step is one link of the chain that a shared watch appends to. Any number of readers
// walk the chain, each at its own pace and without the watch's lock: a step is complete
// when ready is closed, and never modified afterwards. A reader that holds a step holds
// all steps after it. Readers that fell behind are moved to the end of the chain from
// time to time (shared.sweep), so that the garbage collector frees the steps.
type step struct {
	ready   chan struct{} // closed when changes and next are set
	changes []change      // sorted by ID, each ID once; empty if only the status changed
	next    *step
}

func newStep() *step { return &step{ready: make(chan struct{})} }

// after returns the step after t, or nil before that step exists.
func (t *step) after() *step {
	select {
	case <-t.ready:
		return t.next
	default:
		return nil
	}
}

// chain is the end of the chain. It is part of shared, and guarded by its mu.
type chain struct {
	tail    *step // is filled next
	version int   // counts the steps
	length  int   // changes and steps since the last sweep
}

// append fills the step at the end, which wakes the readers that wait for it. It
// returns the step.
func (c *chain) append(changes []change) *step {
	t := c.tail
	t.changes, t.next = changes, newStep()
	c.tail = t.next
	c.version++
	close(t.ready)
	c.length += len(changes) + 1
	return t
}
