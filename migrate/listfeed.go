package migrate

import (
	"github.com/naming-go/naming"
)

// BridgeService is the name of the service in which the Bridges of package bridge elect the
// one that works.
const BridgeService = "naming/bridge"

// isOwnService reports whether a service belongs to migrations and has no servers. A joined
// Client leaves such a service out of the list of services.
func isOwnService(name string) bool { return name == RecordService || name == BridgeService }

// listChoice returns how the list of services is read. It is read from one registry alone
// if all phases read that registry alone. Which service is in which registry is not known
// before it is read, so the phases of single services do not narrow the list.
func (j *Joined) listChoice() choice {
	states := j.phases.Services()
	if _, ok := states["*"]; !ok {
		return choice{lead: oldSide}
	}
	var reads [2]bool
	for service, s := range states {
		c := choose(s, s.Valid() == nil, j.inShare(service, s.Share))
		reads[c.lead] = true
		reads[c.lead.other()] = reads[c.lead.other()] || !c.alone
	}
	switch {
	case !reads[newSide]:
		return choice{lead: oldSide, narrow: true, sticky: true, alone: true}
	case !reads[oldSide]:
		return choice{lead: newSide, narrow: true, sticky: true, alone: true}
	}
	return choice{lead: oldSide}
}

// asNames returns a list of services without those of migrations.
func asNames(list []naming.Endpoint) []naming.Endpoint {
	names := make([]naming.Endpoint, 0, len(list))
	for _, e := range list {
		if !isOwnService(e.ID) {
			names = append(names, naming.Endpoint{ID: e.ID})
		}
	}
	return names
}
