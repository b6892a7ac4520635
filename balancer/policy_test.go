package balancer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	grpcbalancer "google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/experimental/balancer/weight"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"
)

// settle lets connections come up and the policy react, until nothing more happens.
func settle(conn *fakeConn) {
	for synctest.Wait(); len(conn.queue) > 0; synctest.Wait() {
		conn.run()
	}
}

// plain returns endpoints as another resolver makes them, with a weight each. 0 means none.
func plain(addrs []string, weights ...uint32) grpcresolver.State {
	var s grpcresolver.State
	for i, a := range addrs {
		e := grpcresolver.Endpoint{Addresses: []grpcresolver.Address{{Addr: a}}}
		if weights[i] > 0 {
			e = weight.Set(e, weight.EndpointInfo{Weight: weights[i]})
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

// addressOf makes a call, and returns the address of the connection.
func addressOf(t *testing.T, conn *fakeConn) string {
	t.Helper()
	r, err := conn.state.Picker.Pick(grpcbalancer.PickInfo{})
	if err != nil {
		t.Fatal(err)
	}
	return r.SubConn.(*fakeSubConn).addr
}

// checkShares makes 1000 calls and compares their numbers with the parts of them that the
// addresses must get, in per mille.
func checkShares(t *testing.T, conn *fakeConn, want map[string]int) {
	t.Helper()
	got := make(map[string]int)
	for range 1000 {
		got[addressOf(t, conn)]++
	}
	for a := range got {
		if want[a] == 0 {
			t.Errorf("%s got %d calls", a, got[a])
		}
	}
	for a, n := range want {
		if got[a] < n-4 || got[a] > n+4 {
			t.Errorf("%s got %d of 1000 calls, want about %d", a, got[a], n)
		}
	}
}

// TestOtherResolvers checks the weights that gRPC's own attribute has, and that of endpoints
// with one address the first counts.
func TestOtherResolvers(t *testing.T) {
	for range 20 { // endpointsharding would choose a duplicate at random
		conn, _ := start(t, Name, `{}`, plain([]string{"a", "b", "a", "c"}, 3, 2, 100, 0))
		checkShares(t, conn, map[string]int{"a": 500, "b": 333, "c": 167})
	}
	conn, lb := start(t, Name, `{}`, plain([]string{"a", "b", "c"}, 0, 0, 0))
	if err := lb.UpdateClientConnState(grpcbalancer.ClientConnState{ResolverState: plain([]string{"c", "b", "a"}, 1, 2, 1)}); err != nil {
		t.Fatal(err)
	}
	checkShares(t, conn, map[string]int{"a": 250, "b": 500, "c": 250})
	if !slices.Equal(slices.Sorted(slices.Values(conn.made)), []string{"a", "b", "c"}) {
		t.Errorf("connections to %v, want one to each of a, b, c", conn.made)
	}
}

// TestKeepsTheResolversSlice checks that the policy does not change what all ClientConns share.
func TestKeepsTheResolversSlice(t *testing.T) {
	s := plain([]string{"a", "a", "b"}, 0, 0, 0)
	start(t, Name, `{}`, s)
	if s.Endpoints[1].Addresses[0].Addr != "a" || s.Endpoints[2].Addresses[0].Addr != "b" {
		t.Errorf("the policy has changed the slice: %v", s.Endpoints)
	}
}

func TestSeveralAddresses(t *testing.T) {
	e := func(addrs ...string) (e grpcresolver.Endpoint) {
		for _, a := range addrs {
			e.Addresses = append(e.Addresses, grpcresolver.Address{Addr: a})
		}
		return e
	}
	conn, _ := start(t, Name, `{}`, grpcresolver.State{Endpoints: []grpcresolver.Endpoint{e("a", "b"), e("b", "a"), e("c"), e()}})
	checkShares(t, conn, map[string]int{"a": 500, "c": 500})
}

// TestDecodesOnlyChanges checks that a change of one endpoint of many costs the decoding of
// one, and no connection.
func TestDecodesOnlyChanges(t *testing.T) {
	const n = 1000
	before, after := fleet(t, n, weights), fleet(t, n, func(i int) string {
		if i == 17 {
			return `{"weight":8,"zone":"b"}`
		}
		return weights(i)
	})
	conn, lb := start(t, Name, `{}`, before)
	infos := func() map[string]*info {
		m := make(map[string]*info)
		for k, c := range lb.(*policy).top.byKey {
			m[k] = c.endpoint.info.Load()
		}
		return m
	}
	old := infos()
	if err := lb.UpdateClientConnState(grpcbalancer.ClientConnState{ResolverState: after}); err != nil {
		t.Fatal(err)
	}
	decoded := 0
	for k, i := range infos() {
		if i != old[k] {
			decoded++
			if i.weight != 8 || i.zone != "b" {
				t.Errorf("%s: %+v", k, i)
			}
		}
	}
	if decoded != 1 || len(conn.made) != n {
		t.Errorf("%d endpoints were decoded, want 1; %d connections, want %d", decoded, len(conn.made), n)
	}
}

func TestIllegalConfig(t *testing.T) {
	lb := builder{}.Build(newFakeConn(), grpcbalancer.BuildOptions{})
	defer lb.Close()
	err := lb.UpdateClientConnState(grpcbalancer.ClientConnState{BalancerConfig: struct {
		lbConfig
	}{}, ResolverState: plain([]string{"a"}, 0)})
	if !errors.Is(err, grpcbalancer.ErrBadResolverState) {
		t.Errorf("the configuration of another policy: %v", err)
	}
}

// TestSubset checks that a subset has its size whatever fails, and no more than it needs.
func TestSubset(t *testing.T) {
	for _, config := range []string{`{"subset":3}`, `{"subset":3,"client":"x"}`, `{"subset":3,"clientNumber":7}`} {
		synctest.Test(t, func(t *testing.T) {
			conn, lb := start(t, Name, config, fleet(t, 10, none))
			settle(conn)
			chosen := slices.Sorted(maps.Keys(conn.open))
			if len(chosen) != 3 {
				t.Fatalf("connections to %v, want 3", conn.open)
			}
			update := func(n int) {
				t.Helper()
				parsed, _ := builder{}.ParseConfig([]byte(config))
				if err := lb.UpdateClientConnState(grpcbalancer.ClientConnState{ResolverState: fleet(t, n, none), BalancerConfig: parsed}); err != nil {
					t.Fatal(err)
				}
				settle(conn)
			}
			update(10)
			if got := slices.Sorted(maps.Keys(conn.open)); !slices.Equal(got, chosen) || len(conn.made) != 3 {
				t.Fatalf("another update: connections to %v, want %v", conn.made, chosen)
			}

			// Two fail: two others replace them.
			for _, a := range chosen[:2] {
				conn.fail(a)
			}
			settle(conn)
			calls := make(map[string]bool)
			for range 100 {
				calls[addressOf(t, conn)] = true
			}
			if len(calls) != 3 || calls[chosen[0]] || calls[chosen[1]] || !calls[chosen[2]] {
				t.Errorf("calls to %v after %v failed", calls, chosen[:2])
			}

			// They come back: the subset is the first one again.
			for _, a := range chosen[:2] {
				conn.recover(a)
			}
			settle(conn)
			if got := slices.Sorted(maps.Keys(conn.open)); !slices.Equal(got, chosen) {
				t.Errorf("after the recovery: connections to %v, want %v", got, chosen)
			}
			update(2)
			if len(conn.open) != 2 {
				t.Errorf("of 2 endpoints: connections to %v", conn.open)
			}
		})
	}
}

// TestSubsetOfFailedEndpoints checks that calls succeed while any endpoint can be reached.
func TestSubsetOfFailedEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := fleet(t, 10, none)
		conn, lb := start(t, Name, `{"subset":2,"client":"x"}`, state)
		settle(conn)
		last := slices.Sorted(maps.Keys(conn.open))[0]
		for _, e := range state.Endpoints {
			if a := e.Addresses[0].Addr; a != last {
				conn.fail(a)
			}
		}
		settle(conn)
		if got := addressOf(t, conn); got != last {
			t.Errorf("a call to %s, want %s", got, last)
		}
		conn.fail(last)
		settle(conn)
		_, err := conn.state.Picker.Pick(grpcbalancer.PickInfo{})
		if conn.state.ConnectivityState != connectivity.TransientFailure || err == nil || !strings.Contains(err.Error(), "is down") {
			t.Errorf("all failed: state %v, error %v", conn.state.ConnectivityState, err)
		}
		lb.Close()
		if conn.run(); len(conn.open) != 0 {
			t.Errorf("after Close: connections to %v", conn.open)
		}
	})
}

