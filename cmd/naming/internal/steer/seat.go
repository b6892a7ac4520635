package steer

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

// Seat is a bridge that works, as its entry in the election's registry says.
type Seat struct {
	// Name is the name of the migration. Source and Target are the names of the
	// registries.
	Name   string `json:"name"`
	Source string `json:"source"`
	Target string `json:"target"`
	// By is the host and the process of the bridge.
	By    string `json:"by,omitempty"`
	Epoch uint64 `json:"epoch"`
	// Deletes is how many deletions wait for an approval of Digest. Digest is empty while
	// the fuse is whole.
	Deletes int    `json:"deletes,omitempty"`
	Digest  string `json:"digest,omitempty"`
	// Registry is "old" or "new": the registry of the election.
	Registry string `json:"registry,omitempty"`
}

// maxSeat bounds the metadata of an entry. Any program may have written the entry.
const maxSeat = 4 << 10

// Seats returns the bridges that the entries of [migrate.BridgeService] name, sorted by name
// and direction.
func Seats(v naming.View) []Seat {
	var list []Seat
	for _, e := range v.Endpoints {
		parts := strings.Split(e.ID, "~")
		if len(parts) != 3 || len(e.Metadata) > maxSeat {
			continue // an approval has four parts
		}
		s := Seat{}
		if json.Unmarshal(e.Metadata, &s) != nil {
			continue
		}
		s.Name, s.Source, s.Target = parts[0], parts[1], parts[2]
		if migrate.CheckName(s.Name) != nil || migrate.CheckName(s.Source) != nil || migrate.CheckName(s.Target) != nil {
			continue
		}
		s.By, s.Digest = naming.SafeText(s.By), naming.SafeText(s.Digest)
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b Seat) int { return strings.Compare(a.id(), b.id()) })
	return list
}

func (s *Seat) id() string { return s.Name + "~" + s.Source + "~" + s.Target }
