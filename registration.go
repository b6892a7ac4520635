package naming

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// RegisterOptions are the options of [Client.Register]. The zero value, and a
// nil pointer, mean the defaults. Register copies them and returns [ErrInvalid]
// for a value out of its range.
type RegisterOptions struct {
	// TTL is the time to live of the endpoint's lease. The endpoint stays listed
	// for that long after the process died or lost the registry. The registry may
	// round it. The lease is renewed three times in each TTL. 0 means 15 seconds.
	// The range is one second to a day.
	//
	// A shorter TTL removes a dead server sooner. It costs more renewals, and an
	// outage that is longer than two thirds of it may end the lease.
	TTL time.Duration

	// Wait makes Register wait until the endpoint is in the registry.
	Wait bool

	// DrainDelay is how long Close leaves the endpoint listed as draining before it
	// removes it. The server must serve for that long: it is the time in which
	// every client hears of the mark. 0 means one second, and the most is an hour.
	// With a negative value Close removes the endpoint at once, without the mark.
	//
	// A longer DrainDelay suits slow watches and long caches. It makes every stop
	// take longer by as much.
	DrainDelay time.Duration

	// CloseTimeout bounds Close. 0 and negative values mean DrainDelay and five
	// seconds, and the most is two hours. Close reserves five seconds of it for the
	// removal, or half of it if that is less. It waits for clients only as long as
	// the rest allows.
	CloseTimeout time.Duration

	// OnChange, if not nil, is called with the new status whenever it changed while
	// the endpoint is kept registered; Close ends that, and what Close then changes
	// is in Status only. There is one call at a time, from the goroutine that keeps
	// the endpoint registered, and without a lock held. OnChange must not block,
	// nor call methods of the Registration but Status and Ready.
	OnChange func(RegistrationStatus)
}

const (
	defaultTTL        = 15 * time.Second
	minTTL            = time.Second
	maxTTL            = 24 * time.Hour
	defaultDrainDelay = time.Second
	maxDrainDelay     = time.Hour
	closeMargin       = 5 * time.Second
	maxCloseTimeout   = 2 * time.Hour
)

// refusedInterval is how long content that the store refused with ErrInvalid
// is left alone, unless it is changed. What makes a store refuse it may pass,
// such as a datacenter that does not exist yet, but seldom does.
const refusedInterval = 10 * time.Minute

// Registration keeps an endpoint in the registry until it is closed, whatever
// happens to the registry meanwhile: a lost or revoked lease, an endpoint that
// somebody deleted, a registry that was wiped, refused the credentials, or was
// down for hours, all end in the endpoint being there again. How it stands is
// seen in Status. All methods may be called concurrently. A nil context means
// [context.Background].
//
// An entry with the address of the endpoint that is under no lease, as an operator
// leaves it who edits it by hand, is no successor's: it is put under the lease again
// with the content that is wanted, and Close removes it. One with another address, or
// under another's lease, is left alone. An endpoint that the registry has and says not
// to use (see [Withheld]) is left alone as well: it is renewed, changed by Update and
// removed by Close as any other.
//
// What the store refuses with [ErrInvalid] is not tried again, as it can never
// work: see Update, Drain and [RegistrationStatus].
//
// Of several Registrations of one Client with the same service and ID the
// newest owns the entry. The older ones leave the entry alone while the newest is
// open: their Status has the error [ErrReplaced], their Update, Drain and Resume
// return it, and their Close returns nil at once. When the newest is closed, the next newest one
// that is open puts its endpoint again.
//
// Registrations of one Client with equal time to live share leases, up to a
// hundred endpoints each.
type Registration struct {
	// Set by Register and never changed.
	client   *Client
	service  string
	id, addr string // of the endpoint
	opts     RegisterOptions
	claim    *claim
	cancel   context.CancelFunc // ends run
	done     chan struct{}      // closed when run has ended
	wake     chan struct{}      // capacity 1: holds a token when run has something to look at
	closing  chan struct{}      // closed when Close has begun
	closed   chan struct{}      // closed when Close has ended

	err error // of Close; written before closed is closed, and read after it

	// Owned by run, and by Close after run has ended.
	lease *sharedLease       // nil: none
	own   *cursor            // where run hears of its own endpoint
	told  RegistrationStatus // that OnChange was called with last

	intent // what is wanted, and how it stands
}

// intent is what a Registration is asked to have in the registry, and how far
// that was done.
type intent struct {
	mu      sync.Mutex
	state   RegistrationStatus
	want    Endpoint  // what is to be in the registry
	version int       // counts the changes of want
	applied int       // the version that is in the registry; 0: none
	taken   *Endpoint // what the store took last; nil: nothing yet
	marked  bool      // the mark in want is of Drain or Close, and not of Register
	refused error     // why the store will not take want, or the change before it; nil: not refused
	final   bool      // want itself was refused, and is not tried again
	calls   []*call

	everRegistered bool // state.Registered was true before
	mayBeListed    bool // an Apply may have put the endpoint
}

// call is a method that waits until a version of the content is in the registry.
type call struct {
	version int
	mark    bool       // asks for the mark of Drain, and fails if only that is refused
	done    chan error // capacity 1
}

