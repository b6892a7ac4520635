package zerodrop

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutants plants faults that other resolvers and servers have, and checks that the
// harness finds them.
func TestMutants(t *testing.T) {
	const conn, publisher = "../../resolver/conn.go", "../../resolver/publisher.go"
	const member, set = "../../resolver/member.go", "../../resolver/set.go"
	const consul = "../../backend/consul/pace.go"
	for i, m := range []struct {
		scenario string
		mutant.Mutant
	}{
		{"turnover", mutant.Mutant{
			Name: "publishes an empty set before a new one",
			File: conn,
			Old:  "_ = c.cc.UpdateState(s)\n",
			New:  "_ = c.cc.UpdateState(grpcresolver.State{Endpoints: []grpcresolver.Endpoint{}, ServiceConfig: s.ServiceConfig})\n\t_ = c.cc.UpdateState(s)\n",
		}},
		{"outage", mutant.Mutant{
			Name: "clears the set on an error",
			File: publisher,
			Old:  "\t\t\tk.set.apply(event)\n",
			New:  "\t\t\tif event.Status.Stale() {\n\t\t\t\tevent.Batch.Snapshot, event.Batch.Put = true, nil\n\t\t\t}\n\t\t\tk.set.apply(event)\n",
		}},
		{"mass expiry", mutant.Mutant{
			Name: "does not hold what vanished at once",
			File: set,
			Old:  "\ts.applyHeld(e.Status.Held)\n",
			New:  "\ts.applyHeld(nil)\n",
		}},
		{"metadata", mutant.Mutant{
			Name: "puts metadata into the attributes of addresses",
			File: member,
			Old:  "m.attributes = *k.parent.WithValue(attributeKey{}, m)\n",
			New:  "m.attributes = *k.parent.WithValue(attributeKey{}, m)\n\tm.addresses[0].Attributes = &m.attributes\n",
		}},
		{"rolling restart", mutant.Mutant{
			Name: "does not wait for clients to hear of a server that leaves",
			File: "../../withdraw.go",
			Old:  "if marked && !g.linger(",
			New:  "if marked && false && !g.linger(",
		}},
		{"rolling restart", mutant.Mutant{
			Name: "stops a server before its endpoint is withdrawn",
			File: "../../serve/serve.go",
			Old:  "\tcase err = <-announced:\n\tcase",
			New:  "\tcase <-ctx.Done():\n\tcase",
		}},
		{"wipe", mutant.Mutant{
			Name: "takes a wiped registry at its word",
			File: "../../hold.go",
			Old:  "\tif len(changes) == 0 || opts.Disabled ||",
			New:  "\tif true || len(changes) == 0 || opts.Disabled ||",
		}},
		{"rolling restart", mutant.Mutant{
			Name: "waits two seconds before it asks Consul again",
			File: consul,
			Old:  "return sleep(ctx, time.Until(p.rest))\n",
			New:  "return sleep(ctx, time.Until(p.rest)+2*time.Second)\n",
		}},
	} {
		few := 1
		if i >= 2 {
			few = 0 // but at full length
		}
		t.Setenv("ZERO_DROP_ONLY", m.scenario)
		if m.File == consul {
			t.Setenv("ZERO_DROP_STORE", "consul")
		}
		m.Test = "^TestScenario$"
		mutant.Run(t, ".", few, []mutant.Mutant{m.Mutant})
	}
}
