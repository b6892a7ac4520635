package resolver_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/resolver"
)

// clientConn is a ClientConn that records its calls.
type clientConn struct {
	block chan struct{} // not nil: calls wait until it is closed
	news  chan struct{} // not nil: has a token after a call

	mu     sync.Mutex
	calls  []call
	inside int  // calls in progress
	closed bool // any call from now on is wrong
	late   bool // there was one
	both   bool // there were two calls at once
}

// call is one call of UpdateState or, if err is not nil, of ReportError.
type call struct {
	at    time.Time
	state grpcresolver.State
	err   error
}

// addrs returns the addresses, in order and in a line.
func (c call) addrs() string {
	if c.err != nil {
		return "error"
	}
	return addrs(c.state)
}

func addrs(s grpcresolver.State) string {
	var list []string
	for _, e := range s.Endpoints {
		list = append(list, e.Addresses[0].Addr)
	}
	return strings.Join(list, " ")
}

func (cc *clientConn) call(c call) {
	c.at = time.Now()
	cc.mu.Lock()
	cc.calls = append(cc.calls, c)
	cc.inside++
	cc.both = cc.both || cc.inside > 1
	cc.late = cc.late || cc.closed
	block := cc.block
	cc.mu.Unlock()
	select {
	case cc.news <- struct{}{}:
	default:
	}
	if block != nil {
		<-block
	}
	cc.mu.Lock()
	cc.inside--
	cc.late = cc.late || cc.closed
	cc.mu.Unlock()
}

func (cc *clientConn) UpdateState(s grpcresolver.State) error {
	cc.call(call{state: s})
	if len(s.Endpoints) == 0 {
		return errors.New("bad resolver state")
	}
	return nil
}

func (cc *clientConn) ReportError(err error) { cc.call(call{err: err}) }

func (cc *clientConn) NewAddress([]grpcresolver.Address) { panic("deprecated") }

func (cc *clientConn) ParseServiceConfig(js string) *serviceconfig.ParseResult {
	return &serviceconfig.ParseResult{Config: parsed{js: js}}
}

// parsed is a service config as clientConn parses it.
type parsed struct {
	serviceconfig.Config
	js string
}

// newCalls returns the calls since newCalls was last called.
func (cc *clientConn) newCalls() []call {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	calls := cc.calls
	cc.calls = nil
	return calls
}

// check fails t if a rule was broken.
func (cc *clientConn) check(t testing.TB) {
	t.Helper()
	cc.mu.Lock()
	defer cc.mu.Unlock()
	if cc.late {
		t.Error("called after Close had returned")
	}
	if cc.both {
		t.Error("two calls at once")
	}
}

// quiet is for tests that make the registry fail on purpose, and remove what
// they like at once.
var quiet = &naming.Options{Logger: slog.New(slog.DiscardHandler), Hold: naming.Hold{Disabled: true}}

// build builds a resolver of cc for a service.
func build(t testing.TB, b *resolver.Builder, cc grpcresolver.ClientConn, service string) grpcresolver.Resolver {
	t.Helper()
	r, err := b.Build(target(t, b.Target(service)), cc, grpcresolver.BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func target(t testing.TB, s string) grpcresolver.Target {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return grpcresolver.Target{URL: *u}
}

// closing closes r, and notes in cc that it is closed.
func closing(r grpcresolver.Resolver, cc *clientConn) {
	r.Close()
	cc.mu.Lock()
	defer cc.mu.Unlock()
	cc.closed = true
}

func add(endpoints ...naming.Endpoint) (changes []naming.Change) {
	for _, e := range endpoints {
		changes = append(changes, naming.Change{Op: naming.Add, Endpoint: e})
	}
	return changes
}

func del(ids ...string) (changes []naming.Change) {
	for _, id := range ids {
		changes = append(changes, naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: id}})
	}
	return changes
}

func at(list ...string) (changes []naming.Change) {
	for _, a := range list {
		changes = append(changes, add(naming.Endpoint{Addr: a})...)
	}
	return changes
}

func apply(t testing.TB, s *memory.Store, service string, changes ...naming.Change) {
	t.Helper()
	if err := s.Apply(context.Background(), service, changes...); err != nil {
		t.Fatal(err)
	}
}

// addresses returns the addresses of calls.
func addresses(calls []call) (list []string) {
	for _, c := range calls {
		list = append(list, c.addrs())
	}
	return list
}

// bubble is the world of a test in which time passes by itself.
type bubble struct {
	*testing.T
	store   *memory.Store
	client  *naming.Client
	builder *resolver.Builder
}

// inBubble runs a test in a bubble.
func inBubble(t *testing.T, opts *resolver.Options, test func(b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := new(memory.Store)
		c := naming.New(store, quiet)
		defer c.Close()
		test(&bubble{t, store, c, resolver.NewBuilder(c, opts)})
	})
}

// want waits until all goroutines are blocked, and compares the new calls of cc.
func (b *bubble) want(cc *clientConn, want ...string) []call {
	b.Helper()
	synctest.Wait()
	calls := cc.newCalls()
	if got := addresses(calls); !slices.Equal(got, want) {
		b.Errorf("got %q, want %q", got, want)
	}
	cc.check(b)
	return calls
}

func TestPublish(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		apply(b, b.store, "s", at("b:1", "a:1")...)
		cc := new(clientConn)
		r := build(b, b.builder, cc, "s")
		b.want(cc, "a:1 b:1")
		apply(b, b.store, "s", at("c:1")...)
		b.want(cc) // other changes might come with it: the last publication is less than 5 ms old
		time.Sleep(5 * time.Millisecond)
		b.want(cc, "a:1 b:1 c:1")
		time.Sleep(time.Second)
		apply(b, b.store, "s", del("b:1")...)
		b.want(cc, "a:1 c:1")
		closing(r, cc)
		apply(b, b.store, "s", at("d:1")...)
		time.Sleep(time.Second)
		b.want(cc)
	})
}

func TestErrorsBeforeTheFirstSnapshot(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		b.store.Down(errors.New("no route to registry"))
		cc := new(clientConn)
		r := build(b, b.builder, cc, "x/y")
		calls := b.want(cc, "error")
		if got := fmt.Sprint(calls[0].err); !strings.Contains(got, `service "x/y"`) || !strings.Contains(got, "no route to registry") {
			t.Errorf("reported %q, want the service and the cause", got)
		}
		b.store.Refuse(errors.New("registry is starting"))
		time.Sleep(time.Minute)
		calls = b.want(cc, "error")
		if got := fmt.Sprint(calls[0].err); !strings.Contains(got, "registry is starting") {
			t.Errorf("reported %q, want the new cause", got)
		}
		b.store.Up()
		apply(b, b.store, "x/y", at("a:1")...)
		time.Sleep(time.Minute)
		b.want(cc, "a:1")
		closing(r, cc)
	})
}