// RegistrationStatus is how a [Registration] stands.
type RegistrationStatus struct {
	// Registered says that the endpoint is in the registry, as far as is
	// known: it was put there, and its lease was renewed in time.
	Registered bool
	// Since is when Registered last changed, or when Register was called.
	Since time.Time
	// Err is why the endpoint is not registered, or its newest state is not;
	// nil if all is well or nothing was tried yet. Its text is safe to log
	// (see [SafeError]). An error that is [ErrInvalid] is the store's refusal:
	// what it refused is not tried again until Update, Drain or Resume changes
	// it, or ten minutes have passed. If Registered is true, the refused change
	// was undone and the registry has the content of before. [ErrReplaced]
	// means that a newer Registration has the entry.
	Err error
	// Attempts counts the failed attempts since the last that succeeded.
	Attempts int
	// Withheld says that the registry has the endpoint and says not to use it,
	// and why: an operator's maintenance mode, or a check. It is left alone,
	// and Registered stays as it is. Nil while the endpoint may be used. It is
	// shared and must not be modified.
	Withheld *Withheld
	// Draining says that the endpoint is marked as draining, or is to be.
	Draining bool
	// Closed says that Close was called.
	Closed bool
}

// Register announces an endpoint of a service and keeps it announced until the
// Registration is closed. It replaces an endpoint with the same ID, such as one
// that an earlier process left behind. An endpoint with Draining set is announced
// as if Drain had been called first.
//
// What can never work is an error at once, and is [ErrInvalid]: an address that
// [CheckAddress] refuses, metadata that is not JSON, a time to live out of
// range. A registry that is down is not an error: Register returns at once, and
// the endpoint is announced when the registry is back. With the Wait option it
// waits for that, until ctx is done or the store refuses the endpoint with
// ErrInvalid; it then returns an error, and nothing is left registered. ctx has
// no effect on the Registration afterwards.
func (c *Client) Register(ctx context.Context, service string, e Endpoint, opts *RegisterOptions) (*Registration, error) {
	if err := c.check(service); err != nil {
		return nil, fmt.Errorf("naming: register in %q: %w", cut(service), err)
	}
	var o RegisterOptions
	if opts != nil {
		o = *opts
	}
	if err := o.setDefaults(); err != nil {
		return nil, fmt.Errorf("naming: register in %q: %w", service, err)
	}
	if err := CheckAddress(e.Addr); err != nil {
		return nil, fmt.Errorf("naming: register in %q: %w", service, err)
	}
	changes, err := Normalize(service, []Change{{Endpoint: e}})
	if err != nil {
		return nil, fmt.Errorf("naming: register: %w", err)
	}
	e = changes[0].Endpoint

	runCtx, cancel := context.WithCancel(c.ctx)
	g := &Registration{
		client: c, service: service, id: e.ID, addr: e.Addr, opts: o, cancel: cancel,
		done:    make(chan struct{}),
		closing: make(chan struct{}),
		closed:  make(chan struct{}),
		wake:    make(chan struct{}, 1),
		intent: intent{
			state:   RegistrationStatus{Since: time.Now(), Draining: e.Draining},
			want:    e,
			version: 1,
		},
	}
	// Before the first put, so that no deletion after it is missed.
	g.own, err = c.newCursor(service, g.poke)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("naming: register in %q: %w", service, err)
	}
	if !c.enroll(g) {
		cancel()
		g.own.close()
		return nil, fmt.Errorf("naming: register in %q: %w", service, ErrClientClosed)
	}
	go g.run(runCtx)
	if o.Wait {
		if err := g.Wait(ctx); err != nil {
			// What went wrong is of more interest than what Close says.
			_ = g.close(closeMargin/5, 0)
			return nil, fmt.Errorf("naming: register %q in %q: %w", cut(e.ID), service, err)
		}
	}
	return g, nil
}

// setDefaults checks the options and puts the defaults in. A DrainDelay of 0
// means from then on that clients are not waited for.
func (o *RegisterOptions) setDefaults() error {
	if o.TTL == 0 {
		o.TTL = defaultTTL
	}
	if o.TTL < minTTL || o.TTL > maxTTL {
		return fmt.Errorf("%w: time to live %v is not between %v and %v", ErrInvalid, o.TTL, minTTL, maxTTL)
	}
	if o.DrainDelay > maxDrainDelay {
		return fmt.Errorf("%w: drain delay %v is more than %v", ErrInvalid, o.DrainDelay, maxDrainDelay)
	}
	if o.CloseTimeout > maxCloseTimeout {
		return fmt.Errorf("%w: close timeout %v is more than %v", ErrInvalid, o.CloseTimeout, maxCloseTimeout)
	}
	if o.DrainDelay == 0 {
		o.DrainDelay = defaultDrainDelay
	}
	o.DrainDelay = max(o.DrainDelay, 0)
	if o.CloseTimeout <= 0 {
		o.CloseTimeout = o.DrainDelay + closeMargin
	}
	return nil
}

