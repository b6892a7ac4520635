package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/internal/mutant"
)

// wrong is a store in memory with one defect. A function that is set replaces the method
// of the same name.
type wrong struct {
	*memory.Store
	apply    func(ctx context.Context, service string, changes []naming.Change) error
	watch    func(ctx context.Context, service string) watchSeq
	services func(ctx context.Context) namesSeq
	grant    func(ctx context.Context, ttl time.Duration) (naming.Lease, error)
	report   func(*naming.MalformedError)
	marking  func(ctx context.Context, service, id string, draining bool) error
	mapping  func(service string, e naming.Endpoint) (naming.Endpoint, error)

	released chan struct{} // closed after the check, so that goroutines of a mutant can end

	// No goroutine blocks while it holds mu: synctest does not see such a deadlock,
	// and the test would hang.
	mu       sync.Mutex
	reported []naming.MalformedError
	bad      map[string]bool // IDs of malformed entries
	silent   bool
	cuts     int // how often Interrupt was called
}

type (
	watchSeq = iter.Seq2[naming.Batch, error]
	namesSeq = iter.Seq2[[]string, error]
)

func (w *wrong) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	if w.apply != nil {
		return w.apply(ctx, service, changes)
	}
	return w.good(ctx, service, changes...)
}

// good is the Apply without the defect.
func (w *wrong) good(ctx context.Context, service string, changes ...naming.Change) error {
	own := slices.Clone(changes)
	for i, c := range own {
		if l, ok := c.Lease.(*wrongLease); ok {
			own[i].Lease = l.Lease
		}
	}
	err := w.Store.Apply(ctx, service, own...)
	for _, c := range changes {
		if l, ok := c.Lease.(*wrongLease); ok && err == nil && c.Op == naming.Add {
			l.mu.Lock()
			l.puts = append(l.puts, leasedPut{service, c.Endpoint})
			l.mu.Unlock()
		}
	}
	return err
}

func (w *wrong) Watch(ctx context.Context, service string) watchSeq {
	if w.watch != nil {
		return w.watch(ctx, service)
	}
	return w.Store.Watch(ctx, service)
}

func (w *wrong) Mark(ctx context.Context, service, id string, draining bool) error {
	if w.marking != nil {
		return w.marking(ctx, service, id, draining)
	}
	return w.Store.Mark(ctx, service, id, draining)
}

// marks makes Mark put the endpoint that f returns. f gets the endpoint as it was, which has
// no address if it does not exist.
func (w *wrong) marks(f func(e naming.Endpoint, draining bool) naming.Endpoint) {
	w.marking = func(ctx context.Context, service, id string, draining bool) error {
		if err := naming.CheckID(service, id); err != nil {
			return err
		}
		e := naming.Endpoint{ID: id}
		for _, one := range w.list(ctx, service) {
			if one.ID == id {
				e = one
			}
		}
		if e = f(e, draining); e.Addr == "" {
			return naming.ErrNotFound
		}
		return w.good(ctx, service, naming.Change{Endpoint: e})
	}
}

func (w *wrong) Map(service string, e naming.Endpoint) (naming.Endpoint, error) {
	if w.mapping != nil {
		return w.mapping(service, e)
	}
	return w.Store.Map(service, e)
}

// maps makes Map replace the endpoints that it returns.
func (w *wrong) maps(f func(e naming.Endpoint) naming.Endpoint) {
	w.mapping = func(service string, e naming.Endpoint) (naming.Endpoint, error) {
		e, err := w.Store.Map(service, e)
		if err == nil {
			e = f(e)
		}
		return e, err
	}
}

func (w *wrong) Services(ctx context.Context) namesSeq {
	if w.services != nil {
		return w.services(ctx)
	}
	return w.Store.Services(ctx)
}

func (w *wrong) Grant(ctx context.Context, ttl time.Duration) (naming.Lease, error) {
	if w.grant != nil {
		return w.grant(ctx, ttl)
	}
	return w.Store.Grant(ctx, ttl)
}

// wrongLease is a lease. A function that is set replaces the method of the same name.
type wrongLease struct {
	naming.Lease
	renew, revoke func(ctx context.Context) error
	ttl           func() time.Duration

	mu   sync.Mutex
	puts []leasedPut // guarded by mu: everything that was ever put under the lease
}

// leasedPut is one Add under a lease.
type leasedPut struct {
	service  string
	endpoint naming.Endpoint
}

func (l *wrongLease) Renew(ctx context.Context) error {
	if l.renew != nil {
		return l.renew(ctx)
	}
	return l.Lease.Renew(ctx)
}

func (l *wrongLease) Revoke(ctx context.Context) error {
	if l.revoke != nil {
		return l.revoke(ctx)
	}
	return l.Lease.Revoke(ctx)
}

func (l *wrongLease) TTL() time.Duration {
	if l.ttl != nil {
		return l.ttl()
	}
	return l.Lease.TTL()
}

// all returns everything that was ever put under the lease.
func (l *wrongLease) all() []leasedPut {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.puts)
}

