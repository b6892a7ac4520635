package conformance

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/naming-go/naming"
)

func servicesLists(e *env) error {
	l := e.watchNames()
	if err := l.await(patience); err != nil {
		return err
	}
	a, b := ep("a", "10.0.0.1:80", ""), ep("b", "10.0.0.2:80", "")
	for _, s := range []struct {
		service string
		changes []naming.Change
		want    []string
	}{
		{"m", add(nil, a), []string{"m"}},
		{"z", add(nil, a, b), []string{"m", "z"}},
		{"b", add(nil, a), []string{"b", "m", "z"}},
		{"m", add(nil, b), []string{"b", "m", "z"}},
		{"a/b", add(nil, a), []string{"a/b", "b", "m", "z"}},
		{"ab", add(nil, a), []string{"a/b", "ab", "b", "m", "z"}},
		{"B", add(nil, a), []string{"B", "a/b", "ab", "b", "m", "z"}},
		{"m", del(a), []string{"B", "a/b", "ab", "b", "m", "z"}},
		{"m", del(b), []string{"B", "a/b", "ab", "b", "z"}},
		{"nobody", del(a), []string{"B", "a/b", "ab", "b", "z"}},
		{"z", del(a, b), []string{"B", "a/b", "ab", "b"}},
		{"a/b", del(a), []string{"B", "ab", "b"}},
		{"m", add(nil, a), []string{"B", "ab", "b", "m"}},
		{"B", del(a), []string{"ab", "b", "m"}},
		{"b", del(a), []string{"ab", "m"}},
		{"m", del(a), []string{"ab"}},
		{"ab", del(a), nil},
	} {
		if err := e.apply(s.service, s.changes...); err != nil {
			return err
		}
		if err := l.await(patience, s.want...); err != nil {
			return err
		}
		got, err := e.names()
		if err != nil {
			return err
		}
		if !slices.Equal(got, s.want) {
			return fmt.Errorf("a list of the services: got %q, want %q", got, s.want)
		}
	}
	// A watch of a service does not add it to the list.
	if err := e.newScene("nobody").watch(); err != nil {
		return err
	}
	if err := l.during(e.quiet); err != nil {
		return err
	}
	return l.await(0)
}

func servicesFollowLeases(e *env) error {
	l := e.watchNames()
	leases, err := e.grants(1)
	if err != nil {
		return err
	}
	a, b := ep("a", "10.0.0.1:80", ""), ep("b", "10.0.0.2:80", "")
	if err := e.apply("stays", add(nil, a)...); err != nil {
		return err
	}
	if err := e.apply("revoked", add(leases[0], a, b)...); err != nil {
		return err
	}
	short, err := e.grant(e.ttl)
	if err != nil {
		return err
	}
	if err := e.apply("expired", add(short, a)...); err != nil {
		return err
	}
	if err := e.apply("stays", add(short, b)...); err != nil {
		return err
	}
	if err := l.await(patience, "expired", "revoked", "stays"); err != nil {
		return err
	}
	if err := l.await(expiry(short), "revoked", "stays"); err != nil {
		return err
	}
	if err := e.revoke(leases[0]); err != nil {
		return err
	}
	if err := l.await(patience, "stays"); err != nil {
		return err
	}
	got, err := e.names()
	if err == nil && !slices.Equal(got, []string{"stays"}) {
		err = fmt.Errorf("a list of the services: got %q, want %q", got, "stays")
	}
	return err
}

// sequences returns functions that start a loop over each sequence of the store.
func (e *env) sequences(service string) map[string]func(context.Context) *loop {
	return map[string]func(context.Context) *loop{
		"Watch":    func(ctx context.Context) *loop { return e.watchWith(ctx, service, nil, nil).loop },
		"Services": func(ctx context.Context) *loop { return e.watchNamesWith(ctx).loop },
	}
}

