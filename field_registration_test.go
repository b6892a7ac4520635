package naming_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
)

// picky is a Store whose Apply and Grant can refuse or inspect their arguments.
type picky struct {
	*memory.Store
	mu      sync.Mutex
	applies []naming.Change
	grants  int
	renews  int
	refuse  func(naming.Change) error
	after   func(naming.Change) // called before a successful Apply returns
	grant   func() error
	lease   func(naming.Lease) naming.Lease
}

func (p *picky) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	p.mu.Lock()
	p.applies = append(p.applies, changes...)
	refuse, after := p.refuse, p.after
	p.mu.Unlock()
	for i, c := range changes {
		if refuse != nil {
			if err := refuse(c); err != nil {
				return err
			}
		}
		switch l := c.Lease.(type) {
		case oddLease:
			changes[i].Lease = l.Lease
		case mortal:
			changes[i].Lease = l.Lease
		case forgetful:
			changes[i].Lease = l.Lease
		}
	}
	err := p.Store.Apply(ctx, service, changes...)
	for _, c := range changes {
		if err == nil && after != nil {
			after(c)
		}
	}
	return err
}

func (p *picky) Grant(ctx context.Context, ttl time.Duration) (naming.Lease, error) {
	p.mu.Lock()
	p.grants++
	grant, wrap := p.grant, p.lease
	p.mu.Unlock()
	if grant != nil {
		if err := grant(); err != nil {
			return nil, err
		}
	}
	l, err := p.Store.Grant(ctx, ttl)
	if err == nil && wrap != nil {
		l = wrap(l)
	}
	return l, err
}

// set runs f, which changes p, with p locked.
func (p *picky) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// counts returns the numbers of changes applied and leases granted.
func (p *picky) counts() (applies, grants int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.applies), p.grants
}

// oddLease is a lease that reports another time to live than it has.
type oddLease struct {
	naming.Lease
	ttl   func() time.Duration
	renew func()
}

func (l oddLease) TTL() time.Duration { return l.ttl() }

func (l oddLease) Renew(ctx context.Context) error {
	l.renew()
	return l.Lease.Renew(ctx)
}

var errNoPlace = fmt.Errorf("%w: the format has no place for the mark", naming.ErrInvalid)

func noMark(c naming.Change) error {
	if c.Endpoint.Draining {
		return errNoPlace
	}
	return nil
}

// withLog returns options whose logger writes records of level Warn and above to the
// buffer.
func withLog() (*naming.Options, *bytes.Buffer) {
	var b bytes.Buffer
	return &naming.Options{Logger: slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelWarn})), Hold: naming.Hold{Disabled: true}}, &b
}

// inPicky runs f in a bubble, on a new picky store and a Client on it.
func inPicky(t *testing.T, opts *naming.Options, f func(t *testing.T, p *picky, c *naming.Client)) {
	t.Helper()
	in(t, quiet, func(t *testing.T, s *memory.Store, _ *naming.Client) {
		p := &picky{Store: s}
		if opts == nil {
			opts = quiet
		}
		c := naming.New(p, opts)
		defer c.Close()
		f(t, p, c)
	})
}

// The mark of Drain and of Close is a field of the endpoint. The metadata, which belongs
// to the caller, never changes.
func TestFieldI1MarkIsNoMetadata(t *testing.T) {
	for _, metadata := range []string{``, `null`, `{"k":1}`, `[1]`, `"text"`, `{"draining":false}`, `{"draining":true}`} {
		inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
			g, err := c.Register(t.Context(), "svc", naming.Endpoint{Addr: "a:1", Metadata: json.RawMessage(metadata)}, &naming.RegisterOptions{Wait: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(g.Drain(t.Context()), g.Resume(t.Context()), g.Close()); err != nil {
				t.Error(err)
			}
			marks := 0
			for _, c := range p.applies {
				if c.Op != naming.Add {
					continue
				}
				if !(naming.Endpoint{Metadata: c.Endpoint.Metadata}).Equal(naming.Endpoint{Metadata: json.RawMessage(metadata)}) {
					t.Errorf("metadata %s was put as %s", metadata, c.Endpoint.Metadata)
				}
				if c.Endpoint.Draining {
					marks++
				}
			}
			if marks != 2 {
				t.Errorf("metadata %s: marked %d times, want once by Drain and once by Close", metadata, marks)
			}
		})
	}
}

// No mark is written if Close does not wait for clients, nor for an endpoint that was
// never put.
func TestFieldI1NoMarkWithoutWait(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
		g := register(t, c, "svc", "a:1", &naming.RegisterOptions{Wait: true, DrainDelay: -1})
		begin := time.Now()
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d != 0 {
			t.Errorf("Close took %v", d)
		}
		p.Down(io.ErrUnexpectedEOF)
		begin = time.Now()
		if err := register(t, c, "svc", "b:1", nil).Close(); err != nil {
			t.Errorf("Close of what was never put: %v", err)
		}
		if d := time.Since(begin); d != 0 {
			t.Errorf("Close of what was never put took %v", d)
		}
		p.Up()
		for _, c := range p.applies {
			if c.Endpoint.Draining {
				t.Errorf("%v was marked", c.Endpoint)
			}
		}
		listed(t, p, "svc")
	})
}

// If the format has no place for the mark, Drain returns an error at once and nothing
// changes. Close removes the endpoint, waits afterwards, and returns nil.
func TestFieldI4NoPlaceForTheMark(t *testing.T) {
	opts, log := withLog()
	inPicky(t, opts, func(t *testing.T, p *picky, c *naming.Client) {
		p.refuse = noMark
		g := register(t, c, "svc", `a a:1 {"k":1}`, &naming.RegisterOptions{Wait: true})
		before := g.Status()
		begin := time.Now()
		for range 3 {
			if err := g.Drain(t.Context()); !errors.Is(err, naming.ErrInvalid) || !strings.Contains(err.Error(), "no place") {
				t.Errorf("Drain: %v", err)
			}
			if st := g.Status(); st != before {
				t.Errorf("status after Drain: %+v, want %+v", st, before)
			}
			if err := g.Wait(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if err := g.Update(t.Context(), json.RawMessage(`{"k":2}`)); err != nil {
			t.Error(err)
		}
		listed(t, p, "svc", `a a:1 {"k":2}`)
		if d := time.Since(begin); d != 0 {
			t.Errorf("all that took %v", d)
		}
		// Two at once: the mark is refused, the metadata is stored.
		updated := make(chan error, 1)
		p.Delay(time.Second)
		go func() { updated <- g.Update(t.Context(), json.RawMessage(`{"k":3}`)) }()
		if err := g.Drain(t.Context()); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("Drain: %v", err)
		}
		if err := <-updated; err != nil {
			t.Errorf("Update at the same time as Drain: %v", err)
		}
		p.Delay(0)
		listed(t, p, "svc", `a a:1 {"k":3}`)

		begin = time.Now()
		go func() {
			time.Sleep(500 * time.Millisecond)
			listed(t, p, "svc")
		}()
		if err := g.Close(); err != nil || time.Since(begin) != time.Second {
			t.Errorf("Close: %v after %v", err, time.Since(begin))
		}
	})
	if log.Len() > 0 {
		t.Errorf("logged:\n%s", log)
	}
}

// Drain in an outage, on a store that has no place for the mark, does not prevent the
// endpoint from being put.
func TestFieldI4DrainWhileDown(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
		p.refuse = noMark
		p.Down(io.ErrUnexpectedEOF)
		g := register(t, c, "svc", "a:1", nil)
		drained := make(chan error, 1)
		go func() { drained <- g.Drain(t.Context()) }()
		time.Sleep(time.Minute)
		p.Up()
		if err := <-drained; !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("Drain: %v", err)
		}
		if err := g.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		listed(t, p, "svc", "a:1")
		if st := g.Status(); st.Draining || st.Err != nil {
			t.Errorf("status %+v", st)
		}
	})
}

