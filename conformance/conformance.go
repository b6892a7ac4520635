// Package conformance tests that an implementation of [naming.Store] keeps its
// contract.
//
// The author of a backend writes one test. It says how to make a store and, as far as
// the backend allows, how to disturb one:
//
//	func TestConformance(t *testing.T) {
//		conformance.Run(t, conformance.Harness{
//			New:       func(t *testing.T) naming.Store { return newStore(t) },
//			Interrupt: func(t *testing.T, s naming.Store) { cutConnections(t, s) },
//			Calls:     func(s naming.Store) int { return requests(s) },
//		})
//	}
//
// Begin with New alone, and add the other fields one by one: each brings more checks.
// Package [github.com/naming-go/naming/conformance/fault] is a proxy that provides
// Interrupt, Silence and Down for any registry that is reached over TCP. Package
// backend/memory has a test that sets every function but ListCalls.
//
// Each check is a subtest. Its failure shows the rule that was broken, and names the doc
// comment of package naming that has the rule. A check is skipped only if the [Harness] or the
// registry lacks something that the check needs. The skip says what is missing.
//
// [Check] runs the same checks against a live registry, without package testing.
//
// The suite does not fail a store that keeps the contract. It may miss a fault that
// shows only sometimes. The tests of this package run every check against stores that
// are wrong on purpose: they show which faults the suite catches.
package conformance

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
)

// A Harness makes and disturbs the stores of a backend for the suite. Only New is
// required. A field that is zero means that the backend cannot do what the field is
// for: the checks that need the field are skipped.
//
// The functions get a store that New returned, and may be called while the store is in
// use. A function that cannot do its work fails t.
type Harness struct {
	// New returns a store whose services no other store has. It is called once for
	// each check, and registers its cleanup with t. The suite counts the goroutines
	// that New, the store, or a goroutine of theirs started and left running. It
	// does not count those of a client that New shares between stores.
	New func(t *testing.T) naming.Store

	// Interrupt ends every watch of s and every sequence of Services that is being
	// ranged over, as a failure of the registry does: it cuts the connections,
	// compacts the history, expires the session or restarts the server. It must be a
	// fault that the store reports: if the store survives a cut connection without a
	// loss, choose another fault. It lasts until every watch has met it, so that a
	// watch that polls does not miss it. The registry keeps its content, and answers
	// again soon. A check calls Interrupt again while a watch has not ended.
	Interrupt func(t *testing.T, s naming.Store)

	// Silence makes the link of s, or the server, accept everything and answer
	// nothing until heal is called. Leases expire meanwhile. SilenceBound is the
	// documented bound within which a watch of the backend notices a silence. One
	// check takes as long as SilenceBound.
	Silence      func(t *testing.T, s naming.Store) (heal func())
	SilenceBound time.Duration

	// Down makes the registry unavailable to s until up is called: no call succeeds
	// meanwhile, and running watches may end. The registry keeps its content and its
	// leases, which expire as usual. Some checks leave the registry down for more
	// than twice TTL.
	Down func(t *testing.T, s naming.Store) (up func())

	// Deny makes the registry refuse the credentials of s until allow is called, at
	// least for reads and writes of endpoints.
	Deny func(t *testing.T, s naming.Store) (allow func())

	// Cause reports whether err wraps an error of the registry's client library, as
	// errors.As finds it. The suite calls it with the errors that methods return
	// under Deny.
	Cause func(err error) bool

	// Calls returns how many requests s has made to the registry so far.
	Calls func(s naming.Store) int

	// Malformed writes an entry that the store cannot understand, without the help
	// of s, in the place of the endpoint id of a service. It returns the key that
	// the report of the entry has. Reported returns the reports so far, as the
	// function in the backend's options got them. Malformed and Reported are used
	// together.
	Malformed func(t *testing.T, s naming.Store, service, id string) (key string)
	Reported  func(s naming.Store) []naming.MalformedError

	// Beyond is like Malformed, with an entry in the backend's format that exceeds a
	// limit of package naming, such as metadata nested deeper than
	// [naming.MaxDepth]. It is used together with Reported.
	Beyond func(t *testing.T, s naming.Store, service, id string) (key string)

	// Withhold makes the registry say, without the help of s, that the endpoint id
	// of a service is not to be used, until undo is called. A nil undo means that
	// the registry does not have this reason.
	Withhold func(t *testing.T, s naming.Store, service, id string, reason naming.Reason) (undo func())

	// Lose makes the registry forget a lease and remove its endpoints, without the
	// help of s: another client revokes the lease, expires the session or removes
	// the checks. The lease has endpoints when Lose is called.
	Lose func(t *testing.T, s naming.Store, lease naming.Lease)

	// NotAtomic is for a backend whose documentation says that Apply is not atomic.
	// It is the sentence of the documentation. The suite then requires that watches
	// show the changes of one Apply in their order, and not that watches show them
	// together.
	NotAtomic string

	// Bubble says that the stores do no I/O. Each check then runs in a bubble of
	// package testing/synctest: it takes no time, and the suite sees every goroutine
	// that a store leaves behind. A store that hangs fails its check, except a store
	// that waits for a mutex or spins: the bubble's time does not pass then, and
	// only the timeout of go test ends the check.
	Bubble bool

	// TTL is the time to live of the leases that the suite lets expire. 0 means 1s.
	// It is the shortest that the backend accepts. The suite waits about 30 times
	// TTL. A longer TTL makes the suite slower. With a shorter one, a slow machine
	// renews a lease too late, and checks of good stores fail.
	TTL time.Duration

	// MaxTTL is the longest time to live of the registry: Grant rounds a longer one
	// down to it. 0 means that there is no longest. The suite renews the leases that
	// it needs for longer. MaxTTL must be longer than Quiet.
	MaxTTL time.Duration

	// ListCalls returns how many requests one read of a set of n endpoints takes, as
	// the backend documents. Nil means one request, for any n.
	ListCalls func(n int) int

	// Quiet is how long the suite waits before it concludes that an event does not
	// happen. 0 means 1s. Outside a bubble the suite waits about twenty times Quiet.
	// A shorter Quiet makes the suite faster. If it is shorter than the delay of the
	// registry, the suite misses events that come too late. Choose a Quiet that is
	// longer than the delay with which a watch shows a change.
	Quiet time.Duration

	// Many is the number of endpoints of a large service. 0 means 10,000 in a bubble
	// and 1,000 elsewhere. The suite puts about three times Many endpoints. A larger
	// Many finds limits of requests and answers. A smaller one is faster.
	Many int

	// Seed is the seed of the checks that use random numbers. 0 means a random seed.
	// Their failures show it: to repeat a failure, set Seed to it.
	Seed uint64
}