func cancelEnds(e *env) error {
	if err := e.apply("greeter", add(nil, some(3, "")...)...); err != nil {
		return err
	}
	for name, start := range e.sequences("greeter") {
		ended := func(how string, ctx context.Context, f *loop) error {
			end, fault := f.ended(patience)
			if fault != nil {
				return fmt.Errorf("%s: %w", how, fault)
			}
			if !errors.Is(end, ctx.Err()) {
				return fmt.Errorf("%s: %s ended with error %q, which does not wrap %q", how, name, end, ctx.Err())
			}
			return nil
		}
		ctx, cancel := context.WithCancel(e.ctx)
		cancel()
		f := start(ctx)
		if err := ended("a context that was cancelled before", ctx, f); err != nil {
			return err
		}
		if f.yields > 0 {
			return fmt.Errorf("%s yielded %d times with a context that was cancelled before", name, f.yields)
		}

		for range 3 {
			ctx, cancel = context.WithCancel(e.ctx)
			f = start(ctx)
			err := f.begun()
			cancel()
			if err != nil {
				return err
			}
			if err := ended("a context that was cancelled", ctx, f); err != nil {
				return err
			}
		}

		ctx, cancel = context.WithTimeout(e.ctx, min(e.quiet, 200*time.Millisecond))
		f = start(ctx)
		err := ended("a context with a deadline", ctx, f)
		cancel()
		if err != nil {
			return err
		}

		// The rule is about ctx.Err(), not about context.Cause.
		ctx, because := context.WithCancelCause(e.ctx)
		f = start(ctx)
		err = f.begun()
		because(errors.New("because"))
		if err != nil {
			return err
		}
		if err := ended("a context that was cancelled with a cause", ctx, f); err != nil {
			return err
		}
	}
	return nil
}

func contextIsHonoured(e *env) error {
	leases, err := e.grants(1)
	if err != nil {
		return err
	}
	cancelled, cancel := context.WithCancel(e.ctx)
	cancel()
	late, cancel := context.WithDeadline(e.ctx, time.Now().Add(-time.Second))
	defer cancel()
	for _, ctx := range []context.Context{cancelled, late} {
		for _, m := range e.methods("greeter", leases[0]) {
			err := guard(soon, m.name, func() error { return m.call(ctx) })
			if !errors.Is(err, ctx.Err()) {
				return fmt.Errorf("%s with a context that is done: got error %v, which does not wrap %q", m.name, err, ctx.Err())
			}
		}
	}
	return nil
}

// leave ranges over a watch, and leaves the loop after n batches. It changes the
// service between them.
func (e *env) leave(ctx context.Context, service string, n int) error {
	return guard(patience, fmt.Sprintf("a loop that is left after batch %d", n), func() error {
		i := 0
		for _, err := range e.store.Watch(ctx, e.prefix+service) {
			if err != nil {
				return err
			}
			if i++; i == n {
				return nil
			}
			// The value differs each time: a store may leave out a put that
			// changes nothing, and the loop would wait for it.
			if err := e.apply(service, add(nil, ep("a", "10.0.0.1:80", strconv.FormatInt(e.count.Add(1), 10)))...); err != nil {
				return err
			}
		}
		return errors.New("the loop ended without an error, though it was not left")
	})
}

// leaveNames ranges over Services, and leaves the loop after the first list.
func (e *env) leaveNames(ctx context.Context) error {
	return guard(patience, "a loop over Services that is left", func() error {
		for _, err := range e.store.Services(ctx) {
			return err
		}
		return errors.New("the loop ended without a list and without an error")
	})
}

func breakReleases(e *env) error {
	if err := e.apply("greeter", add(nil, some(3, "")...)...); err != nil {
		return err
	}
	for range 5 {
		for n := 1; n <= 3; n++ {
			if err := e.leave(e.ctx, "greeter", n); err != nil {
				return err
			}
		}
		if err := e.leaveNames(e.ctx); err != nil {
			return err
		}
	}
	return nil
}

