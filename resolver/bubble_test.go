package resolver_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/resolver"
)

// replayed compares the calls of cc by the time Build returned.
func (b *bubble) replayed(cc *clientConn, want ...string) {
	b.Helper()
	if got := addresses(cc.newCalls()); !slices.Equal(got, want) {
		b.Errorf("got %q within Build, want %q", got, want)
	}
}

func TestBuildReplaysWhatIsKnown(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		apply(b, b.store, "s", at("a:1")...)
		first := new(clientConn)
		r1 := build(b, b.builder, first, "s")
		b.want(first, "a:1")
		// Another ClientConn, while the registry is away.
		b.store.Down(errors.New("down"))
		second := new(clientConn)
		r2 := build(b, b.builder, second, "s")
		b.replayed(second, "a:1")
		// And one after all others have gone.
		closing(r1, first)
		closing(r2, second)
		time.Sleep(50 * time.Minute) // the Client keeps the watch for an hour
		calls := b.store.Calls()
		third := new(clientConn)
		r3 := build(b, b.builder, third, "s")
		b.replayed(third, "a:1")
		if got := b.store.Calls(); got != calls {
			t.Errorf("%d requests to the registry within Build", got-calls)
		}
		b.want(third)
		closing(r3, third)
		b.want(first)
		b.want(second)
	})
}

func TestBuildReplaysAnError(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		b.store.Down(errors.New("down"))
		first := new(clientConn)
		r1 := build(b, b.builder, first, "s")
		b.want(first, "error")
		second := new(clientConn)
		r2 := build(b, b.builder, second, "s")
		b.replayed(second, "error")
		closing(r1, first)
		closing(r2, second)
		third := new(clientConn)
		r3 := build(b, b.builder, third, "s")
		b.replayed(third, "error")
		closing(r3, third)
	})
}

// TestSilence is G8 before the first answer: the registry returns neither a set nor an error.
func TestSilence(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		b.store.Silence()
		first := new(clientConn)
		r1 := build(b, b.builder, first, "x")
		time.Sleep(3 * time.Second)
		second := new(clientConn)
		r2 := build(b, b.builder, second, "x")
		time.Sleep(2*time.Second - 1)
		b.want(first)
		b.want(second)
		time.Sleep(time.Nanosecond)
		calls := b.want(first, "error")
		if got := calls[0].err.Error(); !strings.Contains(got, `service "x"`) || !strings.Contains(got, "no answer") {
			t.Errorf("reported %q", got)
		}
		b.want(second, "error")
		third := new(clientConn)
		r3 := build(b, b.builder, third, "x")
		b.replayed(third, "error")
		b.store.Speak()
		apply(b, b.store, "x", at("a:1")...)
		time.Sleep(time.Minute)
		for _, cc := range []*clientConn{first, second, third} {
			calls := b.settled(cc)
			if n := len(calls); n == 0 || calls[n-1].addrs() != "a:1" {
				t.Errorf("got %q in the end, want a:1", addresses(calls))
			}
		}
		closing(r1, first)
		closing(r2, second)
		closing(r3, third)
	})
}

// settled waits until all goroutines are blocked, and returns the new calls of cc.
func (b *bubble) settled(cc *clientConn) []call {
	synctest.Wait()
	cc.check(b)
	return cc.newCalls()
}

func TestFirstAnswerOption(t *testing.T) {
	inBubble(t, &resolver.Options{FirstAnswerTimeout: 200 * time.Millisecond}, func(b *bubble) {
		b.store.Silence()
		cc := new(clientConn)
		r := build(b, b.builder, cc, "s")
		closed := new(clientConn)
		build(b, b.builder, closed, "t").Close()
		time.Sleep(200 * time.Millisecond)
		b.want(cc, "error")
		b.want(closed) // its timer was stopped
		closing(r, cc)
	})
}

