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
	// patience bounds the wait for an event that must happen. A store that keeps
	// the contract never needs so long.
	patience = 20 * time.Second

	// soon bounds how long after its context a call may return.
	soon = 5 * time.Second

	// cleanUpLimit bounds the removal of what a check put.
	cleanUpLimit = time.Minute

	// lookAgain is the rest before cleanUp looks again for what a write of unknown outcome
	// put. laterLooks is how often it does so. A registry that answers has made such a
	// write by then, or never makes it.
	lookAgain  = 500 * time.Millisecond
	laterLooks = 4

	// endless is more values of a sequence than any check causes.
	endless = 20_000

	// chunk is the number of changes of one Apply to a large service. Registries
	// limit the size of a transaction.
	chunk = 50
)

// env is the environment of one check: a store, and the functions that disturb it.
type env struct {
	ctx    context.Context // done when the check has taken too long
	cancel context.CancelFunc

	store      naming.Store
	prefix     string // of the names of all services
	ttl, quiet time.Duration
	many       int
	seed       uint64
	atomic     bool
	scope      string // of the goroutines of the check; empty if the store is older than the check

	// The fields of the harness. A check that uses one names it in its needs.
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
	has       map[string]bool // the fields of the harness that are set, by name

	count     atomic.Int64  // makes values that differ
	renewTurn chan struct{} // capacity 1: has a token while a renewer renews or is paused

	started
}

// started is what a check has started and put. env.run and env.cleanUp end it.
type started struct {
	mu       sync.Mutex
	loops    []*loop
	services map[string]writes // those that the check wrote to
	leases   []naming.Lease
	renewers []renewer
}

// writes is what became of the writes to a service.
type writes struct {
	unknown int  // how many have no answer
	stored  bool // the registry may have stored one
}

// renewer is a goroutine that renews a lease.
type renewer struct {
	lease naming.Lease
	stop  func() // returns when the goroutine has ended
}

// init sets the fields that are zero to their defaults.
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
	e.services = make(map[string]writes)
	e.renewTurn = make(chan struct{}, 1)
	// Far more than a good store needs. Time in a bubble costs nothing, and outside
	// a bubble patience bounds every single wait.
	e.ctx, e.cancel = context.WithTimeout(ctx, 3*time.Minute+100*(e.quiet+e.ttl)+10*e.silenceBound)
}

// run runs one check, and then stops its renewers and loops.
func (e *env) run(c check) error {
	err := c.run(e)
	e.stopRenewers()
	e.mu.Lock()
	loops := e.loops
	e.mu.Unlock()
	for _, f := range loops {
		if fault := f.stop(); fault != nil && (err == nil || isSkip(err)) {
			err = fault
		}
	}
	return err
}

// cleanUp revokes the leases of the check and removes the endpoints that it put. It looks
// again at a service to which a write of unknown outcome was made, and at one whose
// endpoints it could not remove.
func (e *env) cleanUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cleanUpLimit)
	defer cancel()
	e.mu.Lock()
	leases, services := e.leases, maps.Clone(e.services)
	e.mu.Unlock()
	var errs []error
	for _, l := range leases {
		errs = append(errs, l.Revoke(ctx))
	}
	failed := make(map[string]error)
	for looks := 0; ; looks++ {
		for service, w := range services {
			failed[service] = e.empty(ctx, service)
			if !w.stored && errors.Is(failed[service], naming.ErrInvalid) {
				failed[service] = nil // a check tried a name that no service can have
			}
		}
		maps.DeleteFunc(services, func(service string, w writes) bool { return w.unknown == 0 && failed[service] == nil })
		if len(services) == 0 || looks == laterLooks || ctx.Err() != nil {
			return errors.Join(append(errs, slices.Collect(maps.Values(failed))...)...)
		}
		pause(ctx, lookAgain)
	}
}

// empty removes all endpoints of a service that only this check uses.
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

// rand returns the i-th source of random numbers of the check.
func (e *env) rand(i int) *rand.Rand { return rand.New(rand.NewPCG(e.seed, uint64(i))) }

// seeded adds the seed to an error, so that the failure can be repeated.
func (e *env) seeded(err error) error {
	if err != nil {
		err = fmt.Errorf("seed %d: %w", e.seed, err)
	}
	return err
}

// errBroken is wrapped by the errors of guard. An outage does not explain a store that
// hangs or panics.
var errBroken = errors.New("the store is broken")

// guard calls f in a goroutine and returns its error. It returns an error of its own
// if f panics or does not return within limit, so that one bad call fails one check
// and not the process.
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

