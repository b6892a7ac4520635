package naming_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
)

// announcers is a Composite that records what a Client does with its announcements.
type announcers struct {
	naming.Composite // nil: only the methods below are called

	mu    sync.Mutex
	calls []string      // guarded by mu
	wait  error         // what Wait of an announcement returns
	entry chan struct{} // not nil: Announce waits until it is closed
}

func (a *announcers) call(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls = append(a.calls, fmt.Sprintf(format, args...))
}

// take returns the calls since the last take.
func (a *announcers) take() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	calls := a.calls
	a.calls = nil
	return calls
}

func (a *announcers) Announce(service string, e naming.Endpoint, opts naming.RegisterOptions) (naming.Announcement, error) {
	if e.ID == "refused" {
		return nil, errors.New("refused")
	}
	a.call("announce %s %s %v %v", service, e.ID, opts.TTL, opts.DrainDelay)
	if a.entry != nil {
		<-a.entry
	}
	return &announced{composite: a, id: e.ID}, nil
}

func (a *announcers) Apply(_ context.Context, service string, changes []naming.Change) error {
	a.call("apply %s %d", service, len(changes))
	return nil
}

func (a *announcers) Close() { a.call("close composite") }

// announced is an Announcement that records its calls.
type announced struct {
	composite *announcers
	id        string
	mu        sync.Mutex
	status    naming.RegistrationStatus // guarded by mu
}

func (a *announced) Status() naming.RegistrationStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status
}

func (a *announced) call(ctx context.Context, format string, args ...any) error {
	if ctx == nil {
		return errors.New("a nil context")
	}
	a.composite.call(format, args...)
	return a.composite.wait
}

func (a *announced) Wait(ctx context.Context) error { return a.call(ctx, "wait %s", a.id) }
func (a *announced) Update(ctx context.Context, m json.RawMessage) error {
	return a.call(ctx, "update %s %s", a.id, m)
}
func (a *announced) Drain(ctx context.Context) error  { return a.call(ctx, "drain %s", a.id) }
func (a *announced) Resume(ctx context.Context) error { return a.call(ctx, "resume %s", a.id) }
func (a *announced) Withdraw(ctx context.Context) error {
	if d, ok := ctx.Deadline(); ok && time.Until(d) > 10*time.Second {
		return errors.New("a long context")
	}
	return a.call(ctx, "withdraw %s", a.id)
}

func (a *announced) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status.Closed = true
	return a.call(context.Background(), "close %s", a.id)
}

func expectCalls(t *testing.T, a *announcers, when string, want ...string) {
	t.Helper()
	if got := a.take(); !slices.Equal(got, want) {
		t.Errorf("%s: the calls were %q, want %q", when, got, want)
	}
}

// TestCompositeRegistration expects each method of a Registration to call that of the
// Announcement, with the checks and the defaults of a plain Client.
func TestCompositeRegistration(t *testing.T) {
	a := new(announcers)
	c := naming.NewComposite(a, nil)
	defer c.Close()
	e := naming.Endpoint{Addr: "a:1"}
	g, err := c.Register(nil, "svc", e, nil) //lint:ignore SA1012 a nil context is allowed
	if err != nil {
		t.Fatal(err)
	}
	expectCalls(t, a, "Register", "announce svc a:1 15s 1s")
	//lint:ignore SA1012 a nil context is allowed
	err = errors.Join(g.Wait(nil), g.Update(nil, []byte("1")), g.Drain(nil), g.Resume(nil), g.Withdraw(nil), g.Close())
	if err != nil {
		t.Error(err)
	}
	expectCalls(t, a, "the methods", "wait a:1", "update a:1 1", "drain a:1", "resume a:1", "withdraw a:1", "close a:1")

	if _, err := c.Register(context.Background(), "svc", naming.Endpoint{}, nil); !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("Register without an address returned %v", err)
	}
	if _, err := c.Register(context.Background(), "", e, nil); !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("Register without a service returned %v", err)
	}
	if _, err := c.Register(context.Background(), "svc", naming.Endpoint{ID: "refused", Addr: "a:1"}, nil); err == nil {
		t.Error("Register returned no error, and Announce did")
	}
	expectCalls(t, a, "with wrong arguments")
	if err := c.Update(context.Background(), "svc", naming.Update{Addr: "a:1"}, naming.Update{Op: naming.Delete, Addr: "b:1"}); err != nil {
		t.Error(err)
	}
	expectCalls(t, a, "Update", "apply svc 2")
}