func rangedAgain(e *env) error {
	s := e.newScene("greeter")
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	seq := e.store.Watch(ctx, e.prefix+s.service)
	names := e.store.Services(ctx)
	for i, ep := range some(4, `{"weight":1}`) {
		if err := s.apply(add(nil, ep)...); err != nil {
			return err
		}
		// Two loops at once: this one goes on, and the next one is left.
		r := &reader{e: e, state: make(set), truth: []set{clone(s.now)}}
		first := true
		r.loop = startLoop(e, e.ctx, fmt.Sprintf("range %d over one watch", i+1), func(context.Context) iter.Seq2[naming.Batch, error] {
			return seq
		}, func(b naming.Batch) error {
			defer func() { first = false }()
			return r.observe(b, first)
		})
		s.readers = append(s.readers, r)
		if err := r.await(patience, s.now); err != nil {
			return err
		}
		if err := guard(patience, "a range over a watch that is being ranged over", func() error {
			for b, err := range seq {
				if err != nil {
					return err
				}
				got := make(set)
				if err := got.applyBatch(b, true); err != nil {
					return err
				}
				if !got.equal(s.now) {
					return fmt.Errorf("range %d over one watch: %s", i+1, diff(got, s.now))
				}
				return nil
			}
			return errors.New("the loop ended without a batch and without an error")
		}); err != nil {
			return err
		}
		if err := guard(patience, "a range over Services that was ranged over before", func() error {
			for got, err := range names {
				if err != nil {
					return err
				}
				if got, err = e.own(got); err == nil && !slices.Equal(got, []string{s.service}) {
					err = fmt.Errorf("range %d over one sequence of Services: got %q, want %q", i+1, got, s.service)
				}
				return err
			}
			return errors.New("the loop ended without a list and without an error")
		}); err != nil {
			return err
		}
	}
	return s.flush()
}

func nothingBeforeRange(e *env) error {
	if err := e.apply("greeter", add(nil, some(3, "")...)...); err != nil {
		return err
	}
	if _, err := e.list("greeter"); err != nil {
		return err
	}
	if _, err := e.names(); err != nil {
		return err
	}
	before := e.calls()
	const n = 10
	var kept []any // so that the sequences are not garbage collected
	if err := e.leaks(n, "a sequence that is not ranged over", func() error {
		kept = append(kept, e.store.Watch(e.ctx, e.prefix+"greeter"), e.store.Services(e.ctx))
		return nil
	}); err != nil {
		return err
	}
	e.pause(e.quiet)
	if got := e.calls() - before; got != 0 {
		return fmt.Errorf("%d sequences that were not ranged over made %d requests, want none", len(kept), got)
	}
	return nil
}

func nothingIsLeft(e *env) error {
	s := e.newScene("greeter")
	if err := s.apply(add(nil, some(3, "")...)...); err != nil {
		return err
	}
	const n = 10
	for _, how := range []struct {
		what string
		act  func() error
	}{
		{"a watch left after its first batch", func() error { return e.leave(e.ctx, s.service, 1) }},
		{"a watch left after its second batch", func() error { return e.leave(e.ctx, s.service, 2) }},
		{"a list of services left after its first", func() error { return e.leaveNames(e.ctx) }},
		{"a watch that was cancelled", func() error { return e.cancelled(e.sequences(s.service)["Watch"]) }},
		{"a list of services that was cancelled", func() error { return e.cancelled(e.sequences(s.service)["Services"]) }},
		{"a lease that was revoked", func() error {
			l, err := e.grant(long)
			if err != nil {
				return err
			}
			if err := e.apply(s.service, add(l, ep("leased", "10.0.0.9:80", ""))...); err != nil {
				return err
			}
			return e.revoke(l)
		}},
	} {
		if err := e.leaks(n, how.what, how.act); err != nil {
			return err
		}
	}
	return nil
}

// cancelled starts a loop, cancels its context and waits for its end.
func (e *env) cancelled(start func(context.Context) *loop) error {
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	f := start(ctx)
	if err := f.begun(); err != nil {
		return err
	}
	cancel()
	_, fault := f.ended(patience)
	return fault
}

// quietly starts a watch, a sequence of Services and a lease, and waits until they are
// idle. yielded returns how many values the sequences have yielded so far. still waits
// for the harness's Quiet, and returns an error if a sequence breaks a rule or ends.
func (e *env) quietly() (yielded func() int, still func() error, err error) {
	s := e.newScene("greeter")
	leases, err := e.grants(1)
	if err != nil {
		return nil, nil, err
	}
	if err := s.apply(append(add(nil, some(3, "")...), add(leases[0], ep("leased", "10.0.0.9:80", ""))...)...); err != nil {
		return nil, nil, err
	}
	if err := s.watch(); err != nil {
		return nil, nil, err
	}
	if err := s.apply(add(nil, ep("a", "10.0.0.1:80", ""))...); err != nil {
		return nil, nil, err
	}
	l := e.watchNames()
	if err := l.await(patience, s.service); err != nil {
		return nil, nil, err
	}
	loops := []*loop{s.readers[0].loop, l.loop}
	yielded = func() int {
		n := 0
		for _, l := range loops {
			l.mu.Lock()
			n += l.yields
			l.mu.Unlock()
		}
		return n
	}
	still = func() error {
		return together(func() error { return loops[0].during(e.quiet) }, func() error { return loops[1].during(e.quiet) })
	}
	return yielded, still, still()
}

