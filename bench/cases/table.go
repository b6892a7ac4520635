package cases

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/naming-go/naming/bench/peer"
)

// kase is a fault, and the state that has to follow.
type kase struct {
	letter, name string
	backend      string // empty: any
	// run returns nil if the peer passed, and errFailed if it did not. The trial's
	// result then says what failed. Any other error says why the trial shows nothing.
	run func(t *trial) error
}

// Names returns the names of the cases by their letters.
func Names() map[string]string {
	names := make(map[string]string)
	for _, c := range table {
		names[c.letter] = c.name
	}
	return names
}

var table = []kase{
	{letter: "a", name: "cut, changes, compaction, heal", run: (*trial).cut},
	{letter: "b", name: "kill -9, same data", run: (*trial).kill},
	{letter: "c", name: "replaced by an empty server that overtakes it", run: func(t *trial) error { return t.replace(50, 200) }},
	{letter: "c2", name: "replaced by an empty server, the old one far ahead", run: func(t *trial) error { return t.replace(3100, 0) }},
	{letter: "d", name: "lease revoked or instance deregistered", run: (*trial).evict},
	{letter: "e", name: "malformed entries", run: (*trial).malformed},
	{letter: "f", name: "black hole for 30 s", run: (*trial).blackHole},
	{letter: "g", name: "down when dialling, up later", run: (*trial).down},
	{letter: "p", name: "a neighbour's changes", run: (*trial).neighbour},
}

// firstOf takes steps up to the first error, which it returns.
func firstOf(steps ...func() error) error {
	for _, s := range steps {
		if err := s(); err != nil {
			return err
		}
	}
	return nil
}

func (t *trial) cut() error {
	return firstOf(
		func() error { return t.begin(true) },
		func() error { t.proxy.Cut(); return t.put(4) },
		func() error { return t.remove(2) },
		func() error { t.registry.compact(); return pause(t.ctx, 3*time.Second) },
		func() error { t.proxy.Heal(); return t.settle(5, 0) },
	)
}

func (t *trial) kill() error {
	return firstOf(
		func() error { return t.begin(true) },
		func() error { t.registry.restart(); return t.put(4) },
		func() error { return t.remove(2) },
		func() error { return t.settle(5, 0) },
	)
}

// replace replaces the server by an empty one. All endpoints but one come back on the new
// server, and others are added. Watches go by the registry's counter of changes. On the
// old server it was at before or more, which is ahead of the new server. There, changes of
// another key bring the counter to after.
func (t *trial) replace(before, after int) error {
	return firstOf(
		func() error { return t.registry.advance(t.ctx, before) },
		func() error { return t.begin(true) },
		func() error { t.registry.wipe(); return t.put(1, 3, 7, 4, 5) },
		func() error {
			if after == 0 {
				return nil
			}
			return t.registry.advance(t.ctx, after)
		},
		func() error { return t.settle(6, t.opts.Surplus) },
	)
}

func (t *trial) evict() error {
	return firstOf(
		func() error { return t.begin(true) },
		func() error {
			if !t.registered {
				return errNotApplicable
			}
			return t.registry.evict(t.ctx, service, own)
		},
		func() error { return t.settle(4, 0) },
	)
}

// malformed puts malformed entries. It does not judge registrations.
func (t *trial) malformed() error {
	return firstOf(
		func() error { return t.begin(false) },
		func() error {
			for _, e := range t.registry.malformed(func(id, addr string) peer.Entry {
				return t.peer.Entry(service, peer.Endpoint{ID: id, Addr: addr})
			}) {
				if err := retry(t.ctx, func(ctx context.Context) error { return t.registry.put(ctx, e) }); err != nil {
					return err
				}
			}
			return nil
		},
		func() error { return t.put(4) },
		func() error { return t.remove(2) },
		func() error { return t.settle(5, 0) },
	)
}