// TestErrorsLeaveTheAddressesAlone is G10 and G14: an outage leaves the set as it was.
func TestErrorsLeaveTheAddressesAlone(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		apply(b, b.store, "s", at("a:1", "b:1")...)
		cc := new(clientConn)
		r := build(b, b.builder, cc, "s")
		b.want(cc, "a:1 b:1")
		for i := range 50 {
			b.store.Break(fmt.Errorf("broken for the %dth time", i))
			b.store.Refuse(fmt.Errorf("refused for the %dth time", i))
			time.Sleep(time.Minute)
			b.want(cc)
			b.store.Up()
			time.Sleep(time.Minute)
			b.want(cc)
		}
		b.store.Down(errors.New("down"))
		time.Sleep(24 * time.Hour)
		b.want(cc)
		b.store.Up()
		apply(b, b.store, "s", append(at("c:1"), del("a:1")...)...)
		time.Sleep(time.Minute)
		b.want(cc, "b:1 c:1")
		b.client.Close()
		time.Sleep(time.Minute)
		b.want(cc)
		closing(r, cc)
		if _, err := b.builder.Build(target(t, "naming:///s"), cc, grpcresolver.BuildOptions{}); !errors.Is(err, naming.ErrClientClosed) {
			t.Errorf("Build after Close of the Client: %v", err)
		}
	})
}

func TestBecomesEmpty(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		apply(b, b.store, "x", at("a:1")...)
		cc := new(clientConn)
		r := build(b, b.builder, cc, "x")
		b.want(cc, "a:1")
		time.Sleep(time.Second)
		apply(b, b.store, "x", del("a:1")...)
		calls := b.want(cc, "", "error")
		if calls[0].state.Endpoints == nil {
			t.Error("published nil endpoints, which gRPC takes for a list of addresses")
		}
		if got, want := calls[1].err.Error(), `naming: service "x" has no endpoints`; got != want {
			t.Errorf("reported %q, want %q", got, want)
		}
		time.Sleep(time.Minute)
		b.want(cc)
		apply(b, b.store, "x", at("b:1")...)
		b.want(cc, "b:1")
		closing(r, cc)
	})
}

func TestEmptyFromTheStart(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		cc := new(clientConn)
		r := build(b, b.builder, cc, "x")
		calls := b.want(cc, "error")
		if got, want := calls[0].err.Error(), `naming: service "x" has no endpoints`; got != want {
			t.Errorf("reported %q, want %q", got, want)
		}
		// An endpoint without an address is nothing to gRPC.
		time.Sleep(time.Second)
		apply(b, b.store, "x", add(naming.Endpoint{ID: "config", Metadata: []byte(`1`)})...)
		b.want(cc)
		time.Sleep(time.Second)
		apply(b, b.store, "x", at("a:1")...)
		b.want(cc, "a:1")
		closing(r, cc)
	})
}

// TestEqualStateIsNotPublished is G21.
func TestEqualStateIsNotPublished(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		apply(b, b.store, "s", add(naming.Endpoint{ID: "1", Addr: "a:1", Metadata: []byte(`{"zone":"a","weight":1}`)})...)
		cc := new(clientConn)
		r := build(b, b.builder, cc, "s")
		b.want(cc, "a:1")
		for _, changes := range [][]naming.Change{
			add(naming.Endpoint{ID: "1", Addr: "a:1", Metadata: []byte(`{ "weight": 1, "zone": "a" }`)}), // another spelling
			add(naming.Endpoint{ID: "2", Addr: "a:1"}),                                                   // an address again
			del("2"),
			add(naming.Endpoint{ID: "3", Metadata: []byte(`{}`)}),                             // no address
			add(naming.Endpoint{ID: "4", Addr: "d:1", Metadata: []byte(`{"draining":true}`)}), // not wanted
			del("4"),
		} {
			time.Sleep(time.Second)
			apply(b, b.store, "s", changes...)
			b.want(cc)
		}
		b.store.Break(errors.New("broken")) // a snapshot follows
		time.Sleep(time.Minute)
		b.want(cc)
		closing(r, cc)
	})
}

// TestSkippedChangesThatCameToNothing: a slow ClientConn that has the last state already
// gets no update.
func TestSkippedChangesThatCameToNothing(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		apply(b, b.store, "s", at("a:1")...)
		quick, slow := new(clientConn), &clientConn{block: make(chan struct{})}
		r1 := build(b, b.builder, quick, "s")
		b.want(quick, "a:1")
		r2 := b.buildBlocked(slow, "s")
		b.want(slow, "a:1")
		for _, change := range [][]naming.Change{at("b:1"), del("b:1"), del("a:1"), at("a:1")} {
			time.Sleep(time.Second)
			apply(b, b.store, "s", change...)
			synctest.Wait()
		}
		b.want(quick, "a:1 b:1", "a:1", "", "error", "a:1")
		slow.unblock()
		b.want(slow)
		closing(r1, quick)
		closing(<-r2, slow)
	})
}

