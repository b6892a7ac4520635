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

// some makes n endpoints.
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
	// One that had endpoints is like one that never was.
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
	s := e.scene("greeter")
	s.now = want
	return s.watch()
}

func listIsOneRead(e *env) error {
	const n = 3
	want := e.listCalls(n)
	if err := e.apply("greeter", add(nil, some(n, "")...)...); err != nil {
		return err
	}
	// The first may dial, or log in.
	if _, err := e.list("greeter"); err != nil {
		return err
	}
	// A replica that lags, which takes a second read, has caught up some lists on.
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
	s := e.scene("greeter") // nobody watches it
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
	s := e.scene("greeter")
	if err := s.watch(); err != nil {
		return err
	}
	leases, err := e.grants(1)
	if err != nil {
		return err
	}
	eps := some(4, `{"weight":3}`)
	steps := [][]naming.Change{
		add(nil, eps...),
		add(leases[0], eps[0]),
		slices.Concat(del(eps[1]), add(leases[0], eps[2]), add(nil, ep(eps[3].ID, "10.1.1.1:1", ""))),
		del(eps...),
	}
	for _, changes := range steps {
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
		return fmt.Errorf("no changes at all: %w", err)
	}
	return s.flush()
}

func applyKeepsNothing(e *env) error {
	s := e.scene("greeter")
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
	s := e.scene("greeter")
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
			return fmt.Errorf("several changes of one ID, of which the last is to last: %w", err)
		}
		if err := e.listed(s.service, s.now); err != nil {
			return fmt.Errorf("several changes of one ID, of which the last is to last: %w", err)
		}
	}
	return nil
}