// Run runs every check as a subtest of t. Each check gets a store of its own from
// h.New. The checks run one after the other.
func Run(t *testing.T, h Harness) {
	if h.NotAtomic != "" {
		t.Logf("Apply is not atomic, as the backend documents: %s", h.NotAtomic)
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			if missing := c.missing(h.hooks()); len(missing) > 0 {
				t.Skipf("not checked: the harness has no %s", strings.Join(missing, " and no "))
			}
			err := h.run(t, c)
			if isSkip(err) {
				t.Skipf("not checked: %v", err)
			}
			if err != nil {
				t.Error(c.failure(err))
			}
		})
	}
}

// hooks returns the optional fields that a check can need, and whether they are set.
func (h *Harness) hooks() map[string]bool {
	return map[string]bool{
		"Interrupt": h.Interrupt != nil,
		"Silence":   h.Silence != nil && h.SilenceBound > 0,
		"Down":      h.Down != nil,
		"Deny":      h.Deny != nil,
		"Cause":     h.Cause != nil,
		"Calls":     h.Calls != nil,
		"Malformed": h.Malformed != nil && h.Reported != nil,
		"Beyond":    h.Beyond != nil && h.Reported != nil,
		"Withhold":  h.Withhold != nil,
		"Lose":      h.Lose != nil,
	}
}

// run runs one check against a new store.
func (h *Harness) run(t *testing.T, c check) error {
	var err error
	body := func(t *testing.T) {
		scoped(context.Background(), func(ctx context.Context, scope string) {
			e := h.newEnv(ctx, t)
			e.scope = scope
			defer e.cancel()
			err = e.run(c)
		})
	}
	if !h.Bubble {
		body(t)
		return err
	}
	left := bubble(t, body)
	switch {
	case left == nil:
		return err
	case isSkip(err):
		return left
	}
	return errors.Join(err, left)
}

// bubble runs body in a bubble. A goroutine that outlives the bubble makes
// synctest.Test panic. bubble returns an error instead, so that the other checks run.
func bubble(t *testing.T, body func(*testing.T)) (left error) {
	defer func() {
		if p := recover(); p != nil {
			left = fmt.Errorf("goroutines were left behind when the check had ended: %v", p)
		}
	}()
	synctest.Test(t, body)
	return nil
}

