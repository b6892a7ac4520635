package conformance

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/naming-go/naming"
)

// history is all the states that a service ever has, in their order.
type history struct {
	states []set
	at     map[string][]int // the places of a state, by its key
}

// add appends a state.
func (h *history) add(s set) {
	if h.at == nil {
		h.at = make(map[string][]int)
	}
	k := s.key()
	h.at[k] = append(h.at[k], len(h.states))
	h.states = append(h.states, clone(s))
}

// find returns the first place, not before from, where the state is s.
func (h *history) find(s set, from int) (int, error) {
	at := h.at[s.key()]
	if i := sort.SearchInts(at, from); i < len(at) {
		return at[i], nil
	}
	if len(at) > 0 {
		return 0, fmt.Errorf("it shows state %d after state %d of the service: %v", at[len(at)-1], from, s)
	}
	return 0, fmt.Errorf("it shows a state that the service never had, after state %d: %v", from, s)
}

// key returns a text that differs for states that differ, if all metadata are plain
// numbers.
func (s set) key() string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(s)) {
		fmt.Fprintf(&b, "%q %q %s;", id, s[id].Addr, strings.TrimSpace(string(s[id].Metadata)))
	}
	return b.String()
}

// storm is a service that one writer changes while some watches run and others come
// and go. The watches must show nothing but states that the service had, in their
// order. A new watch begins no earlier than the newest state that any watch has shown.
type storm struct {
	e       *env
	service string
	writes  [][]naming.Change
	history history
	after   []int // the place in history of the state after each write
	final   set

	shown   atomic.Int64 // the newest place in history that any watch has shown
	readers []*reader    // those that run from the beginning
	late    []*reader    // some of those that come later
}

// newStorm computes the history of a service, and starts the first watches.
func (e *env) newStorm(service string, writes [][]naming.Change) *storm {
	s := &storm{e: e, service: service, writes: writes, final: make(set)}
	s.history.add(s.final)
	for _, changes := range writes {
		for j, c := range changes {
			s.final.apply(c)
			if !e.atomic || j == len(changes)-1 {
				s.history.add(s.final)
			}
		}
		s.after = append(s.after, len(s.history.states)-1)
	}
	s.readers = []*reader{s.watch(), s.watch(), s.watch()}
	return s
}

// watch starts a watch that finds each of its states in the history.
func (s *storm) watch() *reader {
	at := int(s.shown.Load())
	return s.e.watch(s.service, nil, func(state set) error {
		i, err := s.history.find(state, at)
		if err != nil {
			return err
		}
		at = i
		for {
			seen := s.shown.Load()
			if seen >= int64(i) || s.shown.CompareAndSwap(seen, int64(i)) {
				return nil
			}
		}
	})
}

// run makes the writes, starts watches meanwhile, and waits until every watch shows
// the final state.
func (s *storm) run() error {
	turn, gone := make(chan struct{}), make(chan struct{})
	if err := together(func() error {
		defer close(turn)
		return s.write(turn, gone)
	}, func() error {
		defer close(gone)
		return s.comeAndGo(turn)
	}); err != nil {
		return err
	}
	for _, r := range append(s.readers, s.late...) {
		if err := r.await(patience, s.final); err != nil {
			return err
		}
	}
	return s.e.listed(s.service, s.final)
}

// write makes the writes. After every eighth it waits for a watch and sends a turn: a
// fast writer would otherwise be done before any watch begins.
func (s *storm) write(turn chan<- struct{}, gone <-chan struct{}) error {
	for i, changes := range s.writes {
		if err := s.e.apply(s.service, changes...); err != nil {
			return err
		}
		if i%8 != 7 {
			continue
		}
		if err := s.readers[0].await(patience, s.history.states[s.after[i]]); err != nil {
			return err
		}
		select {
		case turn <- struct{}{}:
		case <-gone:
			return nil
		}
	}
	return nil
}

