package conformance

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/naming-go/naming"
)

// some returns n endpoints with the same metadata.
func some(n int, metadata string) []naming.Endpoint {
	eps := make([]naming.Endpoint, n)
	for i := range eps {
		eps[i] = ep(fmt.Sprintf("id-%05d", i), fmt.Sprintf("10.%d.%d.%d:9000", i>>16, i>>8&0xff, i&0xff), metadata)
	}
	return eps
}

func firstBatchIsSnapshot(e *env) error {
	if err := e.listed("nobody", set{}); err != nil {
		return err
	}
	r := e.watch("nobody", set{}, nil)
	if err := r.begun(); err != nil {
		return err
	}
	eps := some(3, `{"weight":1}`)
	if err := e.apply("somebody", add(nil, eps...)...); err != nil {
		return err
	}
	if err := e.listed("somebody", sets(eps...)); err != nil {
		return err
	}
	// A service without endpoints is like a service that never existed.
	for i, ep := range eps {
		if err := e.apply("somebody", del(ep)...); err != nil {
			return err
		}
		if err := e.listed("somebody", sets(eps[i+1:]...)); err != nil {
			return err
		}
	}
	leases, err := e.grants(1)
	if err != nil {
		return err
	}
	if err := e.apply("somebody", add(leases[0], eps...)...); err != nil {
		return err
	}
	if err := e.revoke(leases[0]); err != nil {
		return err
	}
	return e.eventually(func() error { return e.listed("somebody", set{}) })
}

func snapshotIsWhole(e *env) error {
	eps := some(120, `{"zone":"a","tags":["x","y"]}`)
	want := sets(eps...)
	if err := e.chunks("greeter", add(nil, eps...)); err != nil {
		return err
	}
	for range 3 {
		if err := e.listed("greeter", want); err != nil {
			return err
		}
	}
	s := e.newScene("greeter")
	s.now = want
	return s.watch()
}

func listIsOneRead(e *env) error {
	const n = 3
	want := e.listCalls(n)
	if err := e.apply("greeter", add(nil, some(n, "")...)...); err != nil {
		return err
	}
	// The first list may dial or log in.
	if _, err := e.list("greeter"); err != nil {
		return err
	}
	// A replica that lags costs a second read. It catches up after some lists.
	for row, tries := 0, 0; row < 3; tries++ {
		before := e.calls()
		if err := e.listed("greeter", sets(some(n, "")...)); err != nil {
			return err
		}
		got := e.calls() - before
		switch {
		case got == want:
			row++
		case tries < 20:
			row = 0
		default:
			return fmt.Errorf("a list of %d endpoints made %d requests, want %d", n, got, want)
		}
	}
	return nil
}

func applyIsStored(e *env) error {
	s := e.newScene("greeter") // without a watch
	for i := range 8 {
		a, b := ep(strconv.Itoa(i), "10.0.0.1:80", `{"n":1}`), ep(strconv.Itoa(i), "10.0.0.2:80", `{"n":2}`)
		c := ep("moving", "10.0.1."+strconv.Itoa(i)+":80", "")
		for _, changes := range [][]naming.Change{add(nil, a), add(nil, b, c), append(del(b), add(nil, c)...)} {
			if err := s.apply(changes...); err != nil {
				return err
			}
			if err := e.listed(s.service, s.now); err != nil {
				return fmt.Errorf("after Apply has returned nil: %w", err)
			}
		}
	}
	return nil
}

func applyAgain(e *env) error {
	s := e.newScene("greeter")
	if err := s.watch(); err != nil {
		return err
	}
	leases, err := e.grants(1)
	if err != nil {
		return err
	}
	eps := some(4, `{"weight":3}`)
	for _, changes := range [][]naming.Change{
		add(nil, eps...),
		add(leases[0], eps[0]),
		slices.Concat(del(eps[1]), add(leases[0], eps[2]), add(nil, ep(eps[3].ID, "10.1.1.1:1", ""))),
		del(eps...),
	} {
		for range 3 {
			if err := s.apply(changes...); err != nil {
				return err
			}
			if err := e.listed(s.service, s.now); err != nil {
				return err
			}
		}
	}
	if err := s.apply(); err != nil {
		return fmt.Errorf("an Apply without changes: %w", err)
	}
	return s.flush()
}

