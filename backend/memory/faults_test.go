package memory_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
)

// in runs f in a bubble. The store has service svc with endpoint a:1 under a lease of an
// hour. next returns the next batch of a watch of svc that has yielded its snapshot.
func in(t *testing.T, f func(t *testing.T, s *memory.Store, l naming.Lease, next func() (naming.Batch, error))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := new(memory.Store)
		l, err := s.Grant(t.Context(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		add(t, s, "a:1", l)
		pull, stop := iter.Pull2(s.Watch(t.Context(), "svc"))
		defer stop()
		next := func() (naming.Batch, error) {
			b, err, _ := pull()
			return b, err
		}
		if b, err := next(); err != nil || !b.Snapshot || !slices.Equal(ids(b), []string{"+a:1"}) {
			t.Fatalf("first batch %v, %v", b, err)
		}
		f(t, s, l, next)
	})
}

func add(t *testing.T, s *memory.Store, addr string, l naming.Lease) {
	t.Helper()
	if err := s.Apply(t.Context(), "svc", naming.Change{Endpoint: naming.Endpoint{Addr: addr}, Lease: l}); err != nil {
		t.Fatal(err)
	}
}

// ids returns the IDs of a batch: +ID for Put, -ID for Deleted, !ID for Withheld.
func ids(b naming.Batch) (list []string) {
	for _, e := range b.Put {
		list = append(list, "+"+e.ID)
	}
	for _, id := range b.Deleted {
		list = append(list, "-"+id)
	}
	for _, w := range b.Withheld {
		list = append(list, "!"+w.Endpoint.ID)
	}
	return list
}

// first returns the first batch of a new watch.
func first(t *testing.T, s *memory.Store) (naming.Batch, error) {
	for b, err := range s.Watch(t.Context(), "svc") {
		return b, err
	}
	return naming.Batch{}, errors.New("no batch")
}

func want(t *testing.T, what string, b naming.Batch, err error, wantErr error, want ...string) {
	t.Helper()
	if !errors.Is(err, wantErr) || !slices.Equal(ids(b), want) {
		t.Errorf("%s: %v, %v, want %v, %v", what, ids(b), err, want, wantErr)
	}
}

var errDown = errors.New("down")

func TestBreakAndDown(t *testing.T) {
	in(t, func(t *testing.T, s *memory.Store, l naming.Lease, next func() (naming.Batch, error)) {
		lists, stop := iter.Pull2(s.Services(t.Context()))
		defer stop()
		lists()
		s.Break(errDown)
		b, err := next()
		want(t, "broken watch", b, err, errDown)
		if _, err, _ := lists(); !errors.Is(err, errDown) {
			t.Errorf("broken list of services: %v", err)
		}
		b, err = first(t, s)
		want(t, "a new watch", b, err, nil, "+a:1")

		s.Down(errDown)
		b, err = first(t, s)
		want(t, "while down", b, err, errDown)
		_, err = s.Grant(t.Context(), time.Second)
		for _, err := range []error{err, l.Renew(t.Context()), l.Revoke(t.Context()), s.Apply(t.Context(), "svc")} {
			if !errors.Is(err, errDown) {
				t.Errorf("while down: %v", err)
			}
		}
		s.Up()
		b, err = first(t, s)
		want(t, "up again", b, err, nil, "+a:1")
	})
}

func TestRefuseFunc(t *testing.T) {
	in(t, func(t *testing.T, s *memory.Store, l naming.Lease, next func() (naming.Batch, error)) {
		var asked []string
		s.RefuseFunc(func(method, service string) error {
			asked = append(asked, strings.TrimSpace(method+" "+service))
			if method == "Apply" {
				return errDown
			}
			return nil
		})
		if err := s.Apply(t.Context(), "svc", naming.Change{Endpoint: naming.Endpoint{Addr: "b:1"}}); !errors.Is(err, errDown) {
			t.Errorf("refused Apply: %v", err)
		}
		b, err := first(t, s)
		want(t, "a watch that is not refused", b, err, nil, "+a:1")
		if err := l.Renew(t.Context()); err != nil {
			t.Error(err)
		}
		if w := []string{"Apply svc", "Watch svc", "Renew"}; !slices.Equal(asked, w) {
			t.Errorf("f was called with %q, want %q", asked, w)
		}
		s.Refuse(io.EOF)
		if err := l.Renew(t.Context()); !errors.Is(err, io.EOF) {
			t.Errorf("refused Renew: %v", err)
		}
		s.Refuse(nil)
		add(t, s, "b:1", nil)
		b, err = next()
		want(t, "the watch that ran meanwhile", b, err, nil, "+b:1")
	})
}

