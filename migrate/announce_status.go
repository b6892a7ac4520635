package migrate

import (
	"time"

	"github.com/naming-go/naming"
)

// RegistrationSides is the status of a Registration of a joined Client, in each registry.
type RegistrationSides struct {
	// ID is the ID of the endpoint.
	ID string
	// Status is the status of the Registration.
	Status naming.RegistrationStatus
	// Sides has the old registry first.
	Sides [2]RegistrationSide
}

// RegistrationSide is the status of a Registration in one registry.
type RegistrationSide struct {
	// Registry is the name of the registry.
	Registry string
	// Written says that the phase has the endpoint in the registry, and that the registry
	// is not read-only.
	Written bool
	// Counts says that the status of the Registration is that of this registry.
	Counts bool
	// Present says that the endpoint is in the registry, or is to be. It is also true
	// while the endpoint waits to leave the registry.
	Present bool
	// Status is the status in this registry. It is zero if Present is false.
	Status naming.RegistrationStatus
	// LeavingSince is since when the phase no longer has the endpoint in the registry. It
	// is zero if the endpoint does not wait to leave the registry.
	LeavingSince time.Time
	// Waits says what an endpoint waits for that is to leave the registry. It is empty
	// for all other endpoints.
	Waits string
}

// registrations returns the status of the Registrations of a service, in the order of the
// endpoints' IDs. Of several Registrations of one endpoint, it has the newest.
func (j *Joined) registrations(service string) []RegistrationSides {
	var list []RegistrationSides
	for _, a := range j.owners.of(service) {
		list = append(list, a.sides())
	}
	return list
}

func (a *announcement) sides() RegistrationSides {
	s := &a.state
	s.mu.Lock()
	defer s.mu.Unlock()
	r := RegistrationSides{ID: a.id, Status: s.status}
	for i := range r.Sides {
		side := &r.Sides[i]
		*side = RegistrationSide{
			Registry: a.joined.sides[i].name, Written: s.plan.written[i], Counts: s.plan.counting == sideIndex(i),
		}
		side.Status, side.Present = s.partStatusLocked(sideIndex(i))
		if side.Present && !side.Written {
			side.LeavingSince, side.Waits = s.unwritten[i], s.waitsFor()
		}
	}
	return r
}

// waitsFor says what an endpoint waits for that is to leave a registry. mu is held.
func (s *announcementState) waitsFor() string {
	if s.plan.counting != noSide && !s.status.Registered {
		return "the endpoint is not yet in the registry that counts"
	}
	return "readers get time to learn that the endpoint is in the other registry"
}