// leases makes the store grant leases with a defect.
func (w *wrong) leases(defect func(l *wrongLease)) {
	w.grant = func(ctx context.Context, ttl time.Duration) (naming.Lease, error) {
		inner, err := w.Store.Grant(ctx, ttl)
		if err != nil {
			return nil, err
		}
		l := &wrongLease{Lease: inner}
		defect(l)
		return l, nil
	}
}

// batches makes every watch yield the batches that a function returns for each batch.
// start returns a new function for each watch.
func (w *wrong) batches(start func(service string) func(naming.Batch) []naming.Batch) {
	w.watch = func(ctx context.Context, service string) watchSeq {
		return func(yield func(naming.Batch, error) bool) {
			f := start(service)
			for b, err := range w.Store.Watch(ctx, service) {
				if err != nil {
					yield(b, err)
					return
				}
				for _, b := range f(b) {
					if !yield(b, nil) {
						return
					}
				}
			}
		}
	}
}

// each is batches with a function that has no state.
func (w *wrong) each(f func(service string, b naming.Batch) []naming.Batch) {
	w.batches(func(service string) func(naming.Batch) []naming.Batch {
		return func(b naming.Batch) []naming.Batch { return f(service, b) }
	})
}

// ends makes every watch call end instead of yielding its error.
func (w *wrong) ends(end func(ctx context.Context, err error, yield func(naming.Batch, error) bool)) {
	w.watch = func(ctx context.Context, service string) watchSeq {
		return func(yield func(naming.Batch, error) bool) {
			for b, err := range w.Store.Watch(ctx, service) {
				if err != nil {
					end(ctx, err, yield)
					return
				}
				if !yield(b, nil) {
					return
				}
			}
		}
	}
}

// changes makes Apply replace each of its changes.
func (w *wrong) changes(f func(c naming.Change) naming.Change) {
	w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
		changes, err := naming.Normalize(service, changes)
		if err != nil {
			return err
		}
		for i, c := range changes {
			changes[i] = f(c)
		}
		return w.good(ctx, service, changes...)
	}
}

// metadata makes Apply replace metadata.
func (w *wrong) metadata(f func(m json.RawMessage) json.RawMessage) {
	w.changes(func(c naming.Change) naming.Change {
		if c.Endpoint.Metadata != nil {
			c.Endpoint.Metadata = f(c.Endpoint.Metadata)
		}
		return c
	})
}

// names makes the store replace every service name.
func (w *wrong) names(f func(string) string) {
	w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
		return w.good(ctx, f(service), changes...)
	}
	w.watch = func(ctx context.Context, service string) watchSeq { return w.Store.Watch(ctx, f(service)) }
}

// lists makes Services replace every list.
func (w *wrong) lists(f func(names []string) []string) {
	w.services = func(ctx context.Context) namesSeq {
		return func(yield func([]string, error) bool) {
			for names, err := range w.Store.Services(ctx) {
				if err == nil {
					names = f(names)
				}
				if !yield(names, err) {
					return
				}
			}
		}
	}
}

// errors makes every method replace its error.
func (w *wrong) errors(f func(error) error) {
	pass := func(err error) error {
		if err != nil {
			err = f(err)
		}
		return err
	}
	w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
		return pass(w.good(ctx, service, changes...))
	}
	w.ends(func(ctx context.Context, err error, yield func(naming.Batch, error) bool) {
		yield(naming.Batch{}, pass(err))
	})
	w.services = func(ctx context.Context) namesSeq {
		return func(yield func([]string, error) bool) {
			for names, err := range w.Store.Services(ctx) {
				if !yield(names, pass(err)) {
					return
				}
			}
		}
	}
	w.grant = func(ctx context.Context, ttl time.Duration) (naming.Lease, error) {
		inner, err := w.Store.Grant(ctx, ttl)
		if err != nil {
			return nil, pass(err)
		}
		l := &wrongLease{Lease: inner}
		l.renew = func(ctx context.Context) error { return pass(inner.Renew(ctx)) }
		l.revoke = func(ctx context.Context) error { return pass(inner.Revoke(ctx)) }
		return l, nil
	}
}

// idles makes every watch call do in each second without a batch, and yield the batches
// that do returns.
func (w *wrong) idles(do func(ctx context.Context, service string, last naming.Batch) []naming.Batch) {
	type item struct {
		b   naming.Batch
		err error
	}
	w.watch = func(ctx context.Context, service string) watchSeq {
		return func(yield func(naming.Batch, error) bool) {
			inner, cancel := context.WithCancel(ctx)
			items := make(chan item)
			done := make(chan struct{})
			defer func() { cancel(); <-done }()
			go func() {
				defer close(done)
				for b, err := range w.Store.Watch(inner, service) {
					select {
					case items <- item{b, err}:
					case <-inner.Done():
						if err == nil {
							continue
						}
						select {
						case items <- item{b, err}:
						case <-time.After(time.Second): // the loop has ended
						}
					}
				}
			}()
			var last naming.Batch
			for {
				select {
				case it := <-items:
					last = it.b
					if !yield(it.b, it.err) || it.err != nil {
						return
					}
				case <-time.After(time.Second):
					for _, b := range do(ctx, service, last) {
						if !yield(b, nil) {
							return
						}
					}
				}
			}
		}
	}
}

