package wire

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/hashicorp/consul/api"
)

// SerfHealth is the ID of the check of a node by which the servers say whether they
// reach its agent.
const SerfHealth = "serfHealth"

// Check is a check of an entry, or of its node.
type Check struct {
	CheckID string
	Status  string

	// Name, Notes and Output are set only if a check of the entry does not pass.
	Name, Notes, Output string
}

// Checks are all checks of an entry.
type Checks []Check

// UnmarshalJSON decodes checks. Nearly all checks pass. Only the ID of such a check is
// needed, and to leave out the rest saves most of the memory of an answer.
func (c *Checks) UnmarshalJSON(b []byte) error {
	if bytes.Count(b, []byte(`"Status":"passing"`)) != bytes.Count(b, []byte(`"CheckID":`)) {
		return json.Unmarshal(b, (*[]Check)(c))
	}
	var all []struct{ CheckID, Status string }
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	*c = make(Checks, len(all))
	for n, one := range all {
		(*c)[n] = Check{CheckID: one.CheckID, Status: one.Status}
	}
	return nil
}

// Severity returns 0 for passing, 1 for warning and 2 for any other status.
func (c *Check) Severity() int {
	switch c.Status {
	case api.HealthPassing:
		return 0
	case api.HealthWarning:
		return 1
	}
	return 2
}

// IsMaintenance reports whether the check is one that Consul's maintenance mode makes,
// for a service or for a node.
func (c *Check) IsMaintenance() bool {
	return c.CheckID == api.NodeMaint || strings.HasPrefix(c.CheckID, api.ServiceMaintPrefix)
}

// SaysAgentLost reports whether the check says that the servers do not reach the agent
// of the node.
func (c *Check) SaysAgentLost() bool { return c.CheckID == SerfHealth && c.Severity() == 2 }

// Warning reports whether the worst check of an entry is warning.
func (e *Entry) Warning() bool {
	worst := 0
	for n := range e.Checks {
		worst = max(worst, e.Checks[n].Severity())
	}
	return worst == 1
}

// LeasePasses reports whether the check that stands for the lease of an entry passes.
func (e *Entry) LeasePasses() bool {
	for _, c := range e.Checks {
		if c.CheckID == e.Service.ID {
			return c.Status == api.HealthPassing
		}
	}
	return false
}

// AgentLost reports whether the servers have lost the agent of an entry.
func (e *Entry) AgentLost() bool {
	for n := range e.Checks {
		if e.Checks[n].SaysAgentLost() {
			return true
		}
	}
	return false
}

// Maintenance returns the operator's note if an operator put the service of this
// entry, and not only its node, into maintenance mode.
func (e *Entry) Maintenance() (note string, ok bool) {
	for _, c := range e.Checks {
		if c.CheckID == api.ServiceMaintPrefix+e.Service.ID && c.Status != api.HealthPassing {
			return c.Notes, true
		}
	}
	return "", false
}

// MaintenanceOf returns the operator's note if an operator put one of a Store's
// entries of an endpoint into maintenance mode. The decision is about the endpoint,
// and outlives the lease of the entry.
func MaintenanceOf(entries []*Entry) (note string, ok bool) {
	for _, e := range entries {
		if !e.Ours() {
			continue
		}
		if note, ok := e.Maintenance(); ok {
			return note, true
		}
	}
	return "", false
}
