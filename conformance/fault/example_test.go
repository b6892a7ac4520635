package fault_test

import (
	"context"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/conformance"
	"github.com/naming-go/naming/conformance/fault"
)

// linked is a store and the proxy between it and its registry.
type linked struct {
	naming.Store
	link *fault.Proxy
}

// The harness of a backend whose registry is reached over TCP. The other fields of the
// harness need a second client or an operator's rights.
func Example() {
	// In a file that ends in _test.go:
	_ = func(t *testing.T) {
		link := func(s naming.Store) *fault.Proxy { return s.(*linked).link }
		conformance.Run(t, conformance.Harness{
			New: func(t *testing.T) naming.Store {
				p := fault.New(t, "127.0.0.1:2181")
				return &linked{newStore(t, p.Addr()), p}
			},
			Interrupt:    func(t *testing.T, s naming.Store) { link(s).Cut() },
			Silence:      func(t *testing.T, s naming.Store) func() { return link(s).Silence() },
			SilenceBound: 10 * time.Second,
			Down:         func(t *testing.T, s naming.Store) func() { return link(s).Down() },
			TTL:          2 * time.Second,
			Quiet:        500 * time.Millisecond,
		})
	}
}

// newStore connects to the registry at addr. The end of t closes the connection.
func newStore(t *testing.T, addr string) naming.Store {
	var s struct {
		naming.Store
		Close func(context.Context)
	}
	t.Cleanup(func() { s.Close(context.Background()) })
	return s
}
