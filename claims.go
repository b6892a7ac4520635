package naming

import (
	"slices"
	"sync"
)

// claims says which Registrations of a Client own the entries that they put.
type claims struct {
	mu      sync.Mutex          // may be held when leases.mu is taken
	byEntry map[claimKey]*claim // guarded by mu
}

type claimKey struct{ service, id string }

// claim is the Registrations of one entry. The newest one owns it.
type claim struct {
	claims *claims
	key    claimKey
	busy   chan struct{} // capacity 1: holds a token while one of them is in the store

	// Guarded by claims.mu.
	open      []claimant     // oldest first; never empty while the claim is in claims
	inherited []*sharedLease // of Registrations that were closed while a newer one owned the entry, which may be under one of them
}

// claimant is a Registration and a channel that is closed when it ceases to own the
// entry. The channel is nil until somebody waits for it.
type claimant struct {
	*announcer
	lost chan struct{}
}

// add makes g, which is new, the owner of its entry, and wakes the owner of before.
func (cs *claims) add(g *announcer) {
	if older := cs.insert(g); older != nil {
		older.poke()
	}
}

// insert makes g the owner, and returns the owner of before, or nil.
func (cs *claims) insert(g *announcer) (older *announcer) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	key := claimKey{g.service, g.id}
	c := cs.byEntry[key]
	if c == nil {
		c = &claim{claims: cs, key: key, busy: make(chan struct{}, 1)}
		if cs.byEntry == nil {
			cs.byEntry = make(map[claimKey]*claim)
		}
		cs.byEntry[key] = c
	}
	g.claim = c
	if o := c.owner(); o != nil {
		older = o.announcer
		if o.lost != nil {
			close(o.lost)
			o.lost = nil
		}
	}
	c.open = append(c.open, claimant{announcer: g})
	return older
}

// owner returns the owner, or nil. claims.mu is held.
func (c *claim) owner() *claimant {
	if len(c.open) == 0 {
		return nil
	}
	return &c.open[len(c.open)-1]
}

// owns reports whether g is the owner. claims.mu is held.
func (c *claim) owns(g *announcer) bool {
	o := c.owner()
	return o != nil && o.announcer == g
}

// newest returns the owner, or nil.
func (c *claim) newest() *announcer {
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	if o := c.owner(); o != nil {
		return o.announcer
	}
	return nil
}

func (c *claim) isOwner(g *announcer) bool {
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	return c.owns(g)
}

// ownershipLost returns a channel that is closed when g is not the owner.
func (c *claim) ownershipLost(g *announcer) <-chan struct{} {
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	if !c.owns(g) {
		lost := make(chan struct{})
		close(lost)
		return lost
	}
	o := c.owner()
	if o.lost == nil {
		o.lost = make(chan struct{})
	}
	return o.lost
}

// resign removes g. The next newest Registration then owns the entry, and is woken.
// If g is the owner and has leases to inherit, which it has to release first, resign
// does nothing and reports false.
func (c *claim) resign(g *announcer) bool {
	heir, ok := c.removeUnlessHeir(g)
	if heir != nil {
		heir.poke()
	}
	return ok
}

// removeUnlessHeir is resign. It returns the new owner, if there is one, which the
// caller wakes.
func (c *claim) removeUnlessHeir(g *announcer) (heir *announcer, ok bool) {
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	owned := c.owns(g)
	if owned && len(c.inherited) > 0 {
		return nil, false
	}
	c.remove(g)
	if next := c.owner(); owned && next != nil {
		heir = next.announcer
	}
	return heir, true
}

// bequeath removes g and leaves leases to the owner. If g is the owner, it does
// nothing and reports false.
func (c *claim) bequeath(g *announcer, leases ...*sharedLease) bool {
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	if c.owns(g) {
		return false
	}
	c.inherited = append(c.inherited, leases...)
	c.remove(g)
	return true
}

// addOrphan has lease l remove g's entry when the registry can be reached. If g is not
// the owner, it does nothing and reports false: the entry may be a newer Registration's,
// under the same lease.
func (c *claim) addOrphan(g *announcer, l *sharedLease) bool {
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	if !c.owns(g) {
		return false
	}
	l.addOrphan(g.service, g.id)
	return true
}

// remove removes g, and closes the channel of those that wait until g is not the
// owner. claims.mu is held.
func (c *claim) remove(g *announcer) {
	c.open = slices.DeleteFunc(c.open, func(o claimant) bool {
		if o.announcer != g {
			return false
		}
		if o.lost != nil {
			close(o.lost)
		}
		return true
	})
	if len(c.open) == 0 && c.claims.byEntry[c.key] == c {
		delete(c.claims.byEntry, c.key)
	}
}

// inheritLeases returns the leases that were left to the owner, which g has to
// release. It returns none if g is not the owner.
func (c *claim) inheritLeases(g *announcer) []*sharedLease {
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	if !c.owns(g) {
		return nil
	}
	leases := c.inherited
	c.inherited = nil
	return leases
}
