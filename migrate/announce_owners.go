package migrate

import (
	"cmp"
	"slices"
	"sync"
)

// owners says which announcement of a joined Client owns an endpoint: the newest one. An
// older one does not register the endpoint while a newer one is open. Otherwise the
// older one's registration would be the newest one in the Client of that registry.
type owners struct {
	mu     sync.Mutex          // may be held when announcementState.mu is taken
	claims map[claimKey]*claim // guarded by mu
}

type claimKey struct{ service, id string }

// claim is the announcements of one endpoint. owners.mu guards all fields.
type claim struct {
	key  claimKey
	open []*announcement // oldest first
}

// owner returns the newest announcement, or nil. owners.mu is held.
func (c *claim) owner() *announcement {
	if len(c.open) == 0 {
		return nil
	}
	return c.open[len(c.open)-1]
}

// add makes a, which is new, the owner of its endpoint, and returns the owner of before
// or nil. It registers a in the registries that its plan writes, and in those in which
// the owner of before is. It returns an error if a registry's Client was closed.
func (o *owners) add(a *announcement) (older *announcement, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	key := claimKey{a.service, a.id}
	c := o.claims[key]
	if c == nil {
		c = &claim{key: key}
	}
	older = c.owner()
	for i, p := range a.parts {
		if !a.state.writes(sideIndex(i)) && (older == nil || !older.state.isPresent(sideIndex(i))) {
			continue
		}
		if err := p.register(); err != nil {
			return nil, err // the Client that was closed closes the registrations
		}
	}
	if o.claims == nil {
		o.claims = make(map[claimKey]*claim)
	}
	o.claims[key] = c
	a.claim = c
	c.open = append(c.open, a)
	return older, nil
}

// ifNewest calls f if a owns its endpoint, and reports whether that is so. No newer
// announcement begins before f has returned. f must not call methods of owners.
func (o *owners) ifNewest(a *announcement, f func() error) (newest bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if a.claim.owner() != a {
		return false, nil
	}
	return true, f()
}

func (o *owners) isNewest(a *announcement) bool { return o.newest(a.claim) == a }

// newest returns the owner of a claim, or nil.
func (o *owners) newest(c *claim) *announcement {
	o.mu.Lock()
	defer o.mu.Unlock()
	return c.owner()
}

// remove removes a. owned says that a owned the endpoint. heir is the announcement that then
// owns the endpoint instead of a, which the caller wakes, or nil. The heir registers where
// a was, as add does: the registry that counts may not have the endpoint of the heir yet.
func (o *owners) remove(a *announcement) (heir *announcement, owned bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := a.claim
	owned = c.owner() == a
	c.open = slices.DeleteFunc(c.open, func(b *announcement) bool { return b == a })
	if len(c.open) == 0 {
		delete(o.claims, c.key)
	}
	if !owned {
		return nil, false
	}
	if heir = c.owner(); heir != nil {
		heir.state.inherit([2]bool{a.state.isPresent(oldSide), a.state.isPresent(newSide)})
	}
	return heir, true
}

// of returns the announcements of a service that own their endpoints, in the order of the
// endpoints' IDs.
func (o *owners) of(service string) []*announcement {
	o.mu.Lock()
	defer o.mu.Unlock()
	var list []*announcement
	for key, c := range o.claims {
		if key.service == service {
			list = append(list, c.owner())
		}
	}
	slices.SortFunc(list, func(a, b *announcement) int { return cmp.Compare(a.id, b.id) })
	return list
}
