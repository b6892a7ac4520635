package naming

import (
	"slices"
	"sync"
)

// claims are who owns the entries that the Registrations of a Client put.
type claims struct {
	mu     sync.Mutex
	claims map[claimKey]*claim
}

type claimKey struct{ service, id string }

// claim is the Registrations of one entry. The newest one owns it.
type claim struct {
	claims *claims
	key    claimKey
	busy   chan struct{} // capacity 1: holds a token while one of them is in the store

	// Guarded by claims.mu.
	open []claimant     // oldest first; never empty
	left []*sharedLease // of Registrations that were closed while a newer one owned the entry; it may be under one of them
}

// claimant is a Registration, and a channel that is closed when it does not own the
// entry; nil until somebody waits for that.
type claimant struct {
	*Registration
	lost chan struct{}
}

// push makes g, which is new, the owner of its entry.
func (cs *claims) push(g *Registration) {
	cs.mu.Lock()
	key := claimKey{g.service, g.id}
	c := cs.claims[key]
	if c == nil {
		c = &claim{claims: cs, key: key, busy: make(chan struct{}, 1)}
		if cs.claims == nil {
			cs.claims = make(map[claimKey]*claim)
		}
		cs.claims[key] = c
	}
	g.claim = c
	var older *Registration
	if n := len(c.open); n > 0 {
		older = c.open[n-1].Registration
		if lost := c.open[n-1].lost; lost != nil {
			close(lost)
			c.open[n-1].lost = nil
		}
	}
	c.open = append(c.open, claimant{Registration: g})
	cs.mu.Unlock()
	if older != nil {
		older.poke()
	}
}

// owner returns the owner. claims.mu is held.
func (c *claim) owner() *claimant {
	if len(c.open) == 0 {
		return nil
	}
	return &c.open[len(c.open)-1]
}

// owns reports whether g is the owner. claims.mu is held.
func (c *claim) owns(g *Registration) bool {
	o := c.owner()
	return o != nil && o.Registration == g
}

// newest returns the owner, or nil.
func (c *claim) newest() *Registration {
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	if o := c.owner(); o != nil {
		return o.Registration
	}
	return nil
}

func (c *claim) isOwner(g *Registration) bool {
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	return c.owns(g)
}

// lost returns a channel that is closed when g is not the owner.
func (c *claim) lost(g *Registration) <-chan struct{} {
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

// leave removes g, and reports false if g is the owner and there are leases left to
// it, which it has to see to first. The next newest then owns the entry.
func (c *claim) leave(g *Registration) bool {
	c.claims.mu.Lock()
	if c.owns(g) && len(c.left) > 0 {
		c.claims.mu.Unlock()
		return false
	}
	owned := c.owns(g)
	c.remove(g)
	next := c.owner()
	var heir *Registration
	if owned && next != nil {
		heir = next.Registration
	}
	c.claims.mu.Unlock()
	if heir != nil {
		heir.poke()
	}
	return true
}

// bequeath removes g and leaves leases to the owner. It reports false, and does
// nothing, if g is the owner.
func (c *claim) bequeath(g *Registration, leases ...*sharedLease) bool {
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	if c.owns(g) {
		return false
	}
	c.left = append(c.left, leases...)
	c.remove(g)
	return true
}

// remove removes g, and those who wait until g is not the owner learn it. claims.mu
// is held.
func (c *claim) remove(g *Registration) {
	c.open = slices.DeleteFunc(c.open, func(o claimant) bool {
		if o.Registration != g {
			return false
		}
		if o.lost != nil {
			close(o.lost)
		}
		return true
	})
	if len(c.open) == 0 && c.claims.claims[c.key] == c {
		delete(c.claims.claims, c.key)
	}
}

// takeLeft returns the leases that were left, for g to leave; none if g is not the
// owner.
func (c *claim) takeLeft(g *Registration) []*sharedLease {
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	if !c.owns(g) {
		return nil
	}
	left := c.left
	c.left = nil
	return left
}
