package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/migrate"
)

func put(t *testing.T, s naming.Store, service string, lease naming.Lease, endpoints ...naming.Endpoint) {
	t.Helper()
	for _, e := range endpoints {
		if err := s.Apply(t.Context(), service, naming.Change{Endpoint: e, Lease: lease}); err != nil {
			t.Fatal(err)
		}
	}
}

func grant(t *testing.T, s naming.Store) naming.Lease {
	t.Helper()
	l, err := s.Grant(t.Context(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func list(t *testing.T, s naming.Store, service string) []naming.Endpoint {
	t.Helper()
	c := naming.New(s, nil)
	defer c.Close()
	v, err := c.List(t.Context(), service)
	if err != nil {
		t.Fatal(err)
	}
	return v.Endpoints
}

// TestDecide: what becomes of each kind of entry.
func TestDecide(t *testing.T) {
	entry := func(id, metadata string) naming.Endpoint {
		e := naming.Endpoint{ID: id, Addr: "10.0.0.1:80", Unleased: true}
		if metadata != "" {
			e.Metadata = []byte(metadata)
		}
		return e
	}
	leased, draining := entry("a", ""), entry("a", "")
	leased.Unleased, draining.Draining = false, true
	bridged := entry(migrate.CopyID("old", "a"), "")
	for _, c := range []struct {
		name   string
		opts   Options
		source naming.Endpoint
		target []naming.Endpoint
		want   Action
	}{
		{"new", Options{}, entry("a", ""), nil, Write},
		{"the same", Options{}, entry("a", `{"x":1}`), []naming.Endpoint{entry("a", `{ "x": 1 }`)}, Same},
		{"different", Options{}, entry("a", `{"x":1}`), []naming.Endpoint{entry("a", "")}, Conflict},
		{"different, overwrite", Options{Overwrite: true}, entry("a", `{"x":1}`), []naming.Endpoint{entry("a", "")}, Overwrite},
		{"another ID", Options{}, entry("a", ""), []naming.Endpoint{entry("b", "")}, Conflict},
		{"another ID, overwrite", Options{Overwrite: true}, entry("a", ""), []naming.Endpoint{entry("b", "")}, Conflict},
		{"another ID, accepted", Options{Accept: migrate.Accept{"id"}}, entry("a", ""), []naming.Endpoint{entry("b", "")}, Same},
		{"beside a copy of a bridge", Options{}, entry("a", ""), []naming.Endpoint{bridged}, Write},
		{"leased", Options{}, leased, nil, Undecided},
		{"leased, there", Options{}, leased, []naming.Endpoint{leased}, Undecided},
		{"leased, skip", Options{Leased: Skip}, leased, nil, Left},
		{"leased, keep", Options{Leased: Keep}, leased, nil, Write},
		{"leased, permanent", Options{Leased: Permanent}, leased, nil, Write},
		{"draining", Options{}, draining, nil, Left},
		{"copy of a bridge", Options{}, bridged, nil, Left},
	} {
		v := naming.View{Service: "s", Endpoints: []naming.Endpoint{c.source}}
		items, err := c.opts.items(new(memory.Store), v, naming.View{Service: "s", Endpoints: c.target})
		if err != nil || len(items) != 1 || items[0].Action != c.want {
			t.Errorf("%s: %+v, %v, want %s", c.name, items, err, c.want)
		}
	}
}

// TestCopy: a copy writes what is missing, touches nothing else, and a second copy has
// nothing to do.
func TestCopy(t *testing.T) {
	var from, to memory.Store
	for i := range 250 {
		put(t, &from, "many", nil, naming.Endpoint{Addr: fmt.Sprintf("10.0.0.%d:80", i)})
	}
	put(t, &from, "one", nil, naming.Endpoint{Addr: "10.0.1.1:80", Metadata: []byte(`{"zone":"a"}`)})
	put(t, &from, migrate.RecordService, nil, naming.Endpoint{ID: "one", Metadata: []byte(`{"phase":1}`)})
	put(t, &to, "many", grant(t, &to), naming.Endpoint{Addr: "10.0.0.7:80", Metadata: []byte(`{"mine":true}`)})
	plan, err := Make(t.Context(), &from, &to, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var last Progress
	c, err := plan.Run(t.Context(), &to, time.Minute, func(p Progress) { last = p })
	if err != nil || c.Written != 250 || c.Kept() != 0 || last != (Progress{"one", 250, 250}) {
		t.Fatalf("%d written, %d kept, %+v, %v", c.Written, c.Kept(), last, err)
	}
	if missing, err := plan.Missing(t.Context(), &to); err != nil || len(missing) != 0 {
		t.Errorf("missing: %v, %v", missing, err)
	}
	for _, e := range list(t, &to, "many") {
		if mine := strings.Contains(string(e.Metadata), "mine"); mine != (e.Addr == "10.0.0.7:80") || e.Unleased == mine {
			t.Errorf("entry %+v", e)
		}
	}
	if n := len(list(t, &to, migrate.RecordService)); n != 0 {
		t.Errorf("%d records were copied", n)
	}
	if plan, err = Make(t.Context(), &from, &to, Options{}); err != nil || plan.Count(Write, Overwrite) != 0 || plan.Count(Same) != 250 || plan.Count(Conflict) != 1 {
		t.Errorf("second copy: %d to write, %d the same, %d conflicts, %v", plan.Count(Write), plan.Count(Same), plan.Count(Conflict), err)
	}
}

// TestMissing: an entry that another program changed after the copy is found.
func TestMissing(t *testing.T) {
	var from, to memory.Store
	put(t, &from, "s", nil, naming.Endpoint{Addr: "10.0.0.1:80"}, naming.Endpoint{Addr: "10.0.0.2:80"})
	plan, err := Make(t.Context(), &from, &to, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plan.Run(t.Context(), &to, time.Minute, nil); err != nil {
		t.Fatal(err)
	}
	put(t, &to, "s", nil, naming.Endpoint{Addr: "10.0.0.2:80", Metadata: []byte(`{"theirs":true}`)})
	missing, err := plan.Missing(t.Context(), &to)
	if err != nil || len(missing) != 1 || missing[0].Endpoint.Addr != "10.0.0.2:80" {
		t.Errorf("missing: %+v, %v", missing, err)
	}
}

// TestKeep: copies of leased entries last while Keep runs, come back if their lease is lost,
// never take the place of another program's entry, and are gone after Release.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var from, to memory.Store
		put(t, &from, "s", grant(t, &from), naming.Endpoint{Addr: "10.0.0.1:80"}, naming.Endpoint{Addr: "10.0.0.2:80"})
		plan, err := Make(t.Context(), &from, &to, Options{Leased: Keep})
		if err != nil {
			t.Fatal(err)
		}
		put(t, &to, "s", nil, naming.Endpoint{Addr: "10.0.0.2:80", Metadata: []byte(`{"theirs":true}`)}) // after the plan
		c, err := plan.Run(t.Context(), &to, time.Minute, nil)
		if err != nil || c.Kept() != 2 {
			t.Fatalf("%d kept, %v", c.Kept(), err)
		}
		if missing, err := plan.Missing(t.Context(), &to); err != nil || len(missing) != 1 {
			t.Errorf("an entry of another program: %v, %v", missing, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Keep(ctx, nil) }()
		time.Sleep(10 * time.Minute)
		addrs := func() (found []string) {
			for _, e := range list(t, &to, "s") {
				found = append(found, e.Addr)
			}
			return found
		}
		if got := addrs(); !slices.Equal(got, []string{"10.0.0.1:80", "10.0.0.2:80"}) {
			t.Errorf("after ten minutes: %v", got)
		}
		if err := c.leases[0].Revoke(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := addrs(); len(got) != 2 {
			t.Errorf("after the lease was lost: %v", got)
		}
		cancel()
		if err := <-done; err != context.Canceled {
			t.Error(err)
		}
		if err := c.Release(t.Context()); err != nil {
			t.Error(err)
		}
		if got := addrs(); !slices.Equal(got, []string{"10.0.0.2:80"}) {
			t.Errorf("after the end: %v", got)
		}
	})
}

// TestKeepAfterLoss: an entry that was overwritten, and whose lease is lost, belongs to the
// program that put its own entry since.
func TestKeepAfterLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var from, to memory.Store
		put(t, &from, "s", grant(t, &from), naming.Endpoint{Addr: "10.0.0.1:80"})
		put(t, &to, "s", nil, naming.Endpoint{Addr: "10.0.0.1:80", Metadata: []byte(`{"before":true}`)})
		plan, err := Make(t.Context(), &from, &to, Options{Leased: Keep, Overwrite: true})
		if err != nil || plan.Count(Overwrite) != 1 {
			t.Fatalf("plan: %+v, %v", plan, err)
		}
		c, err := plan.Run(t.Context(), &to, time.Minute, nil)
		if err != nil {
			t.Fatal(err)
		}
		if e := list(t, &to, "s"); len(e) != 1 || e[0].Metadata != nil {
			t.Errorf("after the copy: %+v", e)
		}
		if err := c.leases[0].Revoke(t.Context()); err != nil {
			t.Fatal(err)
		}
		put(t, &to, "s", nil, naming.Endpoint{Addr: "10.0.0.1:80", Metadata: []byte(`{"theirs":true}`)})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_ = c.Keep(ctx, nil)
		if e := list(t, &to, "s"); len(e) != 1 || !strings.Contains(string(e[0].Metadata), "theirs") {
			t.Errorf("after the loss: %+v", e)
		}
	})
}

// silent is a registry that answers reads, and no write.
type silent struct{ naming.Store }

func (silent) Apply(ctx context.Context, _ string, _ ...naming.Change) error {
	<-ctx.Done()
	return ctx.Err()
}

func (silent) Grant(ctx context.Context, _ time.Duration) (naming.Lease, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (s silent) Map(service string, e naming.Endpoint) (naming.Endpoint, error) {
	return s.Store.(naming.Mapper).Map(service, e)
}

// TestTimeout: a registry that falls silent ends a copy after the timeout of a request.
func TestTimeout(t *testing.T) {
	for _, leased := range []Leased{Permanent, Keep} {
		synctest.Test(t, func(t *testing.T) {
			var from, to memory.Store
			put(t, &from, "s", grant(t, &from), naming.Endpoint{Addr: "10.0.0.1:80"})
			plan, err := Make(t.Context(), &from, silent{&to}, Options{Leased: leased, Timeout: 5 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			c, err := plan.Run(t.Context(), silent{&to}, time.Minute, nil)
			if !errors.Is(err, context.DeadlineExceeded) || c.Written != 0 || time.Since(begin) != 5*time.Second {
				t.Errorf("%s: %d written after %v, %v", leased, c.Written, time.Since(begin), err)
			}
		})
	}
}