// buildBlocked builds a resolver of a ClientConn that blocks. gRPC's ClientConns do not
// block within Build.
func (b *bubble) buildBlocked(cc *clientConn, service string) <-chan grpcresolver.Resolver {
	built := make(chan grpcresolver.Resolver, 1)
	go func() { built <- build(b, b.builder, cc, service) }()
	synctest.Wait()
	return built
}

func (cc *clientConn) unblock() {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	if cc.block != nil {
		close(cc.block)
		cc.block = nil
	}
}

// TestABlockedClientConnHoldsUpNobody is G22.
func TestABlockedClientConnHoldsUpNobody(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		apply(b, b.store, "s", at("a:1")...)
		var ccs []*clientConn
		var resolvers []grpcresolver.Resolver
		for range 20 {
			cc := new(clientConn)
			resolvers = append(resolvers, build(b, b.builder, cc, "s"))
			b.settled(cc)
			ccs = append(ccs, cc)
		}
		for i, cc := range ccs {
			if i%2 == 0 {
				cc.mu.Lock()
				cc.block = make(chan struct{})
				cc.mu.Unlock()
			}
		}
		time.Sleep(time.Second)
		apply(b, b.store, "s", at("b:1")...)
		time.Sleep(200 * time.Millisecond) // 2⁴ goroutines at 20 ms each, at most twice
		for _, cc := range ccs {
			b.want(cc, "a:1 b:1") // half of them are still at it
		}
		for i := range 100 {
			time.Sleep(time.Second)
			apply(b, b.store, "s", at(fmt.Sprint("c:", i))...)
		}
		time.Sleep(time.Second)
		apply(b, b.store, "s", at("d:1")...)
		synctest.Wait()
		late := new(clientConn)
		resolvers = append(resolvers, build(b, b.builder, late, "s"))
		if n := len(late.newCalls()); n != 1 {
			t.Errorf("Build replayed %d states, want 1", n)
		}
		for i, cc := range ccs {
			if got, want := len(cc.newCalls()), 101*(i%2); got != want {
				t.Errorf("ClientConn %d got %d states, want %d", i, got, want)
			}
			cc.unblock()
		}
		synctest.Wait()
		for i, cc := range ccs {
			calls := cc.newCalls()
			if i%2 == 0 && (len(calls) != 1 || len(calls[0].state.Endpoints) != 103) {
				t.Errorf("ClientConn %d then got %d states, want once, of 103 endpoints", i, len(calls))
			}
			cc.check(t)
		}
		for i, r := range resolvers {
			if i < len(ccs) {
				closing(r, ccs[i])
			} else {
				r.Close()
			}
		}
	})
}

// busyConn is a ClientConn whose balancer takes long.
type busyConn struct {
	clientConn
	now, most *atomic.Int64 // such calls in progress
}

func (cc *busyConn) UpdateState(s grpcresolver.State) error {
	n := cc.now.Add(1)
	for most := cc.most.Load(); n > most && !cc.most.CompareAndSwap(most, n); most = cc.most.Load() {
	}
	time.Sleep(5 * time.Millisecond)
	cc.now.Add(-1)
	return cc.clientConn.UpdateState(s)
}

// TestBusyClientConns: policies that are slow and not stuck get half of the processors.
// The other half is for calls.
func TestBusyClientConns(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		apply(b, b.store, "s", at("a:1")...)
		var now, most atomic.Int64
		const n = 50
		var resolvers []grpcresolver.Resolver
		for range n {
			resolvers = append(resolvers, build(b, b.builder, &busyConn{now: &now, most: &most}, "s"))
		}
		time.Sleep(time.Second)
		most.Store(0)
		apply(b, b.store, "s", at("b:1")...)
		for _, addr := range []string{"c:1", "d:1", "e:1"} {
			time.Sleep(60 * time.Millisecond)
			apply(b, b.store, "s", at(addr)...)
		}
		time.Sleep(10 * time.Second)
		limit := int64(max(runtime.GOMAXPROCS(0)/2, 1))
		if got := most.Load(); got != min(limit, n) {
			t.Errorf("up to %d ClientConns were busy at once, want %d", got, limit)
		}
		for _, r := range resolvers {
			r.Close()
		}
	})
}

