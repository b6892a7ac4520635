package kitexnaming

import (
	"encoding/json"
	"maps"
	"math"
	"strings"

	"github.com/cloudwego/kitex/pkg/discovery"

	"github.com/naming-go/naming"
)

const (
	weightMember = "weight"

	// maxWeight is the greatest weight of an endpoint, as in package resolver.
	maxWeight = math.MaxUint16
	// maxWeightSum bounds the weights of a service together: kitex's weighted round
	// robin allocates a table with as many elements.
	maxWeightSum = 1 << 16
)

// instances returns kitex's form of endpoints.
func instances(endpoints []naming.Endpoint) []discovery.Instance {
	weights := make([]int, len(endpoints))
	tags := make([]map[string]string, len(endpoints))
	sum := 0
	for i, e := range endpoints {
		weights[i], tags[i] = weightAndTags(e.Metadata)
		sum += weights[i]
	}
	list := make([]discovery.Instance, len(endpoints))
	for i, e := range endpoints {
		weight := weights[i]
		if sum > maxWeightSum {
			weight = max(weight*maxWeightSum/sum, 1)
		}
		network, addr := dialed(e.Addr)
		list[i] = discovery.NewInstance(network, addr, weight, tags[i])
	}
	return list
}

// weightAndTags undoes metadata. It accepts any JSON value.
func weightAndTags(metadata json.RawMessage) (weight int, tags map[string]string) {
	weight = discovery.DefaultWeight
	var members map[string]json.RawMessage
	if json.Unmarshal(metadata, &members) != nil {
		return weight, nil
	}
	tags = make(map[string]string, len(members))
	for name, m := range members {
		var number float64
		var text string
		switch {
		case json.Unmarshal(m, &text) == nil && m[0] == '"':
			tags[name] = text
		case name != weightMember:
			tags[name] = string(m)
		case json.Unmarshal(m, &number) == nil && number > 0:
			weight = int(math.Round(min(max(number, 1), maxWeight)))
		}
	}
	return weight, tags
}

// dialed returns the network and the address for net.Dial.
func dialed(addr string) (network, address string) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return "unix", path
	}
	if name, ok := strings.CutPrefix(addr, "unix-abstract:"); ok {
		return "unix", "@" + name
	}
	return "tcp", addr
}

// Diff implements kitex's discovery.Resolver. Unlike kitex's DefaultDiff it reports an
// instance with other tags as updated: kitex's balancers keep the former instance
// otherwise.
func (r *clientResolver) Diff(cacheKey string, prev, next discovery.Result) (discovery.Change, bool) {
	if same(prev.Instances, next.Instances) {
		return discovery.Change{Result: discovery.Result{Cacheable: next.Cacheable, CacheKey: cacheKey, Instances: next.Instances}}, false
	}
	change, _ := discovery.DefaultDiff(cacheKey, prev, next)
	former := make(map[string]discovery.Instance, len(prev.Instances))
	for _, in := range prev.Instances {
		former[in.Address().String()] = in
	}
	for _, in := range next.Instances {
		if was, ok := former[in.Address().String()]; ok && was.Weight() == in.Weight() && !maps.Equal(tagsOf(was), tagsOf(in)) {
			change.Updated = append(change.Updated, in)
		}
	}
	return change, len(change.Added)+len(change.Updated)+len(change.Removed) > 0
}

// same reports whether two lists are the same slice, as two reads without a change
// between them return.
func same(a, b []discovery.Instance) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// tagsOf returns the tags of an instance that discovery.NewInstance made.
func tagsOf(in discovery.Instance) map[string]string {
	if t, ok := in.(interface{ Tags() map[string]string }); ok {
		return t.Tags()
	}
	return nil
}
