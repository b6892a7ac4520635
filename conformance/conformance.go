// Package conformance holds implementations of [naming.Store] to the contract.
//
// The author of a backend writes one test, which says how to make a store and,
// as far as the backend allows it, how to disturb one:
//
//	func TestConformance(t *testing.T) {
//		conformance.Run(t, conformance.Harness{
//			New:       func(t *testing.T) naming.Store { return newStore(t) },
//			Interrupt: func(t *testing.T, s naming.Store) { cutConnections(t, s) },
//			Calls:     func(s naming.Store) int { return requests(s) },
//		})
//	}
//
// Each check is a subtest, and its failure carries the text of the rule that
// was broken. A check that needs something the [Harness] cannot do is skipped
// and says what is missing; a check never skips itself for any other reason.
//
// Package fault has a proxy that cuts, silences and stops the link to a registry.
//
// [Check] runs the same checks against a live registry without package testing.
//
// A check is no proof. It does not fail a store that keeps the contract, and it
// may miss a fault that shows only sometimes. What is known to be caught is in
// this package's own test, which runs every check against stores that are wrong
// on purpose.
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

// A Harness tells the suite how to make and disturb the stores of a backend.
// Only New is required: a field that is zero means that the backend cannot, and
// the checks that need it are skipped.
//
// The functions are called with the store that New returned, and may be called
// while it is in use.
type Harness struct {
	// New returns a store that shares no services with any other. It is called
	// once for each check, and registers its cleanup with t. The suite finds the
	// goroutines that a store leaves behind if New, the store, or a goroutine of
	// theirs started them. It does not find those of a client that New shares
	// between stores.
	New func(t *testing.T) naming.Store

	// Interrupt is a fault that the store does not ride out: it ends every
	// watch and every list of services of s that is being ranged over, as a
	// failure of the backend would. It cuts the connections, compacts the
	// history, expires the session or restarts the server; a store that goes
	// on after a cut connection without a loss needs one of the others. It
	// lasts until every watch has met it: a watch that asks now and then must
	// not find it over. The registry keeps its content, and answers again soon.
	// A check calls it again while a watch has not ended.
	Interrupt func(t *testing.T, s naming.Store)

	// Silence makes the link of s, or the server, accept everything and say
	// nothing until heal is called. Leases expire meanwhile. SilenceBound is
	// how long the backend documents that a watch bears it.
	Silence      func(t *testing.T, s naming.Store) (heal func())
	SilenceBound time.Duration

	// Down makes the registry unavailable to s, watches that run included,
	// until up is called: no call succeeds meanwhile. It keeps its content and
	// its leases, which expire as they would. Some checks leave it down for
	// more than twice TTL.
	Down func(t *testing.T, s naming.Store) (up func())

	// Deny makes the registry refuse the credentials of s until allow is
	// called, at least to read and to write endpoints.
	Deny func(t *testing.T, s naming.Store) (allow func())

	// Cause reports whether err wraps an error of the registry's client
	// library, as errors.As finds it. It is asked of the errors under Deny.
	Cause func(err error) bool

	// Calls returns how many requests s has made of the registry so far.
	Calls func(s naming.Store) int

	// Malformed writes an entry that cannot be understood behind the back of
	// s, in the place of the endpoint id of a service, and returns the key
	// under which it is to be reported. Reported returns what the function in
	// the backend's options was told so far. The suite uses both or neither.
	Malformed func(t *testing.T, s naming.Store, service, id string) (key string)
	Reported  func(s naming.Store) []naming.MalformedError

	// Beyond is as Malformed, with an entry of the backend's own form that
	// exceeds a limit of package naming, such as metadata nested deeper than
	// [naming.MaxDepth]. It is used with Reported.
	Beyond func(t *testing.T, s naming.Store, service, id string) (key string)

	// Withhold makes the registry say, behind the back of s, that the endpoint
	// id of a service is not to be used, until undo is called. A nil undo means
	// that the registry does not know this reason.
	Withhold func(t *testing.T, s naming.Store, service, id string, reason naming.Reason) (undo func())

	// Lose makes the registry forget a lease and remove what it holds, behind
	// the back of s: another client revokes it, expires the session, removes
	// the checks. The lease holds endpoints when Lose is called.
	Lose func(t *testing.T, s naming.Store, lease naming.Lease)

	// NotAtomic is for a backend whose documentation says that Apply is not
	// atomic, and holds what it says. The suite then requires that the changes
	// of one Apply are seen in their order, and accepts that they are not seen
	// together.
	NotAtomic string

	// Bubble reports that the stores do no I/O. Each check then runs in a
	// testing/synctest bubble: it takes no time, and it sees every goroutine
	// that a store leaves behind. A store that hangs fails its check, unless it
	// waits for a mutex or spins: a bubble's time does not pass then, and only
	// the timeout of go test ends it.
	Bubble bool

	// TTL is the shortest time to live that the backend accepts; 0 means 1s.
	TTL time.Duration

	// MaxTTL is the longest time to live that the registry knows, to which
	// Grant rounds a longer one down; 0 means that none is too long. The suite
	// renews leases that it needs for longer. Quiet must be shorter.
	MaxTTL time.Duration

	// ListCalls returns how many requests it takes to read a set of n
	// endpoints once, as the backend documents; nil means one, whatever n.
	ListCalls func(n int) int

	// Quiet is how long nothing must happen before the suite believes that it
	// never will; 0 means 1s. Outside a bubble, the suite waits that long some
	// twenty times.
	Quiet time.Duration

	// Many is how many endpoints a large service has; 0 means 10,000 in a
	// bubble and 1,000 elsewhere.
	Many int

	// Seed makes the checks that use random numbers repeat what they did; the
	// failures of those tell it. 0 means a new one.
	Seed uint64
}