// TestCompositeRegisterWait expects that a Register that waits in vain leaves nothing.
func TestCompositeRegisterWait(t *testing.T) {
	a := &announcers{wait: naming.ErrInvalid}
	c := naming.NewComposite(a, nil)
	g, err := c.Register(context.Background(), "svc", naming.Endpoint{Addr: "a:1"}, &naming.RegisterOptions{Wait: true})
	if g != nil || !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("Register returned %v, %v", g, err)
	}
	expectCalls(t, a, "Register", "announce svc a:1 15s 1s", "wait a:1", "withdraw a:1")
	c.Close()
	expectCalls(t, a, "Close", "close composite")
}

// TestCompositeClose expects that Close closes each open announcement once, and then the
// Composite.
func TestCompositeClose(t *testing.T) {
	a := new(announcers)
	c := naming.NewComposite(a, nil)
	for _, addr := range []string{"a:1", "b:1", "c:1"} {
		g, err := c.Register(context.Background(), "svc", naming.Endpoint{Addr: addr}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if addr == "c:1" {
			_ = g.Close()
		}
	}
	a.take()
	c.Close()
	c.Close()
	calls := a.take()
	slices.Sort(calls[:min(2, len(calls))])
	if want := []string{"close a:1", "close b:1", "close composite"}; !slices.Equal(calls, want) {
		t.Errorf("Close made the calls %q, want %q", calls, want)
	}
	if _, err := c.Register(context.Background(), "svc", naming.Endpoint{Addr: "a:1"}, nil); !errors.Is(err, naming.ErrClientClosed) {
		t.Errorf("Register after Close returned %v", err)
	}
	if err := c.Update(context.Background(), "svc", naming.Update{Addr: "a:1"}); !errors.Is(err, naming.ErrClientClosed) {
		t.Errorf("Update after Close returned %v", err)
	}
	expectCalls(t, a, "after Close")
}

// TestCompositeRegisterDuringClose closes the Client while Announce runs. The announcement
// has to end before the Composite is closed.
func TestCompositeRegisterDuringClose(t *testing.T) {
	a := &announcers{entry: make(chan struct{})}
	c := naming.NewComposite(a, nil)
	registered := make(chan error, 1)
	go func() {
		_, err := c.Register(context.Background(), "svc", naming.Endpoint{Addr: "a:1"}, nil)
		registered <- err
	}()
	for len(a.take()) == 0 {
		time.Sleep(time.Millisecond)
	}
	closed := make(chan struct{})
	go func() { c.Close(); close(closed) }()
	for { // until Close has begun
		if _, err := c.Register(context.Background(), "svc", naming.Endpoint{ID: "refused", Addr: "a:1"}, nil); errors.Is(err, naming.ErrClientClosed) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(a.entry)
	if err := <-registered; !errors.Is(err, naming.ErrClientClosed) {
		t.Errorf("Register returned %v", err)
	}
	<-closed
	expectCalls(t, a, "Close", "withdraw a:1", "close composite")
}

// slowComposite is a Composite whose Close takes a second.
type slowComposite struct{ fakeComposite }

func (c *slowComposite) Close() {
	time.Sleep(time.Second)
	c.fakeComposite.Close()
}

// TestCompositeCloseTwice closes a Client twice at the same time. Both calls wait for the
// Composite, and the time of the bubble goes on.
func TestCompositeCloseTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		composite := new(slowComposite)
		c := naming.NewComposite(composite, nil)
		begun := time.Now()
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				c.Close()
				if d := time.Since(begun); d != time.Second {
					t.Errorf("Close returned after %v, want a second", d)
				}
			})
		}
		wg.Wait()
		if composite.closed != 1 {
			t.Errorf("the Composite was closed %d times", composite.closed)
		}
	})
}