// Ready returns nil if the endpoint is in the registry and clients may use it, and
// otherwise an error that says why not: the endpoint is not registered (the error
// wraps that of [RegistrationStatus]), it is draining, it is withheld, or the
// Registration was closed. It asks the registry nothing, and is what a readiness
// probe wants to know; package serve has a handler for one.
func (g *Registration) Ready() error {
	st := g.Status()
	var why error
	switch {
	case st.Closed:
		why = g.closedErr()
	case !st.Registered && st.Err != nil:
		why = fmt.Errorf("not registered: %w", st.Err)
	case !st.Registered:
		why = errNotYet
	case st.Draining:
		why = errDraining
	case st.Withheld != nil:
		why = fmt.Errorf("withheld by the registry because of %v", st.Withheld.Reason)
	default:
		return nil
	}
	return fmt.Errorf("naming: endpoint %q of %q is not ready: %w", cut(g.id), g.service, why)
}

var (
	errNotYet   = errors.New("not registered yet")
	errDraining = errors.New("draining")
)

// MarshalJSON returns the state as a JSON object with a member for each field. Err
// is its text or null, Since is in the form of RFC 3339, and the Reason of Withheld
// is its text.
func (s RegistrationStatus) MarshalJSON() ([]byte, error) {
	type withheld struct {
		ID, Addr       string
		Reason, Detail string
	}
	var out struct {
		Registered bool
		Since      time.Time
		Err        *string
		Attempts   int
		Withheld   *withheld
		Draining   bool
		Closed     bool
	}
	out.Registered, out.Since, out.Attempts, out.Draining, out.Closed = s.Registered, s.Since, s.Attempts, s.Draining, s.Closed
	if s.Err != nil {
		text := SafeText(s.Err.Error())
		out.Err = &text
	}
	if w := s.Withheld; w != nil {
		out.Withheld = &withheld{w.Endpoint.ID, w.Endpoint.Addr, w.Reason.String(), w.Detail}
	}
	return json.Marshal(out)
}

// Status returns how the registration stands.
func (g *Registration) Status() RegistrationStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state
}

// Wait waits until the endpoint is in the registry with its present content, and
// returns nil, or until ctx is done: the error then wraps ctx.Err() and what went
// wrong last. It returns [ErrInvalid] at once if the store refuses the endpoint.
// While a newer Registration has the entry, Wait waits for that one. After Close it
// fails with [ErrClientClosed] if the Client was closed, and otherwise with an
// error that says so.
func (g *Registration) Wait(ctx context.Context) error {
	ctx = orBackground(ctx)
	for {
		err := g.await(ctx, g.ask(false, false, nil))
		newer := g.claim.newest()
		if !errors.Is(err, ErrReplaced) || newer == nil {
			return err
		}
		err = newer.await(ctx, newer.ask(false, false, nil))
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrInvalid) {
			return err
		}
		if errors.Is(err, ErrReplaced) {
			continue
		}
		select { // the newer one closes, and then another has the entry
		case <-g.claim.lost(newer):
		case <-g.closing:
		case <-ctx.Done():
		}
	}
}

// Update replaces the endpoint's metadata, in place: clients that are connected
// stay so. It waits as Wait does; if it fails because ctx is done, the metadata
// is stored later all the same. Metadata that is not JSON is [ErrInvalid]. So is
// metadata that the store refuses: Update then returns the store's error at once,
// and the endpoint keeps the metadata of before.
func (g *Registration) Update(ctx context.Context, metadata json.RawMessage) error {
	e, err := Endpoint{ID: g.id, Addr: g.addr, Metadata: metadata}.normalize()
	if err != nil {
		return fmt.Errorf("naming: update in %q: %w: %w", g.service, ErrInvalid, err)
	}
	return g.change(ctx, "update", false, func(want *Endpoint) { want.Metadata = e.Metadata })
}

// Drain marks the endpoint as draining (see [Endpoint.Draining]), so that clients
// turn to others while there are any. It waits as Update does. If the registry's
// format has no place for the mark, or the store's options turn it off, Drain
// returns the store's [ErrInvalid] at once, and the endpoint and Status stay as
// they were.
func (g *Registration) Drain(ctx context.Context) error {
	return g.change(ctx, "drain", true, func(want *Endpoint) { want.Draining = true })
}

// Resume takes the mark of Drain away. It waits as Update does.
func (g *Registration) Resume(ctx context.Context) error {
	return g.change(ctx, "resume", false, func(want *Endpoint) { want.Draining = false })
}

// change changes what is to be in the registry, and waits until it is there.
func (g *Registration) change(ctx context.Context, what string, mark bool, f func(want *Endpoint)) error {
	if err := g.await(ctx, g.ask(mark, false, f)); err != nil {
		return fmt.Errorf("naming: %s %q in %q: %w", what, cut(g.id), g.service, err)
	}
	return nil
}

// ask changes what is to be in the registry, if f is not nil, and returns a call
// that is done when the result is there. last says that Close asks. f runs with
// g.mu held.
func (g *Registration) ask(mark, last bool, f func(want *Endpoint)) *call {
	c := &call{mark: mark, done: make(chan error, 1)}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state.Closed && !last {
		c.done <- g.closedErr()
		return c
	}
	if !g.claim.isOwner(g) { // or giveWay settles the call
		c.done <- ErrReplaced
		return c
	}
	if f != nil {
		want := g.want
		f(&want)
		if !want.Equal(g.want) {
			g.marked = want.Draining && (mark || g.marked)
			g.refused = nil
			g.setWant(want)
			g.poke()
		}
	}
	c.version = g.version
	switch {
	case g.final:
		c.done <- g.refused
	case g.state.Registered && g.applied == g.version:
		c.done <- nil
	default:
		g.calls = append(g.calls, c)
	}
	return c
}