func idle(e *env) error {
	yielded, still, err := e.quietly()
	if err != nil {
		return err
	}
	before := yielded()
	if err := still(); err != nil {
		return err
	}
	if got := yielded() - before; got != 0 {
		return fmt.Errorf("a watch and a list of services yielded %d times within %v in which nothing changed", got, e.quiet)
	}
	return nil
}

func idleAsksNothing(e *env) error {
	_, still, err := e.quietly()
	if err != nil {
		return err
	}
	defer e.pauseRenewers()()
	before := e.calls()
	if err := still(); err != nil {
		return err
	}
	if got := e.calls() - before; got != 0 {
		return fmt.Errorf("a watch, a list of services and a lease made %d requests within %v in which nothing changed", got, e.quiet)
	}
	return nil
}

// failed waits for the end of a loop that a failure of the registry ended.
func (e *env) failed(f *loop, limit time.Duration) error {
	end, fault := f.ended(limit)
	if fault != nil {
		return fault
	}
	if e.ctx.Err() == nil && errors.Is(end, context.Canceled) {
		return fmt.Errorf("%s ended with error %q, though it was not cancelled", f.what, end)
	}
	return kind(f.what, end, nil)
}

// interrupted waits until each of the loops has ended with an error. It interrupts
// again while one has not: a watch that polls can be between two polls, and the link
// is healed before the next.
func (e *env) interrupted(fs ...*loop) error {
	for _, f := range fs {
		for wait, begin := max(e.quiet, time.Second), time.Now(); ; wait *= 2 {
			t := time.NewTimer(min(wait, patience))
			select {
			case <-f.done:
			case <-t.C:
				if time.Since(begin) < patience {
					e.interrupt()
					continue
				}
			}
			t.Stop()
			break
		}
		if err := e.failed(f, soon); err != nil {
			return fmt.Errorf("after an interruption: %w", err)
		}
	}
	return nil
}

func interruptEnds(e *env) error {
	eps := some(3, "")
	for _, service := range []string{"greeter", "other"} {
		if err := e.apply(service, add(nil, eps...)...); err != nil {
			return err
		}
	}
	fs := []*loop{
		e.watch("greeter", sets(eps...), nil).loop,
		e.watch("other", sets(eps...), nil).loop,
		e.watch("nobody", set{}, nil).loop,
		e.watchNames().loop,
	}
	for _, f := range fs {
		if err := f.begun(); err != nil {
			return err
		}
	}
	e.interrupt()
	e.interrupt() // a second failure right after the first
	return e.interrupted(fs...)
}

func recovers(e *env) error {
	eps := some(60, `{"weight":1}`)
	if err := e.chunks("greeter", add(nil, eps...)); err != nil {
		return err
	}
	want := sets(eps...)
	for range 3 {
		if err := e.interruptLists("greeter", want); err != nil {
			return err
		}
		var err error
		if want, err = e.changeUnwatched("greeter", want, eps); err != nil {
			return err
		}
	}
	return nil
}

// interruptLists interrupts a watch of a service, and lists the service meanwhile. A
// list may fail. It must not be smaller than the state, which is now.
func (e *env) interruptLists(service string, now set) error {
	r := e.watch(service, now, nil)
	if err := r.await(patience, now); err != nil {
		return err
	}
	stop := make(chan struct{})
	return together(func() error {
		for range 1000 {
			select {
			case <-stop:
				return nil
			default:
			}
			if got, err := e.list(service); err == nil && !got.equal(now) {
				return fmt.Errorf("a list that was interrupted: %s", diff(got, now))
			}
			e.pause(time.Millisecond)
		}
		return nil
	}, func() error {
		defer close(stop)
		e.interrupt()
		return e.interrupted(r.loop)
	})
}

