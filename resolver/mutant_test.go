package resolver_test

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutants plants bugs in the resolver, each a thing that the resolvers of
// other registries do, and sees whether a test notices.
func TestMutants(t *testing.T) {
	mutant.Run(t, ".", 2, []mutant.Mutant{
		{
			Name: "publishes an empty set before a new one",
			File: "builder.go",
			Old:  "c.published = s.endpoints\n",
			New:  "c.published = s.endpoints\nc.update(grpcresolver.State{Endpoints: []grpcresolver.Endpoint{}})\n",
			Test: "^TestHistories$",
		},
		{
			Name: "calls after Close has returned",
			File: "builder.go",
			Old:  "\tif idle != nil {\n\t\t<-idle\n\t}\n",
			New:  "\t_ = idle\n",
			Test: "^TestCloseWaitsForACallInProgress$",
		},
		{
			Name: "clears the set on an error",
			File: "target.go",
			Old:  "\t\tif event.Status.Synced {\n\t\t\tt.synced = true\n",
			New:  "\t\tif t.synced = event.Status.Synced && event.Status.Err == nil; t.synced {\n",
			Test: "^TestErrorsLeaveTheAddressesAlone$",
		},
		{
			Name: "puts metadata into the attributes of addresses",
			File: "set.go",
			Old:  "\treturn m\n}\n\n// matters",
			New:  "\tm.addresses[0].Attributes = m.grpc.Attributes\n\treturn m\n}\n\n// matters",
			Test: "^TestMetadataMakesNoConnections$",
		},
		{
			Name: "takes the name for TLS from the registry",
			File: "set.go",
			Old:  "m.addresses[0].Addr = e.Addr\n",
			New:  "m.addresses[0].Addr, m.addresses[0].ServerName = e.Addr, e.ID\n",
			Test: "^TestOnlyTheAddress$",
		},
		{
			Name: "publishes an address for each of its endpoints",
			File: "set.go",
			Old:  "\tif first == nil {\n",
			New:  "\tif true {\n",
			Test: "^(TestOrderAndDuplicates|TestHistories)$",
		},
		{
			Name: "publishes in the order of a map",
			File: "set.go",
			Old:  "\tslices.SortFunc(edits,",
			New:  "\tlist = slices.Clone(list)\n\tif len(list) > 1 {\n\t\tlist[0], list[1] = list[1], list[0]\n\t}\n\tslices.SortFunc(edits,",
			Test: "^TestHistories$",
		},
		{
			Name: "publishes what did not change",
			File: "target.go",
			Old:  "; !changed && !first {",
			New:  "; !changed && !first && false {",
			Test: "^TestEqualStateIsNotPublished$",
		},
		{
			Name: "says nothing of an empty service",
			File: "target.go",
			Old:  "t.publish(&state{err: t.errorf(\"has no endpoints\")})",
			New:  "_ = list",
			Test: "^(TestEmptyFromTheStart|TestBecomesEmpty)$",
		},
		{
			Name: "leaves it to round_robin to say that there are no endpoints",
			File: "builder.go",
			Old:  "json.RawMessage(`[{\"pick_first\":{}}]`)",
			New:  "json.RawMessage(`[{\"round_robin\":{}}]`)",
			Test: "^TestNoEndpointsIsSaidClearly$",
		},
		{
			Name: "only empties, and reports nothing",
			File: "builder.go",
			Old:  "\t\tc.cc.ReportError(s.err)\n",
			New:  "\t\tif s.number == 1 {\n\t\t\tc.cc.ReportError(s.err)\n\t\t}\n",
			Test: "^TestNoEndpointsIsSaidClearly$",
		},
		{
			Name: "has calls end with the status of a registry's client",
			File: "target.go",
			Old:  `errors.New(fmt.Sprintf("naming: service %q ", t.service) + fmt.Sprintf(format, args...))`,
			New:  `errors.Join(errors.New(fmt.Sprint(t.service)), args[0].(error))`,
			Test: "^TestAStatusInAnErrorIsNotThatOfTheCall$",
		},
		{
			Name: "waits for a silent registry for ever",
			File: "target.go",
			Old:  "\tt.late = true\n",
			New:  "",
			Test: "^TestSilence$",
		},
		{
			Name: "does not replay",
			File: "target.go",
			Old:  "\tif c.deliverOne() {\n\t\tgo c.deliver()\n\t}\n",
			New:  "\tgo c.deliver()\n",
			Test: "^TestBuildReplays",
		},
		{
			Name: "publishes every change",
			File: "target.go",
			Old:  "\tif !t.synced {\n\t\treturn //",
			New:  "\tif true {\n\t\treturn //",
			Test: "^TestConflation$",
		},
		{
			Name: "waits until nothing changes any more",
			File: "target.go",
			Old:  "end.Before(due)",
			New:  "false && end.Before(due)",
			Test: "^TestConflation$",
		},
		{
			Name: "tells one ClientConn after the other",
			File: "target.go",
			Old:  "\t\tgo c.deliver()\n\t}\n\tclear",
			New:  "\t\tc.deliver()\n\t}\n\tclear",
			Test: "^TestABlockedClientConnHoldsUpNobody$",
		},
		{
			Name: "tells a ClientConn two things at once",
			File: "target.go",
			Old:  "\t\tif !c.busy {\n",
			New:  "\t\tif true {\n",
			Test: "^(TestHistories|TestABlockedClientConnHoldsUpNobody)$",
		},
		{
			Name: "follows a service for each ClientConn",
			File: "builder.go",
			Old:  "\tif t == nil {\n",
			New:  "\tif true {\n",
			Test: "^(TestFollowsOnce|TestManyBuildsShareOneWatch)$",
		},
		{
			Name: "keeps a target that nobody uses",
			File: "builder.go",
			Old:  "last := t.users == 0",
			New:  "last := t.users < 0",
			Test: "^TestFollowsOnce$",
		},
		{
			Name: "lists suspects first",
			File: "set.go",
			Old:  "slices.Concat(list, suspects)",
			New:  "slices.Concat(suspects, list)",
			Test: "^TestHeldEndpointsComeLast$",
		},
		{
			Name: "publishes a status of another moment than the endpoints",
			File: "target.go",
			Old:  "; ok; event, ok = t.source.Next() {",
			New:  "; ok; ok = false {",
			Test: "^TestALossThatWasOver$",
		},
		{
			Name: "does not tell the hook",
			File: "builder.go",
			Old:  "t.builder.told != nil {",
			New:  "t.builder.told == nil {",
			Test: "^TestPublishedHook$",
		},
		{
			Name: "sends calls to servers that drain",
			File: "set.go",
			Old:  "draining: info.Draining}",
			New:  "draining: false}",
			Test: "^TestDraining$",
		},
		{
			Name: "asks the registry when gRPC wants to resolve now",
			File: "builder.go",
			Old:  "func (c *conn) ResolveNow(grpcresolver.ResolveNowOptions) {}",
			New:  "func (c *conn) ResolveNow(grpcresolver.ResolveNowOptions) {\n\ts, _ := c.target.builder.follow(\"other\", func() {})\n\tdefer s.Close()\n}",
			Test: "^TestResolveNowAsksNothing$",
		},
		{
			Name: "forgets to escape names",
			File: "builder.go",
			Old:  `strings.ReplaceAll(url.PathEscape(service), "%2F", "/")`,
			New:  `strings.ReplaceAll(service, url.PathEscape("/"), "/")`,
			Test: "^(TestTarget|FuzzTarget)$",
		},
	})
}
