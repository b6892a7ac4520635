package consul

import (
	"cmp"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul/internal/wire"
)

// standing is what the registry says of using an entry.
type standing struct {
	gone   bool          // the lease of the entry has ended
	reason naming.Reason // 0: the entry may be used
	detail string        // has the form of naming.SafeText
}

// usable reports whether the entry may be used.
func (s standing) usable() bool { return !s.gone && s.reason == 0 }

// standing returns what the checks of an entry say of using it.
//
// The check that stands for a lease has the ID of the registration. If this check is
// critical, the lease has ended, and the entry is gone although Consul still has it. An
// entry under a lease whose agent is lost is gone as well, since nothing else would end
// its lease.
func (o *Options) standing(i *wire.Entry) standing {
	f := o.failing(i)
	switch {
	case f.lease != nil && (f.agentLost || f.lease.Severity() == 2):
		return standing{gone: true}
	case f.maintenance != nil:
		return standing{reason: naming.Maintenance, detail: naming.SafeText(f.maintenance.Notes)}
	case f.worst != nil:
		detail := cmp.Or(f.worst.Name, f.worst.CheckID)
		if output := strings.TrimSpace(f.worst.Output); output != "" {
			detail += ": " + output
		}
		return standing{reason: naming.FailedCheck, detail: naming.SafeText(detail)}
	}
	return standing{}
}

// failing are the checks of an entry that decide about its standing.
type failing struct {
	lease       *wire.Check // stands for the lease, failing or not; nil: no lease
	worst       *wire.Check // nil: all checks pass
	maintenance *wire.Check // nil: not in maintenance mode
	agentLost   bool
}

func (o *Options) failing(i *wire.Entry) (f failing) {
	ours := i.Ours()
	for n := range i.Checks {
		c := &i.Checks[n]
		if ours && c.CheckID == i.Service.ID {
			f.lease = c
		}
		switch c.Status {
		case api.HealthPassing:
			continue
		case api.HealthWarning:
			if o.IncludeWarning {
				continue
			}
		}
		switch {
		case c.IsMaintenance():
			f.maintenance = worse(f.maintenance, c)
		case c.SaysAgentLost():
			f.agentLost = true
		}
		f.worst = worse(f.worst, c)
	}
	return f
}

// worse returns the worse of two checks. Of two checks that are equally bad it returns
// the one with the lesser ID, so that the order of the answer does not matter. a may be
// nil.
func worse(a, b *wire.Check) *wire.Check {
	if a == nil || cmp.Or(cmp.Compare(b.Severity(), a.Severity()), cmp.Compare(a.CheckID, b.CheckID)) > 0 {
		return b
	}
	return a
}

// compare orders entries of one endpoint: the last entry counts. Entries of other
// writers have no number. Among them, an entry that is listed counts more.
func (o *Options) compare(a, b *wire.Entry) int {
	return cmp.Or(
		cmp.Compare(a.Number(), b.Number()),
		cmp.Compare(o.rank(a), o.rank(b)),
		cmp.Compare(a.Service.ModifyIndex, b.Service.ModifyIndex),
		cmp.Compare(a.Service.CreateIndex, b.Service.CreateIndex),
		cmp.Compare(a.Key(), b.Key()),
	)
}

// rank returns 2 for an entry that may be used, 1 for one that is withheld and 0 for
// one that is gone.
func (o *Options) rank(i *wire.Entry) int {
	switch st := o.standing(i); {
	case st.usable():
		return 2
	case !st.gone:
		return 1
	}
	return 0
}

// tagged reports whether an entry has the tag that the options ask for.
func (o *Options) tagged(i *wire.Entry) bool {
	return o.Tag == "" || slices.Contains(i.Service.Tags, o.Tag)
}