// list returns the endpoints of a service, without the defect.
func (w *wrong) list(ctx context.Context, service string) []naming.Endpoint {
	for b, err := range w.Store.Watch(ctx, service) {
		if err == nil {
			return b.Put
		}
		break
	}
	return nil
}

// known returns a set, and a function that applies the batches of a watch to the set.
func known() (state set, applyBatch func(naming.Batch)) {
	state = make(set)
	return state, func(b naming.Batch) {
		if b.Snapshot {
			clear(state)
		}
		state.put(b.Put...)
		for _, id := range b.Deleted {
			delete(state, id)
		}
	}
}

// only returns the batch, unless it is a change of nothing.
func only(b naming.Batch) []naming.Batch {
	if !b.Snapshot && len(b.Put) == 0 && len(b.Deleted) == 0 && len(b.Withheld) == 0 {
		return nil
	}
	return []naming.Batch{b}
}

// refusal represents an error of a client library.
type refusal struct{ why string }

func (r *refusal) Error() string { return r.why }

// newWrong returns a store with a defect. A nil defect means none.
func newWrong(t *testing.T, defect func(*wrong)) *wrong {
	w := &wrong{Store: new(memory.Store), released: make(chan struct{}), bad: make(map[string]bool)}
	w.OnMalformed = func(m *naming.MalformedError) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.report(m)
	}
	w.report = func(m *naming.MalformedError) { w.reported = append(w.reported, *m) }
	if defect != nil {
		defect(w)
	}
	t.Cleanup(func() { close(w.released) })
	return w
}

// putMalformed is the function Malformed or Beyond of a harness.
func (w *wrong) putMalformed(service, id, reason string) string {
	w.mu.Lock()
	w.bad[id] = true
	w.mu.Unlock()
	w.PutMalformed(service, id, errors.New(reason))
	return id
}

func (w *wrong) setSilent(silent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent = silent
}

// harness returns the harness of stores in memory with a defect. A nil defect means none.
func harness(defect func(*wrong)) *Harness {
	return &Harness{
		New: func(t *testing.T) naming.Store { return newWrong(t, defect) },
		Interrupt: func(t *testing.T, s naming.Store) {
			w := s.(*wrong)
			w.mu.Lock()
			w.cuts++
			w.mu.Unlock()
			w.Break(errors.New("interrupted"))
		},
		Silence: func(t *testing.T, s naming.Store) func() {
			w := s.(*wrong)
			w.setSilent(true)
			w.Store.Silence()
			return func() { w.setSilent(false); w.Speak() }
		},
		SilenceBound: memory.SilenceBound,
		Down: func(t *testing.T, s naming.Store) func() {
			s.(*wrong).Down(errors.New("down"))
			return s.(*wrong).Up
		},
		Deny: func(t *testing.T, s naming.Store) func() {
			s.(*wrong).Refuse(fmt.Errorf("%w: %w", naming.ErrPermission, &refusal{"no such user"}))
			return s.(*wrong).Up
		},
		Cause: func(err error) bool { var r *refusal; return errors.As(err, &r) },
		Calls: func(s naming.Store) int { return s.(*wrong).Calls() },
		Malformed: func(t *testing.T, s naming.Store, service, id string) string {
			return s.(*wrong).putMalformed(service, id, "gibberish")
		},
		Beyond: func(t *testing.T, s naming.Store, service, id string) string {
			return s.(*wrong).putMalformed(service, id, "too deep")
		},
		Withhold: func(t *testing.T, s naming.Store, service, id string, reason naming.Reason) func() {
			w := s.(*wrong)
			w.Withhold(service, id, reason, "because")
			return func() { w.Unwithhold(service, id) }
		},
		Lose: func(t *testing.T, s naming.Store, l naming.Lease) {
			if wl, ok := l.(*wrongLease); ok {
				l = wl.Lease
			}
			s.(*wrong).Expire(l)
		},
		Reported: func(s naming.Store) []naming.MalformedError {
			w := s.(*wrong)
			w.mu.Lock()
			defer w.mu.Unlock()
			return slices.Clone(w.reported)
		},
		Bubble: true,
		TTL:    30 * time.Second,
		Quiet:  10 * time.Second,
	}
}

// runs returns how often a test repeats a check whose result may depend on chance.
func runs() int {
	if mutant.Full() {
		return 50
	}
	return 5
}

func find(t *testing.T, name string) check {
	t.Helper()
	i := slices.IndexFunc(checks, func(c check) bool { return c.name == name })
	if i < 0 {
		t.Fatalf("there is no check %q", name)
	}
	return checks[i]
}