func applyKeepsNothing(e *env) error {
	s := e.newScene("greeter")
	if err := s.watch(); err != nil {
		return err
	}
	changes := add(nil, some(3, `{"weight":1}`)...)
	if err := s.apply(changes...); err != nil {
		return err
	}
	for i := range changes {
		changes[i] = naming.Change{Op: naming.Add, Endpoint: ep("scribbled-"+strconv.Itoa(i), "10.6.6.6:6", "6")}
	}
	if err := s.apply(add(nil, ep("d", "10.0.0.4:80", ""))...); err != nil {
		return err
	}
	return s.flush()
}

func oneIDTwice(e *env) error {
	s := e.newScene("greeter")
	if err := s.watch(); err != nil {
		return err
	}
	a1, a2 := ep("a", "10.0.0.1:80", `1`), ep("a", "10.0.0.2:80", `2`)
	for _, changes := range [][]naming.Change{
		add(nil, a1, a2),
		append(del(a1), add(nil, a1)...),
		append(add(nil, a2), del(a2)...),
		append(append(add(nil, a1), del(a1)...), add(nil, a2)...),
	} {
		if err := s.apply(changes...); err != nil {
			return fmt.Errorf("several changes of one ID, of which the last counts: %w", err)
		}
		if err := e.listed(s.service, s.now); err != nil {
			return fmt.Errorf("several changes of one ID, of which the last counts: %w", err)
		}
	}
	return nil
}

func deleteOfNothing(e *env) error {
	if err := e.apply("nobody", del(ep("nothing", "", ""))...); err != nil {
		return err
	}
	s := e.newScene("greeter")
	if err := s.watch(); err != nil {
		return err
	}
	a, b := ep("a", "10.0.0.1:80", ""), ep("b", "10.0.0.2:80", "")
	for _, changes := range [][]naming.Change{
		add(nil, a, b),
		del(ep("nothing", "", "")),
		del(ep("", "10.0.0.1:80", "")), // the address of a, which is not its ID
		append(del(ep("nothing", "", "")), add(nil, ep("c", "10.0.0.3:80", ""))...),
		del(a), del(a),
		del(a, b), del(a, b),
	} {
		if err := s.apply(changes...); err != nil {
			return err
		}
	}
	return s.flush()
}

func invalidIsRefused(e *env) error {
	s := e.newScene("greeter")
	good := ep("good", "10.0.0.1:80", `{"weight":1}`)
	if err := s.apply(add(nil, good)...); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	before, err := e.names()
	if err != nil {
		return err
	}
	own := e.prefix + s.service
	for _, refused := range []func() error{
		e.invalidNames,
		func() error { return e.invalidEndpoints(own, good) },
		func() error { return e.invalidChanges(own, good) },
		e.invalidTTLs,
	} {
		if err := refused(); err != nil {
			return err
		}
	}
	if err := s.flush(); err != nil {
		return fmt.Errorf("after everything was refused: %w", err)
	}
	after, err := e.names()
	if err == nil && !slices.Equal(after, before) {
		err = fmt.Errorf("after everything was refused: got services %q, want %q", after, before)
	}
	return err
}

func (e *env) invalidNames() error {
	for _, service := range []string{"", "\xff", "a\xc3"} {
		if err := e.refused(fmt.Sprintf("service name %q", service), service, add(nil, ep("x", "10.0.0.2:80", ""))...); err != nil {
			return err
		}
		if err := e.watchRefused(fmt.Sprintf("a watch of service name %q", service), service); err != nil {
			return err
		}
	}
	return nil
}