// TestBlockedOneAfterTheOther: ClientConns that block leave deliverers for others that
// block later.
func TestBlockedOneAfterTheOther(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		apply(b, b.store, "s", at("a:1")...)
		var ccs []*clientConn
		var resolvers []grpcresolver.Resolver
		grow := func(n int) {
			for range n {
				cc := new(clientConn)
				resolvers = append(resolvers, build(b, b.builder, cc, "s"))
				b.settled(cc)
				ccs = append(ccs, cc)
			}
		}
		block := func(cc *clientConn) {
			cc.mu.Lock()
			defer cc.mu.Unlock()
			cc.block = make(chan struct{})
		}
		grow(2)
		block(ccs[0])
		block(ccs[1])
		time.Sleep(time.Second)
		apply(b, b.store, "s", at("b:1")...)
		time.Sleep(100 * time.Millisecond)
		b.want(ccs[0], "a:1 b:1")
		b.want(ccs[1], "a:1 b:1")
		grow(2)
		block(ccs[2])
		apply(b, b.store, "s", at("c:1")...)
		time.Sleep(100 * time.Millisecond)
		b.want(ccs[2], "a:1 b:1 c:1")
		b.want(ccs[3], "a:1 b:1 c:1")
		for i, r := range resolvers {
			ccs[i].unblock()
			closing(r, ccs[i])
		}
	})
}

// TestCloseOfAClientConnThatWaits: Close waits for a call of its own ClientConn in
// progress, and not for calls of others.
func TestCloseOfAClientConnThatWaits(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		apply(b, b.store, "s", at("a:1")...)
		first, second := new(clientConn), new(clientConn)
		r1 := build(b, b.builder, first, "s")
		b.want(first, "a:1")
		r2 := build(b, b.builder, second, "s")
		b.want(second, "a:1")
		first.mu.Lock()
		first.block = make(chan struct{})
		first.mu.Unlock()
		time.Sleep(time.Second)
		apply(b, b.store, "s", at("b:1")...)
		b.want(first, "a:1 b:1") // and is still at it
		start := time.Now()
		closing(r2, second)
		if d := time.Since(start); d != 0 {
			t.Errorf("Close took %v", d)
		}
		time.Sleep(time.Second)
		b.want(second)
		first.unblock()
		closing(r1, first)
	})
}

// TestConflation: the first change is published at once, and others after 5 ms of quiet
// and within 50 ms.
func TestConflation(t *testing.T) {
	const every = 700 * time.Microsecond
	inBubble(t, nil, func(b *bubble) {
		apply(b, b.store, "s", at("a:1")...)
		cc := new(clientConn)
		r := build(b, b.builder, cc, "s")
		b.want(cc, "a:1")
		time.Sleep(time.Second)
		start := time.Now()
		for i := range 1000 {
			apply(b, b.store, "s", at("b:1")...)
			if i == 0 {
				b.want(cc, "a:1 b:1")
			}
			time.Sleep(every)
			apply(b, b.store, "s", del("b:1")...)
			time.Sleep(every)
		}
		apply(b, b.store, "s", at("z:1")...)
		last := time.Now()
		time.Sleep(time.Second)
		calls := cc.newCalls()
		cc.check(t)
		if n, most := len(calls), int(last.Sub(start)/(50*time.Millisecond))+2; n > most || n < 10 {
			t.Errorf("2,000 changes in %v were published %d times, want at most %d and at least 10", last.Sub(start), n, most)
		}
		for i := range calls[1:] {
			if d := calls[i+1].at.Sub(calls[i].at); d < 5*time.Millisecond || d > 60*time.Millisecond {
				t.Errorf("%v between two publications", d)
			}
		}
		end := calls[len(calls)-1]
		if d := end.at.Sub(last); end.addrs() != "a:1 z:1" || d > 5*time.Millisecond {
			t.Errorf("published %q %v after the last change", end.addrs(), d)
		}
		closing(r, cc)
	})
}