// Content that the store refuses with ErrInvalid is not retried. Waiting calls return the
// error at once, and it is in the status and in one line of the log.
func TestFieldR9InvalidIsFinal(t *testing.T) {
	invalid := fmt.Errorf("no such datacenter: %w", naming.ErrInvalid)
	for name, refuse := range map[string]func(p *picky, err error){
		"Apply": func(p *picky, err error) {
			p.set(func() { p.refuse = func(naming.Change) error { return err } })
		},
		"Grant": func(p *picky, err error) {
			p.set(func() { p.grant = func() error { return err } })
		},
	} {
		t.Run(name, func(t *testing.T) {
			opts, log := withLog()
			inPicky(t, opts, func(t *testing.T, p *picky, c *naming.Client) {
				refuse(p, invalid)
				begin := time.Now()
				if g, err := c.Register(t.Context(), "svc", endpoint("w:1"), &naming.RegisterOptions{Wait: true}); g != nil || !errors.Is(err, naming.ErrInvalid) {
					t.Errorf("Register with Wait: %v, %v", g, err)
				}
				synctest.Wait()
				log.Reset()
				g := register(t, c, "svc", "a a:1 1", nil)
				synctest.Wait()
				if err := g.Wait(t.Context()); !errors.Is(err, naming.ErrInvalid) {
					t.Errorf("Wait: %v", err)
				}
				if err := g.Update(t.Context(), json.RawMessage(`2`)); !errors.Is(err, naming.ErrInvalid) {
					t.Errorf("Update: %v", err)
				}
				if err := g.Drain(t.Context()); !errors.Is(err, naming.ErrInvalid) {
					t.Errorf("Drain: %v", err)
				}
				if st := g.Status(); st.Registered || !errors.Is(st.Err, naming.ErrInvalid) || st.Draining {
					t.Errorf("status %+v", st)
				}
				if d := time.Since(begin); d != 0 {
					t.Errorf("all that took %v", d)
				}
				applies, grants := p.counts()
				calls := p.Calls()
				time.Sleep(time.Hour)
				a, gr := p.counts()
				if n := a - applies + gr - grants; n < 5 || n > 14 {
					t.Errorf("%d tries in an hour, want one in ten minutes, which may need a lease", n)
				}
				if n := p.Calls() - calls; n > 40 {
					t.Errorf("%d requests in an hour", n)
				}
				synctest.Wait()
				if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "refused") {
					t.Errorf("%d lines logged, want 1:\n%s", n, log)
				}

				// The registry accepts changes again, and the content changes.
				refuse(p, nil)
				if err := g.Update(t.Context(), json.RawMessage(`3`)); err != nil {
					t.Error(err)
				}
				listed(t, p, "svc", "a a:1 3")
				if st := g.Status(); !st.Registered || st.Err != nil {
					t.Errorf("status %+v", st)
				}
				synctest.Wait()
				log.Reset()
				never := register(t, c, "svc", "b:1", nil)
				refuse(p, invalid)
				begin = time.Now()
				late := register(t, c, "svc", "c:1", &naming.RegisterOptions{TTL: time.Minute})
				synctest.Wait()
				if err := late.Close(); err != nil || time.Since(begin) != 0 {
					t.Errorf("Close of what was never put: %v after %v", err, time.Since(begin))
				}
				refuse(p, nil)
				synctest.Wait()
				if strings.Contains(log.String(), "withdrawn") {
					t.Errorf("logged:\n%s", log)
				}
				if err := errors.Join(never.Close(), g.Close()); err != nil {
					t.Error(err)
				}
				listed(t, p, "svc")
			})
		})
	}
}

// After an Update that the store refused, the endpoint is as it was, also when it has to
// be put again.
func TestFieldR9RefusedUpdateIsUndone(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
		p.refuse = func(c naming.Change) error {
			if strings.Contains(string(c.Endpoint.Metadata), "bad") {
				return fmt.Errorf("too large: %w", naming.ErrInvalid)
			}
			return nil
		}
		g := register(t, c, "svc", `a a:1 "good"`, &naming.RegisterOptions{Wait: true})
		if err := g.Update(t.Context(), json.RawMessage(`"bad"`)); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("Update: %v", err)
		}
		if st := g.Status(); !st.Registered || !errors.Is(st.Err, naming.ErrInvalid) {
			t.Errorf("status %+v", st)
		}
		if err := g.Wait(t.Context()); err != nil {
			t.Errorf("Wait: %v", err)
		}
		applies, _ := p.counts()
		time.Sleep(time.Hour)
		if n, _ := p.counts(); n != applies {
			t.Errorf("%d Applies of what was refused", n-applies)
		}
		p.ExpireAll()
		time.Sleep(backWithin)
		listed(t, p, "svc", `a a:1 "good"`)
		if err := g.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		listed(t, p, "svc", `a a:1 "good" draining`)
		if st := g.Status(); st.Err != nil {
			t.Errorf("status %+v", st)
		}
		// The endpoint is draining already, so the store does not refuse the mark.
		if err := g.Update(t.Context(), json.RawMessage(`"bad"`)); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("Update: %v", err)
		}
		listed(t, p, "svc", `a a:1 "good" draining`)
		if !g.Status().Draining {
			t.Error("the draining mark is gone")
		}
		if err := g.Update(t.Context(), json.RawMessage(`"better"`)); err != nil {
			t.Error(err)
		}
		listed(t, p, "svc", `a a:1 "better" draining`)
	})
}