// changeUnwatched deletes one endpoint, changes one and adds one while the service has
// no watch. The first list afterwards shows all of it. changeUnwatched returns the
// state of the service at its end.
func (e *env) changeUnwatched(service string, now set, eps []naming.Endpoint) (set, error) {
	next := now.without(eps[0].ID).with(ep(eps[1].ID, "10.7.7.7:7", `{"weight":2}`), ep("new", "10.8.8.8:8", ""))
	if err := e.eventually(func() error {
		return e.apply(service, append(del(eps[0]), add(nil, next[eps[1].ID], next["new"])...)...)
	}); err != nil {
		return nil, err
	}
	var got set
	if err := e.eventually(func() (err error) { got, err = e.list(service); return err }); err != nil {
		return nil, err
	}
	if !got.equal(next) {
		return nil, fmt.Errorf("the first list after an interruption: %s", diff(got, next))
	}
	s := e.newScene(service)
	s.now = next
	if err := e.eventually(s.watch); err != nil {
		return nil, err
	}
	if err := s.apply(add(nil, eps[:2]...)...); err != nil {
		return nil, err
	}
	// The next interruption waits for a new watch. This watch may be between two
	// polls then, and not meet it.
	for _, r := range s.readers {
		if err := r.stop(); err != nil {
			return nil, err
		}
	}
	return s.now, nil
}

func silenceEnds(e *env) error {
	s := e.newScene("greeter")
	if err := s.apply(add(nil, some(3, "")...)...); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	l := e.watchNames()
	if err := l.await(patience, s.service); err != nil {
		return err
	}
	heal := e.silence()
	limit := e.silenceBound + soon
	late := e.watch(s.service, nil, nil)
	waits := []func() error{}
	for _, f := range []*loop{s.readers[0].loop, l.loop, late.loop} {
		waits = append(waits, func() error {
			if err := e.failed(f, limit); err != nil {
				return fmt.Errorf("in a silence, which the backend notices within %v: %w", e.silenceBound, err)
			}
			return nil
		})
	}
	err := together(waits...)
	heal()
	if err != nil {
		return err
	}
	if late.yields > 0 {
		return fmt.Errorf("a watch that began in a silence yielded %d times", late.yields)
	}
	return e.eventually(func() error { return e.listed(s.service, s.now) })
}

func contextEndsSilence(e *env) error {
	leases, err := e.grants(1)
	if err != nil {
		return err
	}
	if err := e.apply("greeter", add(nil, some(3, "")...)...); err != nil {
		return err
	}
	live := e.sequences("greeter")
	heal := e.silence()
	// Less than the bound of any backend, so that the context ends the calls.
	limit := min(e.quiet, e.silenceBound/2)
	var calls []func() error
	for _, m := range e.methods("greeter", leases[0]) {
		calls = append(calls, func() error {
			ctx, cancel := context.WithTimeout(e.ctx, limit)
			defer cancel()
			err := guard(limit+soon, m.name, func() error { return m.call(ctx) })
			if !errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("%s in a silence, with a context that ends, called at the same time as the other methods: got error %v, which does not wrap %q", m.name, err, context.DeadlineExceeded)
			}
			return nil
		})
	}
	for name, start := range live {
		calls = append(calls, func() error {
			ctx, cancel := context.WithCancel(e.ctx)
			f := start(ctx)
			e.pause(limit / 2)
			cancel()
			end, fault := f.ended(soon)
			if fault == nil && !errors.Is(end, context.Canceled) {
				fault = fmt.Errorf("%s in a silence, cancelled: got error %v, which does not wrap %q", name, end, context.Canceled)
			}
			return fault
		})
	}
	err = together(calls...)
	heal()
	return err
}

