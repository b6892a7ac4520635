package conformance

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/naming-go/naming"
)

// history is all the states that a service ever has, in their order.
type history struct {
	states []set
	at     map[string][]int // by the state's key
}

func (h *history) add(s set) {
	if h.at == nil {
		h.at = make(map[string][]int)
	}
	k := s.key()
	h.at[k] = append(h.at[k], len(h.states))
	h.states = append(h.states, clone(s))
}

// find returns the first place from a given one on where the state is s.
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

// key tells states apart whose metadata are plain numbers.
func (s set) key() string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(s)) {
		fmt.Fprintf(&b, "%q %q %s;", id, s[id].Addr, strings.TrimSpace(string(s[id].Metadata)))
	}
	return b.String()
}

// storm applies steps to a service, while some watches run and others come and
// go. All must show nothing but states that the service had, in their order, and
// a new one begins no earlier than where any other has come to.
func (e *env) storm(service string, steps [][]naming.Change) error {
	var h history
	now := make(set)
	h.add(now)
	last := make([]int, len(steps)) // the place of each step in h
	for i, changes := range steps {
		for j, c := range changes {
			now.apply(c)
			if !e.atomic || j == len(changes)-1 {
				h.add(now)
			}
		}
		last[i] = len(h.states) - 1
	}

	var shown atomic.Int64 // how far any watch has come
	begin := func() *reader {
		at := int(shown.Load())
		return e.watch(service, nil, func(s set) error {
			i, err := h.find(s, at)
			if err != nil {
				return err
			}
			for at = i; ; {
				seen := shown.Load()
				if seen >= int64(i) || shown.CompareAndSwap(seen, int64(i)) {
					return nil
				}
			}
		})
	}
	readers := []*reader{begin(), begin(), begin()}
	var late []*reader
	turn, gone := make(chan struct{}), make(chan struct{})
	err := together(func() error {
		defer close(turn)
		for i, changes := range steps {
			if err := e.apply(service, changes...); err != nil {
				return err
			}
			// Now and then the writer waits for the others, or a fast one
			// would be done before anyone has looked.
			if i%8 != 7 {
				continue
			}
			if err := readers[0].await(patience, h.states[last[i]]); err != nil {
				return err
			}
			select {
			case turn <- struct{}{}:
			case <-gone:
				return nil
			}
		}
		return nil
	}, func() error {
		defer close(gone)
		n := 0
		for range turn {
			r := begin()
			if err := r.begun(); err != nil {
				return err
			}
			if n++; n%10 == 0 {
				late = append(late, r)
			} else if err := r.finish(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, r := range append(readers, late...) {
		if err := r.await(patience, now); err != nil {
			return err
		}
	}
	return e.listed(service, now)
}

func atomicStorm(e *env) error {
	const k = 8
	var steps [][]naming.Change
	for n := range 200 {
		eps := some(k, strconv.Itoa(n))
		switch n % 5 {
		case 3:
			steps = append(steps, del(eps...))
		case 4: // half go, half come
			steps = append(steps, append(del(eps[:k/2]...), add(nil, eps[k/2:]...)...))
		default:
			steps = append(steps, add(nil, eps...))
		}
	}
	return e.storm("greeter", steps)
}

func neverGoesBack(e *env) error {
	var steps [][]naming.Change
	rnd := e.rand(0)
	for n := range 300 {
		// The counter makes every state another one.
		changes := add(nil, ep("counter", "10.0.0."+strconv.Itoa(rnd.IntN(3))+":80", strconv.Itoa(n)))
		if other := ep("other", "10.0.1.1:80", ""); rnd.IntN(2) == 0 {
			changes = append(changes, del(other)...)
		} else {
			changes = append(changes, add(nil, other)...)
		}
		steps = append(steps, changes)
	}
	return e.seeded(e.storm("greeter", steps))
}

func converges(e *env) error {
	const writers, rounds, ids = 8, 40, 4
	leases, err := e.grants(writers)
	if err != nil {
		return err
	}
	late := make(chan struct{})
	readers := []*reader{e.watch("greeter", nil, nil), e.watch("greeter", nil, nil)}
	finals := make([]set, writers)
	var fs []func() error
	for w := range writers {
		fs = append(fs, func() error {
			if w == 0 {
				defer sync.OnceFunc(func() { close(late) })()
			}
			rnd, mine := e.rand(w), make(set)
			finals[w] = mine
			for n := range rounds {
				var changes []naming.Change
				for _, id := range rnd.Perm(ids)[:1+rnd.IntN(ids-1)] {
					ep := ep(fmt.Sprintf("%d-%d", w, id), fmt.Sprintf("10.0.%d.%d:80", w, rnd.IntN(4)), strconv.Itoa(n))
					switch rnd.IntN(4) {
					case 0:
						changes = append(changes, del(ep)...)
					case 1:
						changes = append(changes, add(leases[w], ep)...)
					default:
						changes = append(changes, add(nil, ep)...)
					}
				}
				mine.apply(changes...)
				if err := e.apply("greeter", changes...); err != nil {
					return err
				}
			}
			return nil
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
		case <-late:
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
	for _, mine := range finals {
		maps.Copy(want, mine)
	}
	for _, r := range readers {
		if err := r.settled(patience, want); err != nil {
			return e.seeded(fmt.Errorf("after %d writers have ended: %w", writers, err))
		}
	}
	e.pause(e.quiet)
	for _, r := range readers {
		if err := r.during(0); err != nil {
			return e.seeded(err)
		}
	}
	return e.seeded(e.listed("greeter", want))
}

func allAtOnce(e *env) error {
	leases, err := e.grants(2)
	if err != nil {
		return err
	}
	watched := e.watch("greeter", nil, nil)
	want := make(set)
	var fs []func() error
	times := func(n int, f func(i int) error) {
		fs = append(fs, func() error {
			for i := range n {
				if err := f(i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for w := range 4 {
		mine := ep("writer-"+strconv.Itoa(w), "10.0.0.1:80", `{"weight":1}`)
		want.put(mine)
		times(30, func(i int) error {
			if err := e.apply("greeter", del(mine)...); err != nil {
				return err
			}
			return e.apply("greeter", add(leases[i%2], mine)...)
		})
	}
	for w := range 2 {
		times(10, func(int) error {
			l, err := e.grant(long)
			if err != nil {
				return err
			}
			if err := e.apply("leased", add(l, some(3, strconv.Itoa(w))...)...); err != nil {
				return err
			}
			return errors.Join(e.renew(l), e.revoke(l))
		})
		times(30, func(int) error { return e.renew(leases[w]) })
		times(30, func(i int) error {
			if ttl := leases[i%2].TTL(); ttl <= 0 {
				return fmt.Errorf("a lease has a TTL of %v", ttl)
			}
			return e.leaveNames(e.ctx)
		})
	}
	for _, service := range []string{"greeter", "leased", "nobody"} {
		times(15, func(int) error { return e.cancelled(e.sequences(service)["Watch"]) })
		times(15, func(int) error { _, err := e.list(service); return err })
	}
	times(15, func(int) error { return e.cancelled(e.sequences("")["Services"]) })
	if err := together(fs...); err != nil {
		return err
	}
	if err := watched.await(patience, want); err != nil {
		return err
	}
	if err := e.listed("greeter", want); err != nil {
		return err
	}
	// Every lease that held something there is revoked.
	return e.eventually(func() error { return e.listed("leased", set{}) })
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
	late.free()
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