// Content that the store accepted before, and refuses now, is retried.
func TestFieldR9TakenBefore(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
		register(t, c, "svc", "a:1", &naming.RegisterOptions{Wait: true})
		p.set(func() { p.refuse = func(naming.Change) error { return naming.ErrInvalid } })
		p.ExpireAll()
		time.Sleep(time.Hour)
		if n, _ := p.counts(); n > 400 {
			t.Errorf("%d Applies in an hour", n)
		}
		p.set(func() { p.refuse = nil })
		time.Sleep(backWithin)
		listed(t, p, "svc", "a:1")
	})
}

// The newest Registration of an endpoint owns it.
func TestFieldR2NewestOwns(t *testing.T) {
	opts, log := withLog()
	inPicky(t, opts, func(t *testing.T, p *picky, c *naming.Client) {
		old := register(t, c, "svc", `a a:1 {"gen":1}`, &naming.RegisterOptions{Wait: true})
		g := register(t, c, "svc", `a a:1 {"gen":2}`, &naming.RegisterOptions{Wait: true, TTL: time.Minute})
		synctest.Wait()
		w := resolve(t, c, "svc")
		next(t, w, `Add a:1 {"gen":2}`)
		begin := time.Now()
		for _, err := range []error{old.Update(t.Context(), json.RawMessage(`{"gen":1}`)), old.Drain(t.Context()), old.Resume(t.Context())} {
			if !errors.Is(err, naming.ErrReplaced) {
				t.Errorf("a method of the older one: %v", err)
			}
		}
		if err := old.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		if st := old.Status(); st.Registered || !errors.Is(st.Err, naming.ErrReplaced) || st.Draining {
			t.Errorf("status of the older one %+v", st)
		}
		if st := g.Status(); !st.Registered || st.Err != nil {
			t.Errorf("status of the newer one %+v", st)
		}
		if err := old.Close(); err != nil || time.Since(begin) != 0 {
			t.Errorf("Close of the older one: %v after %v", err, time.Since(begin))
		}
		time.Sleep(time.Hour)
		listed(t, p, "svc", `a a:1 {"gen":2}`)
		synctest.Wait()
		if n := strings.Count(log.String(), "\n"); n != 1 {
			t.Errorf("%d lines logged, want 1:\n%s", n, log)
		}
		silent(t, w)
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		listed(t, p, "svc")
	})
}

// Two Registrations of one endpoint are made and closed in all orders and at many moments.
// The entry is there while one of them is open, and gone after both were closed.
func TestFieldR2Orders(t *testing.T) {
	for _, ttl := range []time.Duration{0, time.Minute} { // one lease, and two
		for _, oldFirst := range []bool{true, false} {
			for wait := time.Duration(0); wait <= 4*time.Second; wait += 250 * time.Millisecond {
				inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
					old := register(t, c, "svc", "a a:1 1", &naming.RegisterOptions{Wait: true})
					p.Delay(time.Second) // so that calls are in progress at many moments
					g := register(t, c, "svc", "a a:1 2", &naming.RegisterOptions{TTL: ttl})
					time.Sleep(wait)
					first, second, want := old, g, "a a:1 2"
					if !oldFirst {
						first, second, want = g, old, "a a:1 1"
					}
					if err := first.Close(); err != nil {
						t.Errorf("first Close after %v: %v", wait, err)
					}
					if oldFirst { // the endpoint is never gone
						for range 300 {
							time.Sleep(100 * time.Millisecond)
							p.Delay(0)
							if view, err := naming.New(p, quiet).List(t.Context(), "svc"); err != nil || len(view.Endpoints) != 1 {
								t.Fatalf("after the older one was closed %v after the newer one was made: %v, %v", wait, show(view.Endpoints), err)
							}
							p.Delay(time.Second)
						}
					}
					time.Sleep(30 * time.Second)
					p.Delay(0)
					listed(t, p, "svc", want)
					if st := second.Status(); !st.Registered || st.Err != nil {
						t.Errorf("status of the one that is left: %+v", st)
					}
					if err := second.Close(); err != nil {
						t.Errorf("second Close: %v", err)
					}
					listed(t, p, "svc")
				})
			}
		}
	}
}

// Both are closed at once, before the newer one was put, and nothing is left.
func TestFieldR2BothClosed(t *testing.T) {
	for wait := time.Duration(0); wait <= 3*time.Second; wait += 100 * time.Millisecond {
		inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
			register(t, c, "svc", "other:1", &naming.RegisterOptions{Wait: true}) // keeps the lease in use
			old := register(t, c, "svc", "a a:1 1", &naming.RegisterOptions{Wait: true})
			p.Delay(time.Second)
			g := register(t, c, "svc", "a a:1 2", &naming.RegisterOptions{TTL: time.Minute})
			time.Sleep(wait)
			var wg sync.WaitGroup
			wg.Go(func() { old.Close() })
			wg.Go(func() { g.Close() })
			wg.Wait()
			p.Delay(0)
			time.Sleep(10 * time.Second)
			listed(t, p, "svc", "other:1")
		})
	}
}

// Many Registrations of one endpoint and of one Client run at once.
func TestFieldR2Race(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				for range 20 {
					g := register(t, c, "svc", fmt.Sprint("a a:1 ", i), &naming.RegisterOptions{DrainDelay: time.Millisecond})
					time.Sleep(time.Duration(i) * time.Millisecond)
					_ = g.Update(t.Context(), json.RawMessage(`"new"`))
					if err := g.Close(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Minute)
		listed(t, p, "svc")
		last := register(t, c, "svc", "a a:1", nil)
		synctest.Wait()
		listed(t, p, "svc", "a a:1")
		last.Close()
	})
}

// A newer Registration that the store refuses does not take the entry from the older one.
func TestFieldR2NewerRefused(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
		p.refuse = func(c naming.Change) error {
			if string(c.Endpoint.Metadata) == "2" {
				return naming.ErrInvalid
			}
			return nil
		}
		old := register(t, c, "svc", "a a:1 1", &naming.RegisterOptions{Wait: true})
		if _, err := c.Register(t.Context(), "svc", endpoint("a a:1 2"), &naming.RegisterOptions{Wait: true}); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("Register: %v", err)
		}
		for range 100 {
			listed(t, p, "svc", "a a:1 1")
			time.Sleep(time.Second)
		}
		if st := old.Status(); !st.Registered || st.Err != nil {
			t.Errorf("status %+v", st)
		}
		old.Close()
		listed(t, p, "svc")
	})
}

// Two Clients do not know each other: the leases protect the newer entry.
func TestFieldR2TwoRegistries(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
		r2 := naming.New(p, quiet)
		defer r2.Close()
		old := register(t, c, "svc", "a a:1 1", &naming.RegisterOptions{Wait: true})
		g := register(t, r2, "svc", "a a:1 2", &naming.RegisterOptions{Wait: true})
		time.Sleep(time.Minute)
		if err := old.Close(); err != nil {
			t.Error(err)
		}
		listed(t, p, "svc", "a a:1 2")
		g.Close()
		listed(t, p, "svc")
	})
}

