package consul

import (
	"math"
	"slices"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming/backend/consul/internal/wire"
)

// maxNumber is the highest number of a registration. No registration can be put above
// it.
const maxNumber = math.MaxUint64

// registration is a registration of an endpoint with the agent.
type registration struct {
	name       string // of the service, Consul's
	endpointID string
	number     uint64
	service    *api.AgentServiceRegistration // not changed once it was made
	lease      *lease                        // nil: none

	listed bool   // it was in the catalogue, or an earlier one with its service ID was; guarded by lease.mu
	token  string // that it was registered with; guarded by lease.mu
}

// renumbered returns the same registration with another number, not made yet.
func (r *registration) renumbered(number uint64) *registration {
	return &registration{
		name: r.name, endpointID: r.endpointID, number: number, lease: r.lease,
		service: wire.Renumber(r.service, number),
	}
}

// entry returns the entry of the registration, as far as a later change needs it.
func (r *registration) entry() *wire.Entry { return wire.EntryOf(r.service) }

// findIn returns the entry of the registration, nil if entries has none, and the
// highest number of the other entries.
func (r *registration) findIn(entries []*wire.Entry) (mine *wire.Entry, others uint64) {
	for _, i := range entries {
		if i.Service.ID == r.service.ID && i.Number() == r.number {
			mine = i
		} else {
			others = max(others, i.Number())
		}
	}
	return mine, others
}

// maintenanceCheck returns the check to register with if an operator put another entry
// of the endpoint into maintenance mode: the new registration is to be out of use from
// the first moment, under whichever lease. The check is the one that Consul's
// maintenance mode makes, and ends in the same way. A registration that has the check
// already keeps it.
func maintenanceCheck(serviceID string, old []*wire.Entry) api.AgentServiceChecks {
	note, ok := wire.MaintenanceOf(old)
	if !ok || slices.ContainsFunc(old, func(i *wire.Entry) bool { return i.Service.ID == serviceID }) {
		return nil
	}
	return api.AgentServiceChecks{{
		CheckID: api.ServiceMaintPrefix + serviceID,
		Name:    "Service Maintenance Mode",
		Notes:   note,
		Status:  api.HealthCritical,
		TTL:     "87600h", // an agent accepts only checks that it can run
	}}
}
