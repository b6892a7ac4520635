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
	steps := []struct {
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
	}
	for _, s := range steps {
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
	// To watch a service does not make it one.
	if err := e.scene("nobody").watch(); err != nil {
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

// sequences starts each of a store's sequences.
func (e *env) sequences(service string) map[string]func(context.Context) *follower {
	return map[string]func(context.Context) *follower{
		"Watch":    func(ctx context.Context) *follower { return e.watchWith(ctx, service, nil, nil).follower },
		"Services": func(ctx context.Context) *follower { return e.watchNamesWith(ctx).follower },
	}
}

func cancelEnds(e *env) error {
	if err := e.apply("greeter", add(nil, some(3, "")...)...); err != nil {
		return err
	}
	for name, start := range e.sequences("greeter") {
		ended := func(how string, ctx context.Context, f *follower) error {
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
		if f.n > 0 {
			return fmt.Errorf("%s yielded %d times with a context that was cancelled before", name, f.n)
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

		// A cause is for those who ask for it; the rule is about ctx.Err().
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

// leave ranges over a watch, and leaves it after n batches. Between them it
// changes the service.
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
			// Another value each time: a store may leave out a put that changes
			// nothing, and the loop would wait for it.
			if err := e.apply(service, add(nil, ep("a", "10.0.0.1:80", strconv.FormatInt(e.count.Add(1), 10)))...); err != nil {
				return err
			}
		}
		return errors.New("the loop ended without an error, though nobody left it")
	})
}

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
	s := e.scene("greeter")
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	seq := e.store.Watch(ctx, e.prefix+s.service)
	names := e.store.Services(ctx)
	for i, ep := range some(4, `{"weight":1}`) {
		if err := s.apply(add(nil, ep)...); err != nil {
			return err
		}
		// Two at once, of which one is left, and one goes on.
		r := &reader{e: e, state: make(set), truth: []set{clone(s.now)}}
		first := true
		r.follower = follow(e, e.ctx, fmt.Sprintf("range %d over one watch", i+1), func(context.Context) iter.Seq2[naming.Batch, error] {
			return seq
		}, func(b naming.Batch) error {
			defer func() { first = false }()
			return r.take(b, first)
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
				if err := got.take(b, true); err != nil {
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
	var kept []any // so that no sequence is collected meanwhile
	if err := e.leaks(n, "a sequence that nobody ranges over", func() error {
		kept = append(kept, e.store.Watch(e.ctx, e.prefix+"greeter"), e.store.Services(e.ctx))
		return nil
	}); err != nil {
		return err
	}
	e.pause(e.quiet)
	if got := e.calls() - before; got != 0 {
		return fmt.Errorf("%d sequences that nobody ranges over made %d requests, want none", len(kept), got)
	}
	return nil
}

func nothingIsLeft(e *env) error {
	s := e.scene("greeter")
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

// cancelled starts a sequence, cancels it and waits for its end.
func (e *env) cancelled(start func(context.Context) *follower) error {
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

// quietly starts a watch, a list of services and a lease, waits until what they
// bring about is over, and returns what has been yielded so far.
func (e *env) quietly() (yielded func() int, still func() error, err error) {
	s := e.scene("greeter")
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
	fs := []*follower{s.readers[0].follower, l.follower}
	yielded = func() int {
		n := 0
		for _, f := range fs {
			f.mu.Lock()
			n += f.n
			f.mu.Unlock()
		}
		return n
	}
	still = func() error {
		return together(func() error { return fs[0].during(e.quiet) }, func() error { return fs[1].during(e.quiet) })
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
	defer e.unrenewed()()
	before := e.calls()
	if err := still(); err != nil {
		return err
	}
	if got := e.calls() - before; got != 0 {
		return fmt.Errorf("a watch, a list of services and a lease made %d requests within %v in which nothing changed", got, e.quiet)
	}
	return nil
}

// failed waits for the end of a sequence that the registry ended.
func (e *env) failed(f *follower, limit time.Duration) error {
	end, fault := f.ended(limit)
	if fault != nil {
		return fault
	}
	if e.ctx.Err() == nil && errors.Is(end, context.Canceled) {
		return fmt.Errorf("%s ended with error %q, though nobody cancelled it", f.what, end)
	}
	return kind(f.what, end, nil)
}

// interrupted waits until each of the sequences has ended, as it must with an
// error. It interrupts again what has not: a cut link can find a watch between
// two questions, and is healed before it asks the next.
func (e *env) interrupted(fs ...*follower) error {
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
	fs := []*follower{
		e.watch("greeter", sets(eps...), nil).follower,
		e.watch("other", sets(eps...), nil).follower,
		e.watch("nobody", set{}, nil).follower,
		e.watchNames().follower,
	}
	for _, f := range fs {
		if err := f.begun(); err != nil {
			return err
		}
	}
	e.interrupt()
	e.interrupt() // trouble does not come alone
	return e.interrupted(fs...)
}

func recovers(e *env) error {
	eps := some(60, `{"weight":1}`)
	if err := e.chunks("greeter", add(nil, eps...)); err != nil {
		return err
	}
	want := sets(eps...)
	for range 3 {
		r := e.watch("greeter", want, nil)
		if err := r.await(patience, want); err != nil {
			return err
		}
		// Lists that are made meanwhile may fail, but not in part.
		stop := make(chan struct{})
		if err := together(func() error {
			for range 1000 {
				select {
				case <-stop:
					return nil
				default:
				}
				if got, err := e.list("greeter"); err == nil && !got.equal(want) {
					return fmt.Errorf("a list that was interrupted: %s", diff(got, want))
				}
				e.pause(time.Millisecond)
			}
			return nil
		}, func() error {
			defer close(stop)
			e.interrupt()
			return e.interrupted(r.follower)
		}); err != nil {
			return err
		}
		// While nobody watches, an endpoint goes, one changes and one comes.
		next := want.without(eps[0].ID).with(ep(eps[1].ID, "10.7.7.7:7", `{"weight":2}`), ep("new", "10.8.8.8:8", ""))
		if err := e.eventually(func() error {
			return e.apply("greeter", append(del(eps[0]), add(nil, next[eps[1].ID], next["new"])...)...)
		}); err != nil {
			return err
		}
		var got set
		if err := e.eventually(func() (err error) { got, err = e.list("greeter"); return err }); err != nil {
			return err
		}
		if !got.equal(next) {
			return fmt.Errorf("the first list after an interruption: %s", diff(got, next))
		}
		again := e.scene("greeter")
		again.now = next
		if err := e.eventually(again.watch); err != nil {
			return err
		}
		if err := again.apply(add(nil, eps[:2]...)...); err != nil {
			return err
		}
		want = again.now
		// The next interruption is waited for by the watch that begins now. This
		// one may be between two questions then, and not meet it.
		for _, r := range again.readers {
			if err := r.finish(); err != nil {
				return err
			}
		}
	}
	return nil
}

func silenceEnds(e *env) error {
	s := e.scene("greeter")
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
	for _, f := range []*follower{s.readers[0].follower, l.follower, late.follower} {
		waits = append(waits, func() error {
			if err := e.failed(f, limit); err != nil {
				return fmt.Errorf("in a silence, of which the backend bears %v: %w", e.silenceBound, err)
			}
			return nil
		})
	}
	err := together(waits...)
	heal()
	if err != nil {
		return err
	}
	if late.n > 0 {
		return fmt.Errorf("a watch that began in a silence yielded %d times", late.n)
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
	// Less than any backend's bound, so that it is the context which ends them.
	limit := min(e.quiet, e.silenceBound/2)
	var calls []func() error
	for _, m := range e.methods("greeter", leases[0]) {
		calls = append(calls, func() error {
			ctx, cancel := context.WithTimeout(e.ctx, limit)
			defer cancel()
			err := guard(limit+soon, m.name, func() error { return m.call(ctx) })
			if !errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("%s in a silence, with a context that ends, and the other methods called at the same time: got error %v, which does not wrap %q", m.name, err, context.DeadlineExceeded)
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
	}, func() error { return running.fate(e.quiet) }, func() error { return names.fate(e.quiet) })
	up()
	if err != nil {
		return err
	}
	// What ran may have ended, but shows nothing else before. The watch holds
	// itself to the one state there was.
	names.mu.Lock()
	got := names.names
	names.mu.Unlock()
	if !slices.Equal(got, []string{"greeter"}) {
		return fmt.Errorf("a registry that was down: a sequence of Services yielded %q, want %q and then an error", got, "greeter")
	}
	return e.eventually(func() error { return e.listed("greeter", want) })
}

func unavailableIsTold(e *env) error {
	leases, err := e.grants(1)
	if err != nil {
		return err
	}
	a := ep("a", "10.0.0.1:80", "")
	if err := e.apply("greeter", add(leases[0], a)...); err != nil {
		return err
	}
	up := e.down()
	// A call that ended with its context may still take effect, but not here:
	// the registry is back long after.
	const others = ", with the other methods called at the same time, Renew and Revoke on one lease"
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
	// None of them ended anything.
	if err := e.eventually(func() error { return e.renew(leases[0]) }); err != nil {
		return fmt.Errorf("when the registry is back: %w", err)
	}
	if err := e.eventually(func() error { return e.listed("greeter", sets(a)) }); err != nil {
		return fmt.Errorf("when the registry is back: %w", err)
	}
	return nil
}

// denied calls every method while the registry refuses the credentials, and
// hands their errors to judge.
func (e *env) denied(judge func(m string, err error) error) error {
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
		return fmt.Errorf("when the credentials are good again: %w", err)
	}
	return e.eventually(func() error { return e.listed("greeter", sets(a)) })
}

func permissionIsTold(e *env) error {
	return e.denied(func(m string, err error) error {
		// Clients differ in what they ask credentials for; they all do to
		// read and to write.
		if err == nil && m != "Apply" && m != "Watch" {
			return nil
		}
		return kind(m+" with credentials that the registry refuses", err, naming.ErrPermission)
	})
}

func errorsKeepCause(e *env) error {
	return e.denied(func(m string, err error) error {
		if err != nil && !e.cause(err) {
			return fmt.Errorf("%s: no error of the client library is found in %q", m, err)
		}
		return nil
	})
}

// around are endpoints among which a malformed entry is.
var around = []naming.Endpoint{ep("a", "10.0.0.1:80", `{"weight":1}`), ep("c", "10.0.0.3:80", ""), ep("d", "10.0.0.4:80", "")}

func malformedHidesNothing(e *env) error {
	s := e.scene("greeter")
	if err := s.apply(add(nil, around[:2]...)...); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	if err := s.step(s.now, func() error { e.malformed(s.service, "b"); return nil }); err != nil {
		return err
	}
	if err := s.watch(); err != nil { // one whose snapshot meets it
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
	if err := s.step(s.now, func() error { e.malformed(s.service, "e"); return nil }); err != nil {
		return err
	}
	return s.flush()
}

func malformedIsReported(e *env) error {
	s := e.scene("greeter")
	if err := s.apply(add(nil, around...)...); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	told := func(key string) error {
		return e.eventually(func() error {
			for _, m := range e.reported() {
				if m.Key != key {
					continue
				}
				if m.Service != e.prefix+s.service || m.Err == nil {
					return fmt.Errorf("the entry %q was reported as %+v, want service %q and an error", key, m, s.service)
				}
				return nil
			}
			return fmt.Errorf("the entry %q was not reported: got %+v", key, e.reported())
		})
	}
	if n := len(e.reported()); n > 0 {
		return fmt.Errorf("%d entries were reported, and none is malformed: %+v", n, e.reported())
	}
	// One that is new, and one that replaces a good value.
	var keys []string
	for _, id := range []string{"b", "c"} {
		var key string
		if err := s.step(s.now.without(id), func() error { key = e.malformed(s.service, id); return nil }); err != nil {
			return err
		}
		if slices.Contains(keys, key) {
			return fmt.Errorf("two entries have the key %q", key)
		}
		keys = append(keys, key)
		if err := told(key); err != nil {
			return err
		}
	}
	// One that only a snapshot meets.
	key := e.malformed("nobody", "x")
	if err := e.listed("nobody", set{}); err != nil {
		return err
	}
	s.service = "nobody"
	return told(key)
}

func malformedEndsGoodValue(e *env) error {
	s := e.scene("greeter")
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
		if err := s.step(s.now.without(id), func() error { e.malformed(s.service, id); return nil }); err != nil {
			return err
		}
		if err := e.listed(s.service, s.now); err != nil {
			return err
		}
	}
	return s.holds()
}

func malformedIsPutRight(e *env) error {
	s := e.scene("greeter")
	if err := s.apply(add(nil, around...)...); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	for range 2 {
		if err := s.step(s.now.without("c"), func() error { e.malformed(s.service, "c"); return nil }); err != nil {
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
	// Or removed, by its ID.
	if err := s.step(s.now.without("c"), func() error { e.malformed(s.service, "c"); return nil }); err != nil {
		return err
	}
	if err := s.apply(del(around[1])...); err != nil {
		return err
	}
	before := len(e.reported())
	if err := s.holds(); err != nil {
		return err
	}
	if got := e.reported()[before:]; len(got) > 0 {
		return fmt.Errorf("an entry was reported that had been deleted: %+v", got)
	}
	return nil
}
