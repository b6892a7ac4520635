package consul

import (
	"bytes"
	"cmp"
	"encoding/json"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
)

// check is a check of an entry: one of its own, or one of its node.
type check struct {
	CheckID string
	Status  string

	// Only if a check of the entry is not passing.
	Name, Notes, Output string
}

// checks are all checks of an entry.
type checks []check

// UnmarshalJSON decodes checks. Nearly all of them pass, and of those only the ID
// is needed.
func (c *checks) UnmarshalJSON(b []byte) error {
	if bytes.Count(b, []byte(`"Status":"passing"`)) != bytes.Count(b, []byte(`"CheckID":`)) {
		return json.Unmarshal(b, (*[]check)(c))
	}
	var all []struct{ CheckID, Status string }
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	*c = make(checks, len(all))
	for n, one := range all {
		(*c)[n] = check{CheckID: one.CheckID, Status: one.Status}
	}
	return nil
}

// serfHealth is the check of a node by which the servers say whether they reach
// its agent.
const serfHealth = "serfHealth"

// standing is what the registry says of using an entry.
type standing struct {
	gone   bool          // the lease of the entry has ended
	reason naming.Reason // 0: it may be used
	detail string        // has the form of naming.SafeText
}

// usable reports whether the entry may be used.
func (s standing) usable() bool { return !s.gone && s.reason == 0 }

// standing returns what the checks of an entry say of using it.
//
// The check that stands for a lease is named like the registration. If it is
// critical the lease has ended, and the entry is gone although Consul still has
// it. So is an entry under a lease whose agent is lost, as nothing else would end
// its lease.
func (s *Store) standing(i *instance) standing {
	_, ours := i.Service.Meta[metaID]
	var worst, lease, lost, maintenance *check
	for n := range i.Checks {
		c := &i.Checks[n]
		if ours && c.CheckID == i.Service.ID {
			lease = c
		}
		switch c.Status {
		case api.HealthPassing:
			continue
		case api.HealthWarning:
			if s.opts.IncludeWarning {
				continue
			}
		}
		switch {
		case isMaintenance(c.CheckID):
			maintenance = first(maintenance, c)
		case c.CheckID == serfHealth && severity(c.Status) == 2:
			lost = c
		}
		worst = first(worst, c)
	}
	switch {
	case lease != nil && (lost != nil || severity(lease.Status) == 2):
		return standing{gone: true}
	case maintenance != nil:
		return standing{reason: naming.Maintenance, detail: naming.SafeText(maintenance.Notes)}
	case worst != nil:
		detail := cmp.Or(worst.Name, worst.CheckID)
		if output := strings.TrimSpace(worst.Output); output != "" {
			detail += ": " + output
		}
		return standing{reason: naming.FailedCheck, detail: naming.SafeText(detail)}
	}
	return standing{}
}

// first returns the worse of two checks, and of two that are as bad the one with
// the lesser ID, so that the order of the answer does not matter.
func first(a, b *check) *check {
	if a == nil || cmp.Or(cmp.Compare(severity(b.Status), severity(a.Status)), cmp.Compare(a.CheckID, b.CheckID)) > 0 {
		return b
	}
	return a
}

// severity returns 0 for passing, 1 for warning and 2 for any other status.
func severity(status string) int {
	switch status {
	case api.HealthPassing:
		return 0
	case api.HealthWarning:
		return 1
	}
	return 2
}

func isMaintenance(id string) bool {
	return id == api.NodeMaint || strings.HasPrefix(id, api.ServiceMaintPrefix)
}

// warning reports whether the worst check of an entry is warning.
func (i *instance) warning() bool {
	worst := 0
	for _, c := range i.Checks {
		worst = max(worst, severity(c.Status))
	}
	return worst == 1
}

// passes reports whether the check that stands for the lease of an entry passes.
func (i *instance) passes() bool {
	for _, c := range i.Checks {
		if c.CheckID == i.Service.ID {
			return c.Status == api.HealthPassing
		}
	}
	return false
}

// maintained reports whether an operator took the service of this entry, and not
// only its node, out of use, with the operator's note.
func (i *instance) maintained() (note string, ok bool) {
	for _, c := range i.Checks {
		if c.CheckID == api.ServiceMaintPrefix+i.Service.ID && c.Status != api.HealthPassing {
			return c.Notes, true
		}
	}
	return "", false
}

// kept returns the note of an operator who took an entry of an endpoint out of
// use: the decision is about the endpoint, and outlives the entry's lease.
func kept(list []*instance) (note string, ok bool) {
	for _, i := range list {
		if _, ours := i.Service.Meta[metaID]; !ours {
			continue
		}
		if note, ok := i.maintained(); ok {
			return note, true
		}
	}
	return "", false
}

// lost reports whether the servers have lost the agent of an entry.
func (i *instance) lost() bool {
	for _, c := range i.Checks {
		if c.CheckID == serfHealth && severity(c.Status) == 2 {
			return true
		}
	}
	return false
}