func (t *trial) blackHole() error {
	return firstOf(
		func() error { return t.begin(true) },
		func() error { t.proxy.BlackHole(); return pause(t.ctx, 5*time.Second) },
		func() error { return t.put(4) },
		func() error { return t.remove(2) },
		func() error { return pause(t.ctx, 25*time.Second) },
		func() error { t.proxy.Heal(); return t.settle(5, 0) },
	)
}

// deadline is the deadline of the calls that are made while the registry is down. They may
// take half as long again, because the machine may be busy.
const deadline = 2 * time.Second

// down dials while the registry refuses connections. It judges a peer by calls, or by sets
// if the peer has no resolver for gRPC. It does not judge registrations.
func (t *trial) down() error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	go s.Serve(lis)
	defer s.Stop()
	e := t.entry(service, lis.Addr().String())
	if err := retry(t.ctx, func(ctx context.Context) error { return t.registry.put(ctx, e) }); err != nil {
		return err
	}
	t.proxy.Cut()
	if err := t.open(); err != nil {
		return err
	}
	if err := t.subject.Send(command{Do: "call", Service: service, Timeout: deadline}); err != nil {
		return err
	}
	// Wait until a call has ended, which can take long. The registry is down for ten
	// seconds in any case.
	begin := time.Now()
	t.await(time.Minute, func() bool { _, ok := t.subject.answer("call"); return ok })
	first, answered := t.subject.answer("call")
	if err := pause(t.ctx, 10*time.Second-time.Since(begin)); err != nil {
		return err
	}
	if first.Unsupported {
		t.res.Note = "it does not serve gRPC: judged by the sets"
		if err := t.subject.Send(command{Do: "resolve", Service: service}); err != nil {
			return err
		}
		if err := pause(t.ctx, 10*time.Second); err != nil {
			return err
		}
		t.proxy.Heal()
		if ok, r := t.right(t.opts.Bound, 0, false); !ok {
			e, _ := t.subject.answer("resolve")
			t.res.Discovery = r.discovery + " " + e.Err
			return errFailed
		}
		return nil
	}
	t.proxy.Heal()
	good := t.await(t.opts.Bound, func() bool { e, ok := t.subject.answer("call"); return ok && e.Err == "" })
	last, _ := t.subject.answer("call")
	switch slowest := t.subject.slowestCall(); {
	case !good:
		t.res.Discovery = fmt.Sprintf("calls still fail %v after the registry was back: %s", t.opts.Bound, last.Err)
	case !answered, slowest > deadline*3/2:
		t.res.Discovery = fmt.Sprintf("a call with a deadline of %v took %v", deadline, slowest.Round(100*time.Millisecond))
	default:
		return nil
	}
	return errFailed
}

// neighbour changes a service whose name begins alike. It does not judge registrations.
func (t *trial) neighbour() error {
	if err := t.begin(false); err != nil {
		return err
	}
	// How many sets one change causes is not known. There is one change of svc before the
	// neighbour's changes and one after them.
	if err := t.marked(4); err != nil {
		return err
	}
	_, before := t.subject.counts()
	const changes = 20
	for i := range changes {
		a := addr(true, i)
		e := t.peer.Entry("svc2", peer.Endpoint{ID: a, Addr: a})
		if err := t.registry.put(t.ctx, e); err != nil {
			return err
		}
		// The subject must not see many changes at once.
		if err := pause(t.ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	if err := t.marked(5); err != nil {
		return err
	}
	_, after := t.subject.counts()
	for i := range changes {
		if t.subject.saw(addr(true, i)) {
			t.res.Discovery = "it shows endpoints of svc2 as those of svc"
			return errFailed
		}
	}
	// Some peers repeat the set after the one change of svc.
	if n := after - before; n > 2 {
		t.res.Discovery = fmt.Sprintf("it was woken %d times by %d changes of svc2", n, changes)
		return errFailed
	}
	return nil
}

// marked puts an endpoint, and waits until the subject shows it.
func (t *trial) marked(id int) error {
	if err := t.put(id); err != nil {
		return err
	}
	if ok, r := t.right(t.opts.Bound, 2*time.Second, false); !ok {
		t.res.Discovery = r.discovery
		return errFailed
	}
	return nil
}
