package conformance

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/naming-go/naming"
)

// set is the endpoints of a service by ID. Sets are compared whole, with
// metadata, and never with an earlier look at the store.
type set map[string]naming.Endpoint

// sets makes a set.
func sets(eps ...naming.Endpoint) set {
	s := make(set, len(eps))
	s.put(eps...)
	return s
}

func (s set) put(eps ...naming.Endpoint) {
	for _, ep := range eps {
		if ep.ID == "" {
			ep.ID = ep.Addr
		}
		s[ep.ID] = ep
	}
}

// apply does what a registry does with changes that have no condition.
func (s set) apply(changes ...naming.Change) {
	for _, c := range changes {
		switch id := c.Endpoint.ID; {
		case c.Op == naming.Add:
			s.put(c.Endpoint)
		case id != "":
			delete(s, id)
		default:
			delete(s, c.Endpoint.Addr)
		}
	}
}

// with and without return changed copies.
func (s set) with(eps ...naming.Endpoint) set {
	s = clone(s)
	s.put(eps...)
	return s
}

func (s set) without(ids ...string) set {
	s = clone(s)
	for _, id := range ids {
		delete(s, id)
	}
	return s
}

// take changes the set as a batch says, and fails if the batch is malformed.
func (s set) take(b naming.Batch, first bool) error {
	if first && !b.Snapshot {
		return errors.New("the first batch is not a snapshot")
	}
	if b.Snapshot {
		if len(b.Deleted) > 0 {
			return fmt.Errorf("a snapshot has Deleted %s", brief(strings.Join(b.Deleted, ", ")))
		}
		clear(s)
	}
	seen := make(map[string]struct{}, len(b.Put)+len(b.Deleted)+len(b.Withheld))
	once := func(id string) error {
		if id == "" {
			return errors.New("a batch has an empty ID")
		}
		if _, ok := seen[id]; ok {
			return fmt.Errorf("a batch has ID %s twice", brief(id))
		}
		seen[id] = struct{}{}
		return nil
	}
	for _, ep := range b.Put {
		if err := once(ep.ID); err != nil {
			return err
		}
		s[ep.ID] = ep
	}
	for _, id := range b.Deleted {
		if err := once(id); err != nil {
			return err
		}
		delete(s, id)
	}
	// What is withheld is not in the set of what may be used.
	for _, w := range b.Withheld {
		if err := once(w.Endpoint.ID); err != nil {
			return err
		}
		delete(s, w.Endpoint.ID)
	}
	return nil
}

func (s set) equal(o set) bool { return maps.EqualFunc(s, o, naming.Endpoint.Equal) }

// String is short, whatever the set.
func (s set) String() string {
	var b strings.Builder
	b.WriteByte('{')
	for i, id := range slices.Sorted(maps.Keys(s)) {
		if i > 0 {
			b.WriteString("; ")
		}
		if i == 8 {
			fmt.Fprintf(&b, "and %d more", len(s)-i)
			break
		}
		b.WriteString(show(s[id]))
	}
	b.WriteByte('}')
	return b.String()
}

func show(ep naming.Endpoint) string {
	s := brief(ep.ID)
	if ep.Addr != ep.ID {
		s += " at " + brief(ep.Addr)
	}
	if len(ep.Metadata) > 0 {
		s += " with " + brief(string(ep.Metadata))
	}
	if ep.Draining {
		s += ", draining"
	}
	return s
}

// brief quotes the beginning of a string.
func brief(s string) string {
	const most = 80
	if len(s) > most {
		return fmt.Sprintf("%q... (%d bytes)", s[:most], len(s))
	}
	return fmt.Sprintf("%q", s)
}

// diff tells in which endpoints two sets differ.
func diff(got, want set) string {
	var lines []string
	for _, id := range slices.Sorted(maps.Keys(want)) {
		if ep, ok := got[id]; !ok {
			lines = append(lines, "missing "+show(want[id]))
		} else if !ep.Equal(want[id]) {
			lines = append(lines, "got "+show(ep)+", want "+show(want[id]))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[id]; !ok {
			lines = append(lines, "unwanted "+show(got[id]))
		}
	}
	if n := len(lines); n > 6 {
		lines = append(lines[:6], fmt.Sprintf("and %d more", n-6))
	}
	return fmt.Sprintf("got %d endpoints, want %d: %s", len(got), len(want), strings.Join(lines, "; "))
}

// drain ranges over a sequence to its end, gives each everything that it
// yields, and returns the error that it ended with. The other error is not nil
// if the sequence is not what the contract calls one, or if each returned it.
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
			return end, fmt.Errorf("the sequence went on after its error %q: it yielded %+v, %v", end, v, err)
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
		return nil, errors.New("the sequence ended without an error, though nobody left its loop")
	}
	return end, nil
}