// The Client is closed while Register waits for a store that is down.
func TestFieldR3CloseWhileRegisterWaits(t *testing.T) {
	s := new(memory.Store)
	s.Down(io.ErrUnexpectedEOF)
	for range 20 {
		c := naming.New(s, quiet)
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
				defer cancel()
				if _, err := c.Register(ctx, "svc", endpoint(fmt.Sprintf("a:%d", i+1)), &naming.RegisterOptions{Wait: true}); err == nil {
					t.Error("Register succeeded")
				}
			})
		}
		time.Sleep(2 * time.Millisecond)
		c.Close()
		wg.Wait()
	}
}

// A nil context means context.Background().
func TestFieldR4NilContext(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
		var none context.Context
		g, err := c.Register(none, "svc", endpoint("a:1"), &naming.RegisterOptions{Wait: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{g.Wait(none), g.Update(none, json.RawMessage("1")), g.Drain(none), g.Resume(none)} {
			if err != nil {
				t.Error(err)
			}
		}
	})
}

// panics is a context of the caller, with a method that panics.
type panics struct{ context.Context }

func (panics) Done() <-chan struct{} { panic("a context of the caller") }

// No code of the caller runs under a lock: whatever the code does, the Registration can be
// used and closed.
func TestFieldR4CallersCode(t *testing.T) {
	var g *naming.Registration
	busy := false
	look := func() {
		if g != nil {
			_ = g.Status()
		}
	}
	opts := &naming.Options{Logger: quiet.Logger, Hooks: &naming.Hooks{
		Registered:     func(naming.RegisteredInfo) { look() },
		Lost:           func(naming.LostInfo) { look() },
		RegisterFailed: func(naming.RegisterFailedInfo) { look() },
		Withdrawn:      func(naming.WithdrawnInfo) { look() },
	}}
	inPicky(t, opts, func(t *testing.T, p *picky, c *naming.Client) {
		p.Delay(time.Second)
		g = register(t, c, "svc", "a:1", &naming.RegisterOptions{OnChange: func(naming.RegistrationStatus) {
			busy = true
			_ = g.Status()
		}})
		func() {
			defer func() { _ = recover() }()
			_ = g.Update(panics{t.Context()}, json.RawMessage("1"))
			t.Error("no panic")
		}()
		if err := g.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		p.Delay(0)
		p.ExpireAll()
		time.Sleep(time.Minute)
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		if !busy {
			t.Error("OnChange was not called")
		}
	})
}

// The store's time to live is read once, and no value of it causes a storm or a panic.
func TestFieldR6OddTimesToLive(t *testing.T) {
	for _, ttl := range []time.Duration{0, -1, -5 * time.Second, math.MinInt64, 1, time.Millisecond, 999 * time.Millisecond, time.Second, 100 * time.Hour, math.MaxInt64} {
		t.Run(ttl.String(), func(t *testing.T) {
			inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
				asked := 0
				p.lease = func(l naming.Lease) naming.Lease {
					return oddLease{l, func() time.Duration { p.set(func() { asked++ }); return ttl }, func() { p.set(func() { p.renews++ }) }}
				}
				g := register(t, c, "svc", "a:1", &naming.RegisterOptions{TTL: 24 * time.Hour})
				time.Sleep(time.Minute)
				_, grants := p.counts()
				good := ttl >= time.Second
				if st := g.Status(); st.Registered != good || !good && (st.Err == nil || !strings.Contains(st.Err.Error(), "contract")) {
					t.Errorf("status %+v", st)
				}
				if p.renews > 4*60 || grants > 20 || asked > grants {
					t.Errorf("%d renewals, %d grants in a minute; TTL was asked %d times", p.renews, grants, asked)
				}
				if good {
					listed(t, p, "svc", "a:1")
				} else {
					listed(t, p, "svc")
				}
				if err := g.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A store that grants a nil lease without an error is an error.
func TestFieldR6NilLease(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
		p.lease = func(naming.Lease) naming.Lease { return nil }
		g := register(t, c, "svc", "a:1", nil)
		time.Sleep(time.Minute)
		if st := g.Status(); st.Registered || st.Err == nil {
			t.Errorf("status %+v", st)
		}
	})
}

// Options out of their documented ranges are refused, or mean the default.
func TestFieldR14Ranges(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
		for _, o := range []naming.RegisterOptions{
			{DrainDelay: math.MaxInt64}, {DrainDelay: time.Hour + 1}, {CloseTimeout: math.MaxInt64}, {CloseTimeout: 2*time.Hour + 1},
			{TTL: math.MaxInt64}, {TTL: math.MinInt64}, {TTL: 1},
		} {
			if g, err := c.Register(t.Context(), "svc", endpoint("a:1"), &o); g != nil || !errors.Is(err, naming.ErrInvalid) {
				t.Errorf("%+v: %v, %v", o, g, err)
			}
		}
		for _, o := range []naming.RegisterOptions{
			{DrainDelay: time.Hour}, {CloseTimeout: 2 * time.Hour}, {DrainDelay: math.MinInt64}, {CloseTimeout: math.MinInt64},
			{CloseTimeout: 1}, {CloseTimeout: time.Second}, {DrainDelay: time.Hour, CloseTimeout: time.Second}, {DrainDelay: 1, CloseTimeout: 1},
		} {
			o.Wait = true
			g := register(t, c, "svc", "a:1", &o)
			begin := time.Now()
			_ = g.Close()
			most := o.CloseTimeout
			if most <= 0 {
				most = max(o.DrainDelay, 0) + 5*time.Second
			}
			if d := time.Since(begin); d > most {
				t.Errorf("%+v: Close took %v", o, d)
			}
			time.Sleep(time.Minute)
			listed(t, p, "svc")
		}
	})
}

// A deletion does not mean an overload: an endpoint that is deleted again and again is
// away for two seconds at most each time.
func TestFieldR11DeletedAgainAndAgain(t *testing.T) {
	for _, pause := range []time.Duration{time.Second, 10 * time.Millisecond, 10 * time.Second} {
		inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
			register(t, c, "svc", "a:1", &naming.RegisterOptions{Wait: true})
			applies, _ := p.counts()
			begin := time.Now()
			for i := range 60 {
				time.Sleep(pause)
				remove(t, p, "svc", "a:1")
				gone := time.Now()
				for {
					time.Sleep(10 * time.Millisecond)
					view := listIDs(t, p, "svc")
					if len(view) == 1 {
						break
					}
					if d := time.Since(gone); d > 2*time.Second {
						t.Fatalf("deletion %d: away for %v", i, d)
					}
				}
			}
			n, _ := p.counts()
			if most := 60 + 120; n-applies > most {
				t.Errorf("%d Applies in %v", n-applies, time.Since(begin))
			}
		})
	}
}