// Run runs every check, as a subtest of t, against stores of h.
func Run(t *testing.T, h Harness) {
	if h.NotAtomic != "" {
		t.Logf("Apply is not atomic, as the backend documents: %s", h.NotAtomic)
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			if missing := c.missing(h.hooks()); len(missing) > 0 {
				t.Skipf("not checked: the harness has no %s", strings.Join(missing, " and no "))
			}
			if err := h.run(t, c); err != nil {
				t.Error(c.failure(err))
			}
		})
	}
}

// hooks are the optional things that a check can need.
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
			e := h.env(ctx, t)
			e.scope = scope
			defer e.cancel()
			err = e.run(c)
		})
	}
	if !h.Bubble {
		body(t)
		return err
	}
	// A goroutine that outlives the bubble makes Test panic, which would take
	// the other checks along.
	left := func() (left error) {
		defer func() {
			if p := recover(); p != nil {
				left = fmt.Errorf("goroutines were left behind when the check had ended: %v", p)
			}
		}()
		synctest.Test(t, body)
		return nil
	}()
	return errors.Join(err, left)
}

// env binds the harness to a new store.
func (h *Harness) env(ctx context.Context, t *testing.T) *env {
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

// Options are the options of [Check]. Zero fields mean defaults.
type Options struct {
	// Prefix is what the names of the services begin with that the checks use;
	// the default is "conformance-". Random letters follow it, so that several
	// runs at once do not meet.
	Prefix string

	// TTL, MaxTTL, Quiet, Many, Seed and NotAtomic are as in [Harness].
	TTL       time.Duration
	MaxTTL    time.Duration
	Quiet     time.Duration
	Many      int
	Seed      uint64
	NotAtomic string
}

// Result is what became of one check.
type Result struct {
	// Name and Rule tell the check, and what it holds a store to.
	Name, Rule string
	// Skipped says why the check was not run; it is empty if it was.
	Skipped string
	// Err is nil if the store passed.
	Err error
}

// Check runs the checks one after the other against a live registry, and yields
// the result of each. The registry need not be empty, and others may use it
// meanwhile: the checks use services with random names, and remove everything
// they put, also when ctx is done. What needs a [Harness] is not checked, and
// the result says so. Nil options mean defaults.
func Check(ctx context.Context, store naming.Store, o *Options) iter.Seq[Result] {
	if o == nil {
		o = new(Options)
	}
	prefix := o.Prefix
	if prefix == "" {
		prefix = "conformance-"
	}
	return func(yield func(Result) bool) {
		for _, c := range checks {
			r := Result{Name: c.name, Rule: c.rule}
			if missing := c.missing(nil); len(missing) > 0 {
				r.Skipped = "needs a harness with " + strings.Join(missing, " and ")
			} else if err := ctx.Err(); err != nil {
				r.Skipped = err.Error()
			} else {
				e := &env{
					store:  store,
					prefix: fmt.Sprintf("%s%08x-", prefix, rand.Uint32()),
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
				if err := e.cleanUp(context.WithoutCancel(ctx)); err != nil {
					r.Err = errors.Join(r.Err, fmt.Errorf("clean up: %w", err))
				}
			}
			if !yield(r) {
				return
			}
		}
	}
}

// check is one check: a rule, and what finds that a store breaks it.
type check struct {
	name, rule string
	needs      []string // hooks of the harness
	run        func(*env) error
}

// missing returns the hooks that the check needs and that are not there.
func (c *check) missing(hooks map[string]bool) []string {
	return slices.DeleteFunc(slices.Clone(c.needs), func(hook string) bool { return hooks[hook] })
}

func (c *check) failure(err error) string {
	return fmt.Sprintf("%v\nthe rule: %s", err, c.rule)
}
