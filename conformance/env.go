package conformance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/naming-go/naming"
)

const (
	// patience is how long a check waits for what must happen. A store that
	// keeps the contract never uses it up.
	patience = 20 * time.Second

	// soon is how long after its context a call may end.
	soon = 5 * time.Second

	// endless is more batches than any check brings about.
	endless = 20_000

	// chunk is how many changes an Apply of a large service has: registries
	// limit the size of a transaction.
	chunk = 50
)

// env is what a check works with: one store, and what can be done to it.
type env struct {
	ctx    context.Context // ends when the check has taken too long
	cancel context.CancelFunc

	store      naming.Store
	prefix     string // of the names of all services
	ttl, quiet time.Duration
	many       int
	seed       uint64
	atomic     bool
	scope      string // of the goroutines of the check; empty: all of the process, as the store is older

	// What the harness can do. A check that uses one names it in its needs.
	silenceBound time.Duration
	cause        func(error) bool
	interrupt    func()
	silence      func() (heal func())
	down         func() (up func())
	deny         func() (allow func())
	calls        func() int
	malformed    func(service, id string) (key string)
	beyond       func(service, id string) (key string)
	reported     func() []naming.MalformedError
	withhold     func(service, id string, reason naming.Reason) (undo func())
	lose         func(naming.Lease)

	maxTTL    time.Duration
	listCalls func(n int) int
	has       map[string]bool // what the harness can do, by the names of its fields

	count   atomic.Int64  // makes values that differ
	keeping chan struct{} // capacity 1: holds a token while a lease is renewed in the background

	mu        sync.Mutex
	followers []*follower
	services  map[string]struct{} // that something was put to, for cleanUp
	leases    []naming.Lease
	keepers   []keeper
}

// keeper renews a lease in the background.
type keeper struct {
	lease naming.Lease
	stop  func() // returns when the keeper has ended
}

// init sets what is not set to the defaults.
func (e *env) init(ctx context.Context) {
	if e.ttl <= 0 {
		e.ttl = time.Second
	}
	if e.quiet <= 0 {
		e.quiet = time.Second
	}
	if e.many <= 0 {
		e.many = 1_000
	}
	if e.seed == 0 {
		e.seed = rand.Uint64()
	}
	if e.listCalls == nil {
		e.listCalls = func(int) int { return 1 }
	}
	e.services = make(map[string]struct{})
	e.keeping = make(chan struct{}, 1)
	// Far more than a store needs that passes: time in a bubble is free, and
	// outside it every single wait is bounded by patience.
	e.ctx, e.cancel = context.WithTimeout(ctx, 3*time.Minute+100*(e.quiet+e.ttl)+10*e.silenceBound)
}

// run runs one check and ends what it started.
func (e *env) run(c check) error {
	err := c.run(e)
	e.keep(nil)
	e.mu.Lock()
	followers := e.followers
	e.mu.Unlock()
	for _, f := range followers {
		if fault := f.finish(); fault != nil && err == nil {
			err = fault
		}
	}
	return err
}

// cleanUp removes what the check put.
func (e *env) cleanUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	e.mu.Lock()
	defer e.mu.Unlock()
	var errs []error
	for _, l := range e.leases {
		errs = append(errs, l.Revoke(ctx))
	}
	for service := range e.services {
		errs = append(errs, e.empty(ctx, service))
	}
	return errors.Join(errs...)
}

// empty removes all endpoints of a service, which nobody else uses.
func (e *env) empty(ctx context.Context, service string) error {
	for b, err := range e.store.Watch(ctx, service) {
		if err != nil {
			return err
		}
		for _, w := range b.Withheld {
			b.Put = append(b.Put, w.Endpoint)
		}
		for len(b.Put) > 0 {
			n := min(chunk, len(b.Put))
			if err := e.store.Apply(ctx, service, del(b.Put[:n]...)...); err != nil {
				return err
			}
			b.Put = b.Put[n:]
		}
		break
	}
	return nil
}

// rand returns the i-th source of random numbers of a check.
func (e *env) rand(i int) *rand.Rand { return rand.New(rand.NewPCG(e.seed, uint64(i))) }

// seeded adds to an error what repeats it.
func (e *env) seeded(err error) error {
	if err != nil {
		err = fmt.Errorf("seed %d: %w", e.seed, err)
	}
	return err
}

// errBroken is wrapped by the errors of guard itself: no outage explains a store that
// hangs or panics.
var errBroken = errors.New("the store is broken")

// guard waits for f, so that a store that hangs or panics is an error of one
// check and nothing worse.
func guard(limit time.Duration, what string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- fmt.Errorf("%w: %s panicked: %v\n%s", errBroken, what, p, debug.Stack())
			}
		}()
		done <- f()
	}()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case err := <-done:
		return err
	case <-t.C:
		return fmt.Errorf("%w: %s did not return within %v", errBroken, what, limit)
	}
}

