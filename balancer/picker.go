package balancer

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	grpcbalancer "google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/endpointsharding"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/experimental/balancer/weight"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"

	"github.com/naming-go/naming/internal/pick"
	"github.com/naming-go/naming/resolver"
)

// endpoint is what the policy knows of an endpoint. It lives as long as the endpoint's
// child.
type endpoint struct {
	info atomic.Pointer[info]
	load pick.Load
	done func(grpcbalancer.DoneInfo) // of calls that are not timed
}

// info is what the registry says about an endpoint. It is constant.
type info struct {
	metadata []byte // from which the rest follows
	weight   float64
	zone     string
}

func newEndpoint() *endpoint {
	e := new(endpoint)
	e.info.Store(new(info))
	e.done = func(grpcbalancer.DoneInfo) { e.load.End() }
	return e
}

// update reads the weight and the zone of an endpoint. It decodes metadata only if they are
// new.
func (e *endpoint) update(from grpcresolver.Endpoint) {
	old := e.info.Load()
	n, ok := resolver.EndpointOf(from)
	if !ok {
		if w := float64(weight.FromEndpoint(from).Weight); w != old.weight {
			e.info.Store(&info{weight: w})
		}
		return
	}
	if !bytes.Equal(n.Metadata, old.metadata) {
		i := n.Info()
		e.info.Store(&info{metadata: n.Metadata, weight: i.Weight, zone: i.Zone})
	}
}

// picker chooses a connected endpoint for each call.
type picker struct {
	choice *pick.Picker
	ready  []grpcbalancer.Picker // of pick_first
}

// loadPicker is a picker that measures the load of the endpoints.
type loadPicker struct {
	picker
	endpoints []*endpoint
}

// newPicker returns a picker of the children that are ready.
func newPicker(c *Config, children []endpointsharding.ChildState) grpcbalancer.Picker {
	var p loadPicker
	candidates := make([]pick.Candidate, 0, len(children))
	p.ready = make([]grpcbalancer.Picker, 0, len(children))
	config := pick.Config{LeastLoaded: c.Pick == LeastLoaded, Zone: c.Zone, ZoneFactor: c.ZoneFactor}
	for i := range children {
		if children[i].State.ConnectivityState != connectivity.Ready {
			continue
		}
		child := children[i].State.Picker.(*childPicker)
		in := child.endpoint.info.Load()
		candidates = append(candidates, pick.Candidate{Weight: in.weight, Zone: in.zone, Load: &child.endpoint.load})
		p.ready = append(p.ready, child.Picker)
		if config.LeastLoaded {
			p.endpoints = append(p.endpoints, child.endpoint)
		}
	}
	p.choice = pick.New(config, candidates, rand.Uint64())
	if config.LeastLoaded {
		return &p
	}
	return &p.picker
}

// Pick implements gRPC's Picker.
func (p *picker) Pick(info grpcbalancer.PickInfo) (grpcbalancer.PickResult, error) {
	return p.ready[p.choice.Pick()].Pick(info)
}

// Pick implements gRPC's Picker. pick_first's results have no Done.
func (p *loadPicker) Pick(info grpcbalancer.PickInfo) (grpcbalancer.PickResult, error) {
	i := p.choice.Pick()
	result, err := p.ready[i].Pick(info)
	if err != nil {
		return result, err
	}
	e := p.endpoints[i]
	if e.load.Begin() {
		result.Done = startTimed(&e.load)
	} else {
		result.Done = e.done
	}
	return result, nil
}

// timed is a call that is timed. It is used again after its end, so that calls need no
// memory.
type timed struct {
	load  *pick.Load
	start time.Duration
	done  func(grpcbalancer.DoneInfo)
}

var (
	epoch  = time.Now()
	unused sync.Pool // of *timed that no call uses: gRPC calls done once for each call
)

// startTimed starts to time a call. The result is the call's Done.
func startTimed(load *pick.Load) func(grpcbalancer.DoneInfo) {
	t, ok := unused.Get().(*timed)
	if !ok {
		t = new(timed)
		t.done = t.end
	}
	t.load, t.start = load, time.Since(epoch)
	return t.done
}

// end ends a call.
func (t *timed) end(info grpcbalancer.DoneInfo) {
	load, start := t.load, t.start
	t.load = nil
	unused.Put(t)
	failed, counts := judge(info)
	if !counts {
		load.End()
		return
	}
	now := time.Since(epoch)
	load.Sample(now, now-start, failed)
}

// judge reports whether a call failed in a way that says that its server cannot serve now,
// and whether the call says anything about its server.
func judge(info grpcbalancer.DoneInfo) (failed, counts bool) {
	if info.Err == nil {
		return false, info.BytesReceived // nothing received: the call was not sent
	}
	switch status.Code(info.Err) {
	case codes.Canceled:
		return false, false
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Internal, codes.Unknown, codes.DataLoss:
		return true, true
	default:
		return false, true // an answer of the application
	}
}