// TestManyBuildsShareOneWatch is S2: with a race there would be several watches.
func TestManyBuildsShareOneWatch(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		apply(b, b.store, "s", at("a:1")...)
		const n = 1000
		ccs := make([]*clientConn, n)
		resolvers := make([]grpcresolver.Resolver, n)
		var wg sync.WaitGroup
		for i := range n {
			ccs[i] = new(clientConn)
			wg.Go(func() { resolvers[i] = build(b, b.builder, ccs[i], "s") })
		}
		wg.Wait()
		synctest.Wait()
		if got := b.store.Calls(); got != 1+1 {
			t.Errorf("%d requests to the registry, want the Apply and 1 Watch", got)
		}
		if got := ownGoroutines(); len(got) > 0 {
			t.Errorf("%d goroutines although nothing happens, such as\n%s", len(got), got[0])
		}
		time.Sleep(time.Second)
		apply(b, b.store, "s", at("b:1")...)
		synctest.Wait()
		if got := ownGoroutines(); len(got) > 0 {
			t.Errorf("%d goroutines after the change, such as\n%s", len(got), got[0])
		}
		var shared *grpcresolver.Endpoint
		for i, cc := range ccs {
			calls := cc.newCalls()
			if len(calls) == 0 || calls[len(calls)-1].addrs() != "a:1 b:1" {
				t.Fatalf("ClientConn %d got %q", i, addresses(calls))
			}
			first := &calls[len(calls)-1].state.Endpoints[0]
			if shared == nil {
				shared = first
			}
			if first != shared {
				t.Error("two ClientConns were given two copies of one list")
			}
			cc.check(t)
		}
		for i := range n {
			wg.Go(func() { closing(resolvers[i], ccs[i]) })
		}
		wg.Wait()
		synctest.Wait()
		if got := ownGoroutines(); len(got) > 0 {
			t.Errorf("%d goroutines after all were closed, such as\n%s", len(got), got[0])
		}
	})
}

// ownGoroutines returns the stacks of the goroutines that this package started.
func ownGoroutines() (own []string) {
	buf := make([]byte, 1<<24)
	for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if _, creator, ok := strings.Cut(stack, "created by "); ok && strings.Contains(stack, "naming/resolver.(*") &&
			!strings.Contains(creator, "resolver_test.") {
			own = append(own, stack)
		}
	}
	return own
}

// TestCloseWaitsForACallInProgress is G24.
func TestCloseWaitsForACallInProgress(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		apply(b, b.store, "s", at("a:1")...)
		cc := new(clientConn)
		r := build(b, b.builder, cc, "s")
		b.want(cc, "a:1")
		cc.mu.Lock()
		cc.block = make(chan struct{})
		cc.mu.Unlock()
		time.Sleep(time.Second)
		apply(b, b.store, "s", at("b:1")...)
		synctest.Wait() // in UpdateState by now
		if got := ownGoroutines(); len(got) != 1 {
			t.Errorf("%d goroutines for one call", len(got))
		}
		closed := make(chan struct{}, 2)
		for range 2 {
			go func() {
				closing(r, cc)
				closed <- struct{}{}
			}()
		}
		apply(b, b.store, "s", at("c:1")...)
		time.Sleep(time.Second)
		if len(closed) > 0 {
			t.Error("Close returned while UpdateState was still running")
		}
		cc.unblock()
		<-closed
		<-closed
		time.Sleep(time.Second)
		b.want(cc, "a:1 b:1")
		closing(r, cc)
	})
}

// TestCloseAtAnyMoment closes resolvers while everything else goes on.
func TestCloseAtAnyMoment(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		rnd := rand.New(rand.NewPCG(1, 2))
		var wg sync.WaitGroup
		stop := make(chan struct{})
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(i%7) * time.Millisecond):
				}
				switch i % 50 {
				case 20:
					b.store.Break(errors.New("broken"))
				case 30:
					apply(b, b.store, "s", del("a:1", "b:1")...)
				default:
					apply(b, b.store, "s", append(at("a:1"), del("b:1")...)...)
					apply(b, b.store, "s", append(at("b:1"), del("a:1")...)...)
				}
			}
		})
		var clients sync.WaitGroup
		for range 30 {
			seed := rnd.Uint64()
			clients.Go(func() {
				rnd := rand.New(rand.NewPCG(seed, 0))
				for range 50 {
					cc := new(clientConn)
					r := build(b, b.builder, cc, "s")
					time.Sleep(upTo(rnd, 20*time.Millisecond))
					r.ResolveNow(grpcresolver.ResolveNowOptions{})
					closing(r, cc)
					time.Sleep(upTo(rnd, 10*time.Millisecond))
					cc.check(t)
				}
			})
		}
		clients.Wait()
		close(stop)
		wg.Wait()
		synctest.Wait()
		if got := ownGoroutines(); len(got) > 0 {
			t.Errorf("%d goroutines after all were closed, such as\n%s", len(got), got[0])
		}
	})
}

