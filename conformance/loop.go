package conformance

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/naming-go/naming"
)

// drain ranges over a sequence to its end and calls each with every value. It
// returns the error that the sequence ended with as end. It returns a fault if the
// sequence breaks a rule of every sequence, or if each returns an error.
func drain[T any](seq iter.Seq2[T, error], each func(T) error) (end, fault error) {
	defer func() {
		if p := recover(); p != nil {
			fault = fmt.Errorf("the sequence panicked: %v\n%s", p, debug.Stack())
		}
	}()
	n := 0
	for v, err := range seq {
		n++
		switch {
		case end != nil:
			return end, fmt.Errorf("the sequence continued after its error %q: it yielded %+v, %v", end, v, err)
		case n > endless:
			return nil, fmt.Errorf("the sequence yielded %d times: it repeats itself without end", n)
		case err != nil:
			end = err
			if !reflect.ValueOf(v).IsZero() {
				return end, fmt.Errorf("the sequence yielded %+v together with its error %q, want the zero value", v, err)
			}
		default:
			if fault := each(v); fault != nil {
				return nil, fault
			}
		}
	}
	if end == nil {
		return nil, errors.New("the sequence ended without an error, though its loop was not left")
	}
	return end, nil
}

// loop ranges over a sequence in its own goroutine.
type loop struct {
	what   string
	cancel context.CancelFunc
	done   chan struct{} // closed when the loop has ended
	wake   chan struct{} // capacity 1: has a token when a value or the end arrived

	mu         sync.Mutex
	yields     int   // values yielded so far
	end, fault error // as drain returns them
}

// startLoop starts a loop that ranges over the sequence that start returns. Each
// value is passed to receive, with the loop's mu held.
func startLoop[T any](e *env, ctx context.Context, what string, start func(context.Context) iter.Seq2[T, error], receive func(T) error) *loop {
	l := newLoop(e, what)
	ctx, l.cancel = context.WithCancel(ctx)
	l.run(func() (error, error) {
		return drain(start(ctx), func(v T) error {
			l.mu.Lock()
			defer l.mu.Unlock()
			defer l.signal()
			l.yields++
			return receive(v)
		})
	})
	return l
}

// newLoop returns a loop that env.run stops when the check ends.
func newLoop(e *env, what string) *loop {
	l := &loop{what: what, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.loops = append(e.loops, l)
	return l
}

// run runs body, which ranges over the sequence, in the loop's goroutine.
func (l *loop) run(body func() (end, fault error)) {
	go func() {
		defer close(l.done)
		end, fault := body()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.end = end
		if l.fault == nil {
			l.fault = fault
		}
		l.signal()
	}()
}

// signal wakes until.
func (l *loop) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// until waits until amiss returns "". Any other text says what is missing, and
// is part of the error when limit is over. amiss is called with l.mu held.
func (l *loop) until(limit time.Duration, amiss func() string) error {
	t := time.NewTimer(limit)
	defer t.Stop()
	for done := false; ; {
		l.mu.Lock()
		missing, end, fault := amiss(), l.end, l.fault
		l.mu.Unlock()
		switch {
		case fault != nil:
			return fmt.Errorf("%s: %w", l.what, fault)
		case missing == "":
			return nil
		case done:
			return fmt.Errorf("%s ended with error %v: %s", l.what, end, missing)
		}
		select {
		case <-l.wake:
		case <-l.done:
			done = true // the last value may have come just before
		case <-t.C:
			return fmt.Errorf("%s: after %v: %s", l.what, limit, missing)
		}
	}
}

// begun waits for the first value.
func (l *loop) begun() error {
	return l.until(patience, func() string {
		if l.yields == 0 {
			return "it yielded nothing"
		}
		return ""
	})
}

// during waits for d. It returns an error if the sequence breaks a rule or ends.
func (l *loop) during(d time.Duration) error {
	if err := l.outcome(d); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end != nil {
		return fmt.Errorf("%s ended with error %q, though nothing failed", l.what, l.end)
	}
	return nil
}

// outcome waits for d, or until the sequence has ended. It returns an error if the
// sequence broke a rule. The end of the sequence is not an error.
func (l *loop) outcome(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-l.done:
	case <-t.C:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fault != nil {
		return fmt.Errorf("%s: %w", l.what, l.fault)
	}
	return nil
}

// ended waits until the sequence has ended, and returns the error that it ended with.
func (l *loop) ended(limit time.Duration) (end, fault error) {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-l.done:
	case <-t.C:
		return nil, fmt.Errorf("%s did not end within %v", l.what, limit)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fault != nil {
		return nil, fmt.Errorf("%s: %w", l.what, l.fault)
	}
	return l.end, nil
}

// stop cancels the sequence and waits for its end. It returns an error if the
// sequence broke a rule before, or does not end. It does not look at the error that
// the sequence ends with: the checks of ruleEnd do.
func (l *loop) stop() error {
	l.mu.Lock()
	fault := l.fault
	l.mu.Unlock()
	l.cancel()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-l.done:
	case <-t.C:
		if fault == nil {
			fault = fmt.Errorf("it did not end within %v of its context", patience)
		}
	}
	if fault != nil {
		return fmt.Errorf("%s: %w", l.what, fault)
	}
	return nil
}