func failedReadIsAnError(e *env) error {
	eps := some(40, "")
	if err := e.chunks("greeter", add(nil, eps...)); err != nil {
		return err
	}
	want := sets(eps...)
	if err := e.listed("greeter", want); err != nil {
		return err
	}
	running := e.watch("greeter", want, nil)
	names := e.watchNames()
	if err := running.await(patience, want); err != nil {
		return err
	}
	if err := names.await(patience, "greeter"); err != nil {
		return err
	}
	up := e.down()
	err := together(func() error {
		ctx, cancel := context.WithTimeout(e.ctx, min(e.quiet, soon))
		defer cancel()
		return guard(2*soon, "a list", func() error {
			for b, err := range e.store.Watch(ctx, e.prefix+"greeter") {
				if err == nil {
					return fmt.Errorf("a registry that is down: a watch yielded a batch of %d endpoints, want an error", len(b.Put))
				}
				break
			}
			return nil
		})
	}, func() error {
		ctx, cancel := context.WithTimeout(e.ctx, min(e.quiet, soon))
		defer cancel()
		return guard(2*soon, "a list of services", func() error {
			for names, err := range e.store.Services(ctx) {
				if err == nil {
					return fmt.Errorf("a registry that is down: Services yielded %q, want an error", names)
				}
				break
			}
			return nil
		})
	}, func() error { return running.outcome(e.quiet) }, func() error { return names.outcome(e.quiet) })
	up()
	if err != nil {
		return err
	}
	// A running sequence may have ended. It must not yield anything else before. The
	// reader checks the watch: there was only one state.
	names.mu.Lock()
	got := names.names
	names.mu.Unlock()
	if !slices.Equal(got, []string{"greeter"}) {
		return fmt.Errorf("a registry that was down: a sequence of Services yielded %q, want %q and then an error", got, "greeter")
	}
	return e.eventually(func() error { return e.listed("greeter", want) })
}

func unavailableIsAnError(e *env) error {
	leases, err := e.grants(1)
	if err != nil {
		return err
	}
	a := ep("a", "10.0.0.1:80", "")
	if err := e.apply("greeter", add(leases[0], a)...); err != nil {
		return err
	}
	up := e.down()
	// A call that ended with its context may still take effect. Here none does: the
	// registry is back long after.
	const others = ", called at the same time as the other methods, Renew and Revoke on one lease"
	var calls []func() error
	for _, m := range e.methods("other", leases[0]) {
		calls = append(calls, func() error {
			ctx, cancel := context.WithTimeout(e.ctx, min(e.quiet, soon))
			defer cancel()
			return kind(m.name+" of a registry that is down"+others, guard(2*soon, m.name, func() error { return m.call(ctx) }), nil)
		})
	}
	err = together(calls...)
	up()
	if err != nil {
		return err
	}
	// No call ended the lease.
	if err := e.eventually(func() error { return e.renew(leases[0]) }); err != nil {
		return fmt.Errorf("when the registry is back: %w", err)
	}
	if err := e.eventually(func() error { return e.listed("greeter", sets(a)) }); err != nil {
		return fmt.Errorf("when the registry is back: %w", err)
	}
	return nil
}

// denied calls every method while the registry refuses the credentials, and passes
// the errors to judge.
func (e *env) denied(judge func(method string, err error) error) error {
	leases, err := e.grants(1)
	if err != nil {
		return err
	}
	a := ep("a", "10.0.0.1:80", "")
	if err := e.apply("greeter", add(nil, a)...); err != nil {
		return err
	}
	allow := e.deny()
	err = func() error {
		for _, m := range e.methods("greeter", leases[0]) {
			err := guard(patience, m.name, func() error {
				ctx, cancel := context.WithTimeout(e.ctx, patience)
				defer cancel()
				return m.call(ctx)
			})
			if err := judge(m.name, err); err != nil {
				return err
			}
		}
		return nil
	}()
	allow()
	if err != nil {
		return err
	}
	if err := e.eventually(func() error { return e.apply("greeter", add(nil, a)...) }); err != nil {
		return fmt.Errorf("when the registry accepts the credentials again: %w", err)
	}
	return e.eventually(func() error { return e.listed("greeter", sets(a)) })
}

func permissionIsAnError(e *env) error {
	return e.denied(func(m string, err error) error {
		// Registries differ in what they need credentials for. All of them need
		// credentials for reads and writes of endpoints.
		if err == nil && m != "Apply" && m != "Watch" {
			return nil
		}
		return kind(m+" with credentials that the registry refuses", err, naming.ErrPermission)
	})
}