// setWant makes want what is to be in the registry. g.mu is held.
func (i *intent) setWant(want Endpoint) {
	i.want = want
	i.state.Draining = want.Draining
	i.version++
	i.final = false
}

// await waits for a call. What is asked for stays asked for if ctx is done first.
func (g *Registration) await(ctx context.Context, c *call) error {
	ctx = orBackground(ctx)
	select {
	case err := <-c.done: // also if ctx is done or the Registration closed
		return err
	default:
	}
	defer g.forget(c)
	select {
	case err := <-c.done:
		return err
	case <-g.closing:
		return g.closedErr()
	case <-g.done:
		return g.closedErr()
	case <-ctx.Done():
		if err := g.Status().Err; err != nil {
			return fmt.Errorf("%w; the last attempt failed: %w", ctx.Err(), err)
		}
		return ctx.Err()
	}
}

func (g *Registration) forget(c *call) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls = slices.DeleteFunc(g.calls, func(other *call) bool { return other == c })
}

// settle ends the calls for which is returns true. g.mu is held.
func (i *intent) settle(err error, is func(*call) bool) {
	i.calls = slices.DeleteFunc(i.calls, func(c *call) bool {
		ended := is(c)
		if ended {
			c.done <- err
		}
		return ended
	})
}

func (g *Registration) closedErr() error {
	if g.client.ctx.Err() != nil {
		return ErrClientClosed
	}
	return errRegistrationClosed
}

var errRegistrationClosed = errors.New("naming: registration closed")

func (g *Registration) poke() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// keeper is what run knows of the put that succeeded last.
type keeper struct {
	put     Endpoint
	ended   time.Time // when the put had ended; zero: there was none
	shown   bool      // the watch has shown the endpoint since
	listed  bool      // the put was noted: the endpoint is known to be in the registry
	before  *Endpoint // what the watch had shown when the put began
	seen    *Endpoint // what the watch had shown when the put had ended, or was looked at since
	confirm *time.Timer
}

// run keeps the endpoint in the registry until ctx is done.
func (g *Registration) run(ctx context.Context) {
	defer close(g.done)
	var b backoff
	deletions := backoff{most: maxReturn}
	k := &keeper{confirm: time.NewTimer(0)}
	k.confirm.Stop()
	defer k.confirm.Stop()
	gentle := false // leave the entry to another that has it
	for missing := true; ; {
		if want, version, fresh := g.wanted(); missing || !fresh {
			// What is there before the first put is a predecessor's. What is
			// there when ours was lost is a successor's.
			before := g.own.shared.has(g.id).endpoint
			if err := g.put(ctx, want, gentle); err != nil {
				if ctx.Err() != nil {
					return
				}
				switch {
				case errors.Is(err, ErrReplaced):
					missing, gentle = true, true
					if !g.giveWay(ctx) {
						return
					}
					continue
				case errors.Is(err, ErrInvalid):
					switch g.refuse(version, want, err) {
					case undone:
						continue
					case final:
						g.dropLease(ctx)
						if !g.restRefused(ctx) {
							return
						}
						continue
					}
				}
				lost, overdue := g.leaseEnded()
				missing = missing || lost
				g.note(err, missing || overdue)
				if errors.Is(err, ErrPermission) {
					g.giveUpMark(err)
				}
				delay := b.delay()
				if errors.Is(err, ErrLeaseLost) {
					delay = min(delay, maxLostRest)
				}
				if !g.rest(ctx, delay) {
					return
				}
				continue
			}
			if !k.ended.IsZero() && time.Since(k.ended) >= healthyAfter {
				b.reset()
				deletions.reset()
			}
			g.lease.setOverdue(nil) // it took the endpoint, so it lives
			g.accept(version, want)
			k.noteEnd(want, before, g.own.shared.has(g.id).endpoint)
			// A put that was to leave the entry to others may have done nothing.
			// What it left may be an entry that is about to end, such as our own
			// of before, so the watch has to show the endpoint first.
			k.listed = !missing || !gentle
			missing, gentle = false, true
			if k.listed {
				g.note(nil, false)
			}
			g.dropInherited(ctx)
		}
		lost := g.look(ctx, k)
		if lost == nil {
			changed, overdue := g.lease.state()
			if k.listed && (overdue == nil) != g.Status().Registered {
				g.note(overdue, true)
			}
			select {
			case <-ctx.Done():
				return
			case <-changed:
			case <-g.lease.gone:
				g.leaseEnded()
				lost = ErrLeaseLost
			case <-g.wake:
				if !g.claim.isOwner(g) {
					missing = true
					if !g.giveWay(ctx) {
						return
					}
				}
				continue
			case <-k.confirm.C:
				lost = g.check(ctx, k)
			}
		}
		if lost != nil {
			missing = true
			g.note(lost, lost != errUnleased)
			// Everybody may have lost theirs in this moment. That somebody deletes
			// the endpoint again and again does not mean an overload.
			var delay time.Duration
			if lost == ErrLeaseLost {
				delay = min(b.delay(), maxLostRest)
			} else {
				delay = deletions.delay()
			}
			if !g.rest(ctx, delay) {
				return
			}
		}
	}
}