// listIDs returns the IDs that the store has, read without a Client.
func listIDs(t *testing.T, s naming.Store, service string) (list []string) {
	t.Helper()
	for b, err := range s.Watch(t.Context(), service) {
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range b.Put {
			list = append(list, e.ID)
		}
		break
	}
	return list
}

// An address that clients cannot dial, or that would steer a terminal, is refused.
func TestFieldR12CheckAddress(t *testing.T) {
	for _, addr := range []string{
		"h\x00ost:1", "unix:\x1b/x", "unix:/run/\x00", "unix-abstract:\x07", "h\u202est:1", "h\u00a0x:1", "ho\tst:1", " host:1", "host :1", "h\xffst:1",
		"..:1", ".a:1", "a..b:1", "a/b:1", "http://a:1", "a,b:1", "user@a:1", "a?b:1", "a%b:1", "b\u00fccher.example:1", strings.Repeat("a", 64) + ":1",
		strings.Repeat("a.", 127) + "a:1", strings.Repeat("a", naming.MaxAddr) + ":1",
		"0:1", "1:1", "1.2.3:1", "256.1.1.1:1", "1.2.3.4.5:1", "a.1:1", "[::ffff:0.0.0.0]:1", "224.0.0.1:1", "[ff02::1]:1", "255.255.255.255:1",
		"[a]:1", "[10.0.0.1]:1", "[[::1]]:1", "a:+1", "a:-1", "a: 1", "a:1 ", "a:", "a", "[::1]", "::1", "[fe80::1%eth 0]:1", "[fe80::1%a%b]:1",
		"unix:", "unix:///", "unix://host/x", "unix:/run/", "unix: /run/x", "unix:/run/x ", "unix:\n", "unix:" + strings.Repeat("a", 108),
	} {
		err := naming.CheckAddress(addr)
		if !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("%q: %v", addr, err)
		} else if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) || len(err.Error()) > 4*naming.MaxText {
			t.Errorf("%.100q: error %.100q", addr, err.Error())
		}
	}
	for _, addr := range []string{
		"a:1", "A-b_c.d.:65535", "xn--bcher-kva.example:1", "10.0.0.7:9000", "1a:1", "10-0-0-1.pod:1", "[::1]:80", "[fe80::1%eth0]:80", "[2001:db8::1]:1", "[::ffff:10.0.0.1]:1",
		"unix:/run/a.sock", "unix:a.sock", "unix:///run/a.sock", "unix:/Application Support/x.sock", "unix-abstract:a",
	} {
		if err := naming.CheckAddress(addr); err != nil {
			t.Error(err)
		}
	}
}

// Ready returns why the endpoint is not ready.
func TestFieldI6Ready(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
		down := errors.New("registry down")
		p.Down(down)
		g := register(t, c, "svc", "a:1", &naming.RegisterOptions{DrainDelay: 10 * time.Second})
		not := func(why string) {
			t.Helper()
			if err := g.Ready(); err == nil || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), `"a:1"`) {
				t.Errorf("Ready: %v, want an error with %q", err, why)
			}
		}
		not("not registered yet")
		time.Sleep(time.Second)
		not("not registered: memory: grant: registry down")
		if err := g.Ready(); !errors.Is(err, down) {
			t.Errorf("Ready does not wrap the cause: %v", err)
		}
		text, err := json.Marshal(g.Status())
		var got map[string]any
		if err != nil || json.Unmarshal(text, &got) != nil || got["Err"] != "memory: grant: registry down" || got["Registered"] != false || got["Withheld"] != nil || got["Since"] != "2000-01-01T00:00:00Z" {
			t.Errorf("status %s, %v", text, err)
		}
		p.Up()
		if err := g.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		if err := g.Ready(); err != nil {
			t.Error(err)
		}
		if text, err := json.Marshal(g.Status()); err != nil || !strings.Contains(string(text), `"Err":null`) {
			t.Errorf("status %s, %v", text, err)
		}
		if err := g.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		not("draining")
		if err := g.Resume(t.Context()); err != nil {
			t.Error(err)
		}
		if err := g.Ready(); err != nil {
			t.Error(err)
		}
		done := make(chan error)
		go func() { done <- g.Close() }()
		time.Sleep(time.Second)
		not("closed")
		if st := g.Status(); !st.Registered || !st.Draining {
			t.Errorf("status while it closes: %+v", st)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		not("closed")
		if text, err := json.Marshal(naming.RegistrationStatus{Withheld: &naming.Withheld{Endpoint: naming.Endpoint{ID: "a"}, Reason: naming.Maintenance, Detail: "note"}, Err: errors.New("\x1b[31m")}); err != nil || !strings.Contains(string(text), `"Reason":"maintenance","Detail":"note"`) || strings.Contains(string(text), `u001b`) {
			t.Errorf("status %s, %v", text, err)
		}
	})
}

// An endpoint that is withheld stays registered, and the status says why it is withheld.
// Nothing is written. One line is logged when that begins, and one when it ends.
func TestFieldW2LeftAlone(t *testing.T) {
	var log bytes.Buffer
	opts := &naming.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	for _, reason := range []naming.Reason{naming.Maintenance, naming.FailedCheck} {
		inPicky(t, opts, func(t *testing.T, p *picky, c *naming.Client) {
			var states []naming.RegistrationStatus
			g := register(t, c, "svc", "a a:1 1", &naming.RegisterOptions{Wait: true, OnChange: func(s naming.RegistrationStatus) { states = append(states, s) }})
			since := g.Status().Since
			synctest.Wait()
			for i := range 2 {
				synctest.Wait()
				log.Reset()
				states = nil
				applies, grants := p.counts()
				p.Withhold("svc", "a", reason, "a \x1b note")
				for range 45 {
					time.Sleep(time.Second)
					st := g.Status()
					if !st.Registered || st.Err != nil || st.Since != since || st.Withheld == nil || st.Withheld.Reason != reason {
						t.Fatalf("status %+v", st)
					}
					if err := g.Ready(); err == nil || !strings.Contains(err.Error(), reason.String()) {
						t.Fatalf("Ready: %v", err)
					}
				}
				synctest.Wait()
				if n := strings.Count(log.String(), "endpoint=a"); n != 1 || !strings.Contains(log.String(), reason.String()) {
					t.Errorf("%d lines:\n%s", n, &log)
				}
				if a, gr := p.counts(); a != applies || gr != grants {
					t.Errorf("%d Applies and %d Grants while it was withheld", a-applies, gr-grants)
				}
				if len(states) != 1 || states[0].Withheld == nil {
					t.Errorf("OnChange: %+v", states)
				}
				// Content and the mark are still put.
				meta := json.RawMessage(fmt.Sprint(i + 10))
				if err := errors.Join(g.Update(t.Context(), meta), g.Drain(t.Context()), g.Resume(t.Context()), g.Wait(t.Context())); err != nil {
					t.Error(err)
				}
				if st := g.Status(); st.Withheld == nil {
					t.Errorf("status after Update: %+v", st)
				}
				// After a lost lease the endpoint is put again, and the reason stays.
				p.ExpireAll()
				time.Sleep(backWithin)
				if st := g.Status(); !st.Registered || st.Withheld == nil {
					t.Errorf("status after the lease was lost: %+v", st)
				}
				since = g.Status().Since
				synctest.Wait()
				log.Reset()
				p.Unwithhold("svc", "a")
				synctest.Wait()
				if st := g.Status(); !st.Registered || st.Withheld != nil || st.Err != nil {
					t.Errorf("status when it ended: %+v", st)
				}
				synctest.Wait()
				if n := strings.Count(log.String(), "\n"); n != 1 {
					t.Errorf("%d lines when it ended:\n%s", n, &log)
				}
				listed(t, p, "svc", fmt.Sprint("a a:1 ", i+10))
				if err := g.Ready(); err != nil {
					t.Error(err)
				}
			}
			p.Withhold("svc", "a", reason, "")
			synctest.Wait()
			if err := g.Close(); err != nil {
				t.Error(err)
			}
			p.Unwithhold("svc", "a")
			listed(t, p, "svc")
		})
	}
}