func errorsKeepCause(e *env) error {
	return e.denied(func(m string, err error) error {
		if err != nil && !e.cause(err) {
			return fmt.Errorf("%s: error %q wraps no error of the client library", m, err)
		}
		return nil
	})
}

// around are the endpoints beside which a malformed entry is put.
var around = []naming.Endpoint{ep("a", "10.0.0.1:80", `{"weight":1}`), ep("c", "10.0.0.3:80", ""), ep("d", "10.0.0.4:80", "")}

func malformedHidesNothing(e *env) error {
	s := e.newScene("greeter")
	if err := s.apply(add(nil, around[:2]...)...); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	if err := s.advance(s.now, func() error { e.malformed(s.service, "b"); return nil }); err != nil {
		return err
	}
	if err := s.watch(); err != nil { // its snapshot meets the entry
		return err
	}
	for _, changes := range [][]naming.Change{
		add(nil, around[2]),
		add(nil, ep("a", "10.0.0.9:80", `{"weight":2}`)),
		del(around[2]),
	} {
		if err := s.apply(changes...); err != nil {
			return err
		}
	}
	if err := s.advance(s.now, func() error { e.malformed(s.service, "e"); return nil }); err != nil {
		return err
	}
	return s.flush()
}

func malformedIsReported(e *env) error {
	s := e.newScene("greeter")
	if err := s.apply(add(nil, around...)...); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	if n := len(e.reported()); n > 0 {
		return fmt.Errorf("%d entries were reported, though no entry is malformed: %+v", n, e.reported())
	}
	// b is a new entry. c replaces a good value.
	var keys []string
	for _, id := range []string{"b", "c"} {
		var key string
		if err := s.advance(s.now.without(id), func() error { key = e.malformed(s.service, id); return nil }); err != nil {
			return err
		}
		if slices.Contains(keys, key) {
			return fmt.Errorf("two entries have the key %q", key)
		}
		keys = append(keys, key)
		if err := e.awaitReport(s.service, key); err != nil {
			return err
		}
	}
	// This entry is in a snapshot only.
	key := e.malformed("nobody", "x")
	if err := e.listed("nobody", set{}); err != nil {
		return err
	}
	return e.awaitReport("nobody", key)
}

// awaitReport waits until the store has reported the malformed entry with a key, with
// its service and an error.
func (e *env) awaitReport(service, key string) error {
	return e.eventually(func() error {
		for _, m := range e.reported() {
			if m.Key != key {
				continue
			}
			if m.Service != e.prefix+service || m.Err == nil {
				return fmt.Errorf("the entry %q was reported as %+v, want service %q and an error", key, m, service)
			}
			return nil
		}
		return fmt.Errorf("the entry %q was not reported: got %+v", key, e.reported())
	})
}

func malformedEndsGoodValue(e *env) error {
	s := e.newScene("greeter")
	leases, err := e.grants(1)
	if err != nil {
		return err
	}
	if err := s.apply(append(add(nil, around...), add(leases[0], ep("leased", "10.0.0.9:80", ""))...)...); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	for _, id := range []string{"c", "a", "leased"} {
		if err := s.advance(s.now.without(id), func() error { e.malformed(s.service, id); return nil }); err != nil {
			return err
		}
		if err := e.listed(s.service, s.now); err != nil {
			return err
		}
	}
	return s.stays()
}

func malformedIsPutRight(e *env) error {
	s := e.newScene("greeter")
	if err := s.apply(add(nil, around...)...); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	for range 2 {
		if err := s.advance(s.now.without("c"), func() error { e.malformed(s.service, "c"); return nil }); err != nil {
			return err
		}
		if err := s.watch(); err != nil {
			return err
		}
		if err := s.apply(add(nil, around[1])...); err != nil {
			return err
		}
		if err := e.listed(s.service, s.now); err != nil {
			return err
		}
	}
	// A malformed entry is deleted by its ID.
	if err := s.advance(s.now.without("c"), func() error { e.malformed(s.service, "c"); return nil }); err != nil {
		return err
	}
	if err := s.apply(del(around[1])...); err != nil {
		return err
	}
	before := len(e.reported())
	if err := s.stays(); err != nil {
		return err
	}
	if got := e.reported()[before:]; len(got) > 0 {
		return fmt.Errorf("a deleted entry was reported: %+v", got)
	}
	return nil
}
