package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
)

// start runs a Hub on a store until the test ends. It must be called in a bubble.
func start(t *testing.T, store naming.Store, opts Options) *Hub {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := naming.New(store, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	h, done := New(opts), make(chan error)
	go func() { done <- h.Run(ctx, c, nil) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
		c.Close()
	})
	synctest.Wait()
	return h
}

func put(t *testing.T, store naming.Store, service string, changes ...naming.Change) {
	t.Helper()
	if err := store.Apply(t.Context(), service, changes...); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func add(id string) naming.Change {
	return naming.Change{Endpoint: naming.Endpoint{ID: id, Addr: id + ":80"}}
}

func remove(id string) naming.Change {
	return naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: id}}
}

// kinds returns the newest changes as texts.
func kinds(list []Change) []string {
	var texts []string
	for _, c := range list {
		text := c.Service + " " + string(c.Kind)
		if c.Endpoint != nil {
			text += " " + c.Endpoint.ID
		}
		texts = append(texts, text)
	}
	return texts
}

func wantKinds(t *testing.T, got []Change, want ...string) {
	t.Helper()
	if !slices.Equal(kinds(got), want) {
		t.Fatalf("got the changes %q, want %q", kinds(got), want)
	}
}

func TestTimelineShowsWhatHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(memory.Store)
		h := start(t, store, Options{})
		put(t, store, "a", add("1"), add("2"))
		put(t, store, "a", add("3"))
		store.Withhold("a", "3", naming.Maintenance, "disk")
		synctest.Wait()
		store.Unwithhold("a", "3")
		synctest.Wait()
		put(t, store, "a", remove("3"))
		store.Break(errors.New("cut"))
		synctest.Wait()
		time.Sleep(time.Minute)
		put(t, store, "a", remove("1"), remove("2"))
		time.Sleep(24 * time.Hour) // Endpoints that vanish together are held before the service is gone.
		synctest.Wait()
		var services []string
		for _, c := range h.Timeline(100) {
			if c.Service == "a" {
				services = append(services, kinds([]Change{c})[0])
			}
		}
		want := []string{"a synced", "a added 3", "a withheld 3", "a usable 3", "a deleted 3", "a stale", "a fresh"}
		if len(services) < len(want) || !slices.Equal(services[:len(want)], want) || services[len(services)-1] != "a gone" {
			t.Fatalf("got %q, want %q, and at the end that the service is gone", services, want)
		}
		if snap := h.Snapshot(); len(snap.Services) != 0 || !snap.Status.Fresh() {
			t.Fatalf("got %+v, want a fresh empty registry", snap)
		}
	})
}

func TestHeldEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(memory.Store)
		h := start(t, store, Options{})
		lease, err := store.Grant(t.Context(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		changes := []naming.Change{add("0")}
		for i := range 20 {
			c := add(fmt.Sprint("leased-", i))
			c.Lease = lease
			changes = append(changes, c)
		}
		put(t, store, "a", changes...)
		time.Sleep(time.Minute)
		store.Expire(lease)
		synctest.Wait()
		d := h.Snapshot("a").Services[0].Document()
		if d.Held != 20 || d.Serving != 1 {
			t.Fatalf("got %d held and %d serving, want 20 and 1", d.Held, d.Serving)
		}
		if c := h.Timeline(1)[0]; c.Kind != Held || c.Document().Endpoint.State != "held" {
			t.Fatalf("got the change %+v, want that an endpoint is held", c)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if c := h.Timeline(1)[0]; c.Kind != Deleted || len(h.Snapshot("a").Services[0].Held) != 0 {
			t.Fatalf("got the change %+v, want that a held endpoint is given up", c)
		}
	})
}

func TestAnErrorIsNotAnEmptyRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(memory.Store)
		put(t, store, "a", add("1"))
		put(t, store, "b", add("1"))
		store.RefuseFunc(func(method, service string) error {
			if service != "a" {
				return errors.New("no access")
			}
			return nil
		})
		h := start(t, store, Options{})
		wantNotKnown := func(names ...string) {
			t.Helper()
			if err := h.Known(names...); !errors.Is(err, ErrNotKnown) {
				t.Fatalf("Known(%q) returned %v, want ErrNotKnown", names, err)
			}
		}
		wantNotKnown()
		wantNotKnown("a")
		store.RefuseFunc(func(method, service string) error {
			if service == "b" {
				return errors.New("no access")
			}
			return nil
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		wantNotKnown()
		wantNotKnown("b")
		if err := h.Known("a", "unknown"); err != nil {
			t.Fatal(err)
		}
		store.Up()
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := h.Known(); err != nil {
			t.Fatal(err)
		}
		store.Down(errors.New("down"))
		time.Sleep(time.Minute)
		snap := h.Snapshot()
		if age := snap.Status.Age(time.Now()); h.Known() != nil || len(snap.Services) != 2 || snap.Status.Fresh() || age < time.Minute {
			t.Fatalf("got %+v of age %v, want both services, stale for a minute", snap.Status, age)
		}
		store.Up()
	})
}