// comeAndGo starts a watch in each turn. Every tenth one stays, the others stop.
func (s *storm) comeAndGo(turn <-chan struct{}) error {
	n := 0
	for range turn {
		r := s.watch()
		if err := r.begun(); err != nil {
			return err
		}
		if n++; n%10 == 0 {
			s.late = append(s.late, r)
		} else if err := r.stop(); err != nil {
			return err
		}
	}
	return nil
}

func atomicStorm(e *env) error {
	const k = 8
	var writes [][]naming.Change
	for n := range 200 {
		eps := some(k, strconv.Itoa(n))
		switch n % 5 {
		case 3:
			writes = append(writes, del(eps...))
		case 4: // half of them go, the other half comes
			writes = append(writes, append(del(eps[:k/2]...), add(nil, eps[k/2:]...)...))
		default:
			writes = append(writes, add(nil, eps...))
		}
	}
	return e.newStorm("greeter", writes).run()
}

func neverGoesBack(e *env) error {
	var writes [][]naming.Change
	rnd := e.rand(0)
	for n := range 300 {
		// The counter makes every state different.
		changes := add(nil, ep("counter", "10.0.0."+strconv.Itoa(rnd.IntN(3))+":80", strconv.Itoa(n)))
		if other := ep("other", "10.0.1.1:80", ""); rnd.IntN(2) == 0 {
			changes = append(changes, del(other)...)
		} else {
			changes = append(changes, add(nil, other)...)
		}
		writes = append(writes, changes)
	}
	return e.seeded(e.newStorm("greeter", writes).run())
}

func converges(e *env) error {
	const writers = 8
	leases, err := e.grants(writers)
	if err != nil {
		return err
	}
	firstDone := make(chan struct{}) // closed when the first writer has ended
	readers := []*reader{e.watch("greeter", nil, nil), e.watch("greeter", nil, nil)}
	finals := make([]set, writers)
	var fs []func() error
	for w := range writers {
		fs = append(fs, func() (err error) {
			if w == 0 {
				defer close(firstDone)
			}
			finals[w], err = e.writeAtRandom("greeter", w, leases[w])
			return err
		})
	}
	fs = append(fs, func() error {
		for range 5 {
			readers = append(readers, e.watch("greeter", nil, nil))
			if _, err := e.list("greeter"); err != nil {
				return err
			}
		}
		select {
		case <-firstDone:
		case <-e.ctx.Done():
			return e.ctx.Err()
		}
		readers = append(readers, e.watch("greeter", nil, nil))
		return nil
	})
	if err := together(fs...); err != nil {
		return e.seeded(err)
	}
	want := make(set)
	for _, own := range finals {
		maps.Copy(want, own)
	}
	if err := e.converged(readers, want); err != nil {
		return e.seeded(fmt.Errorf("after %d writers have ended: %w", writers, err))
	}
	return e.seeded(e.listed("greeter", want))
}

// writeAtRandom makes random changes to the endpoints that only writer w has, and
// returns what is left of them.
func (e *env) writeAtRandom(service string, w int, l naming.Lease) (set, error) {
	const rounds, ids = 40, 4
	rnd, own := e.rand(w), make(set)
	for n := range rounds {
		var changes []naming.Change
		for _, id := range rnd.Perm(ids)[:1+rnd.IntN(ids-1)] {
			ep := ep(fmt.Sprintf("%d-%d", w, id), fmt.Sprintf("10.0.%d.%d:80", w, rnd.IntN(4)), strconv.Itoa(n))
			switch rnd.IntN(4) {
			case 0:
				changes = append(changes, del(ep)...)
			case 1:
				changes = append(changes, add(l, ep)...)
			default:
				changes = append(changes, add(nil, ep)...)
			}
		}
		own.apply(changes...)
		if err := e.apply(service, changes...); err != nil {
			return nil, err
		}
	}
	return own, nil
}