// errUnleased is the error of a Registration whose entry is under no lease.
var errUnleased = errors.New("the entry is under no lease, as if somebody had put it by hand: it is put under the lease again")

// noteEnd notes that a put has ended, and what the watch had shown when it began and
// when it had ended.
func (k *keeper) noteEnd(put Endpoint, before, seen *Endpoint) {
	k.put, k.ended, k.shown, k.before, k.seen = put, time.Now(), false, before, seen
	k.confirm.Reset(confirmAfter)
}

// look looks at what the watch shows of the endpoint, after a put. It returns why
// the endpoint has to be put again, nil if it has not.
func (g *Registration) look(ctx context.Context, k *keeper) error {
	p := g.own.shared.has(g.id)
	// A set that is stale is as old as its watch, which may be new enough.
	newer := p.begun.After(k.ended)
	if !p.known && !newer {
		return nil
	}
	if !p.there {
		g.noteWithheld(nil)
		if k.shown || newer {
			return ErrDeleted
		}
		// The watch began before the put had ended and has not shown it yet:
		// check asks when it had time enough.
		return nil
	}
	g.noteWithheld(p.withheld)
	same := p.endpoint == k.seen
	k.seen = p.endpoint
	unleased := g.unleased(p.endpoint)
	if newer || !unleased && (!same || p.endpoint.Equal(k.put)) {
		k.shown = true
	}
	if !k.listed {
		k.listed = true
		g.note(nil, false)
	}
	// The put replaced the entry that the watch showed before the put began. If the
	// same entry was put by hand once more since, check finds it. An entry that the watch
	// has shown since may still be older than the put: then a second put does no harm.
	if unleased && (newer || p.endpoint != k.before) {
		return errUnleased
	}
	return nil
}

// unleased reports whether e is our entry without its lease.
func (g *Registration) unleased(e *Endpoint) bool { return e.Unleased && e.Addr == g.addr }

// check is called when the watch had time to show a put. If it has not, because it
// does not run, or began before the put had ended, the registry is asked: a read
// that began after the put is proof. It returns why the endpoint has to be put again.
func (g *Registration) check(ctx context.Context, k *keeper) error {
	if k.shown {
		return nil
	}
	k.confirm.Reset(jitter(confirmAfter))
	p := g.own.shared.has(g.id)
	if !p.known {
		if !k.listed { // the call succeeded, and nobody says more
			k.listed = true
			g.note(nil, false)
		}
		return nil
	}
	call, cancel := context.WithTimeout(ctx, callTimeout(g.opts.TTL))
	defer cancel()
	b, err := g.client.list(call, g.service)
	if err != nil {
		return nil
	}
	e := b.find(g.id)
	switch {
	case e == nil:
		return ErrDeleted
	case g.unleased(e):
		return errUnleased
	case p.there && e.Equal(*p.endpoint):
		k.shown = true // the watch agrees with a read after the put
	}
	return nil
}

// noteWithheld notes that the registry says that the endpoint is not to be used, or
// not any longer if w is nil.
func (g *Registration) noteWithheld(w *Withheld) {
	g.mu.Lock()
	was := g.state.Withheld
	if sameWithheld(was, w) {
		g.mu.Unlock()
		return
	}
	g.state.Withheld = w
	g.mu.Unlock()
	// The watch has logged it: two lines would say the same.
	g.client.log.Debug("naming: endpoint left alone by its registration", slog.String("service", g.service), slog.String("endpoint", g.id), slog.Bool("withheld", w != nil))
	g.tell()
}

// rest waits for d, or less if a newer Registration has the entry. It reports
// false if ctx is done.
func (g *Registration) rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return true
		case <-ctx.Done():
			return false
		case <-g.wake:
			if !g.claim.isOwner(g) {
				return true
			}
		}
	}
}

// restRefused waits until what the store refused is worth another try: it was
// changed, or a long time has passed. It reports false if ctx is done.
func (g *Registration) restRefused(ctx context.Context) bool {
	t := time.NewTimer(jitter(refusedInterval))
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return true
		case <-ctx.Done():
			return false
		case <-g.wake:
			g.mu.Lock()
			changed := !g.final
			g.mu.Unlock()
			if changed || !g.claim.isOwner(g) {
				return true
			}
		}
	}
}

// giveWay notes that a newer Registration has the entry, and waits until this one
// has it again. It reports false if ctx is done. The lease is kept: the entry is
// under it until the newer one has put its own.
func (g *Registration) giveWay(ctx context.Context) bool {
	g.mu.Lock()
	g.settle(ErrReplaced, func(*call) bool { return true })
	g.mu.Unlock()
	g.note(ErrReplaced, true)
	for !g.claim.isOwner(g) {
		select {
		case <-ctx.Done():
			return false
		case <-g.wake:
		}
	}
	return true
}

// leaseEnded reports whether the endpoint's lease has ended, and then gives it up;
// or, failing that, whether it can be assumed to have ended.
func (g *Registration) leaseEnded() (lost, overdue bool) {
	if g.lease == nil {
		return true, false
	}
	select {
	case <-g.lease.gone:
		g.lease.leave()
		g.lease = nil
		return true, false
	default:
	}
	_, err := g.lease.state()
	return false, err != nil
}