// newEnv returns an environment with a new store of the harness.
func (h *Harness) newEnv(ctx context.Context, t *testing.T) *env {
	s := h.New(t)
	e := &env{
		store:        s,
		ttl:          h.TTL,
		quiet:        h.Quiet,
		many:         h.Many,
		seed:         h.Seed,
		atomic:       h.NotAtomic == "",
		silenceBound: h.SilenceBound,
		cause:        h.Cause,
		interrupt:    func() { h.Interrupt(t, s) },
		silence:      func() func() { return h.Silence(t, s) },
		down:         func() func() { return h.Down(t, s) },
		deny:         func() func() { return h.Deny(t, s) },
		calls:        func() int { return h.Calls(s) },
		malformed:    func(service, id string) string { return h.Malformed(t, s, service, id) },
		beyond:       func(service, id string) string { return h.Beyond(t, s, service, id) },
		reported:     func() []naming.MalformedError { return h.Reported(s) },
		withhold: func(service, id string, reason naming.Reason) func() {
			return h.Withhold(t, s, service, id, reason)
		},
		lose:      func(l naming.Lease) { h.Lose(t, s, l) },
		maxTTL:    h.MaxTTL,
		listCalls: h.ListCalls,
		has:       h.hooks(),
	}
	if h.Bubble && e.many == 0 {
		e.many = 10_000
	}
	e.init(ctx)
	return e
}

// Options configures [Check]. Zero fields mean defaults.
type Options struct {
	// Prefix is the beginning of the names of the services that the checks use. The
	// default is "conformance-". Random letters follow it, so that several runs at
	// once use different services.
	Prefix string

	// TTL, MaxTTL, Quiet, Many, Seed and NotAtomic are as in [Harness].
	TTL       time.Duration
	MaxTTL    time.Duration
	Quiet     time.Duration
	Many      int
	Seed      uint64
	NotAtomic string
}

// Result is the result of one check.
type Result struct {
	// Name is the name of the check. Rule is the rule of the contract that it tests.
	Name, Rule string
	// Skipped is the reason why the check did not run. It is empty if it ran.
	Skipped string
	// Err is what the check found. It is nil if the store passed.
	Err error
	// Left is why the check could not remove everything that it put, so that some may be
	// left. It is nil if nothing is left. Err wraps Left.
	Left error
}

// Check runs the checks one after the other against a live registry, and yields the
// result of each.
//
// The registry may have other content and other users: the checks use services with
// random names, and remove everything that they put, also when ctx is done or the
// caller leaves the loop. After the end of ctx a write that has begun goes on to its end, so
// that it is removed too. Checks that need a field of a [Harness] are skipped, and the
// result says so. Nil options mean defaults.
func Check(ctx context.Context, store naming.Store, o *Options) iter.Seq[Result] {
	var own Options
	if o != nil {
		own = *o
	}
	if own.Prefix == "" {
		own.Prefix = "conformance-"
	}
	return func(yield func(Result) bool) {
		for _, c := range checks {
			if !yield(own.runCheck(ctx, store, c)) {
				return
			}
		}
	}
}

// runCheck runs one check against a store that is older than the check.
func (o *Options) runCheck(ctx context.Context, store naming.Store, c check) Result {
	r := Result{Name: c.name, Rule: c.rule}
	if missing := c.missing(nil); len(missing) > 0 {
		r.Skipped = "needs a harness with " + strings.Join(missing, " and ")
		return r
	}
	if err := ctx.Err(); err != nil {
		r.Skipped = err.Error()
		return r
	}
	e := &env{
		store:  store,
		prefix: fmt.Sprintf("%s%08x-", o.Prefix, rand.Uint32()),
		ttl:    o.TTL,
		maxTTL: o.MaxTTL,
		quiet:  o.Quiet,
		many:   o.Many,
		seed:   o.Seed,
		atomic: o.NotAtomic == "",
	}
	e.init(ctx)
	r.Err = e.run(c)
	e.cancel()
	if isSkip(r.Err) {
		r.Skipped, r.Err = r.Err.Error(), nil
	}
	if r.Left = e.cleanUp(context.WithoutCancel(ctx)); r.Left != nil {
		r.Err = errors.Join(r.Err, fmt.Errorf("clean up: %w", r.Left))
	}
	return r
}

// skipError is returned by a check for which the registry lacks something.
type skipError struct{ lacks string }

func (s *skipError) Error() string { return s.lacks }

// skip returns the error that skips a check. The text says what the registry lacks.
func skip(format string, args ...any) error { return &skipError{fmt.Sprintf(format, args...)} }

func isSkip(err error) bool {
	_, ok := errors.AsType[*skipError](err)
	return ok
}

// check is a rule, and a function that finds whether a store breaks it.
type check struct {
	name, rule string
	needs      []string // fields of the harness
	run        func(*env) error
}

// missing returns the hooks that the check needs and the harness does not have.
func (c *check) missing(hooks map[string]bool) []string {
	return slices.DeleteFunc(slices.Clone(c.needs), func(hook string) bool { return hooks[hook] })
}

// failure returns the text of a failed subtest.
func (c *check) failure(err error) string {
	return fmt.Sprintf("%v\nthe rule: %s", err, c.rule)
}