// together runs the functions at once, and returns the first error of each.
func together(fs ...func() error) error {
	errs := make([]error, len(fs))
	var wg sync.WaitGroup
	for i, f := range fs {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// pause waits, unless the check has taken too long.
func (e *env) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-e.ctx.Done():
	}
}

// eventually tries f, as a caller of a store does, until it succeeds.
func (e *env) eventually(f func() error) error { return e.within(patience, f) }

// within is eventually with a limit of its own.
func (e *env) within(limit time.Duration, f func() error) error {
	for deadline := time.Now().Add(limit); ; e.pause(20 * time.Millisecond) {
		err := f()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) || e.ctx.Err() != nil {
			return fmt.Errorf("still after %v: %w", limit, err)
		}
	}
}

// call makes a call that must succeed or fail well before patience ends.
func (e *env) call(what string, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(e.ctx, patience)
	defer cancel()
	err := guard(patience+soon, what, func() error { return f(ctx) })
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%s: no answer within %v: %w", what, patience, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (e *env) apply(service string, changes ...naming.Change) error {
	name := e.prefix + service
	e.mu.Lock()
	e.services[name] = struct{}{}
	e.mu.Unlock()
	return e.call(fmt.Sprintf("Apply to %s", brief(service)), func(ctx context.Context) error {
		return e.store.Apply(ctx, name, changes...)
	})
}

func (e *env) grant(ttl time.Duration) (naming.Lease, error) {
	var l naming.Lease
	if err := e.call("Grant", func(ctx context.Context) (err error) {
		l, err = e.store.Grant(ctx, ttl)
		return err
	}); err != nil {
		return nil, err
	}
	if l == nil {
		return nil, errors.New("neither a lease nor an error came from Grant")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leases = append(e.leases, l)
	return l, nil
}

// long is a time to live that no check outlasts.
const long = 10 * time.Minute

// grants makes n leases that do not expire before the check has ended.
func (e *env) grants(n int) ([]naming.Lease, error) {
	leases := make([]naming.Lease, n)
	for i := range leases {
		var err error
		if leases[i], err = e.grant(long + 100*e.quiet); err != nil {
			return nil, err
		}
		if leases[i].TTL() < long {
			e.keep(leases[i])
		}
	}
	return leases, nil
}

// keep renews a lease in the background until it is revoked or the check ends: the
// backend knows none that lives so long. With nil it ends all keepers.
func (e *env) keep(l naming.Lease) {
	if l == nil {
		e.mu.Lock()
		keepers := e.keepers
		e.keepers = nil
		e.mu.Unlock()
		for _, k := range keepers {
			k.stop()
		}
		return
	}
	ctx, cancel := context.WithCancel(e.ctx)
	done := make(chan struct{})
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keepers = append(e.keepers, keeper{l, func() { cancel(); <-done }})
	every := max(l.TTL()/4, time.Millisecond)
	go func() {
		defer close(done)
		for t := time.NewTicker(every); ; {
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return
			}
			select {
			case e.keeping <- struct{}{}:
			case <-ctx.Done():
				t.Stop()
				return
			}
			ctx, cancel := context.WithTimeout(ctx, 2*every)
			// A check that needs the lease finds what is wrong.
			err := guard(2*every+soon, "Renew", func() error { return l.Renew(ctx) })
			cancel()
			<-e.keeping
			if errors.Is(err, naming.ErrLeaseLost) {
				t.Stop()
				return
			}
		}
	}()
}

// unrenewed keeps the keepers from renewing until the function that it returns is
// called, so that their requests are not counted.
func (e *env) unrenewed() (again func()) {
	e.keeping <- struct{}{} // no mutex: a bubble does not see who waits for one
	return func() { <-e.keeping }
}

// unkept ends the keeper of a lease, if it has one.
func (e *env) unkept(l naming.Lease) {
	e.mu.Lock()
	var stops []func()
	e.keepers = slices.DeleteFunc(e.keepers, func(k keeper) bool {
		same := reflect.ValueOf(l).Comparable() && k.lease == l
		if same {
			stops = append(stops, k.stop)
		}
		return same
	})
	e.mu.Unlock()
	for _, stop := range stops {
		stop()
	}
}

func (e *env) renew(l naming.Lease) error { return e.call("Renew", l.Renew) }

func (e *env) revoke(l naming.Lease) error {
	e.unkept(l)
	return e.call("Revoke", l.Revoke)
}

// expiry is how long a check waits for a lease to expire.
func expiry(l naming.Lease) time.Duration { return 2*l.TTL() + patience }