// An endpoint is withheld before it is put, and another Client puts it meanwhile.
func TestFieldW2PutByOthers(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
		p.Withhold("svc", "a", naming.Maintenance, "")
		g := register(t, c, "svc", "a a:1 1", &naming.RegisterOptions{Wait: true})
		synctest.Wait()
		if st := g.Status(); !st.Registered || st.Withheld == nil {
			t.Errorf("status %+v", st)
		}
		r2 := naming.New(p, quiet)
		defer r2.Close()
		register(t, r2, "svc", "a a:1 2", &naming.RegisterOptions{Wait: true})
		applies, _ := p.counts()
		time.Sleep(time.Hour)
		if n, _ := p.counts(); n != applies {
			t.Errorf("%d Applies", n-applies)
		}
		// An endpoint that is deleted while it is withheld is put again, and still
		// withheld.
		remove(t, p, "svc", "a")
		time.Sleep(3 * time.Second)
		p.Unwithhold("svc", "a")
		if list := listIDs(t, p, "svc"); len(list) != 1 {
			t.Errorf("%v after a deletion while it was withheld", list)
		}
	})
}

// An operator edits the entry by hand, which removes its lease. The entry is put under the
// lease again, so that it vanishes with the server, whether the server stops or crashes.
func TestFieldR8EditedByHand(t *testing.T) {
	for _, edit := range []string{"a a:1 1", "a a:1 2", "a a:1", "a a:1 1 draining"} {
		inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
			edit, draining := strings.CutSuffix(edit, " draining")
			e := endpoint(edit)
			e.Draining = draining
			put := func() {
				t.Helper()
				if err := p.Store.Apply(t.Context(), "svc", naming.Change{Endpoint: e}); err != nil {
					t.Fatal(err)
				}
			}
			var errs []error
			opts := &naming.RegisterOptions{Wait: true, OnChange: func(s naming.RegistrationStatus) { errs = append(errs, s.Err) }}
			g := register(t, c, "svc", "a a:1 1", opts)
			synctest.Wait()
			applies, _ := p.counts()
			for range 3 {
				errs = nil
				put()
				time.Sleep(2 * time.Second)
				listed(t, p, "svc", "a a:1 1")
				if st := g.Status(); !st.Registered || st.Err != nil {
					t.Errorf("%q: status %+v", edit, st)
				}
				if len(errs) == 0 || errs[0] == nil || !strings.Contains(errs[0].Error(), "no lease") {
					t.Errorf("%q: the status had no such error: %v", edit, errs)
				}
				time.Sleep(10 * time.Minute)
			}
			if n, _ := p.counts(); n != applies+3 {
				t.Errorf("%q: %d Applies for 3 edits", edit, n-applies)
			}

			// Edited just before Close.
			p.Delay(100 * time.Millisecond)
			put()
			p.Delay(0)
			if err := g.Close(); err != nil {
				t.Error(err)
			}
			listed(t, p, "svc")

			// Edited while the watch is down, and closed before the watch is back.
			// Without a mark, because the put of the mark would replace the edit.
			opts.DrainDelay = -1
			g = register(t, c, "svc", "a a:1 1", opts)
			p.RefuseFunc(func(method, _ string) error {
				if method == "Watch" {
					return io.ErrUnexpectedEOF
				}
				return nil
			})
			p.Break(io.ErrUnexpectedEOF)
			put()
			time.Sleep(time.Minute)
			if err := g.Close(); err != nil {
				t.Error(err)
			}
			p.Up()
			listed(t, p, "svc")

			// Edited, and then the process is gone.
			r2 := naming.New(p, quiet)
			register(t, r2, "svc", "a a:1 1", opts)
			put()
			time.Sleep(time.Second)
			p.RefuseFunc(func(method, _ string) error { return io.ErrUnexpectedEOF }) // to that process
			time.Sleep(time.Minute)
			p.Up()
			if list := listIDs(t, p, "svc"); len(list) > 1 {
				t.Errorf("%q: %v", edit, list)
			}
			r2.Close()
			listed(t, p, "svc")
		})
	}
}

// An operator edits the entry while it is being put. When the put has ended, the watch may
// have shown the edit already, or may show both at once, or may have failed. An edit that
// the watch showed is undone at once, any other after a read.
func TestFieldR8EditedDuringThePut(t *testing.T) {
	for _, edit := range []string{"a a:1 1", "a a:1 2"} {
		for _, again := range []bool{false, true} {
			for _, row := range []struct {
				name   string
				during func(p *picky, edit func())
				within time.Duration
			}{
				{"shown", func(_ *picky, edit func()) { time.Sleep(time.Millisecond); edit(); time.Sleep(time.Millisecond) }, 2 * time.Second},
				{"not shown", func(_ *picky, edit func()) { edit() }, 10 * time.Second},
				{"shown by a new watch", func(p *picky, edit func()) { p.Break(io.ErrUnexpectedEOF); edit() }, 10 * time.Second},
			} {
				inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
					apply := func() {
						if err := p.Store.Apply(t.Context(), "svc", naming.Change{Endpoint: endpoint(edit)}); err != nil {
							t.Error(err)
						}
					}
					arm := func() {
						p.set(func() {
							p.after = func(naming.Change) {
								p.set(func() { p.after = nil })
								row.during(p, apply)
							}
						})
					}
					if !again {
						arm()
					}
					register(t, c, "svc", "a a:1 1", &naming.RegisterOptions{Wait: true})
					synctest.Wait()
					if again {
						arm()
						apply()
					}
					time.Sleep(row.within)
					v, err := c.List(t.Context(), "svc")
					if err != nil || len(v.Endpoints) != 1 || v.Endpoints[0].Unleased || string(v.Endpoints[0].Metadata) != "1" {
						t.Errorf("edit %q, again %v, %s: not as it was, under a lease, within %v: %+v, %v", edit, again, row.name, row.within, v.Endpoints, err)
					}
					if applies, _ := p.counts(); applies > 4 {
						t.Errorf("edit %q, again %v, %s: %d Applies", edit, again, row.name, applies)
					}
				})
			}
		}
	}
}