func TestResolveNowAsksNothing(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		apply(b, b.store, "s", at("a:1")...)
		cc := new(clientConn)
		r := build(b, b.builder, cc, "s")
		b.want(cc, "a:1")
		calls := b.store.Calls()
		for range 1000 {
			r.ResolveNow(grpcresolver.ResolveNowOptions{})
		}
		time.Sleep(time.Minute)
		b.want(cc)
		if got := b.store.Calls(); got != calls {
			t.Errorf("%d requests to the registry", got-calls)
		}
		closing(r, cc)
		r.ResolveNow(grpcresolver.ResolveNowOptions{})
	})
}

func TestDraining(t *testing.T) {
	draining := func(addr string) []naming.Change {
		return add(naming.Endpoint{Addr: addr, Metadata: []byte(`{"draining":true}`)})
	}
	inBubble(t, nil, func(b *bubble) {
		apply(b, b.store, "s", at("a:1", "b:1", "c:1")...)
		cc := new(clientConn)
		r := build(b, b.builder, cc, "s")
		b.want(cc, "a:1 b:1 c:1")
		for _, step := range []struct {
			changes []naming.Change
			want    []string
		}{
			{draining("b:1"), []string{"a:1 c:1"}},
			{del("b:1"), nil},
			{draining("a:1"), []string{"c:1"}},
			{draining("c:1"), []string{"a:1 c:1"}}, // better than none
			{del("c:1"), []string{"a:1"}},
			{at("d:1"), []string{"d:1"}},
			// The successor at the same address is there before the predecessor
			// is gone.
			{add(naming.Endpoint{ID: "z", Addr: "a:1"}), []string{"d:1 a:1"}},
			{del("a:1"), nil},
			{at("a:1"), []string{"a:1 d:1"}}, // under another ID, elsewhere in the order
		} {
			time.Sleep(time.Second)
			apply(b, b.store, "s", step.changes...)
			b.want(cc, step.want...)
		}
		closing(r, cc)
	})
}

// TestSuddenLoss is G13, as gRPC sees it.
func TestSuddenLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(memory.Store)
		client := naming.New(store, &naming.Options{Logger: quiet.Logger})
		defer client.Close()
		b := &bubble{t, store, client, resolver.NewBuilder(client, nil)}
		apply(b, b.store, "s", at("a:1", "b:1", "c:1")...)
		cc := new(clientConn)
		r := build(b, b.builder, cc, "s")
		b.want(cc, "a:1 b:1 c:1")
		time.Sleep(time.Hour)
		b.store.Wipe()
		b.want(cc)
		apply(b, b.store, "s", at("d:1")...)
		b.want(cc, "d:1 a:1 b:1 c:1") // the others are held, and d:1 takes over
		time.Sleep(time.Second)
		apply(b, b.store, "s", at("b:1")...)
		b.want(cc, "b:1 d:1 a:1 c:1")
		time.Sleep(9 * time.Second)
		b.want(cc, "b:1 d:1")
		time.Sleep(time.Hour)
		b.want(cc)
		// Endpoints that drain first may leave at any rate.
		apply(b, b.store, "s", add(
			naming.Endpoint{Addr: "b:1", Metadata: []byte(`{"draining":true}`)},
			naming.Endpoint{Addr: "d:1", Metadata: []byte(`{"draining":true}`)},
		)...)
		b.want(cc, "b:1 d:1")
		time.Sleep(time.Second)
		apply(b, b.store, "s", del("b:1", "d:1")...)
		b.want(cc, "", "error")
		closing(r, cc)
	})
}

func TestPublishedHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(memory.Store)
		var mu sync.Mutex
		var got []string
		opts := *quiet
		opts.Hooks = &naming.Hooks{Published: func(info naming.PublishedInfo) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, fmt.Sprint(info.Service, " ", info.Addresses))
		}}
		client := naming.New(store, &opts)
		defer client.Close()
		apply(t, store, "s", at("a:1", "b:1")...)
		cc := new(clientConn)
		r := build(t, resolver.NewBuilder(client, nil), cc, "s")
		synctest.Wait()
		time.Sleep(time.Second)
		store.Break(errors.New("broken"))
		time.Sleep(time.Minute)
		apply(t, store, "s", del("a:1", "b:1")...)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if want := []string{"s 2", "s 0"}; !slices.Equal(got, want) {
			t.Errorf("the hook got %q, want %q", got, want)
		}
		r.Close()
	})
}