// next returns the next News of a Subscription that has some.
func next(t *testing.T, s *Subscription) News {
	t.Helper()
	n, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(memory.Store)
		put(t, store, "a", add("1"))
		h := start(t, store, Options{Changes: 4})
		sub := h.Subscribe()
		defer sub.Close()
		first := next(t, sub).Snapshot
		if first == nil || len(first.Services) != 1 {
			t.Fatalf("got %+v, want a snapshot", first)
		}
		put(t, store, "a", add("2"))
		n := next(t, sub)
		wantKinds(t, n.Changes, "a added 2")
		id := h.IDOf(&n.Changes[0])
		put(t, store, "a", remove("2"))
		wantKinds(t, next(t, h.Resume(id)).Changes, "a deleted 2")
		wantKinds(t, next(t, h.Resume(first.ID)).Changes, "a added 2", "a deleted 2")
		for _, bad := range []string{"", "x", "x-1", id + "0", h.run + "--1", New(Options{}).id(1)} {
			if n := next(t, h.Resume(bad)); n.Snapshot == nil {
				t.Fatalf("the ID %q did not yield a snapshot but %+v", bad, n)
			}
		}
		for i := range 5 {
			put(t, store, "a", add(fmt.Sprint("more-", i)))
		}
		n = next(t, sub)
		if n.Snapshot == nil || len(n.Snapshot.Services[0].Endpoints) != 6 || h.Counts().Resyncs == 0 {
			t.Fatalf("a slow reader got %+v, want a snapshot of 6 endpoints", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if n, err := sub.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %+v and %v, want nothing", n, err)
		}
	})
}

func TestTimelineIsBounded(t *testing.T) {
	line := timeline{max: 100, maxBytes: 10_000}
	big := &naming.Endpoint{Metadata: make([]byte, 20_000)}
	small := &naming.Endpoint{}
	for i := range 1000 {
		c := Change{Endpoint: small}
		if i%250 == 200 {
			c.Endpoint = big
		}
		line.add(c)
		sum := 0
		for j := range line.count {
			if got, want := line.at(j).Seq, line.last-uint64(line.count)+uint64(j)+1; got != want {
				t.Fatalf("change %d has the number %d, want %d", j, got, want)
			}
			sum += line.at(j).bytes()
		}
		if line.count > 100 || sum != line.bytes || sum > 10_000 && line.count > 1 || line.count == 0 {
			t.Fatalf("%d changes of %d bytes, counted as %d", line.count, sum, line.bytes)
		}
	}
	if list, ok := line.after(line.last-2, 1); !ok || len(list) != 1 || list[0].Seq != line.last-1 {
		t.Fatalf("got %+v, %v, want the change %d", list, ok, line.last-1)
	}
	for _, seq := range []uint64{line.last + 1, 0} {
		if list, ok := line.after(seq, 1); ok {
			t.Fatalf("got %+v after the change %d, want nothing", list, seq)
		}
	}
}

func TestDocumentOfMetadataThatAreNotJSON(t *testing.T) {
	s := Service{View: naming.View{Service: "a", Endpoints: []naming.Endpoint{{ID: "1", Metadata: []byte("{\x1b")}}}}
	if got := string(s.Document().Endpoints[0].Metadata); got != `"{\\x1b"` {
		t.Fatalf("got the metadata %s, want a text that is safe", got)
	}
}

func TestSummaryCountsAsDocument(t *testing.T) {
	for _, metadata := range []string{``, `{}`, `{"draining":true}`, `{"drain\u0069ng":true}`, `{"draining":false}`, `"draining"`} {
		s := Service{View: naming.View{Endpoints: []naming.Endpoint{{ID: "1", Metadata: []byte(metadata)}}}}
		if d := s.Document(); (d.Draining == 1) != (d.Endpoints[0].State == "draining") || d.Draining+d.Serving != 1 {
			t.Errorf("metadata %s: got %+v", metadata, d)
		}
	}
}