// giveUpMark ends the wait of Close for its mark, which the registry does not let
// this user make.
func (g *Registration) giveUpMark(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state.Closed {
		g.settle(err, func(c *call) bool { return c.mark })
	}
}

// dropLease gives up the lease. If an earlier put that failed may have stored the
// endpoint after all, the lease removes it.
func (g *Registration) dropLease(ctx context.Context) {
	l := g.lease
	g.lease = nil
	if l == nil {
		return
	}
	g.mu.Lock()
	listed := g.mayBeListed
	g.mu.Unlock()
	if listed {
		l.orphan(g.service, g.id)
	}
	if l.leave() {
		_ = l.revoke(ctx)
	}
}

// dropInherited gives up the leases of older Registrations, now that the entry is
// under the own one.
func (g *Registration) dropInherited(ctx context.Context) {
	for _, l := range g.claim.takeLeft(g) {
		if l.leave() {
			_ = l.revoke(ctx)
		}
	}
}

// maxLostRest bounds how long a registration rests after the registry has said that
// its lease is lost. The registry has answered, so it is not spared by a long rest;
// the bound leaves room for many registrations that lost theirs in one moment.
const maxLostRest = 5 * time.Second

// maxReturn bounds how long an endpoint that was deleted stays away, but for the
// time that the put takes.
const maxReturn = time.Second

// confirmAfter is how long the watch may take to show a put.
const confirmAfter = 5 * time.Second

// wanted returns what is to be in the registry, and whether it was put.
func (g *Registration) wanted() (want Endpoint, version int, fresh bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.want, g.version, g.applied == g.version
}

// accept notes that the registry has a version of the content.
func (g *Registration) accept(version int, put Endpoint) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.applied, g.taken = version, &put
	if g.final {
		g.final, g.refused = false, nil
	}
}

// What becomes of content that the store refused.
type verdict int

const (
	// ordinary means that the store took the same content before: it is tried
	// again as after any other error.
	ordinary verdict = iota
	// undone means that there is something else to put: the change that was
	// refused is undone, or was replaced by another already.
	undone
	// final means that there is nothing to put.
	final
)

// refuse notes that the store will never take a version of the content, and
// decides what becomes of it.
func (g *Registration) refuse(version int, put Endpoint, err error) verdict {
	v, content := g.undo(version, put, err)
	log, id := g.client.log, slog.String("endpoint", g.id)
	switch {
	case v == final:
		g.note(err, true)
	case v == undone && content:
		log.Warn("naming: change refused, the endpoint stays as it was", slog.String("service", g.service), id, slog.Any("err", err))
	case v == undone:
		log.Debug("naming: draining mark refused", slog.String("service", g.service), id, slog.Any("err", err))
	}
	if v == undone && content {
		g.tell()
	}
	// Last, so that who waited for the change finds that all were told of it.
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case v == undone && content, v == final:
		g.settle(err, func(*call) bool { return true })
	case v == undone:
		g.settle(err, func(c *call) bool { return c.mark && c.version <= version })
	}
	return v
}

// undo undoes the change that was refused, if there is something before it. content
// says that it was more than the mark of Drain.
func (g *Registration) undo(version int, put Endpoint, err error) (v verdict, content bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	want := put
	switch {
	case g.version != version:
		return undone, false // the newest change is tried at once
	case put.Draining && g.marked && (g.taken == nil || !g.taken.Draining):
		want.Draining = false
	case g.taken == nil:
		g.refused, g.final = err, true
		return final, true
	case put.Equal(*g.taken):
		return ordinary, false
	default:
		want, content = *g.taken, true
		g.refused = err
		g.state.Err = err
	}
	fresh := g.taken != nil && want.Equal(*g.taken)
	g.marked = g.marked && want.Draining
	g.setWant(want)
	if fresh {
		g.applied = g.version
	}
	return undone, content
}

// put puts the endpoint under a lease, which it takes if need be. If gentle it
// leaves the endpoint to another that has it.
func (g *Registration) put(ctx context.Context, want Endpoint, gentle bool) error {
	if g.lease == nil {
		l := g.client.leases.take(g.opts.TTL)
		select {
		case <-l.ready:
		case <-ctx.Done():
			l.leave()
			return ctx.Err()
		}
		if l.err != nil {
			l.leave()
			return l.err
		}
		g.lease = l
	}
	call, cancel := context.WithTimeout(ctx, callTimeout(g.opts.TTL))
	defer cancel()
	err := g.apply(call, g.lease, Change{Endpoint: want, Lease: g.lease.lease, IfFree: gentle, Reclaim: gentle && g.mayReclaim()})
	if errors.Is(err, ErrLeaseLost) {
		g.lease.lost()
		g.lease.leave()
		g.lease = nil
	}
	return err
}

// mayReclaim reports whether an entry that is under no lease is ours: the watch shows
// our address, or shows nothing. One with another address was put there on purpose.
func (g *Registration) mayReclaim() bool {
	p := g.own.shared.has(g.id)
	return !p.there || p.endpoint.Addr == g.addr
}