func TestSilence(t *testing.T) {
	in(t, func(t *testing.T, s *memory.Store, l naming.Lease, next func() (naming.Batch, error)) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		s.Silence()
		s.Silence()
		spoken := make(chan struct{})
		go func() {
			defer close(spoken)
			time.Sleep(memory.SilenceBound / 2)
			s.Speak()
			s.Speak()
		}()
		begin := time.Now()
		if err := s.Apply(ctx, "svc", naming.Change{Endpoint: naming.Endpoint{Addr: "b:1"}}); err != nil || time.Since(begin) != memory.SilenceBound/2 {
			t.Errorf("a call during a short silence: %v after %v", err, time.Since(begin))
		}
		b, err := next()
		want(t, "after a short silence", b, err, nil, "+b:1")

		<-spoken // so that the second Speak does not end the next silence
		s.Silence()
		begin = time.Now()
		if _, err := next(); err == nil || time.Since(begin) != memory.SilenceBound {
			t.Errorf("a watch in a silence: %v after %v, want an error after %v", err, time.Since(begin), memory.SilenceBound)
		}
		begin = time.Now()
		if _, err := first(t, s); err == nil || time.Since(begin) != memory.SilenceBound {
			t.Errorf("a watch that began in a silence: %v after %v, want an error after %v", err, time.Since(begin), memory.SilenceBound)
		}
		if err := l.Renew(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a call in a silence: %v", err)
		}
		time.Sleep(time.Hour)
		s.Speak()
		b, err = first(t, s)
		want(t, "after a silence in which the lease expired", b, err, nil, "+b:1")
	})
}