// invalidEndpoints tries each invalid endpoint alone, after a valid change and before
// one. good is an endpoint of the service.
func (e *env) invalidEndpoints(service string, good naming.Endpoint) error {
	fresh := ep("fresh", "10.0.0.3:80", "")
	for _, bad := range []naming.Endpoint{
		{},
		{Metadata: []byte(" null ")},
		{ID: "\xff", Addr: "10.0.0.2:80"},
		{ID: "x", Addr: "10.0.0.2:80\xff"},
		ep("x", "10.0.0.2:80", `{`),
		ep("x", "10.0.0.2:80", `nul`),
		ep("x", "10.0.0.2:80", `{"a":1} x`),
		ep("x", "10.0.0.2:80", `{'a':1}`),
		ep("x", "10.0.0.2:80", `01`),
		ep("x", "10.0.0.2:80", ` `),
		ep("x", "10.0.0.2:80", "\"\xff\""),
	} {
		for _, changes := range [][]naming.Change{
			add(nil, bad),
			{{Op: naming.Delete, Endpoint: bad}},
			add(nil, fresh, bad),
			append(del(good), add(nil, bad)...),
		} {
			if err := e.refused(fmt.Sprintf("endpoint %q %q %q", bad.ID, bad.Addr, bad.Metadata), service, changes...); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *env) invalidChanges(service string, good naming.Endpoint) error {
	fresh := ep("fresh", "10.0.0.3:80", "")
	if err := e.refused("operation 7", service, append(add(nil, fresh), naming.Change{Op: 7, Endpoint: good})...); err != nil {
		return err
	}
	leases, err := e.grants(1)
	if err != nil {
		return err
	}
	for _, c := range []naming.Change{
		{Op: naming.Add, Endpoint: fresh, IfFree: true},
		{Op: naming.Delete, Endpoint: good, Lease: leases[0], IfFree: true},
	} {
		if err := e.refused("IfFree without an Add and a lease", service, c); err != nil {
			return err
		}
	}
	return nil
}

func (e *env) invalidTTLs() error {
	for _, ttl := range []time.Duration{0, -time.Second} {
		err := guard(patience, "Grant", func() error { _, err := e.store.Grant(e.ctx, ttl); return err })
		if err := kind(fmt.Sprintf("Grant of %v", ttl), err, naming.ErrInvalid); err != nil {
			return err
		}
	}
	return nil
}

// foreignLease is a lease that no store made.
type foreignLease struct{}

func (foreignLease) Renew(context.Context) error  { return nil }
func (foreignLease) Revoke(context.Context) error { return nil }
func (foreignLease) TTL() time.Duration           { return time.Hour }

func foreignLeaseIsRefused(e *env) error {
	s := e.newScene("greeter")
	a := ep("a", "10.0.0.1:80", "")
	if err := s.apply(add(nil, a)...); err != nil {
		return err
	}
	for _, c := range []naming.Change{
		{Op: naming.Add, Endpoint: ep("b", "10.0.0.2:80", ""), Lease: foreignLease{}},
		{Op: naming.Delete, Endpoint: a, Lease: foreignLease{}},
	} {
		err := guard(patience, "Apply", func() error { return e.write(e.ctx, e.prefix+s.service, c) })
		if err := kind(fmt.Sprintf("%v with a lease of another store", c.Op), err, naming.ErrInvalid); err != nil {
			return err
		}
	}
	return s.flush()
}

func putIsSeen(e *env) error {
	s := e.newScene("greeter")
	if err := s.apply(add(nil, ep("a", "10.0.0.1:80", `{"version":"1"}`))...); err != nil {
		return err
	}
	if err := s.watch(); err != nil { // of an endpoint that was put before
		return err
	}
	if err := s.apply(add(nil, ep("", "10.0.0.2:80", ""))...); err != nil { // and of one that is put now
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	if err := s.apply(add(nil, ep("c", "[2001:db8::3]:80", `{"version":"3"}`))...); err != nil {
		return err
	}
	return s.flush()
}

func everyChangeArrives(e *env) error {
	s := e.newScene("greeter")
	if err := s.watch(); err != nil {
		return err
	}
	for i := range 8 {
		id := "id-" + strconv.Itoa(i)
		other := ep("id-"+strconv.Itoa((i+5)%8), "", "")
		for _, changes := range [][]naming.Change{
			add(nil, ep(id, "10.0.0.1:80", "")),
			add(nil, ep(id, "10.0.0.1:80", `{"n":`+strconv.Itoa(i)+`}`)),
			add(nil, ep(id, "10.0.0.2:80", `{"n":`+strconv.Itoa(i)+`}`)),
			add(nil, ep(id, "10.0.0.2:80", "")),
			del(other),
		} {
			if err := s.apply(changes...); err != nil {
				return err
			}
		}
	}
	return s.flush()
}

func putReplaces(e *env) error {
	s := e.newScene("greeter")
	if err := s.apply(add(nil, ep("other", "10.0.0.9:80", `{"weight":9}`))...); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	for _, metadata := range []string{"", `{"weight":1}`, `{"weight":2}`, `{"weight":2,"draining":true}`, "", `0`, `1`, `1.0`, `"1"`, `null`} {
		if err := s.apply(add(nil, ep("a", "10.0.0.1:80", metadata))...); err != nil {
			return err
		}
		if err := e.listed(s.service, s.now); err != nil {
			return err
		}
	}
	return s.flush()
}

func addressChange(e *env) error {
	s := e.newScene("greeter")
	if err := s.watch(); err != nil {
		return err
	}
	// The ID is the first address, and stays when the address changes.
	for _, addr := range []string{"10.0.0.1:80", "10.0.0.2:80", "[::1]:80", "unix:/run/a.sock", "10.0.0.1:80"} {
		if err := s.apply(add(nil, ep("10.0.0.1:80", addr, `{"weight":1}`))...); err != nil {
			return err
		}
		if err := e.listed(s.service, s.now); err != nil {
			return err
		}
	}
	return s.flush()
}

func equalAddresses(e *env) error {
	s := e.newScene("greeter")
	if err := s.watch(); err != nil {
		return err
	}
	const addr = "10.0.0.1:80"
	for _, changes := range [][]naming.Change{
		add(nil, ep("a", addr, `{"weight":1}`), ep("b", addr, `{"weight":2}`)),
		add(nil, ep("", addr, `{"weight":3}`)),
		add(nil, ep("a", addr, `{"weight":4}`)),
		del(ep("b", addr, "")),
		del(ep("", addr, "")), // the endpoint whose ID is its address
	} {
		if err := s.apply(changes...); err != nil {
			return err
		}
		if err := e.listed(s.service, s.now); err != nil {
			return err
		}
	}
	return s.flush()
}

func deleteRemoves(e *env) error {
	s := e.newScene("greeter")
	a, b, c := ep("a", "10.0.0.1:80", `{"weight":1}`), ep("", "10.0.0.2:80", ""), ep("c", "10.0.0.3:80", "")
	if err := s.apply(add(nil, a, b, c)...); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	for _, changes := range [][]naming.Change{
		del(ep("a", "", "")),           // by ID
		del(ep("", "10.0.0.2:80", "")), // by address
		add(nil, a),
		del(c), // the whole endpoint
		del(ep("a", "10.9.9.9:9", `{"other":true}`)),
	} {
		if err := s.apply(changes...); err != nil {
			return err
		}
		if err := e.listed(s.service, s.now); err != nil {
			return err
		}
	}
	return s.stays()
}

func atomicBatch(e *env) error {
	s := e.newScene("greeter")
	if err := s.watch(); err != nil {
		return err
	}
	for round := range 3 {
		a, b := some(6, `{"round":1}`), some(6, `{"round":2}`)
		moved := slices.Clone(b)
		for i := range moved {
			moved[i].Addr = fmt.Sprintf("[2001:db8::%d]:%d", i, 80+round)
		}
		fresh := []naming.Endpoint{ep("x", "10.3.0.1:80", ""), ep("y", "10.3.0.2:80", ""), ep("z", "10.3.0.3:80", "")}
		for _, changes := range [][]naming.Change{
			add(nil, a...),
			add(nil, b...),
			add(nil, moved...),
			slices.Concat(add(nil, fresh...), del(moved[:3]...), add(nil, a[3])),
			slices.Concat(del(moved[4:]...), del(fresh...), add(nil, a[0]), del(a[3])),
			del(a...),
		} {
			if err := s.apply(changes...); err != nil {
				return err
			}
		}
		if round == 0 {
			if err := s.watch(); err != nil {
				return err
			}
		}
	}
	return s.flush()
}

func snapshotIsNotOlder(e *env) error {
	s := e.newScene("greeter")
	if err := s.watch(); err != nil {
		return err
	}
	for i := range 20 {
		if err := s.apply(add(nil, ep("counter", "10.0.0.1:80", strconv.Itoa(i)), ep("even", "10.0.0.2:80", ""))...); err != nil {
			return err
		}
		if i%2 == 1 {
			if err := s.apply(del(ep("even", "", ""))...); err != nil {
				return err
			}
		}
		if err := e.listed(s.service, s.now); err != nil {
			return fmt.Errorf("after another watch has shown the newer state: %w", err)
		}
	}
	return nil
}

// slowLoop starts a watch whose loop blocks in its body, with no lock held, until
// release is called. It returns when the loop blocks. state is guarded by the loop's
// mu.
func (e *env) slowLoop(service string) (slow *loop, state set, release func(), err error) {
	released := make(chan struct{})
	release = sync.OnceFunc(func() { close(released) })
	blocked := make(chan struct{}, 1)
	slow = newLoop(e, "a watch with a slow loop")
	ctx, cancel := context.WithCancel(e.ctx)
	slow.cancel = cancel
	state = make(set)
	slow.run(func() (end, fault error) {
		return drain(e.store.Watch(ctx, e.prefix+service), func(b naming.Batch) error {
			select {
			case blocked <- struct{}{}:
			default:
			}
			<-released
			slow.mu.Lock()
			defer slow.mu.Unlock()
			defer slow.signal()
			slow.yields++
			return state.applyBatch(b, slow.yields == 1)
		})
	})
	return slow, state, release, guard(patience, "the first batch of "+slow.what, func() error {
		select {
		case <-blocked:
			return nil
		case <-slow.done:
			return errors.New("it ended first")
		case <-e.ctx.Done():
			return e.ctx.Err()
		}
	})
}

func slowReader(e *env) error {
	s := e.newScene("greeter")
	if err := s.apply(add(nil, ep("a", "10.0.0.1:80", `0`))...); err != nil {
		return err
	}
	slow, state, release, err := e.slowLoop(s.service)
	defer release()
	if err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	for i := range 100 {
		if err := s.apply(add(nil, ep("a", "10.0.0.1:80", strconv.Itoa(i)), ep("b"+strconv.Itoa(i), "10.0.0.2:80", ""))...); err != nil {
			return fmt.Errorf("while the loop of another watch is slow: %w", err)
		}
		if i > 3 {
			if err := s.apply(del(ep("b"+strconv.Itoa(i-3), "", ""))...); err != nil {
				return fmt.Errorf("while the loop of another watch is slow: %w", err)
			}
		}
	}
	release()
	return slow.until(patience, func() string {
		if !state.equal(s.now) {
			return "it does not show the wanted state: " + diff(state, s.now)
		}
		return ""
	})
}

// batchKeeper is the loop over a watch that keeps every batch and a copy of it.
type batchKeeper struct {
	*loop

	// The following fields are guarded by loop.mu.
	state set
	kept  []keptBatch
}

type keptBatch struct{ yielded, copied naming.Batch }

func (e *env) keepBatches(service string) *batchKeeper {
	k := &batchKeeper{state: make(set)}
	k.loop = startLoop(e, e.ctx, "a watch that keeps its batches", func(ctx context.Context) iter.Seq2[naming.Batch, error] {
		return e.store.Watch(ctx, e.prefix+service)
	}, func(b naming.Batch) error {
		if err := k.state.applyBatch(b, len(k.kept) == 0); err != nil {
			return err
		}
		k.kept = append(k.kept, keptBatch{b, naming.Batch{Snapshot: b.Snapshot, Put: slices.Clone(b.Put), Deleted: slices.Clone(b.Deleted)}})
		return nil
	})
	return k
}

// unchanged returns an error if a batch has changed since it was yielded. The loop has
// ended.
func (k *batchKeeper) unchanged() error {
	for _, b := range k.kept {
		if b.yielded.Snapshot != b.copied.Snapshot || !slices.EqualFunc(b.yielded.Put, b.copied.Put, naming.Endpoint.Equal) || !slices.Equal(b.yielded.Deleted, b.copied.Deleted) {
			return fmt.Errorf("a batch had Put %v and Deleted %q when it was yielded, and has %v and %q now",
				sets(b.copied.Put...), b.copied.Deleted, sets(b.yielded.Put...), b.yielded.Deleted)
		}
	}
	return nil
}

// scribble starts a watch whose receiver overwrites the slices of its batches. The
// loop fails if a later batch has what it wrote.
func (e *env) scribble(service string) *loop {
	return startLoop(e, e.ctx, "a watch that scribbles over its batches", func(ctx context.Context) iter.Seq2[naming.Batch, error] {
		return e.store.Watch(ctx, e.prefix+service)
	}, func(b naming.Batch) error {
		for _, ep := range b.Put {
			if ep.Addr == "10.6.6.6:6" {
				return fmt.Errorf("a later batch has what the receiver scribbled over an earlier one: %v", sets(b.Put...))
			}
		}
		b.Put, b.Deleted = b.Put[:cap(b.Put)], b.Deleted[:cap(b.Deleted)]
		for i := range b.Put {
			b.Put[i] = ep("scribbled", "10.6.6.6:6", "6")
		}
		for i := range b.Deleted {
			b.Deleted[i] = "scribbled"
		}
		return nil
	})
}

func batchIsTheReceivers(e *env) error {
	s := e.newScene("greeter")
	eps := some(5, `{"weight":1}`)
	if err := s.apply(add(nil, eps...)...); err != nil {
		return err
	}
	keeper, scribbler := e.keepBatches(s.service), e.scribble(s.service)
	for _, l := range []*loop{keeper.loop, scribbler} {
		if err := l.begun(); err != nil {
			return err
		}
	}
	if err := s.watch(); err != nil {
		return err
	}
	for i, ep := range eps {
		ep.Metadata = []byte(strconv.Itoa(i))
		if err := s.apply(add(nil, ep)...); err != nil {
			return err
		}
		if err := s.apply(del(eps[(i+3)%5])...); err != nil {
			return err
		}
	}
	if err := s.flush(); err != nil {
		return err
	}
	if err := scribbler.until(patience, func() string {
		if scribbler.yields < 2 {
			return "it yielded no change"
		}
		return ""
	}); err != nil {
		return err
	}
	if err := keeper.until(patience, func() string {
		if !keeper.state.equal(s.now) {
			return "it does not show the wanted state: " + diff(keeper.state, s.now)
		}
		return ""
	}); err != nil {
		return err
	}
	if err := keeper.stop(); err != nil {
		return err
	}
	return keeper.unchanged()
}