// follower ranges over a sequence in a goroutine of its own.
type follower struct {
	what   string
	cancel context.CancelFunc
	done   chan struct{} // closed when the loop has ended
	wake   chan struct{} // capacity 1: holds a token when something happened

	mu         sync.Mutex
	n          int   // how many values were yielded
	end, fault error // as drain returns them
}

// follow starts a follower. take is called with the follower's mu held.
func follow[T any](e *env, ctx context.Context, what string, start func(context.Context) iter.Seq2[T, error], take func(T) error) *follower {
	f := newFollower(e, what)
	ctx, f.cancel = context.WithCancel(ctx)
	f.run(func() (error, error) {
		return drain(start(ctx), func(v T) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			defer f.poke()
			f.n++
			return take(v)
		})
	})
	return f
}

func newFollower(e *env, what string) *follower {
	f := &follower{what: what, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.followers = append(e.followers, f)
	return f
}

func (f *follower) run(loop func() (end, fault error)) {
	go func() {
		defer close(f.done)
		end, fault := loop()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.end = end
		if f.fault == nil {
			f.fault = fault
		}
		f.poke()
	}()
}

func (f *follower) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// until waits until ok returns "". Otherwise ok says what is amiss. It is
// called with f.mu held.
func (f *follower) until(limit time.Duration, ok func() string) error {
	t := time.NewTimer(limit)
	defer t.Stop()
	for done := false; ; {
		f.mu.Lock()
		amiss, end, fault := ok(), f.end, f.fault
		f.mu.Unlock()
		switch {
		case fault != nil:
			return fmt.Errorf("%s: %w", f.what, fault)
		case amiss == "":
			return nil
		case done:
			return fmt.Errorf("%s ended with error %v: %s", f.what, end, amiss)
		}
		select {
		case <-f.wake:
		case <-f.done:
			done = true // and look once more
		case <-t.C:
			return fmt.Errorf("%s: after %v: %s", f.what, limit, amiss)
		}
	}
}

// begun waits for the first value.
func (f *follower) begun() error {
	return f.until(patience, func() string {
		if f.n == 0 {
			return "it yielded nothing"
		}
		return ""
	})
}

// during waits for d, and fails if the sequence breaks a rule or ends.
func (f *follower) during(d time.Duration) error {
	if err := f.fate(d); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.end != nil {
		return fmt.Errorf("%s ended with error %q, though nothing was wrong", f.what, f.end)
	}
	return nil
}

// fate waits for d, or until the sequence has ended, as it may. It fails if the
// sequence broke a rule.
func (f *follower) fate(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-f.done:
	case <-t.C:
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault != nil {
		return fmt.Errorf("%s: %w", f.what, f.fault)
	}
	return nil
}

// ended waits for the end of the sequence and returns its error.
func (f *follower) ended(limit time.Duration) (end, fault error) {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-f.done:
	case <-t.C:
		return nil, fmt.Errorf("%s did not end within %v", f.what, limit)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault != nil {
		return nil, fmt.Errorf("%s: %w", f.what, f.fault)
	}
	return f.end, nil
}

// finish cancels the sequence and waits for its end. It fails for what the
// sequence did before; how it ends is for the checks of the end to judge.
func (f *follower) finish() error {
	f.mu.Lock()
	fault := f.fault
	f.mu.Unlock()
	f.cancel()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-f.done:
	case <-t.C:
		if fault == nil {
			fault = fmt.Errorf("it did not end within %v of its context", patience)
		}
	}
	if fault != nil {
		return fmt.Errorf("%s: %w", f.what, fault)
	}
	return nil
}

// reader is a watch, and the state that it has shown.
type reader struct {
	*follower
	e *env

	// The following fields are guarded by follower.mu.
	state set
	truth []set           // the states the service had, from the one last shown on; nil if not known
	each  func(set) error // is given every state; may be nil
}

// watch starts a watch of a service that has the state given; nil means that
// the check does not know it. each may be nil, and is called with mu held.
func (e *env) watch(service string, now set, each func(set) error) *reader {
	return e.watchWith(e.ctx, service, now, each)
}

func (e *env) watchWith(ctx context.Context, service string, now set, each func(set) error) *reader {
	r := &reader{e: e, state: make(set), each: each}
	if now != nil {
		r.truth = []set{clone(now)}
	}
	n := 0
	r.follower = follow(e, ctx, "a watch of "+brief(service), func(ctx context.Context) iter.Seq2[naming.Batch, error] {
		return e.store.Watch(ctx, e.prefix+service)
	}, func(b naming.Batch) error {
		n++
		return r.take(b, n == 1)
	})
	return r
}