// If the server crashes after the edit, the entry is removed with the lease.
func TestFieldR8EditedThenCrashed(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
		dead := false
		p.lease = func(l naming.Lease) naming.Lease {
			return mortal{l, func() bool { p.mu.Lock(); defer p.mu.Unlock(); return dead }}
		}
		p.refuse = nil
		register(t, c, "svc", "a a:1 1", &naming.RegisterOptions{Wait: true})
		synctest.Wait()
		put(t, p.Store, "svc", "a a:1 1")
		time.Sleep(time.Second)
		p.set(func() { dead = true; p.refuse = func(naming.Change) error { return io.ErrUnexpectedEOF } })
		time.Sleep(time.Minute)
		if list := listIDs(t, p, "svc"); len(list) != 0 {
			t.Errorf("%v a minute after the server is gone", list)
		}
	})
}

// mortal is a lease that is not renewed after its process died.
type mortal struct {
	naming.Lease
	dead func() bool
}

func (l mortal) Renew(ctx context.Context) error {
	if l.dead() {
		return io.ErrUnexpectedEOF
	}
	return l.Lease.Renew(ctx)
}

// An entry with another address belongs to a successor, and is not touched.
func TestFieldR8Successor(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
		g := register(t, c, "svc", "a a:1 1", &naming.RegisterOptions{Wait: true})
		synctest.Wait()
		put(t, p.Store, "svc", "a b:1 1")
		time.Sleep(10 * time.Minute)
		p.ExpireAll()
		time.Sleep(10 * time.Minute)
		listed(t, p, "svc", "a b:1 1")
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		listed(t, p, "svc", "a b:1 1")
	})
}

// A snapshot that is older than a put does not prove a deletion: after an outage with a
// wipe, on a slow registry, no Registration reports a deletion.
func TestFieldR2OldSnapshotIsNoDeletion(t *testing.T) {
	for _, delay := range []time.Duration{0, 5 * time.Millisecond, 100 * time.Millisecond, time.Second, 3 * time.Second} {
		var mu sync.Mutex
		losses := 0
		opts := &naming.Options{Logger: quiet.Logger, Hooks: &naming.Hooks{Lost: func(info naming.LostInfo) {
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(info.Err, naming.ErrDeleted) {
				losses++
			}
		}}}
		inPicky(t, opts, func(t *testing.T, p *picky, c *naming.Client) {
			var all []*naming.Registration
			for i := range 200 {
				all = append(all, register(t, c, "svc", fmt.Sprintf("a:%d", i+1), nil))
			}
			synctest.Wait()
			for range 3 {
				p.Down(io.ErrUnexpectedEOF)
				time.Sleep(time.Minute)
				p.Wipe()
				p.Delay(delay)
				p.Up()
				time.Sleep(2 * time.Minute)
				p.Delay(0)
				for _, g := range all {
					if st := g.Status(); !st.Registered {
						t.Fatalf("with Apply taking %v: status %+v", delay, st)
					}
				}
				if n := len(listIDs(t, p, "svc")); n != 200 {
					t.Fatalf("%d endpoints", n)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if losses > 0 {
				t.Errorf("with Apply taking %v: %d deletions that did not happen", delay, losses)
			}
		})
	}
}

// A registry may have forgotten a lease and keep the lease's entry for a while. A put that
// leaves such an entry does not count as registered until the watch shows the entry, or
// had time to show it. When the entry ends, the endpoint is put again.
func TestFieldR1OwnOldEntry(t *testing.T) {
	for _, watched := range []bool{true, false} {
		inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
			var forgotten atomic.Bool
			var granted atomic.Int32
			p.lease = func(l naming.Lease) naming.Lease {
				if granted.Add(1) > 1 {
					return l
				}
				return forgetful{l, &forgotten}
			}
			const ttl = 30 * time.Second
			g := register(t, c, "svc", "a:1", &naming.RegisterOptions{Wait: true, TTL: ttl})
			synctest.Wait()
			if !watched {
				p.RefuseFunc(func(method, _ string) error {
					if method == "Watch" {
						return io.ErrUnexpectedEOF
					}
					return nil
				})
				p.Break(io.ErrUnexpectedEOF)
			}
			leftAlone := make(chan struct{}, 100)
			p.set(func() {
				p.after = func(c naming.Change) {
					if c.IfFree {
						leftAlone <- struct{}{}
					}
				}
			})
			began := time.Now()
			forgotten.Store(true)
			<-leftAlone
			if d := time.Since(began); d > ttl {
				t.Fatalf("put after %v, when the entry had ended", d)
			}
			synctest.Wait()
			if st := g.Status(); st.Registered != watched {
				t.Errorf("watched: %v: status %+v", watched, st)
			}
			p.RefuseFunc(nil)
			listed(t, p, "svc", "a:1")
			time.Sleep(ttl + backWithin)
			for range 10 { // the endpoint is under a lease that is renewed
				time.Sleep(ttl)
				listed(t, p, "svc", "a:1")
				if st := g.Status(); !st.Registered {
					t.Errorf("watched: %v: status %+v", watched, st)
				}
			}
		})
	}
}

// forgetful is a lease that the registry says it does not have, and whose entries the
// registry keeps until the lease ends.
type forgetful struct {
	naming.Lease
	forgotten *atomic.Bool
}

func (l forgetful) Renew(ctx context.Context) error {
	if l.forgotten.Load() {
		return naming.ErrLeaseLost
	}
	return l.Lease.Renew(ctx)
}

// writeOnly is a store whose user may write but not read: it refuses changes with a
// condition.
type writeOnly struct{ *memory.Store }

func (s writeOnly) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	for _, c := range changes {
		if c.IfFree || c.Op == naming.Delete && c.Lease != nil {
			return fmt.Errorf("a condition reads: %w", naming.ErrPermission)
		}
	}
	return s.Store.Apply(ctx, service, changes...)
}

