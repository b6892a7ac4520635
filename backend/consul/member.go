package consul

import "context"

// member reads something whenever it may have changed, as a hub notices.
//
// A program may have thousands of members, each in a goroutine that nearly always
// waits. The runtime shrinks the stack of such a goroutine to what it needs. So what
// lasts is in the member, and what is done before and after waiting is in methods that
// have returned by then.
type member struct {
	store *Store
	ctx   context.Context
	since moment // of the last read
	// read is called when something may have changed, and then show. The member ends
	// when read returns an error or show returns false.
	read func() error
	show func() (more bool)

	hub     *hub
	next    <-chan struct{} // closed when the round begins that the member waits for, or when the hub ends; nil if the round has begun
	counted bool            // the member counts in rounds.reading of the hub
	err     error
}

// run returns nil if show returned false.
func (m *member) run() error {
	m.hub = m.store.joinHub()
	defer m.store.leaveHub(m.hub)
	for more := m.begin(); more; more = m.advance() {
		m.wait()
	}
	return m.err
}

// begin waits until the hub notices changes, and reads what has changed before.
func (m *member) begin() (more bool) {
	h := m.hub
	select {
	case <-h.ready:
	case <-h.ctx.Done():
		m.err = context.Cause(h.ctx)
		return false
	case <-m.ctx.Done():
		m.err = m.ctx.Err()
		return false
	}
	missed := m.since.hub != h
	if missed {
		m.since = h.moment()
		return m.readAndShow()
	}
	m.chooseRound()
	return true
}

// chooseRound sets the round to wait for.
func (m *member) chooseRound() {
	r := &m.hub.rounds
	r.mu.Lock()
	defer r.mu.Unlock()
	m.next = nil
	if r.number == m.since.round {
		m.next = r.next
		r.waiting++
	}
}

func (m *member) wait() {
	if m.next == nil {
		return
	}
	// Each further case would take memory for as long as the member waits.
	select {
	case <-m.next:
	case <-m.ctx.Done():
	}
}

// advance does what there is to do after waiting, and reports whether to go on.
func (m *member) advance() (more bool) {
	if m.err = m.enterRound(); m.err != nil {
		return false
	}
	return m.readAndShow()
}

// enterRound returns an error if no round has begun and none will, or if the member's
// context is done.
func (m *member) enterRound() error {
	h := m.hub
	h.rounds.mu.Lock()
	defer h.rounds.mu.Unlock()
	if m.next != nil {
		select {
		case <-m.next:
			if h.rounds.number == m.since.round {
				return context.Cause(h.ctx)
			}
			m.counted = true
		default:
			h.rounds.waiting--
			return m.ctx.Err()
		}
	}
	m.since.round = h.rounds.number
	return nil
}

// readAndShow reports whether to go on.
func (m *member) readAndShow() (more bool) {
	m.err = m.read()
	if m.counted {
		// Before show: the loop that ranges over the sequence may take any time.
		m.hub.memberHasRead()
		m.counted = false
	}
	if m.err != nil || !m.show() {
		return false
	}
	m.chooseRound()
	return true
}
