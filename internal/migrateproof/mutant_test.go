package migrateproof

import (
	"slices"
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// fault is a fault of the code, and the scenario that finds it.
type fault struct {
	scenario string
	mutant.Mutant
}

// TestMutants plants faults of servers and readers in a migration, and checks that the
// proof finds them, and that it finds nothing without them. The hold is off in all scenarios
// here, because the hold hides some of the faults.
func TestMutants(t *testing.T) {
	sound := make(map[string]bool)
	for i, f := range slices.Concat(serverFaults, readerFaults, checkFaults) {
		few := 0 // but at full length
		if i == 0 {
			few = 1
		}
		if (few > 0 || mutant.Full()) && !sound[f.scenario] {
			sound[f.scenario] = t.Run("none in "+f.scenario, func(t *testing.T) { checkScenario(t, f.scenario) })
		}
		t.Setenv("MIGRATE_PROOF_ONLY", f.scenario)
		f.Test = "^TestScenario$"
		mutant.Run(t, ".", few, []mutant.Mutant{f.Mutant})
	}
}

const (
	part  = "../../migrate/announce_part.go"
	plan  = "../../migrate/announce_plan.go"
	merge = "../../migrate/merge.go"
	pub   = "../../migrate/publish.go"
	feed  = "../../migrate/feed.go"
)

var serverFaults = []fault{
	{"the new registry is down when it begins to count", mutant.Mutant{
		Name: "leaves a registry at once",
		File: part,
		Old:  "	if s.counting == noSide {\n",
		New:  "	if true {\n		return s.unwritten, true\n	}\n	if s.counting == noSide {\n",
	}},
	{"the new registry is down when it begins to count", mutant.Mutant{
		Name: "does not wait for the registry that counts",
		File: part,
		Old:  "	if !ok || !st.Registered {\n		return due, false\n	}\n",
		New:  "",
	}},
	{"all safe pairs", mutant.Mutant{
		Name: "marks an endpoint as draining to leave a registry",
		File: part,
		Old:  "left <- s.part.registration.Withdraw(ctx)",
		New:  "_ = ctx\n		left <- s.part.registration.Close()",
	}},
	{"unknown phases", mutant.Mutant{
		Name: "registers in the old registry while the phase is unknown",
		File: plan,
		Old:  "written: [2]bool{true, true}, counting: oldSide}",
		New:  "written: [2]bool{true, false}, counting: oldSide}",
	}},
	{"registered twice", mutant.Mutant{
		Name: "removes the endpoint of a newer registration",
		File: "../../claims.go",
		Old:  "	return o != nil && o.announcer == g\n",
		New:  "	return o != nil\n",
	}},
}

var readerFaults = []fault{
	{"jumps", mutant.Mutant{
		Name: "uses one registry alone before it covers the other",
		File: pub,
		Old:  "	covers := len(w.uncovered) == 0 && (len(w.leadUsable) > 0 || len(w.usable) == 0)\n",
		New:  "	covers := true\n",
	}},
	{"half of the servers in each registry", mutant.Mutant{
		Name: "counts endpoints and does not compare them",
		File: pub,
		Old:  "	covers := len(w.uncovered) == 0 && (len(w.leadUsable) > 0 || len(w.usable) == 0)\n",
		New:  "	covers := len(lead.usable) >= len(other.usable)\n",
	}},
	{"half of the servers in each registry", mutant.Mutant{
		Name: "uses the first registry that is not empty",
		File: pub,
		Old:  "	w := merge(c.lead, m.withKept(views), m, c.narrow)\n",
		New:  "	w := merge(c.lead, m.withKept(views), m, c.narrow)\n	if len(lead.usable) > 0 {\n		w.usable, w.leadUsable, w.uncovered = lead.usable, lead.usable, nil\n	}\n",
	}},
	{"the old registry is down", mutant.Mutant{
		Name: "takes an error for an empty set",
		File: feed,
		Old:  "		v, live, news := fol.Current()\n",
		New:  "		v, live, news := fol.Current()\n		if v.Stale() {\n			v.Endpoints, live = nil, true\n		}\n",
	}},
	{"the old registry is down", mutant.Mutant{
		Name: "lists servers that left the other registry in order",
		File: merge,
		Old:  "	return !x.views[i].fresh && has(x.memory.left[i.other()], addr)\n",
		New:  "	return false && has(x.memory.left[i.other()], addr)\n",
	}},
	{"restarts after an outage of both", mutant.Mutant{
		Name: "does not ask again when connections break",
		File: feed,
		Old:  "		if fol != nil {\n			fol.Retry()\n",
		New:  "		if fol != nil {\n",
	}},
	{"unknown phases", mutant.Mutant{
		Name: "reads the old registry while the phase is unknown",
		File: pub,
		Old:  "		return choice{lead: oldSide}\n	case s.Phase <= Shadow:",
		New:  "		return choice{lead: oldSide, narrow: true, sticky: true, alone: true}\n	case s.Phase <= Shadow:",
	}},
}

// checkFaults are faults that only one check finds.
var checkFaults = []fault{
	// The set oracle. A server that is missing for a moment fails no call.
	{"walk", mutant.Mutant{
		Name: "publishes a set without one server first",
		File: "../../resolver/conn.go",
		Old:  "_ = c.cc.UpdateState(s)\n",
		New:  "if n := len(s.Endpoints); n > 1 {\n		few := s\n		few.Endpoints = s.Endpoints[:n-1]\n		_ = c.cc.UpdateState(few)\n	}\n	_ = c.cc.UpdateState(s)\n",
	}},
	// The balance. In the end, all servers are registered.
	{"late", mutant.Mutant{
		Name: "registers servers late",
		File: part,
		Old:  "	e, version := p.a.state.wantedEndpoint()\n",
		New:  "	time.Sleep(6500 * time.Millisecond)\n	e, version := p.a.state.wantedEndpoint()\n",
	}},
	// The look at both registries. No reader misses anything.
	{"walk", mutant.Mutant{
		Name: "never leaves a registry",
		File: part,
		Old:  "leaves && !time.Now().Before(due)",
		New:  "leaves && false",
	}},
	// The sets that a change of the phase publishes. Calls and connections stay.
	{"jumps", mutant.Mutant{
		Name: "shows which registry leads",
		File: feed,
		Old:  "	e.Status = f.status(c, out, published)\n",
		New:  "	e.Status = f.status(c, out, published)\n	out.usable = slices.Clone(out.usable)\n	for k := range out.usable {\n		out.usable[k].Metadata = []byte(fmt.Sprint(c.lead))\n	}\n",
	}},
}