// take is called with mu held.
func (r *reader) take(b naming.Batch, first bool) error {
	if err := r.state.take(b, first); err != nil {
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
	// The states shown are a subsequence of those there were.
	for i, s := range r.truth {
		if r.state.equal(s) {
			r.truth = r.truth[i:]
			return nil
		}
	}
	return fmt.Errorf("it shows a state that the service does not have, or had before one already shown: %s",
		diff(r.state, r.truth[len(r.truth)-1]))
}

// allow says which states the service is about to have, one after the other.
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

// free makes the reader accept any state until settled was called.
func (r *reader) free() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.truth = nil
}

// await waits until the watch shows the state wanted.
func (r *reader) await(limit time.Duration, want set) error {
	return r.until(limit, func() string {
		if !r.state.equal(want) {
			return "it does not show what it should: " + diff(r.state, want)
		}
		return ""
	})
}

// settled waits until the watch shows the state wanted, and from then on
// accepts no other.
func (r *reader) settled(limit time.Duration, want set) error {
	return r.until(limit, func() string {
		if !r.state.equal(want) {
			return "it does not show what it should: " + diff(r.state, want)
		}
		r.truth = []set{clone(want)}
		return ""
	})
}

// lister is a sequence of lists of services, and the last list.
type lister struct {
	*follower
	names []string // guarded by follower.mu
}

func (e *env) watchNames() *lister { return e.watchNamesWith(e.ctx) }

func (e *env) watchNamesWith(ctx context.Context) *lister {
	l := &lister{}
	l.follower = follow(e, ctx, "a sequence of Services", e.store.Services, func(names []string) error {
		// The slice is the receiver's: what is done to it must not come back.
		const scribble = "scribbled over by its receiver"
		if slices.Contains(names, scribble) {
			return errors.New("what its receiver scribbled over a list comes back in a later one")
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

func (l *lister) await(limit time.Duration, want ...string) error {
	return l.until(limit, func() string {
		if l.n == 0 {
			return fmt.Sprintf("it yielded nothing, want %q", want)
		}
		if !slices.Equal(l.names, want) {
			return fmt.Sprintf("got services %q, want %q", l.names, want)
		}
		return ""
	})
}

// scene is a service to which only the check writes, step by step, and those
// who watch it. Every watch must show every step, and nothing but steps.
type scene struct {
	e       *env
	service string
	now     set
	readers []*reader
}

func (e *env) scene(service string) *scene {
	return &scene{e: e, service: service, now: make(set)}
}

// watch adds a watch, and waits until it shows the present state.
func (s *scene) watch() error {
	r := s.e.watch(s.service, s.now, nil)
	s.readers = append(s.readers, r)
	return r.begun()
}

// apply is one step: unconditional changes that take effect together.
func (s *scene) apply(changes ...naming.Change) error {
	next := clone(s.now)
	for i, c := range changes {
		next.apply(c)
		if !s.e.atomic && i < len(changes)-1 {
			for _, r := range s.readers {
				r.allow(next)
			}
		}
	}
	return s.step(next, func() error { return s.e.apply(s.service, changes...) })
}

// step does something that brings the service into its next state.
func (s *scene) step(next set, act func() error) error { return s.stepWithin(patience, next, act) }

func (s *scene) stepWithin(limit time.Duration, next set, act func() error) error {
	for _, r := range s.readers {
		r.allow(next)
	}
	if err := act(); err != nil {
		return err
	}
	s.now = next
	for _, r := range s.readers {
		if err := r.await(limit, next); err != nil {
			return err
		}
	}
	return nil
}

// loosely is step for something that may be seen in several steps, such as the
// end of a lease with several endpoints.
func (s *scene) loosely(limit time.Duration, next set, act func() error) error {
	for _, r := range s.readers {
		r.free()
	}
	if err := act(); err != nil {
		return err
	}
	s.now = next
	for _, r := range s.readers {
		if err := r.settled(limit, next); err != nil {
			return err
		}
	}
	return nil
}

// flush takes one more step and takes it back, so that nothing is still under
// way which came before, and fails if a list is not the present state.
func (s *scene) flush() error {
	last := ep("last step", "10.0.0.255:80", "")
	if err := s.apply(add(nil, last)...); err != nil {
		return err
	}
	if err := s.apply(del(last)...); err != nil {
		return err
	}
	return s.e.listed(s.service, s.now)
}

// holds fails if the service does not keep its state: in the watches for a
// while, in a list, and in a new watch.
func (s *scene) holds() error {
	if err := s.during(s.e.quiet); err != nil {
		return err
	}
	return s.e.listed(s.service, s.now)
}

func (s *scene) during(d time.Duration) error {
	waits := make([]func() error, len(s.readers))
	for i, r := range s.readers {
		waits[i] = func() error { return r.during(d) }
	}
	if len(waits) == 0 {
		s.e.pause(d)
	}
	return together(waits...)
}