// converged returns an error unless every watch shows the state that is wanted, and
// keeps it.
func (e *env) converged(readers []*reader, want set) error {
	for _, r := range readers {
		if err := r.settled(patience, want); err != nil {
			return err
		}
	}
	e.pause(e.quiet)
	for _, r := range readers {
		if err := r.during(0); err != nil {
			return err
		}
	}
	return nil
}

// repeatedly returns a function that calls f for 0 to n-1, until f returns an error.
func repeatedly(n int, f func(i int) error) func() error {
	return func() error {
		for i := range n {
			if err := f(i); err != nil {
				return err
			}
		}
		return nil
	}
}

func allAtOnce(e *env) error {
	leases, err := e.grants(2)
	if err != nil {
		return err
	}
	watched := e.watch("greeter", nil, nil)
	want := make(set)
	var fs []func() error
	for w := range 4 {
		own := ep("writer-"+strconv.Itoa(w), "10.0.0.1:80", `{"weight":1}`)
		want.put(own)
		fs = append(fs, repeatedly(30, func(i int) error {
			if err := e.apply("greeter", del(own)...); err != nil {
				return err
			}
			return e.apply("greeter", add(leases[i%2], own)...)
		}))
	}
	for w := range 2 {
		fs = append(fs,
			repeatedly(10, func(int) error { return e.leaseLife("leased", some(3, strconv.Itoa(w))) }),
			repeatedly(30, func(int) error { return e.renew(leases[w]) }),
			repeatedly(30, func(i int) error {
				if ttl := leases[i%2].TTL(); ttl <= 0 {
					return fmt.Errorf("a lease has a TTL of %v", ttl)
				}
				return e.leaveNames(e.ctx)
			}))
	}
	for _, service := range []string{"greeter", "leased", "nobody"} {
		fs = append(fs,
			repeatedly(15, func(int) error { return e.cancelled(e.sequences(service)["Watch"]) }),
			repeatedly(15, func(int) error { _, err := e.list(service); return err }))
	}
	fs = append(fs, repeatedly(15, func(int) error { return e.cancelled(e.sequences("")["Services"]) }))
	if err := together(fs...); err != nil {
		return err
	}
	if err := watched.await(patience, want); err != nil {
		return err
	}
	if err := e.listed("greeter", want); err != nil {
		return err
	}
	// Every lease of this service is revoked.
	return e.eventually(func() error { return e.listed("leased", set{}) })
}

// leaseLife makes a lease, puts endpoints under it, renews it and revokes it.
func (e *env) leaseLife(service string, eps []naming.Endpoint) error {
	l, err := e.grant(long)
	if err != nil {
		return err
	}
	if err := e.apply(service, add(l, eps...)...); err != nil {
		return err
	}
	return errors.Join(e.renew(l), e.revoke(l))
}

func manyEndpoints(e *env) error {
	eps := some(e.many, `{"weight":1,"zone":"eu-1a"}`)
	early := e.watch("greeter", nil, nil)
	if err := e.chunks("greeter", add(nil, eps...)); err != nil {
		return err
	}
	want := sets(eps...)
	if err := early.await(patience, want); err != nil {
		return err
	}
	if err := e.listed("greeter", want); err != nil {
		return err
	}
	late := e.watch("greeter", want, nil)
	if err := late.await(patience, want); err != nil {
		return err
	}
	late.acceptAny()
	var changes []naming.Change
	for i, ep := range eps {
		switch i % 10 {
		case 3:
			changes = append(changes, del(ep)...)
		case 7:
			ep.Metadata = []byte(strconv.Itoa(i))
			changes = append(changes, add(nil, ep)...)
		}
	}
	want.apply(changes...)
	if err := e.chunks("greeter", changes); err != nil {
		return err
	}
	for _, r := range []*reader{early, late} {
		if err := r.await(patience, want); err != nil {
			return err
		}
	}
	return e.listed("greeter", want)
}