// apply makes a change to the entry under lease l, unless a newer Registration has
// the entry: then it returns ErrReplaced. Of the Registrations of one entry only
// one is in the store at a time, so that what an older one began is over before a
// newer one puts its own.
func (g *Registration) apply(ctx context.Context, l *sharedLease, c Change) error {
	select {
	case g.claim.busy <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-g.claim.busy }()
	if !g.claim.isOwner(g) {
		return ErrReplaced
	}
	if c.Op == Add {
		if !l.adopt(ctx, g.service, g.id) {
			return ctx.Err()
		}
		g.mu.Lock()
		before := g.mayBeListed
		g.mayBeListed = true
		g.mu.Unlock()
		err := g.client.answered(g.client.store.Apply(ctx, g.service, c))
		if err != nil && errors.Is(err, ErrInvalid) && !before {
			g.mu.Lock()
			g.mayBeListed = false // nothing was stored
			g.mu.Unlock()
		}
		return SafeError(err)
	}
	return SafeError(g.client.answered(g.client.store.Apply(ctx, g.service, c)))
}

// note notes what is known now: an error, and whether it means that the endpoint
// is not in the registry; or, without an error, that it is there.
func (g *Registration) note(err error, gone bool) {
	g.mu.Lock()
	was := g.state
	s := &g.state
	s.Err = err
	if err == nil {
		s.Err = g.refused
	}
	switch {
	case err == nil:
		s.Registered, s.Attempts = true, 0
	case gone && s.Registered:
		s.Registered = false
	case err != ErrReplaced:
		s.Attempts++
	}
	if s.Registered != was.Registered {
		s.Since = time.Now()
	}
	again := g.everRegistered
	g.everRegistered = g.everRegistered || s.Registered
	state, e, refused := *s, g.want, g.final
	g.mu.Unlock()

	log, hooks := g.client.log, &g.client.hooks
	attrs := []any{slog.String("service", g.service), slog.String("endpoint", e.ID), slog.Any("err", err)}
	switch {
	case state.Registered && !was.Registered:
		if again {
			log.Info("naming: registered again", append(attrs[:2], slog.Duration("after", state.Since.Sub(was.Since)))...)
		} else if was.Err != nil {
			log.Info("naming: registered", attrs[:2]...)
		}
		if hooks.Registered != nil {
			hooks.Registered(RegisteredInfo{Service: g.service, Endpoint: e, Again: again})
		}
	case err == ErrReplaced:
		log.Warn("naming: registered once more in this process, the newer registration has the entry", attrs[:2]...)
		if was.Registered && hooks.Lost != nil {
			hooks.Lost(LostInfo{Service: g.service, Endpoint: e, Err: err})
		}
	case !state.Registered && was.Registered:
		log.Warn("naming: registration lost, will be made again", attrs...)
		if hooks.Lost != nil {
			hooks.Lost(LostInfo{Service: g.service, Endpoint: e, Err: err})
		}
	case err != nil:
		level, what := slog.LevelDebug, "naming: registration failed, will be tried again"
		if was.Err == nil || refused && !errors.Is(was.Err, ErrInvalid) {
			level = slog.LevelWarn
		}
		if refused {
			what = "naming: registration refused, will not be tried again soon"
		}
		log.Log(context.Background(), level, what, attrs...)
		if hooks.RegisterFailed != nil {
			hooks.RegisterFailed(RegisterFailedInfo{Service: g.service, Endpoint: e, Err: err})
		}
	}
	g.tell()
	// Last, so that who waited for the change finds that all were told of it.
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state.Registered {
		g.settle(nil, func(c *call) bool { return c.version <= g.applied })
	}
}

// tell calls OnChange if the state is another than it was called with last.
func (g *Registration) tell() {
	now, was := g.Status(), g.told
	g.told = now
	if g.opts.OnChange != nil && (now.Err != nil || was.Err != nil || now.Registered != was.Registered || now.Draining != was.Draining || now.Withheld != was.Withheld) {
		g.opts.OnChange(now)
	}
}

// Close withdraws the endpoint in the order that drops no call: it marks the
// endpoint as draining, waits for the drain delay, and removes it, if it
// is still the one that was put here and not a successor's. The server should
// serve until Close has returned, and then stop gracefully.
//
// If the registry's format has no place for the mark, or if clients are not waited
// for, Close removes the endpoint without marking it, and waits afterwards. Close
// returns nil at once if the endpoint was never put, or if a newer Registration
// has the entry.
//
// Close needs no context and returns within CloseTimeout also while the
// registry is down, then with an error: the endpoint is removed when the
// registry is back, or else stays listed until its lease ends. It may be called
// more than once; every call waits, and returns the same.
func (g *Registration) Close() error {
	return g.close(g.opts.CloseTimeout, g.opts.DrainDelay)
}

// close is Close with other limits than those of the options.
func (g *Registration) close(timeout, drainDelay time.Duration) error {
	g.mu.Lock()
	first := !g.state.Closed
	g.state.Closed = true
	g.mu.Unlock()
	if !first {
		<-g.closed // not a sync.Once, which would stop the time of a synctest bubble
		return g.err
	}
	close(g.closing)
	defer close(g.closed)
	defer g.client.discharge(g)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	drainDelay = min(drainDelay, timeout-min(closeMargin, timeout/2))
	err := g.leave(ctx, drainDelay, (timeout-drainDelay)/2)
	if errors.Is(err, ErrReplaced) {
		g.client.wg.Go(g.bequeath)
		return nil
	}
	g.err = err
	if g.err != nil {
		g.client.log.Warn("naming: endpoint not withdrawn, its lease will end", slog.String("service", g.service), slog.String("endpoint", g.id), slog.Any("err", g.err))
	}
	if f := g.client.hooks.Withdrawn; f != nil {
		g.mu.Lock()
		e := g.want
		g.mu.Unlock()
		f(WithdrawnInfo{Service: g.service, Endpoint: e, Err: g.err})
	}
	return g.err
}