// together calls the functions concurrently, and returns the errors of all of them.
// Every error matters: the first one alone may be a consequence of another.
func together(fs ...func() error) error {
	errs := make([]error, len(fs))
	var wg sync.WaitGroup
	for i, f := range fs {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// pause waits for d, or until the check has taken too long.
func (e *env) pause(d time.Duration) { pause(e.ctx, d) }

// pause waits for d, or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// eventually calls f until it returns nil, as the caller of a store retries.
func (e *env) eventually(f func() error) error { return e.within(patience, f) }

// within is eventually with a limit.
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

// call calls f with a context of patience. A call that is still blocked then is an
// error that says so.
func (e *env) call(what string, f func(ctx context.Context) error) error {
	return callIn(e.ctx, what, f)
}

func callIn(ctx context.Context, what string, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := guard(patience+soon, what, func() error { return f(ctx) })
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%s: no answer within %v: %w", what, patience, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// apply is Store.Apply, bounded by patience. The end of e.ctx does not cut it short: a write
// without an answer may take effect after cleanUp.
func (e *env) apply(service string, changes ...naming.Change) error {
	return callIn(context.WithoutCancel(e.ctx), fmt.Sprintf("Apply to %s", brief(service)), func(ctx context.Context) error {
		return e.write(ctx, e.prefix+service, changes...)
	})
}

// write is Store.Apply to a service with its whole name. It lets cleanUp know of the service.
func (e *env) write(ctx context.Context, name string, changes ...naming.Change) error {
	e.noteWrite(name, func(w *writes) { w.unknown++ })
	err := e.store.Apply(ctx, name, changes...)
	answered := err == nil || slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) })
	e.noteWrite(name, func(w *writes) {
		w.stored = w.stored || !errors.Is(err, naming.ErrInvalid)
		if answered {
			w.unknown--
		}
	})
	return err
}

// noteWrite changes what is known of the writes to a service.
func (e *env) noteWrite(name string, change func(*writes)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	w := e.services[name]
	change(&w)
	e.services[name] = w
}

// grant is Store.Grant, bounded by patience.
func (e *env) grant(ttl time.Duration) (naming.Lease, error) {
	var l naming.Lease
	if err := e.call("Grant", func(ctx context.Context) (err error) {
		l, err = e.store.Grant(ctx, ttl)
		return err
	}); err != nil {
		return nil, err
	}
	if l == nil {
		return nil, errors.New("got neither a lease nor an error from Grant")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leases = append(e.leases, l)
	return l, nil
}

// long is a time to live that no check outlasts.
const long = 10 * time.Minute

// grants returns n leases that do not expire before the check has ended.
func (e *env) grants(n int) ([]naming.Lease, error) {
	leases := make([]naming.Lease, n)
	for i := range leases {
		var err error
		if leases[i], err = e.grant(long + 100*e.quiet); err != nil {
			return nil, err
		}
		if leases[i].TTL() < long {
			e.renewInBackground(leases[i])
		}
	}
	return leases, nil
}

// renewInBackground renews a lease until it is revoked or the check ends. It is for
// a lease that a check needs for longer than the longest time to live of the
// registry, or that a slow machine must not let expire.
func (e *env) renewInBackground(l naming.Lease) {
	ctx, cancel := context.WithCancel(e.ctx)
	done := make(chan struct{})
	e.mu.Lock()
	defer e.mu.Unlock()
	e.renewers = append(e.renewers, renewer{l, func() { cancel(); <-done }})
	go func() {
		defer close(done)
		e.renewLoop(ctx, l)
	}()
}

// renewLoop renews a lease four times in its time to live, until ctx is done or the
// lease is lost.
func (e *env) renewLoop(ctx context.Context, l naming.Lease) {
	every := max(l.TTL()/4, time.Millisecond)
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		select {
		case e.renewTurn <- struct{}{}:
		case <-ctx.Done():
			return
		}
		// Only a lost lease matters here. The check that needs the lease reports
		// any other error.
		err := guard(2*every+soon, "Renew", func() error {
			ctx, cancel := context.WithTimeout(ctx, 2*every)
			defer cancel()
			return l.Renew(ctx)
		})
		<-e.renewTurn
		if errors.Is(err, naming.ErrLeaseLost) {
			return
		}
	}
}

// pauseRenewers keeps the renewers from renewing until resume is called, so that a
// check does not count their requests.
func (e *env) pauseRenewers() (resume func()) {
	e.renewTurn <- struct{}{} // a channel: synctest does not see a goroutine that waits for a mutex
	return func() { <-e.renewTurn }
}

