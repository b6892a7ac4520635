package migrateproof

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/servertest"
	"github.com/naming-go/naming/internal/zerodrop"
	"github.com/naming-go/naming/migrate/bridge"
)

// TestWipedSource: the source is wiped while no bridge runs. The next bridge deletes
// nothing and asks for an approval. Another process approves, and then the copies go.
func TestWipedSource(t *testing.T) {
	c := etcdtest.Start(t, nil)
	client := c.Client(t)
	store := func(prefix string) naming.Store { return etcd.New(client, &etcd.Options{Prefix: prefix}) }
	old, next := store("/old/"), store("/new/")
	const services, each = 5, 4
	native := fill(t, old, next, services, each)
	url := "etcd://" + c.Members[0].Addr + "?prefix="
	var b processes
	pair := Pair{tb: t, Old: zerodrop.Backend{URL: url + "/old/"}, New: zerodrop.Backend{URL: url + "/new/", Servers: next}}
	if err := b.begin(&pair); err != nil {
		t.Fatal(err)
	}

	b.start(t)
	has := func(want int) func() error {
		return func() error { return count(t.Context(), next, services, want) }
	}
	servertest.Poll(t, "the copies are not complete", has(services*each+1))
	b.end(t)
	if _, err := client.Delete(t.Context(), "/old/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}

	b.start(t)
	var blown seat
	servertest.Poll(t, "there is no alarm", func() (err error) {
		if blown, err = readSeat(t.Context(), next); err == nil && blown.Digest == "" {
			err = errors.New("no digest")
		}
		return err
	})
	// The alarm comes after the bridge has looked at all services. What it would delete
	// after that, it would delete soon.
	servertest.Throughout(t, "copies were deleted", 3*time.Second, has(services*each+1))

	other, err := bridge.New(old, next, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Approve(t.Context(), "0123456789abcdef"); err == nil {
		t.Error("another plan was approved")
	}
	// The digest changes while services are found to be empty one after the other.
	servertest.Poll(t, "the plan is not approved", func() error {
		s, err := readSeat(t.Context(), next)
		if err == nil && s.Digest != "" {
			err = other.Approve(t.Context(), s.Digest)
		}
		return errors.Join(err, has(1)())
	})
	if got, err := zerodrop.Listed(t.Context(), next, "svc0"); err != nil || !slices.Equal(got, []string{native}) {
		t.Errorf("the target has %v, %v, want the endpoint that is not a copy", got, err)
	}
}

// fill puts endpoints into the old registry, and one into the new one, whose address it
// returns.
func fill(t *testing.T, old, next naming.Store, services, each int) (native string) {
	for i := range services {
		var changes []naming.Change
		for j := range each {
			changes = append(changes, naming.Change{Endpoint: naming.Endpoint{Addr: fmt.Sprintf("10.0.%d.%d:1", i, j)}})
		}
		if err := old.Apply(t.Context(), fmt.Sprint("svc", i), changes...); err != nil {
			t.Fatal(err)
		}
	}
	native = "10.1.0.0:1"
	if err := next.Apply(t.Context(), "svc0", naming.Change{Endpoint: naming.Endpoint{Addr: native}}); err != nil {
		t.Fatal(err)
	}
	return native
}

// count returns an error unless services have want endpoints together.
func count(ctx context.Context, store naming.Store, services, want int) error {
	got := 0
	for i := range services {
		addrs, err := zerodrop.Listed(ctx, store, fmt.Sprint("svc", i))
		if err != nil {
			return err
		}
		got += len(addrs)
	}
	if got != want {
		return fmt.Errorf("%d endpoints, want %d", got, want)
	}
	return nil
}