// If the user may not remove the endpoint, Close ends its lease, which takes fewer rights.
// If that is not possible either, Close returns the error at once.
func TestFieldE6CloseWithoutRights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := writeOnly{new(memory.Store)}
		c := naming.New(s, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
		defer c.Close()
		register := func(addr string) *naming.Registration {
			g, err := c.Register(t.Context(), "svc", naming.Endpoint{Addr: addr}, &naming.RegisterOptions{Wait: true})
			if err != nil {
				t.Fatal(err)
			}
			return g
		}
		a, b := register("a:1"), register("b:1")
		synctest.Wait()
		begun := time.Now()
		if err := a.Close(); !errors.Is(err, naming.ErrPermission) {
			t.Errorf("Close of one of two: %v", err)
		}
		if d := time.Since(begun); d > time.Second {
			t.Errorf("Close of one of two took %v", d)
		}
		begun = time.Now()
		if err := b.Close(); err != nil {
			t.Errorf("Close of the last: %v", err)
		}
		if d := time.Since(begun); d > 2*time.Second {
			t.Errorf("Close of the last took %v", d)
		}
		listed(t, s.Store, "svc")
	})
}

// An older Registration whose lease is granted late does not overwrite the newer one.
func TestFieldR2LateLease(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
		late := true
		p.grant = func() error {
			p.mu.Lock()
			wait := late
			late = false
			p.mu.Unlock()
			if wait {
				time.Sleep(2 * time.Second)
			}
			return nil
		}
		old := register(t, c, "svc", "a a:1 1", nil)
		synctest.Wait()
		g := register(t, c, "svc", "a a:1 2", &naming.RegisterOptions{TTL: time.Minute, Wait: true})
		time.Sleep(time.Minute)
		listed(t, p, "svc", "a a:1 2")
		p.mu.Lock()
		for _, c := range p.applies {
			if string(c.Endpoint.Metadata) == "1" {
				t.Errorf("the older one wrote %+v", c)
			}
		}
		p.mu.Unlock()
		old.Close()
		g.Close()
	})
}

// The lease of an older Registration is not renewed after the newer one was closed.
func TestFieldR2LeaseLeft(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
		old := register(t, c, "svc", "a a:1 1", &naming.RegisterOptions{Wait: true})
		g := register(t, c, "svc", "a a:1 2", &naming.RegisterOptions{TTL: time.Minute, Wait: true})
		synctest.Wait()
		for _, g := range []*naming.Registration{old, g} {
			if err := g.Close(); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Second)
		renewals := 0
		p.RefuseFunc(func(method, _ string) error {
			p.set(func() {
				if method == "Renew" {
					renewals++
				}
			})
			return nil
		})
		time.Sleep(time.Hour)
		p.set(func() {
			if renewals > 0 {
				t.Errorf("%d renewals in an hour after both were closed", renewals)
			}
		})
	})
}

// An endpoint that a failed Close has left under a shared lease is removed by its ID. An ID
// may be longer than an address, and have characters that an address may not have.
func TestOrphanOfAnyID(t *testing.T) {
	for _, id := range []string{"a", strings.Repeat("x", 2<<10), "a\u00a0b", "a\nb"} {
		in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
			register(t, c, "svc", "b:1", nil) // keeps the shared lease in use
			g, err := c.Register(t.Context(), "svc", naming.Endpoint{ID: id, Addr: "a:1"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			s.Down(io.ErrUnexpectedEOF)
			if g.Close() == nil {
				t.Error("Close succeeded while the registry was down")
			}
			s.Up()
			time.Sleep(time.Minute)
			listed(t, s, "svc", "b:1")
		})
	}
}

// A put that failed may have stored the endpoint after all. If the registry then refuses
// the endpoint for good, the shared lease removes it.
func TestRefusedAfterAPutThatFailed(t *testing.T) {
	inPicky(t, quiet, func(t *testing.T, p *picky, c *naming.Client) {
		register(t, c, "svc", "b:1", nil) // keeps the shared lease in use
		synctest.Wait()
		var once sync.Once
		p.set(func() {
			p.refuse = func(c naming.Change) error {
				if c.Op != naming.Add {
					return nil
				}
				err := naming.ErrInvalid
				once.Do(func() {
					err = io.ErrUnexpectedEOF
					if err := p.Store.Apply(t.Context(), "svc", c); err != nil {
						t.Error(err)
					}
				})
				return err
			}
		})
		g := register(t, c, "svc", "a:1", nil)
		time.Sleep(time.Minute)
		if st := g.Status(); !errors.Is(st.Err, naming.ErrInvalid) {
			t.Errorf("status %+v", st)
		}
		listed(t, p, "svc", "b:1")
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Wait of an older Registration does not spin while a newer one closes. In a bubble, a loop
// that does not wait stops the time.
func TestWaitWhileNewerCloses(t *testing.T) {
	for range 20 { // the result depends on the order of goroutines
		in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
			g := register(t, c, "svc", "a:1", nil)
			synctest.Wait()
			s.Delay(time.Minute) // puts take as long
			newer := register(t, c, "svc", "a:1", nil)
			synctest.Wait()
			newest := register(t, c, "svc", "a:1", &naming.RegisterOptions{TTL: time.Minute}) // waits for its lease
			synctest.Wait()
			// The newer one is closed first. Its Close returns at once, and withdraws
			// later what the newer one is putting. The newest has put nothing, and ends
			// at once. So the newer one owns the entry although its Close has returned.
			if err := newer.Close(); err != nil {
				t.Error(err)
			}
			_ = newest.Close() // the registry is slow
			var wg sync.WaitGroup
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				if err := g.Wait(ctx); err != nil {
					t.Errorf("Wait: %v", err)
				}
			})
			time.Sleep(30 * time.Second)
			s.Delay(0)
			wg.Wait()
			listed(t, s, "svc", "a:1")
		})
	}
}

// A put that left the entry to a successor, which the watch had shown before, is confirmed
// by one read, and not by one every five seconds.
func TestLeftToSuccessorIsProvedOnce(t *testing.T) {
	inPicky(t, quiet, func(t *testing.T, p *picky, c *naming.Client) {
		register(t, c, "svc", "a:1", nil)
		synctest.Wait()
		l, err := p.Store.Grant(t.Context(), 24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		var once sync.Once
		p.set(func() {
			p.refuse = func(c naming.Change) error {
				if !c.IfFree {
					return nil
				}
				once.Do(func() {
					theirs := naming.Change{Endpoint: endpoint("a:1 a:1 7"), Lease: l}
					if err := p.Store.Apply(t.Context(), "svc", theirs); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Second) // the watch shows it
				})
				return nil
			}
		})
		if err := p.Store.Apply(t.Context(), "svc", naming.Change{Op: naming.Delete, Endpoint: endpoint("a:1")}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		listed(t, p, "svc", "a:1 a:1 7")
		calls := p.Calls()
		time.Sleep(10 * time.Minute)
		// The lease is renewed three times in its time to live of 15 s.
		if n := p.Calls() - calls; n > 10*60/5+20 {
			t.Errorf("%d calls in ten minutes", n)
		}
	})
}