func TestDelay(t *testing.T) {
	in(t, func(t *testing.T, s *memory.Store, l naming.Lease, next func() (naming.Batch, error)) {
		s.Delay(20 * time.Second)
		begin := time.Now()
		b, err := first(t, s)
		want(t, "a delayed watch", b, err, nil, "+a:1")
		if d := time.Since(begin); d != 20*time.Second {
			t.Errorf("took %v, want 20s", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Apply(ctx, "svc", naming.Change{Endpoint: naming.Endpoint{Addr: "b:1"}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Apply with less time than the delay: %v", err)
		}
		s.Delay(0)
		b, err = first(t, s)
		want(t, "after an Apply that was cancelled", b, err, nil, "+a:1")
	})
}

func TestWipe(t *testing.T) {
	in(t, func(t *testing.T, s *memory.Store, l naming.Lease, next func() (naming.Batch, error)) {
		add(t, s, "b:1", nil)
		next()
		s.Wipe()
		b, err := next()
		want(t, "wiped, together", b, err, nil, "-a:1", "-b:1")
		if err := l.Renew(t.Context()); !errors.Is(err, naming.ErrLeaseLost) {
			t.Errorf("renewal of a wiped lease: %v", err)
		}
	})
}

func TestExpire(t *testing.T) {
	in(t, func(t *testing.T, s *memory.Store, l naming.Lease, next func() (naming.Batch, error)) {
		l2, err := s.Grant(t.Context(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		add(t, s, "b:1", l2)
		add(t, s, "c:1", l2)
		next()
		s.Expire(l2)
		s.Expire(l2)
		b, err := next()
		want(t, "one lease", b, err, nil, "-b:1", "-c:1")
		s.ExpireAll()
		b, err = next()
		want(t, "all leases", b, err, nil, "-a:1")
		if err := l.Renew(t.Context()); !errors.Is(err, naming.ErrLeaseLost) {
			t.Errorf("renewal of an expired lease: %v", err)
		}
		defer func() {
			if recover() == nil {
				t.Error("Expire of another store's lease did not panic")
			}
		}()
		new(memory.Store).Expire(l)
	})
}

// wantServices fails t unless the list of services is the one that is wanted.
func wantServices(t *testing.T, s *memory.Store, want ...string) {
	t.Helper()
	for names, err := range s.Services(t.Context()) {
		if err != nil || !slices.Equal(names, want) {
			t.Errorf("services %q, %v, want %q", names, err, want)
		}
		break
	}
}

// A withheld endpoint is in Withheld with reason and detail, and its service is listed.
func TestWithhold(t *testing.T) {
	in(t, func(t *testing.T, s *memory.Store, l naming.Lease, next func() (naming.Batch, error)) {
		s.Withhold("svc", "a:1", naming.Maintenance, "disk\nfull")
		b, err := next()
		want(t, "withheld", b, err, nil, "!a:1")
		if w := (naming.Withheld{Endpoint: naming.Endpoint{ID: "a:1", Addr: "a:1"}, Reason: naming.Maintenance, Detail: `disk\nfull`}); len(b.Withheld) != 1 || b.Withheld[0].Reason != w.Reason || b.Withheld[0].Detail != w.Detail || !b.Withheld[0].Endpoint.Equal(w.Endpoint) {
			t.Errorf("withheld %v, want %v", b.Withheld, w)
		}
		b, err = first(t, s)
		want(t, "in a snapshot", b, err, nil, "!a:1")
		wantServices(t, s, "svc")
		if err := l.Renew(t.Context()); err != nil {
			t.Error(err)
		}
		s.Withhold("svc", "a:1", naming.FailedCheck, "")
		b, err = next()
		want(t, "for another reason", b, err, nil, "!a:1")
		if len(b.Withheld) != 1 || b.Withheld[0].Reason != naming.FailedCheck || b.Withheld[0].Detail != "" {
			t.Errorf("for another reason: %v", b.Withheld)
		}
	})
}

// An operator's decision outlives puts, deletions and leases. Only Unwithhold ends it.
func TestUnwithhold(t *testing.T) {
	in(t, func(t *testing.T, s *memory.Store, l naming.Lease, next func() (naming.Batch, error)) {
		s.Withhold("svc", "a:1", naming.Maintenance, "")
		next()
		l2, err := s.Grant(t.Context(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		add(t, s, "a:1", l2)
		b, err := next()
		want(t, "put under another lease", b, err, nil, "!a:1")
		if err := l.Revoke(t.Context()); err != nil {
			t.Error(err)
		}
		s.Expire(l2)
		b, err = next()
		want(t, "expired", b, err, nil, "-a:1")
		wantServices(t, s)
		s.Wipe()
		add(t, s, "a:1", nil)
		b, err = next()
		want(t, "put again", b, err, nil, "!a:1")

		s.Lag()
		s.Unwithhold("svc", "a:1")
		b, err = next()
		want(t, "ended", b, err, nil, "+a:1")
		b, err = first(t, s)
		want(t, "the replica that lags", b, err, nil, "!a:1")
		s.CatchUp()
		s.Unwithhold("svc", "a:1")
		s.Unwithhold("other", "b:1")
		s.Withhold("svc", "b:1", naming.Maintenance, "")
		add(t, s, "c:1", nil)
		b, err = next()
		want(t, "after calls about endpoints that do not exist or are not withheld", b, err, nil, "+c:1")
		add(t, s, "b:1", nil)
		b, err = next()
		want(t, "withheld before it was put", b, err, nil, "!b:1")
	})
}

// An endpoint keeps its draining mark.
func TestDraining(t *testing.T) {
	in(t, func(t *testing.T, s *memory.Store, l naming.Lease, next func() (naming.Batch, error)) {
		if err := s.Apply(t.Context(), "svc", naming.Change{Endpoint: naming.Endpoint{Addr: "a:1", Draining: true}, Lease: l}); err != nil {
			t.Fatal(err)
		}
		if b, err := next(); err != nil || len(b.Put) != 1 || !b.Put[0].Draining || b.Put[0].Metadata != nil {
			t.Errorf("%v, %v", b, err)
		}
	})
}

func TestLag(t *testing.T) {
	in(t, func(t *testing.T, s *memory.Store, l naming.Lease, next func() (naming.Batch, error)) {
		s.Lag()
		add(t, s, "b:1", nil)
		b, err := next()
		want(t, "a watch that ran", b, err, nil, "+b:1")
		old, stop := iter.Pull2(s.Watch(t.Context(), "svc"))
		defer stop()
		b, err, _ = old()
		want(t, "a watch of the replica that lags", b, err, nil, "+a:1")
		for b, err := range s.Watch(t.Context(), "new") {
			want(t, "a service that the replica does not have", b, err, nil)
			break
		}
		add(t, s, "c:1", nil)
		s.CatchUp()
		b, err, _ = old()
		want(t, "caught up", b, err, nil, "+a:1", "+b:1", "+c:1")
		if !b.Snapshot {
			t.Error("caught up without a snapshot")
		}
	})
}

func TestMalformed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reported []string
		s := &memory.Store{OnMalformed: func(m *naming.MalformedError) {
			reported = append(reported, fmt.Sprintf("%s/%s: %v", m.Service, m.Key, m.Err))
		}}
		s.PutMalformed("svc", "bad", errDown)
		for range s.Services(t.Context()) {
			break
		}
		add(t, s, "a:1", nil)
		b, err := first(t, s)
		want(t, "beside a malformed entry", b, err, nil, "+a:1")
		if w := []string{"svc/bad: down"}; !slices.Equal(reported, w) {
			t.Errorf("reported %q, want %q", reported, w)
		}
	})
}

// A set or a list that exceeds its limit ends the sequence with an error, and is not
// truncated.
func TestTooMany(t *testing.T) {
	s, ctx := new(memory.Store), t.Context()
	pull, stop := iter.Pull2(s.Watch(ctx, "svc"))
	defer stop()
	pull()
	changes := make([]naming.Change, naming.MaxEndpoints)
	for i := range changes {
		changes[i].Endpoint.ID, changes[i].Endpoint.Addr = fmt.Sprint(i), "a:1"
	}
	if err := s.Apply(ctx, "svc", changes...); err != nil {
		t.Fatal(err)
	}
	if b, err, _ := pull(); err != nil || len(b.Put) != naming.MaxEndpoints {
		t.Fatalf("at the limit: %d endpoints, %v", len(b.Put), err)
	}
	add(t, s, "one more", nil)
	if b, err, _ := pull(); err == nil {
		t.Errorf("beyond the limit, a watch that ran: %d endpoints and no error", len(b.Put))
	}
	if b, err := first(t, s); err == nil {
		t.Errorf("beyond the limit, a new watch: %d endpoints and no error", len(b.Put))
	}
	for i := range naming.MaxServices {
		if err := s.Apply(ctx, fmt.Sprint("svc-", i), naming.Change{Endpoint: naming.Endpoint{Addr: "a:1"}}); err != nil {
			t.Fatal(err)
		}
	}
	for names, err := range s.Services(ctx) {
		if err == nil {
			t.Errorf("beyond the limit: %d services and no error", len(names))
		}
	}
}

// A watch with a slow loop takes memory for the set only, and then yields the whole set.
func TestSlowWatch(t *testing.T) {
	in(t, func(t *testing.T, s *memory.Store, l naming.Lease, next func() (naming.Batch, error)) {
		for i := range 1000 {
			id := fmt.Sprint("x", i)
			add(t, s, id, nil)
			if err := s.Apply(t.Context(), "svc", naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: id}}); err != nil {
				t.Fatal(err)
			}
		}
		add(t, s, "last", nil)
		b, err := next()
		if !b.Snapshot {
			if len(ids(b)) > 100 {
				t.Errorf("kept %d notes of a set of two", len(ids(b)))
			}
			return
		}
		want(t, "after 1000 endpoints came and went", b, err, nil, "+a:1", "+last")
	})
}