// list reads a service as a list is made: the first batch of a watch.
func (e *env) list(service string) (set, error) {
	var got set
	err := e.call(fmt.Sprintf("the first batch of a watch of %s", brief(service)), func(ctx context.Context) error {
		for b, err := range e.store.Watch(ctx, e.prefix+service) {
			if err != nil {
				return err
			}
			got = make(set)
			return got.take(b, true)
		}
		return errors.New("the loop ended without a batch and without an error")
	})
	return got, err
}

// listed fails if a list of a service is not the set wanted.
func (e *env) listed(service string, want set) error {
	got, err := e.list(service)
	if err == nil && !got.equal(want) {
		err = fmt.Errorf("a list of %s is not what it should be: %s", brief(service), diff(got, want))
	}
	return err
}

// names reads the list of services, those of others left out.
func (e *env) names() ([]string, error) {
	var got []string
	err := e.call("the first list of services", func(ctx context.Context) error {
		for names, err := range e.store.Services(ctx) {
			if err != nil {
				return err
			}
			got, err = e.own(names)
			return err
		}
		return errors.New("the loop ended without a list and without an error")
	})
	return got, err
}

// own checks a list of services, and returns those of the check without prefix.
func (e *env) own(names []string) ([]string, error) {
	var own []string
	for i, name := range names {
		if i > 0 && names[i-1] >= name {
			return nil, fmt.Errorf("the list of services has %q before %q: it is not sorted, or has a name twice", names[i-1], name)
		}
		if name, ok := strings.CutPrefix(name, e.prefix); ok {
			own = append(own, name)
		}
	}
	return own, nil
}

// method is a method of a store or of a lease, to be called for its error.
type method struct {
	name string
	call func(ctx context.Context) error
}

// methods returns everything that can block: the calls, of lease too, and the
// start of the sequences.
func (e *env) methods(service string, lease naming.Lease) []method {
	name := e.prefix + service
	e.mu.Lock()
	e.services[name] = struct{}{}
	e.mu.Unlock()
	return []method{
		{"Apply", func(ctx context.Context) error {
			return e.store.Apply(ctx, name, add(nil, ep("methods", "10.9.9.9:99", ""))...)
		}},
		{"Watch", func(ctx context.Context) error {
			for _, err := range e.store.Watch(ctx, name) {
				return err
			}
			return errors.New("the watch ended without a batch and without an error")
		}},
		{"Services", func(ctx context.Context) error {
			for _, err := range e.store.Services(ctx) {
				return err
			}
			return errors.New("the list of services ended without a list and without an error")
		}},
		{"Grant", func(ctx context.Context) error {
			l, err := e.store.Grant(ctx, e.ttl)
			if err == nil {
				return l.Revoke(ctx)
			}
			return err
		}},
		{"Renew", lease.Renew},
		{"Revoke", lease.Revoke},
	}
}

// kinds are the errors on which a caller acts.
var kinds = []error{naming.ErrInvalid, naming.ErrLeaseLost, naming.ErrPermission}

// kind fails if err is not of the kind wanted, or also of another; a nil kind
// means a registry that is unavailable.
func kind(what string, err, want error) error {
	if err == nil {
		if want == nil {
			return fmt.Errorf("%s: got no error, want one", what)
		}
		return fmt.Errorf("%s: got no error, want %q", what, want)
	}
	if errors.Is(err, errBroken) {
		return err
	}
	if want != nil && !errors.Is(err, want) {
		return fmt.Errorf("%s: got error %q, which does not wrap %q", what, err, want)
	}
	for _, k := range kinds {
		if k != want && errors.Is(err, k) {
			return fmt.Errorf("%s: got error %q, which is taken for %q", what, err, k)
		}
	}
	return nil
}

// ep makes an endpoint; metadata "" is none.
func ep(id, addr, metadata string) naming.Endpoint {
	e := naming.Endpoint{ID: id, Addr: addr}
	if metadata != "" {
		e.Metadata = []byte(metadata)
	}
	return e
}

// add makes changes that put endpoints under a lease, or none.
func add(l naming.Lease, eps ...naming.Endpoint) []naming.Change {
	changes := make([]naming.Change, len(eps))
	for i, ep := range eps {
		changes[i] = naming.Change{Op: naming.Add, Endpoint: ep, Lease: l}
	}
	return changes
}

// del makes changes that delete endpoints by their IDs.
func del(eps ...naming.Endpoint) []naming.Change {
	changes := make([]naming.Change, len(eps))
	for i, ep := range eps {
		changes[i] = naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: ep.ID, Addr: ep.Addr}}
	}
	return changes
}

// chunks applies changes in pieces that a registry takes.
func (e *env) chunks(service string, changes []naming.Change) error {
	for len(changes) > 0 {
		n := min(chunk, len(changes))
		if err := e.apply(service, changes[:n]...); err != nil {
			return err
		}
		changes = changes[n:]
	}
	return nil
}

// clone is maps.Clone for sets, which may be nil.
func clone(s set) set {
	if s == nil {
		return make(set)
	}
	return maps.Clone(s)
}