func deleteOfNothing(e *env) error {
	if err := e.apply("nobody", del(ep("nothing", "", ""))...); err != nil {
		return err
	}
	s := e.scene("greeter")
	if err := s.watch(); err != nil {
		return err
	}
	a, b := ep("a", "10.0.0.1:80", ""), ep("b", "10.0.0.2:80", "")
	for _, changes := range [][]naming.Change{
		add(nil, a, b),
		del(ep("nothing", "", "")),
		del(ep("", "10.0.0.1:80", "")), // an address, but not the ID of a
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
	s := e.scene("greeter")
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
	try := func(what, service string, changes ...naming.Change) error {
		err := guard(patience, what, func() error { return e.store.Apply(e.ctx, service, changes...) })
		return kind("Apply with "+what, err, naming.ErrInvalid)
	}
	own := e.prefix + "greeter"
	for _, service := range []string{"", "\xff", "a\xc3"} {
		if err := try(fmt.Sprintf("service name %q", service), service, add(nil, ep("x", "10.0.0.2:80", ""))...); err != nil {
			return err
		}
		w := follow(e, e.ctx, fmt.Sprintf("a watch of service name %q", service), func(ctx context.Context) iter.Seq2[naming.Batch, error] {
			return e.store.Watch(ctx, service)
		}, func(b naming.Batch) error {
			return fmt.Errorf("it yielded %+v, want an error that is %q", b, naming.ErrInvalid)
		})
		end, fault := w.ended(patience)
		if fault != nil {
			return fault
		}
		if err := kind(w.what, end, naming.ErrInvalid); err != nil {
			return err
		}
	}
	bad := []naming.Endpoint{
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
	}
	fresh := ep("fresh", "10.0.0.3:80", "")
	for _, b := range bad {
		for _, changes := range [][]naming.Change{
			add(nil, b),
			{{Op: naming.Delete, Endpoint: b}},
			add(nil, fresh, b),
			append(del(good), add(nil, b)...),
		} {
			if err := try(fmt.Sprintf("endpoint %q %q %q", b.ID, b.Addr, b.Metadata), own, changes...); err != nil {
				return err
			}
		}
	}
	if err := try("operation 7", own, append(add(nil, fresh), naming.Change{Op: 7, Endpoint: good})...); err != nil {
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
		if err := try("IfFree without an Add and a lease", own, c); err != nil {
			return err
		}
	}
	for _, ttl := range []time.Duration{0, -time.Second} {
		err := guard(patience, "Grant", func() error { _, err := e.store.Grant(e.ctx, ttl); return err })
		if err := kind(fmt.Sprintf("Grant of %v", ttl), err, naming.ErrInvalid); err != nil {
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

// foreignLease is a lease that no store made.
type foreignLease struct{}

func (foreignLease) Renew(context.Context) error  { return nil }
func (foreignLease) Revoke(context.Context) error { return nil }
func (foreignLease) TTL() time.Duration           { return time.Hour }

func foreignLeaseIsRefused(e *env) error {
	s := e.scene("greeter")
	a := ep("a", "10.0.0.1:80", "")
	if err := s.apply(add(nil, a)...); err != nil {
		return err
	}
	for _, c := range []naming.Change{
		{Op: naming.Add, Endpoint: ep("b", "10.0.0.2:80", ""), Lease: foreignLease{}},
		{Op: naming.Delete, Endpoint: a, Lease: foreignLease{}},
	} {
		err := guard(patience, "Apply", func() error { return e.store.Apply(e.ctx, e.prefix+s.service, c) })
		if err := kind(fmt.Sprintf("%v with a lease of another store", c.Op), err, naming.ErrInvalid); err != nil {
			return err
		}
	}
	return s.flush()
}

func putIsSeen(e *env) error {
	s := e.scene("greeter")
	if err := s.apply(add(nil, ep("a", "10.0.0.1:80", `{"version":"1"}`))...); err != nil {
		return err
	}
	if err := s.watch(); err != nil { // of what was put before
		return err
	}
	if err := s.apply(add(nil, ep("", "10.0.0.2:80", ""))...); err != nil { // and after
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
	s := e.scene("greeter")
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
	s := e.scene("greeter")
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
	s := e.scene("greeter")
	if err := s.watch(); err != nil {
		return err
	}
	// The ID is the first address: it does not follow the later ones.
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
	s := e.scene("greeter")
	if err := s.watch(); err != nil {
		return err
	}
	const addr = "10.0.0.1:80"
	for _, changes := range [][]naming.Change{
		add(nil, ep("a", addr, `{"weight":1}`), ep("b", addr, `{"weight":2}`)),
		add(nil, ep("", addr, `{"weight":3}`)),
		add(nil, ep("a", addr, `{"weight":4}`)),
		del(ep("b", addr, "")),
		del(ep("", addr, "")), // the one whose ID is its address
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
	s := e.scene("greeter")
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
		del(c), // as it was put
		del(ep("a", "10.9.9.9:9", `{"other":true}`)),
	} {
		if err := s.apply(changes...); err != nil {
			return err
		}
		if err := e.listed(s.service, s.now); err != nil {
			return err
		}
	}
	return s.holds()
}

func atomicBatch(e *env) error {
	s := e.scene("greeter")
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
	s := e.scene("greeter")
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
			return fmt.Errorf("after another watch has shown it: %w", err)
		}
	}
	return nil
}

func slowReader(e *env) error {
	s := e.scene("greeter")
	if err := s.apply(add(nil, ep("a", "10.0.0.1:80", `0`))...); err != nil {
		return err
	}
	release := make(chan struct{})
	var once sync.Once
	goOn := func() { once.Do(func() { close(release) }) }
	defer goOn()
	blocked := make(chan struct{}, 1)
	// The body of this loop stands still, with no lock held.
	standing := newFollower(e, "a watch whose loop takes its time")
	ctx, cancel := context.WithCancel(e.ctx)
	standing.cancel = cancel
	state := make(set) // guarded by standing.mu
	standing.run(func() (end, fault error) {
		return drain(e.store.Watch(ctx, e.prefix+s.service), func(b naming.Batch) error {
			select {
			case blocked <- struct{}{}:
			default:
			}
			<-release
			standing.mu.Lock()
			defer standing.mu.Unlock()
			defer standing.poke()
			standing.n++
			return state.take(b, standing.n == 1)
		})
	})
	if err := guard(patience, "the first batch of "+standing.what, func() error {
		select {
		case <-blocked:
			return nil
		case <-standing.done:
			return errors.New("it ended first")
		case <-e.ctx.Done():
			return e.ctx.Err()
		}
	}); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	for i := range 100 {
		if err := s.apply(add(nil, ep("a", "10.0.0.1:80", strconv.Itoa(i)), ep("b"+strconv.Itoa(i), "10.0.0.2:80", ""))...); err != nil {
			return fmt.Errorf("while the loop of a watch takes its time: %w", err)
		}
		if i > 3 {
			if err := s.apply(del(ep("b"+strconv.Itoa(i-3), "", ""))...); err != nil {
				return fmt.Errorf("while the loop of a watch takes its time: %w", err)
			}
		}
	}
	goOn()
	return standing.until(patience, func() string {
		if !state.equal(s.now) {
			return "it does not show what it should: " + diff(state, s.now)
		}
		return ""
	})
}

func batchIsTheReceivers(e *env) error {
	s := e.scene("greeter")
	eps := some(5, `{"weight":1}`)
	if err := s.apply(add(nil, eps...)...); err != nil {
		return err
	}
	type kept struct{ yielded, copied naming.Batch }
	var keep []kept // guarded by keeper.mu, as is state
	state := make(set)
	keeper := follow(e, e.ctx, "a watch that keeps its batches", func(ctx context.Context) iter.Seq2[naming.Batch, error] {
		return e.store.Watch(ctx, e.prefix+s.service)
	}, func(b naming.Batch) error {
		if err := state.take(b, len(keep) == 0); err != nil {
			return err
		}
		keep = append(keep, kept{b, naming.Batch{Snapshot: b.Snapshot, Put: slices.Clone(b.Put), Deleted: slices.Clone(b.Deleted)}})
		return nil
	})
	scribbler := follow(e, e.ctx, "a watch that scribbles over its batches", func(ctx context.Context) iter.Seq2[naming.Batch, error] {
		return e.store.Watch(ctx, e.prefix+s.service)
	}, func(b naming.Batch) error {
		for _, ep := range b.Put {
			if ep.Addr == "10.6.6.6:6" {
				return fmt.Errorf("what its receiver scribbled over a batch comes back in a later one: %v", sets(b.Put...))
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
	for _, f := range []*follower{keeper, scribbler} {
		if err := f.begun(); err != nil {
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
		if scribbler.n < 2 {
			return "it yielded no change"
		}
		return ""
	}); err != nil {
		return err
	}
	if err := keeper.until(patience, func() string {
		if !state.equal(s.now) {
			return "it does not show what it should: " + diff(state, s.now)
		}
		return ""
	}); err != nil {
		return err
	}
	if err := keeper.finish(); err != nil {
		return err
	}
	for _, k := range keep {
		if k.yielded.Snapshot != k.copied.Snapshot || !slices.EqualFunc(k.yielded.Put, k.copied.Put, naming.Endpoint.Equal) || !slices.Equal(k.yielded.Deleted, k.copied.Deleted) {
			return fmt.Errorf("a batch had Put %v and Deleted %q when it was yielded, and has %v and %q now",
				sets(k.copied.Put...), k.copied.Deleted, sets(k.yielded.Put...), k.yielded.Deleted)
		}
	}
	return nil
}
