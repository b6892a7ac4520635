package etcd_test

import (
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/conformance"
	"github.com/naming-go/naming/conformance/fault"
	"github.com/naming-go/naming/internal/etcdtest"
)

// linked is a store with the link to its registry.
type linked struct {
	naming.Store
	link *fault.Proxy
}

// TestAuthor runs the suite with a harness of the size that CONTRIBUTING.md asks of
// the author of a backend. The harness consists of public packages and of the code
// that dials a registry.
func TestAuthor(t *testing.T) {
	t.Parallel() // it mostly waits
	server := etcdtest.Start(t, nil).Members[0].Addr
	dial := func(t *testing.T, addr string) *clientv3.Client {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}})
		must(t, err)
		t.Cleanup(func() { client.Close() })
		return client
	}
	operator := dial(t, server)
	link := func(s naming.Store) *fault.Proxy { return s.(*linked).link }
	conformance.Run(t, conformance.Harness{
		New: func(t *testing.T) naming.Store {
			p := fault.New(t, server)
			prefix := "/" + strings.ReplaceAll(t.Name(), "/", "-") + "/"
			return &linked{etcd.New(dial(t, p.Addr()), &etcd.Options{Prefix: prefix, SilenceBound: bound}), p}
		},
		Interrupt:    func(t *testing.T, s naming.Store) { link(s).Cut() },
		Silence:      func(t *testing.T, s naming.Store) func() { return link(s).Silence() },
		SilenceBound: bound,
		Down:         func(t *testing.T, s naming.Store) func() { return link(s).Down() },
		Lose: func(t *testing.T, s naming.Store, l naming.Lease) {
			_, err := operator.Revoke(t.Context(), etcd.LeaseID(l))
			must(t, err)
		},
		Quiet: 300 * time.Millisecond,
		Many:  300,
	})
}
