package kitexnaming

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"testing"

	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/loadbalance"

	"github.com/naming-go/naming"
)

// TestWeightAndTags checks what kitex gets of metadata of any kind.
func TestWeightAndTags(t *testing.T) {
	for _, test := range []struct {
		metadata string
		weight   int
		tags     map[string]string
	}{
		{``, 10, nil},
		{`null`, 10, nil},
		{`3`, 10, nil},
		{`["weight"]`, 10, nil},
		{`{"weight":`, 10, nil},
		{`{"weight":3}`, 3, nil},
		{`{"weight":2.6,"zone":"a"}`, 3, map[string]string{"zone": "a"}},
		{`{"weight":0.01}`, 1, nil},
		{`{"weight":0}`, 10, nil},
		{`{"weight":-1}`, 10, nil},
		{`{"weight":1e308}`, 65535, nil},
		{`{"weight":1e999}`, 10, nil},
		{`{"weight":null}`, 10, nil},
		{`{"weight":"7"}`, 10, map[string]string{"weight": "7"}},
		{`{"n":1,"b":true,"o":{"x":[]},"null":null}`, 10, map[string]string{"n": "1", "b": "true", "o": `{"x":[]}`, "null": "null"}},
	} {
		weight, tags := weightAndTags(json.RawMessage(test.metadata))
		if weight != test.weight || !maps.Equal(tags, test.tags) {
			t.Errorf("%s: weight %d, tags %v, want %d, %v", test.metadata, weight, tags, test.weight, test.tags)
		}
	}
}

// TestWeightSum checks that large weights keep their proportions, and that kitex's balancer
// needs a bounded table for them.
func TestWeightSum(t *testing.T) {
	var endpoints []naming.Endpoint
	for i := range 1000 {
		weight := []int{1, 30000, 60000}[i%3]
		endpoints = append(endpoints, naming.Endpoint{Addr: fmt.Sprint("h:", i+1), Metadata: fmt.Appendf(nil, `{"weight":%d}`, weight)})
	}
	list := instances(endpoints)
	sum := 0
	for _, in := range list {
		sum += in.Weight()
		if in.Weight() < 1 {
			t.Fatalf("weight %d", in.Weight())
		}
	}
	if sum > maxWeightSum+len(list) {
		t.Errorf("the weights add up to %d", sum)
	}
	if ratio := float64(list[2].Weight()) / float64(list[1].Weight()); math.Abs(ratio-2) > 0.05 {
		t.Errorf("weights %d and %d, want twice as much", list[1].Weight(), list[2].Weight())
	}
	if in := loadbalance.NewWeightedBalancer().GetPicker(discovery.Result{Instances: list}).Next(t.Context(), nil); in == nil {
		t.Error("kitex picks no instance")
	}
}

// TestDialed checks the networks of addresses.
func TestDialed(t *testing.T) {
	for addr, want := range map[string]string{
		"10.0.0.7:1":            "tcp 10.0.0.7:1",
		"[fd00::7]:1":           "tcp [fd00::7]:1",
		"unix:/run/greeter":     "unix /run/greeter",
		"unix-abstract:greeter": "unix @greeter",
	} {
		in := instances([]naming.Endpoint{{Addr: addr}})[0]
		if got := in.Address().Network() + " " + in.Address().String(); got != want {
			t.Errorf("%s: %q, want %q", addr, got, want)
		}
	}
}

// TestDiff checks that kitex's balancers get every change, and none without a change.
func TestDiff(t *testing.T) {
	result := func(endpoints ...string) discovery.Result {
		var list []naming.Endpoint
		for i := 0; i < len(endpoints); i += 2 {
			list = append(list, naming.Endpoint{Addr: endpoints[i], Metadata: json.RawMessage(endpoints[i+1])})
		}
		return discovery.Result{Cacheable: true, CacheKey: greeter, Instances: instances(list)}
	}
	r := newResolver(nil)
	was := result("a:1", `{"weight":1}`, "b:1", `{"zone":"a"}`)
	for _, test := range []struct {
		name                    string
		next                    discovery.Result
		added, updated, removed int
	}{
		{"the same list", was, 0, 0, 0},
		{"an equal list", result("a:1", `{"weight":1}`, "b:1", `{"zone":"a"}`), 0, 0, 0},
		{"another weight", result("a:1", `{"weight":2}`, "b:1", `{"zone":"a"}`), 0, 1, 0},
		{"another tag", result("a:1", `{"weight":1}`, "b:1", `{"zone":"b"}`), 0, 1, 0},
		{"another weight and tag", result("a:1", `{"weight":2,"zone":"b"}`, "b:1", `{"zone":"a"}`), 0, 1, 0},
		{"another address", result("a:1", `{"weight":1}`, "c:1", `{"zone":"a"}`), 1, 0, 1},
		{"empty", discovery.Result{Cacheable: true}, 0, 0, 2},
	} {
		change, ok := r.Diff("key", was, test.next)
		if len(change.Added) != test.added || len(change.Updated) != test.updated || len(change.Removed) != test.removed ||
			ok != (test.added+test.updated+test.removed > 0) {
			t.Errorf("%s: %d added, %d updated, %d removed, %v", test.name, len(change.Added), len(change.Updated), len(change.Removed), ok)
		}
		if change.Result.CacheKey != "key" || !change.Result.Cacheable || len(change.Result.Instances) != len(test.next.Instances) {
			t.Errorf("%s: result %+v", test.name, change.Result)
		}
	}
}