func TestOrderAndDuplicates(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		apply(b, b.store, "s", add(
			naming.Endpoint{ID: "3", Addr: "c:1", Metadata: []byte(`"third"`)},
			naming.Endpoint{ID: "1", Addr: "z:1"},
			naming.Endpoint{ID: "2", Addr: "c:1", Metadata: []byte(`"second"`)},
			naming.Endpoint{ID: "4", Addr: "a:1"},
		)...)
		cc := new(clientConn)
		r := build(b, b.builder, cc, "s")
		calls := b.want(cc, "z:1 c:1 a:1")
		if e, ok := resolver.EndpointOf(calls[0].state.Endpoints[1]); !ok || e.ID != "2" || string(e.Metadata) != `"second"` {
			t.Errorf("c:1 is represented by %v, want the first ID", e)
		}
		time.Sleep(time.Second)
		apply(b, b.store, "s", del("2")...)
		calls = b.want(cc, "z:1 c:1 a:1")
		if e, _ := resolver.EndpointOf(calls[0].state.Endpoints[1]); e.ID != "3" {
			t.Errorf("c:1 is represented by %v, want the one that is left", e)
		}
		closing(r, cc)
	})
}

func TestServiceConfig(t *testing.T) {
	const custom = `{"loadBalancingPolicy":"grpclb","loadBalancingConfig":[{"ring_hash":{}}],"methodConfig":[{"name":[{}],"waitForReady":true}]}`
	for _, c := range []struct {
		name        string
		opts        resolver.Options
		build       grpcresolver.BuildOptions
		want, empty string
	}{
		{
			name:  "default",
			want:  `{"loadBalancingConfig":[{"round_robin":{}}]}`,
			empty: `{"loadBalancingConfig":[{"pick_first":{}}]}`,
		},
		{
			name:  "custom",
			opts:  resolver.Options{ServiceConfig: custom},
			want:  custom,
			empty: `{"loadBalancingConfig":[{"pick_first":{}}],"methodConfig":[{"name":[{}],"waitForReady":true}]}`,
		},
		{name: "none", opts: resolver.Options{NoServiceConfig: true, ServiceConfig: custom}},
		{name: "disabled", build: grpcresolver.BuildOptions{DisableServiceConfig: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, &c.opts, func(b *bubble) {
				apply(b, b.store, "s", at("a:1")...)
				cc := new(clientConn)
				r, err := b.builder.Build(target(t, b.builder.Target("s")), cc, c.build)
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				time.Sleep(time.Second)
				apply(b, b.store, "s", del("a:1")...)
				synctest.Wait()
				calls := b.want(cc, "a:1", "", "error")
				if got := configOf(calls[0].state.ServiceConfig); got != c.want {
					t.Errorf("service config %q, want %q", got, c.want)
				}
				if got := configOf(calls[1].state.ServiceConfig); got != c.empty {
					t.Errorf("service config without endpoints %q, want %q", got, c.empty)
				}
				closing(r, cc)
			})
		})
	}
}

func configOf(r *serviceconfig.ParseResult) string {
	if r == nil {
		return ""
	}
	return r.Config.(parsed).js
}

