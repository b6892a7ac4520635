package hub

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/live"
	"github.com/naming-go/naming/migrate"
)

// Bridge is a Bridge of package bridge, as its entry in a registry describes it. Its texts are
// safe to print.
type Bridge struct {
	// Registry is the name of the registry that has the entry. It is empty if the Client of
	// the Hub is on one registry.
	Registry string `json:"registry,omitempty"`
	// Name is that of the migration and the direction. By names the process.
	Name string `json:"name"`
	By   string `json:"by"`
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
		return cmp.Or(cmp.Compare(a.Registry, b.Registry), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// appendBridges appends the Bridges of a View. An entry that is not of a Bridge is left out.
func appendBridges(list []Bridge, registry string, v *naming.View) []Bridge {
	for i := range v.Endpoints {
		var seat struct {
			Holder, By, Digest string
			Deletes            int
		}
		e := &v.Endpoints[i]
		if len(list) < maxBridges && json.Unmarshal(e.Metadata, &seat) == nil && seat.Holder != "" {
			list = append(list, Bridge{registry, naming.SafeText(e.ID), naming.SafeText(seat.By), seat.Deletes, naming.SafeText(seat.Digest), v.Stale()})
		}
	}
	return list
}