// stopRenewing stops the renewer of a lease, if the lease has one.
func (e *env) stopRenewing(l naming.Lease) {
	e.mu.Lock()
	var stopped []renewer
	e.renewers = slices.DeleteFunc(e.renewers, func(r renewer) bool {
		same := reflect.ValueOf(l).Comparable() && r.lease == l
		if same {
			stopped = append(stopped, r)
		}
		return same
	})
	e.mu.Unlock()
	for _, r := range stopped {
		r.stop()
	}
}

// stopRenewers stops every renewer.
func (e *env) stopRenewers() {
	e.mu.Lock()
	renewers := e.renewers
	e.renewers = nil
	e.mu.Unlock()
	for _, r := range renewers {
		r.stop()
	}
}

// renew is Lease.Renew, bounded by patience.
func (e *env) renew(l naming.Lease) error { return e.call("Renew", l.Renew) }

// revoke stops the renewer of a lease and revokes the lease, bounded by patience.
func (e *env) revoke(l naming.Lease) error {
	e.stopRenewing(l)
	return e.call("Revoke", l.Revoke)
}

// expiry returns how long a check waits for a lease to expire.
func expiry(l naming.Lease) time.Duration { return 2*l.TTL() + patience }

// list returns the endpoints of a service: the first batch of a watch.
func (e *env) list(service string) (set, error) {
	var got set
	err := e.call(fmt.Sprintf("the first batch of a watch of %s", brief(service)), func(ctx context.Context) error {
		for b, err := range e.store.Watch(ctx, e.prefix+service) {
			if err != nil {
				return err
			}
			got = make(set)
			return got.applyBatch(b, true)
		}
		return errors.New("the loop ended without a batch and without an error")
	})
	return got, err
}

// listed returns an error if a list of a service is not the set that is wanted.
func (e *env) listed(service string, want set) error {
	got, err := e.list(service)
	if err == nil && !got.equal(want) {
		err = fmt.Errorf("a list of %s is not the wanted set: %s", brief(service), diff(got, want))
	}
	return err
}

// names returns the first list of services, without those of other programs.
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

// own checks the order of a list of services, and returns the names that begin with
// the prefix, without it.
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

// method is a method of a store or of a lease that can block.
type method struct {
	name string
	call func(ctx context.Context) error
}

// methods returns all methods that can block: those of the store, those of a lease,
// and the first value of each sequence.
func (e *env) methods(service string, lease naming.Lease) []method {
	name := e.prefix + service
	methods := []method{
		{"Apply", func(ctx context.Context) error {
			return e.write(ctx, name, add(nil, ep("methods", "10.9.9.9:99", ""))...)
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
	if m, ok := e.store.(naming.Marker); ok {
		methods = append(methods, method{"Mark", func(ctx context.Context) error {
			if err := m.Mark(ctx, name, "methods", true); !errors.Is(err, naming.ErrNotFound) {
				return err
			}
			return nil
		}})
	}
	return methods
}

// kinds are the errors that a caller distinguishes.
var kinds = []error{naming.ErrInvalid, naming.ErrLeaseLost, naming.ErrPermission}

// kind returns an error if err is not of the kind that is wanted, or is also of
// another kind. A nil kind means that the registry is unavailable.
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
			return fmt.Errorf("%s: got error %q, which also wraps %q", what, err, k)
		}
	}
	return nil
}

// ep returns an endpoint. It has no metadata if metadata is "".
func ep(id, addr, metadata string) naming.Endpoint {
	e := naming.Endpoint{ID: id, Addr: addr}
	if metadata != "" {
		e.Metadata = []byte(metadata)
	}
	return e
}

// add returns changes that put endpoints under a lease. A nil lease means none.
func add(l naming.Lease, eps ...naming.Endpoint) []naming.Change {
	changes := make([]naming.Change, len(eps))
	for i, ep := range eps {
		changes[i] = naming.Change{Op: naming.Add, Endpoint: ep, Lease: l}
	}
	return changes
}

// del returns changes that delete endpoints.
func del(eps ...naming.Endpoint) []naming.Change {
	changes := make([]naming.Change, len(eps))
	for i, ep := range eps {
		changes[i] = naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: ep.ID, Addr: ep.Addr}}
	}
	return changes
}

// chunks makes changes with several Applies, each small enough for a registry.
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

// clone returns a copy of a set. The copy of a nil set is empty.
func clone(s set) set {
	if s == nil {
		return make(set)
	}
	return maps.Clone(s)
}