// leave marks the endpoint, waits, and removes it. It returns ErrReplaced as soon
// as a newer Registration has the entry.
func (g *Registration) leave(ctx context.Context, drainDelay, patience time.Duration) error {
	if !g.claim.isOwner(g) {
		return ErrReplaced
	}
	marked := drainDelay > 0 && g.mark(ctx, patience)
	if marked && !g.linger(ctx, drainDelay) {
		return ErrReplaced
	}
	g.stop(ctx)
	g.mu.Lock()
	listed := g.mayBeListed
	g.mu.Unlock()
	if err := g.withdraw(ctx); err != nil {
		return err
	}
	if listed && !marked && drainDelay > 0 {
		// Clients were told nothing before, so they are given the time now.
		sleep(ctx, drainDelay)
	}
	return nil
}

// mark marks the endpoint as draining, and reports whether it did within d. An
// endpoint that was never put has no one to tell.
func (g *Registration) mark(ctx context.Context, d time.Duration) bool {
	g.mu.Lock()
	listed := g.mayBeListed
	g.mu.Unlock()
	if !listed {
		return false
	}
	c := g.ask(true, true, func(want *Endpoint) { want.Draining = true })
	defer g.forget(c)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case err := <-c.done:
		return err == nil
	case <-t.C:
	case <-g.done:
	case <-ctx.Done():
	}
	return false
}

// linger waits for d, and reports false as soon as a newer Registration has the
// entry.
func (g *Registration) linger(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-g.claim.lost(g):
		return false
	}
	return true
}

// stop ends run. What run has begun in the store is given a little time to end by
// itself: a call that is given up may take effect later.
func (g *Registration) stop(ctx context.Context) {
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	select {
	case g.claim.busy <- struct{}{}:
		g.cancel()
		<-g.claim.busy
	case <-short.Done():
		g.cancel()
	}
	<-g.done
	g.own.close()
}

// withdraw removes the endpoint from the registry after run has ended.
func (g *Registration) withdraw(ctx context.Context) error {
	var failed error
	var leases []*sharedLease
	if g.lease != nil {
		leases = append(leases, g.lease)
		g.lease = nil
	}
	for {
		leases = append(leases, g.claim.takeLeft(g)...)
		for len(leases) > 0 {
			err := g.remove(ctx, leases[0])
			if errors.Is(err, ErrReplaced) {
				if g.claim.bequeath(g, leases...) {
					return ErrReplaced
				}
				continue // the newer one has closed meanwhile
			}
			failed = cmp.Or(failed, err)
			leases = leases[1:]
		}
		if g.claim.leave(g) {
			break
		}
	}
	g.mu.Lock()
	if g.state.Registered {
		g.state.Registered = false
		g.state.Since = time.Now()
	}
	g.mu.Unlock()
	return failed
}

// remove removes the endpoint if it is under a lease, and leaves that.
func (g *Registration) remove(ctx context.Context, l *sharedLease) error {
	var b backoff
	var err error
	for {
		call, cancel := context.WithTimeout(ctx, callTimeout(g.opts.TTL))
		err = g.apply(call, l, Change{Op: Delete, Endpoint: Endpoint{ID: g.id, Addr: g.addr}, Lease: l.lease, Reclaim: g.mayReclaim()})
		cancel()
		if errors.Is(err, ErrReplaced) {
			return err
		}
		if err == nil || errors.Is(err, ErrPermission) || !sleep(ctx, b.delay()) {
			break
		}
	}
	if err != nil {
		l.orphan(g.service, g.id)
	}
	if last := l.leave(); last && (err == nil || errors.Is(err, ErrPermission)) {
		// Nothing else hangs on the lease. Its end removes the endpoint as well,
		// and takes fewer rights: a conditional removal reads. If nothing is left,
		// it may fail, since the lease ends by itself.
		if l.revoke(ctx) == nil {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("naming: withdraw %q from %q: stays listed for up to %v: %w", cut(g.id), g.service, l.granted, err)
	}
	return nil
}

// bequeath ends a Registration that was closed while a newer one had the entry.
// Its lease is left to the newer one, which gives it up when the entry is no longer
// under it. If there is no newer one by then, the entry is withdrawn.
func (g *Registration) bequeath() {
	ctx, cancel := context.WithTimeout(context.Background(), g.opts.CloseTimeout)
	defer cancel()
	g.stop(ctx)
	if g.lease != nil && g.claim.bequeath(g, g.lease) {
		g.lease = nil
		return
	}
	if err := g.withdraw(ctx); err != nil && !errors.Is(err, ErrReplaced) {
		g.client.log.Warn("naming: endpoint not withdrawn, its lease will end", slog.String("service", g.service), slog.String("endpoint", g.id), slog.Any("err", err))
	}
}