// reader is the loop over a watch, and the state that the watch shows.
type reader struct {
	*loop
	e *env

	// The following fields are guarded by loop.mu.
	state set
	truth []set           // the states of the service since the one last shown; nil: any state will do
	each  func(set) error // called with every state; may be nil
}

// watch starts a watch of a service whose state is now. A nil now means that the
// check does not know the state. each is called with every state that the watch
// shows, with mu held. It may be nil.
func (e *env) watch(service string, now set, each func(set) error) *reader {
	return e.watchWith(e.ctx, service, now, each)
}

func (e *env) watchWith(ctx context.Context, service string, now set, each func(set) error) *reader {
	r := &reader{e: e, state: make(set), each: each}
	if now != nil {
		r.truth = []set{clone(now)}
	}
	n := 0
	r.loop = startLoop(e, ctx, "a watch of "+brief(service), func(ctx context.Context) iter.Seq2[naming.Batch, error] {
		return e.store.Watch(ctx, e.prefix+service)
	}, func(b naming.Batch) error {
		n++
		return r.observe(b, n == 1)
	})
	return r
}

// observe applies a batch to the state that the watch shows, and checks the new
// state. It is called with mu held.
func (r *reader) observe(b naming.Batch, first bool) error {
	if err := r.state.applyBatch(b, first); err != nil {
		return err
	}
	if r.each != nil {
		if err := r.each(r.state); err != nil {
			return err
		}
	}
	if r.truth == nil {
		return nil
	}
	// The states that a watch shows are a subsequence of the states of the service.
	for i, s := range r.truth {
		if r.state.equal(s) {
			r.truth = r.truth[i:]
			return nil
		}
	}
	return fmt.Errorf("it shows a state that the service does not have, or had before one already shown: %s",
		diff(r.state, r.truth[len(r.truth)-1]))
}

// allow adds states that the service is about to have, one after the other.
func (r *reader) allow(next ...set) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.truth == nil {
		return
	}
	for _, s := range next {
		r.truth = append(r.truth, clone(s))
	}
}

// acceptAny makes the reader accept any state until settled has returned.
func (r *reader) acceptAny() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.truth = nil
}

// await waits until the watch shows the state that is wanted.
func (r *reader) await(limit time.Duration, want set) error {
	return r.until(limit, func() string {
		if !r.state.equal(want) {
			return "it does not show the wanted state: " + diff(r.state, want)
		}
		return ""
	})
}

// settled waits until the watch shows the state that is wanted. From then on the
// reader accepts no other state.
func (r *reader) settled(limit time.Duration, want set) error {
	return r.until(limit, func() string {
		if !r.state.equal(want) {
			return "it does not show the wanted state: " + diff(r.state, want)
		}
		r.truth = []set{clone(want)}
		return ""
	})
}

// lister is the loop over a sequence of Services, and the last list.
type lister struct {
	*loop
	names []string // guarded by loop.mu
}

func (e *env) watchNames() *lister { return e.watchNamesWith(e.ctx) }

func (e *env) watchNamesWith(ctx context.Context) *lister {
	l := &lister{}
	l.loop = startLoop(e, ctx, "a sequence of Services", e.store.Services, func(names []string) error {
		// The slice belongs to the receiver: a change to it must not return in a
		// later list.
		const scribble = "scribbled over by its receiver"
		if slices.Contains(names, scribble) {
			return errors.New("a later list has what the receiver scribbled over an earlier one")
		}
		own, err := e.own(names)
		l.names = own
		for i := range names {
			names[i] = scribble
		}
		return err
	})
	return l
}

// await waits until the last list is the one that is wanted.
func (l *lister) await(limit time.Duration, want ...string) error {
	return l.until(limit, func() string {
		if l.yields == 0 {
			return fmt.Sprintf("it yielded nothing, want %q", want)
		}
		if !slices.Equal(l.names, want) {
			return fmt.Sprintf("got services %q, want %q", l.names, want)
		}
		return ""
	})
}