// TestHistories runs ClientConns, quick and slow, that come and go, over random
// histories of a registry that fails in every way. Each ClientConn must get states that
// the registry held, in their order, and the last state in the end. It must get an empty
// state only if the registry held one.
func TestHistories(t *testing.T) {
	for seed := range uint64(60) {
		inBubble(t, nil, func(b *bubble) { history(b, seed) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func history(b *bubble, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	mayBeEmpty := seed%3 == 0
	truth := make(map[string]naming.Endpoint)
	var states []string // of the registry, as they should be published
	note := func() { states = append(states, published(truth)) }
	note()
	change := func() {
		var changes []naming.Change
		touched := make(map[string]bool)
		for range 1 + rnd.IntN(3) {
			e := naming.Endpoint{ID: fmt.Sprint("id", rnd.IntN(9)), Addr: fmt.Sprint("a:", rnd.IntN(6))}
			if rnd.IntN(4) == 0 {
				e.Metadata = []byte(`{"draining":true}`)
			}
			if touched[e.ID] {
				continue
			}
			touched[e.ID] = true
			if _, ok := truth[e.ID]; ok && rnd.IntN(2) == 0 && (mayBeEmpty || len(truth) > 1) {
				delete(truth, e.ID)
				changes = append(changes, del(e.ID)...)
			} else {
				truth[e.ID] = e
				changes = append(changes, add(e)...)
			}
		}
		apply(b, b.store, "s", changes...)
		note()
	}
	if !mayBeEmpty {
		change()
	}
	type client struct {
		cc *clientConn
		r  grpcresolver.Resolver
	}
	var clients []*client
	var down bool
	for range 300 {
		switch n := rnd.IntN(100); {
		case n < 10 && len(clients) < 5:
			c := &client{cc: new(clientConn)}
			c.r = build(b, b.builder, c.cc, "s")
			clients = append(clients, c)
		case n < 14 && len(clients) > 0:
			i := rnd.IntN(len(clients))
			c := clients[i]
			c.cc.unblock()
			closing(c.r, c.cc)
			c.cc.check(b)
			checkHistory(b, states, c.cc.newCalls(), false)
			clients = slices.Delete(clients, i, i+1)
		case n < 20 && len(clients) > 0:
			cc := clients[rnd.IntN(len(clients))].cc
			cc.unblock()
			cc.mu.Lock()
			if rnd.IntN(2) == 0 {
				cc.block = make(chan struct{})
			}
			cc.mu.Unlock()
		case n < 23:
			b.store.Break(errors.New("broken"))
		case n < 26 && !down:
			down = true
			b.store.Break(errors.New("down"))
			b.store.RefuseFunc(func(method, _ string) error {
				if method == "Watch" {
					return errors.New("down")
				}
				return nil
			})
		case n < 32:
			down = false
			b.store.Up()
		case n < 40:
			time.Sleep(upTo(rnd, time.Minute))
		case n < 50:
			time.Sleep(upTo(rnd, 100*time.Millisecond))
		default:
			change()
			time.Sleep(upTo(rnd, 8*time.Millisecond))
		}
	}
	b.store.Up()
	for _, c := range clients {
		c.cc.unblock()
	}
	time.Sleep(2 * time.Minute)
	for _, c := range clients {
		closing(c.r, c.cc)
		c.cc.check(b)
		checkHistory(b, states, c.cc.newCalls(), true)
	}
}

// published returns what should be published of a service: the addresses in the
// order of IDs, each with the ID that represents it.
func published(endpoints map[string]naming.Endpoint) string {
	ids := make([]string, 0, len(endpoints))
	for id := range endpoints {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, draining := range []bool{false, true} {
		var list []string
		seen := make(map[string]bool)
		for _, id := range ids {
			if e := endpoints[id]; e.Info().Draining == draining && !seen[e.Addr] {
				seen[e.Addr] = true
				list = append(list, id+"="+e.Addr)
			}
		}
		if len(list) > 0 {
			return strings.Join(list, " ")
		}
	}
	return ""
}

// checkHistory compares the calls of a ClientConn with the states of the registry.
func checkHistory(t testing.TB, states []string, calls []call, toTheEnd bool) {
	t.Helper()
	at, last, started := 0, "nothing", false
	for i, c := range calls {
		if c.err != nil && !strings.Contains(c.err.Error(), "has no endpoints") {
			if started {
				t.Errorf("an error was reported after the first state: %v", c.err)
			}
			continue
		}
		var list []string
		for _, e := range c.state.Endpoints {
			m, ok := resolver.EndpointOf(e)
			if !ok || len(e.Addresses) != 1 || e.Addresses[0] != (grpcresolver.Address{Addr: m.Addr}) {
				t.Fatalf("published %v", e)
			}
			list = append(list, m.ID+"="+m.Addr)
		}
		state := strings.Join(list, " ")
		if state == "" && c.err == nil {
			if i+1 == len(calls) || calls[i+1].err == nil {
				t.Error("published an empty set, and no error")
			}
			continue // the error is what counts
		}
		skipped := slices.Index(states[at:], state)
		if skipped < 0 {
			t.Errorf("published %q, which the registry did not hold after %q", state, last)
			return
		}
		at, last, started = at+skipped, state, true
	}
	if final := states[len(states)-1]; toTheEnd && last != final {
		t.Errorf("published %q in the end, want %q", last, final)
	}
}

func upTo(rnd *rand.Rand, d time.Duration) time.Duration { return time.Duration(rnd.Int64N(int64(d))) }
