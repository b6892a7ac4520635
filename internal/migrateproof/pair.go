package migrateproof

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/internal/zerodrop"
)

// Pair is two registries, and what suits both of them.
type Pair struct {
	// Name is for reports.
	Name string
	// Old and New are the registries.
	Old, New zerodrop.Backend
	// DrainDelay is the time that clients have to learn that a server leaves, and
	// LeaveDelay the time that they have to learn that a server is in the registry that
	// counts.
	DrainDelay, LeaveDelay time.Duration
	// Bound is the time after which every set must have a server that is registered.
	Bound time.Duration

	tb testing.TB // the pair ends with it
}

// Memory returns two registries in memory.
func Memory(tb testing.TB) Pair {
	return Pair{
		tb: tb, Name: "memory to memory", Old: zerodrop.Memory(), New: zerodrop.Memory(),
		DrainDelay: 300 * time.Millisecond, LeaveDelay: 200 * time.Millisecond, Bound: 2 * time.Second,
	}
}

// ConsulToEtcd returns a Consul agent and an etcd server. Both end with tb.
func ConsulToEtcd(tb testing.TB) Pair {
	return real(tb, "consul to etcd", zerodrop.Consul(tb), zerodrop.EtcdOf(tb, 1))
}

// EtcdToConsul returns an etcd server and a Consul agent. Both end with tb.
func EtcdToConsul(tb testing.TB) Pair {
	return real(tb, "etcd to consul", zerodrop.EtcdOf(tb, 1), zerodrop.Consul(tb))
}

func real(tb testing.TB, name string, old, next zerodrop.Backend) Pair {
	return Pair{
		tb: tb, Name: name, Old: old, New: next,
		DrainDelay: 500 * time.Millisecond, LeaveDelay: 700 * time.Millisecond, Bound: 5 * time.Second,
	}
}

// side is the index of a registry.
type side int

const (
	oldSide side = iota
	newSide
)

func (s side) String() string { return [...]string{"the old registry", "the new registry"}[s] }

func (s side) other() side { return 1 - s }

func (p *Pair) backend(s side) *zerodrop.Backend {
	if s == oldSide {
		return &p.Old
	}
	return &p.New
}

// listed returns an error unless each registry has exactly the addresses in want.
func (p *Pair) listed(ctx context.Context, service string, want [2][]string) error {
	var errs []error
	for s := oldSide; s <= newSide; s++ {
		got, err := zerodrop.Listed(ctx, p.backend(s).Clients, service)
		slices.Sort(want[s])
		// A bridge's copy stands beside the native endpoint for a moment.
		if got = slices.Compact(got); err == nil && !slices.Equal(got, want[s]) {
			err = fmt.Errorf("it has %v, want %v", got, want[s])
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%v: %w", s, err))
		}
	}
	return errors.Join(errs...)
}

// awaitGone sets gone if a registry that has an endpoint loses it before ctx is done. It
// closes watching when it has seen the endpoint.
func (p *Pair) awaitGone(ctx context.Context, s side, service, id string, watching chan struct{}, gone *atomic.Bool) {
	there := false
	for b, err := range p.backend(s).Clients.Watch(ctx, service) {
		if err != nil {
			break
		}
		has := slices.ContainsFunc(b.Put, func(e naming.Endpoint) bool { return e.ID == id })
		if has && !there {
			there = true
			close(watching)
		}
		if there && !has && (b.Snapshot || slices.Contains(b.Deleted, id)) {
			gone.Store(true)
		}
	}
	if !there {
		close(watching)
	}
}

// timeToLive is the time to live of the servers' endpoints. It is long: a lease that a busy
// machine lost would be a loss that the migration did not cause.
const timeToLive = 20 * time.Second

// site returns the site of a world on the pair.
func (p *Pair) site() zerodrop.Site {
	return zerodrop.Site{
		Name: p.Name, TTL: timeToLive, DrainDelay: p.DrainDelay,
		Close:  cmp.Or(p.Old.Close, time.Second) + cmp.Or(p.New.Close, time.Second),
		Settle: cmp.Or(p.Old.Settle, 90*time.Second),
		Bound:  p.Bound, Balance: 5 * time.Second,
	}
}

// stores returns the stores of servers, or those of readers.
func (p *Pair) stores(server bool) (old, next naming.Store) {
	if server {
		return p.Old.Servers, p.New.Servers
	}
	return p.Old.Clients, p.New.Clients
}
