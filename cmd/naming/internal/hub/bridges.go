package hub

import (
	"cmp"
	"context"
	"slices"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/live"
	"github.com/naming-go/naming/cmd/naming/internal/steer"
	"github.com/naming-go/naming/migrate"
)

// Bridge is a Bridge of package bridge, as its entry in a registry describes it. Its texts are
// safe to print.
type Bridge struct {
	// Registry is the name of the registry that has the entry. It is empty if the Client of
	// the Hub is on one registry.
	Registry string `json:"registry,omitempty"`
	// Name is that of the migration. Source and Target are the names of the registries
	// that it copies from and to. By names the process.
	Name   string `json:"name"`
	Source string `json:"source"`
	Target string `json:"target"`
	By     string `json:"by"`
	// Deletes is how many deletions wait for an approval, because the fuse has blown. It is
	// 0 while the fuse is whole. Digest is what an approval names.
	Deletes int    `json:"deletes"`
	Digest  string `json:"digest,omitempty"`
	// Stale says that the registry does not vouch for the entry now.
	Stale bool `json:"stale"`
}

// maxBridges is how many entries of Bridges are shown.
const maxBridges = 100

// RunBridges follows the entries of Bridges in one registry of a migration until ctx is done,
// and returns ctx.Err(). A Client on two registries does not list these entries, and reads one
// registry alone in some phases. registry is the name of the registry.
func (h *Hub) RunBridges(ctx context.Context, registry string, c *naming.Client) error {
	return live.Run(ctx, c, live.Options{Services: []string{migrate.BridgeService}, OnUpdate: func(u live.Update) { h.state.applyBridges(registry, u) }})
}

// applyBridges applies an update of the entries of Bridges.
func (s *state) applyBridges(registry string, u live.Update) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changes := changesOf(s.bridges[registry], u)
	s.bridges[registry] = u.View
	s.publish(changes)
}

// Bridges returns the Bridges that have an entry, sorted by registry and name. It is not nil.
func (h *Hub) Bridges() []Bridge {
	s := &h.state
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := []Bridge{}
	if service := s.services[migrate.BridgeService]; service != nil {
		list = appendBridges(list, "", &service.View)
	}
	for registry, v := range s.bridges {
		list = appendBridges(list, registry, &v)
	}
	slices.SortFunc(list, func(a, b Bridge) int {
		return cmp.Or(cmp.Compare(a.Registry, b.Registry), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Target, b.Target))
	})
	return list
}

// appendBridges appends the Bridges of a View. An entry that is not of a Bridge is left out.
func appendBridges(list []Bridge, registry string, v *naming.View) []Bridge {
	for _, seat := range steer.Seats(*v) {
		if len(list) < maxBridges {
			list = append(list, Bridge{registry, seat.Name, seat.Source, seat.Target, seat.By, max(0, seat.Deletes), seat.Digest, v.Stale()})
		}
	}
	return list
}