func TestJudge(t *testing.T) {
	answered := grpcbalancer.DoneInfo{BytesSent: true, BytesReceived: true}
	for _, tt := range []struct {
		err            error
		failed, counts bool
	}{
		{nil, false, true},
		{status.Error(codes.NotFound, ""), false, true},
		{status.Error(codes.Unavailable, ""), true, true},
		{status.Error(codes.DeadlineExceeded, ""), true, true},
		{status.Error(codes.Canceled, ""), false, false},
		{status.FromContextError(context.Canceled).Err(), false, false},
		{io.EOF, true, true},
	} {
		info := answered
		info.Err = tt.err
		if failed, counts := judge(info); failed != tt.failed || counts != tt.counts {
			t.Errorf("%v: %v, %v", tt.err, failed, counts)
		}
	}
	if failed, counts := judge(grpcbalancer.DoneInfo{}); failed || counts {
		t.Error("a call that was not sent counts")
	}
}

// TestInFlight checks that every call ends once, timed or not.
func TestInFlight(t *testing.T) {
	conn, lb := start(t, Name, `{"pick":"least_loaded"}`, fleet(t, 5, weights))
	var done []func(grpcbalancer.DoneInfo)
	for range 1000 {
		r, err := conn.state.Picker.Pick(grpcbalancer.PickInfo{})
		if err != nil {
			t.Fatal(err)
		}
		done = append(done, r.Done)
	}
	inFlight := func() (n int) {
		for _, c := range lb.(*policy).top.byKey {
			n += c.endpoint.load.InFlight()
		}
		return n
	}
	if n := inFlight(); n != 1000 {
		t.Errorf("%d calls in flight, want 1000", n)
	}
	for i, f := range done {
		f(grpcbalancer.DoneInfo{BytesReceived: i%2 == 0, Err: []error{nil, errors.New("failed"), status.Error(codes.Canceled, "")}[i%3]})
	}
	if n := inFlight(); n != 0 {
		t.Errorf("%d calls in flight, want 0", n)
	}
}

func TestAllocations(t *testing.T) {
	for _, k := range kinds {
		if k.policy != Name {
			continue
		}
		conn, _ := start(t, k.policy, k.config, fleet(t, 20, k.metadata))
		if n := testing.AllocsPerRun(10_000, func() { pickOnce(t, conn.state.Picker) }); n != 0 {
			t.Errorf("%s: %v allocations", k.name, n)
		}
	}
}

// fail breaks the connection to an address, and refuses new ones.
func (c *fakeConn) fail(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down[addr] = fmt.Errorf("%s is down", addr)
	for _, s := range c.conns {
		if s.addr == addr && s.ready {
			s.ready = false
			s.report(s.listener, connectivity.Idle)
		}
	}
}

// recover accepts connections to an address again, as after a backoff.
func (c *fakeConn) recover(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.down, addr)
	for _, s := range c.conns {
		if s.addr == addr && !s.closed {
			s.report(s.listener, connectivity.Idle)
		}
	}
}
