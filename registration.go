package naming

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// RegisterOptions are the options of [Registry.Register]. The zero value, and a
// nil pointer, mean the defaults.
type RegisterOptions struct {
	// TTL is how long the endpoint stays listed after the process died, or
	// lost the registry; the registry may round it. It is renewed three times
	// as often. 0 means 15 seconds; less than a second and more than a day are
	// ErrInvalid.
	TTL time.Duration

	// Wait makes Register wait until the endpoint is in the registry.
	Wait bool

	// Propagation is how long Close leaves the endpoint listed as draining
	// before it removes it, and how long the server must go on serving: the
	// time in which every client hears of it. 0 means one second; a negative
	// value means that clients are not waited for.
	Propagation time.Duration

	// CloseTimeout bounds Close. 0 means five seconds more than Propagation.
	CloseTimeout time.Duration

	// OnChange, if not nil, is called with the new state whenever it changed:
	// one call at a time, from the goroutine that keeps the endpoint
	// registered. It must not block, nor call methods of the Registration but
	// State.
	OnChange func(RegistrationState)
}

const (
	defaultTTL         = 15 * time.Second
	minTTL             = time.Second
	maxTTL             = 24 * time.Hour
	defaultPropagation = time.Second
	closeMargin        = 5 * time.Second
)

// Registration keeps an endpoint in the registry until it is closed, whatever
// happens to the registry meanwhile: a lost or revoked lease, an endpoint that
// somebody deleted, a registry that was wiped, refused the credentials, or was
// down for hours, all end in the endpoint being there again. How it stands is
// seen in State. All methods may be called concurrently.
//
// Registrations of one Registry with equal time to live share leases, up to a
// hundred endpoints each.
type Registration struct {
	registry *Registry
	service  string
	opts     RegisterOptions
	endpoint Endpoint // without the mark of Drain

	cancel context.CancelFunc // ends run
	done   chan struct{}      // closed when run has ended
	wake   chan struct{}      // capacity 1: holds a token when run has something to look at
	closed chan struct{}      // closed when Close has ended
	err    error              // of Close; set before closed is closed

	// Of run, and of Close after run has ended.
	lease *sharedLease // nil: none
	own   *cursor      // where run hears of its own endpoint

	mu      sync.Mutex
	state   RegistrationState
	news    chan struct{} // closed, and replaced, when state changes
	want    Endpoint      // what is to be in the registry
	wanted  int           // counts the changes of want
	applied int           // the value of wanted that is in the registry

	registered bool // state.Registered was true before
}

// RegistrationState is how a [Registration] stands.
type RegistrationState struct {
	// Registered says that the endpoint is in the registry, as far as is
	// known: it was put there, and its lease was renewed in time.
	Registered bool
	// Since is when Registered last changed, or when Register was called.
	Since time.Time
	// Err is why the endpoint is not registered, or its newest state is not;
	// nil if all is well or nothing was tried yet.
	Err error
	// Attempts counts the failed attempts since the last that succeeded.
	Attempts int
	// Draining says that the endpoint is marked as draining, or is to be.
	Draining bool
	// Closed says that Close was called.
	Closed bool
}

// Register announces an endpoint of a service and keeps it announced until the
// Registration is closed. It replaces an endpoint with the same ID, such as one
// that an earlier process left behind.
//
// What can never work is an error at once, and is [ErrInvalid]: an address that
// [CheckAddress] refuses, metadata that is not JSON, a time to live out of
// range. A registry that is down is none: Register returns at once, and the
// endpoint is announced when the registry is back. With the Wait option it
// waits for that, until ctx is done; it then returns an error, and nothing is
// left registered. ctx has no effect on the Registration afterwards.
func (r *Registry) Register(ctx context.Context, service string, e Endpoint, opts *RegisterOptions) (*Registration, error) {
	if err := r.check(service); err != nil {
		return nil, fmt.Errorf("naming: register in %q: %w", service, err)
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

	runCtx, cancel := context.WithCancel(r.ctx)
	g := &Registration{
		registry: r, service: service, opts: o, endpoint: e, cancel: cancel,
		done:   make(chan struct{}),
		closed: make(chan struct{}),
		wake:   make(chan struct{}, 1),
		news:   make(chan struct{}),
		state:  RegistrationState{Since: time.Now()},
		want:   e,
		wanted: 1,
	}
	// Before the first put, so that no deletion after it is missed.
	g.own, err = r.newCursor(service, g.poke)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("naming: register in %q: %w", service, err)
	}
	if !r.enroll(g) {
		cancel()
		g.own.close()
		return nil, fmt.Errorf("naming: register in %q: %w", service, ErrRegistryClosed)
	}
	go g.run(runCtx)
	if o.Wait {
		if err := g.Wait(ctx); err != nil {
			g.opts.CloseTimeout, g.opts.Propagation = closeMargin/5, 0
			_ = g.Close() // what the call did before is of more interest
			return nil, fmt.Errorf("naming: register %q in %q: %w", e.ID, service, err)
		}
	}
	return g, nil
}

func (o *RegisterOptions) setDefaults() error {
	if o.TTL == 0 {
		o.TTL = defaultTTL
	}
	if o.TTL < minTTL || o.TTL > maxTTL {
		return fmt.Errorf("%w: time to live %v is not between %v and %v", ErrInvalid, o.TTL, minTTL, maxTTL)
	}
	if o.Propagation == 0 {
		o.Propagation = defaultPropagation
	}
	o.Propagation = max(o.Propagation, 0)
	if o.CloseTimeout <= 0 {
		o.CloseTimeout = o.Propagation + closeMargin
	}
	return nil
}

// CheckAddress returns an error that is [ErrInvalid] and names the value if
// addr is not an address at which clients on other machines can reach a server:
// "host:port" or "[v6]:port" with a host that is not a wildcard and a numeric
// port that is not 0, or "unix:" and a path.
func CheckAddress(addr string) error {
	bad := func(why string) error {
		return fmt.Errorf("%w: address %q: %s", ErrInvalid, addr, why)
	}
	for _, scheme := range []string{"unix:", "unix-abstract:"} {
		if path, ok := strings.CutPrefix(addr, scheme); ok {
			if strings.Trim(path, "/") == "" {
				return bad("no path")
			}
			return nil
		}
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return bad("not host:port")
	}
	if host == "" {
		return bad("no host: clients cannot dial the wildcard address a server listens on")
	}
	if strings.ContainsAny(host, " /\t\r\n") {
		return bad("not a host name")
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		return bad("clients cannot dial the wildcard address a server listens on")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return bad("the port is not a number from 1 to 65535")
	}
	return nil
}

// State returns how the registration stands.
func (g *Registration) State() RegistrationState {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state
}

// Wait waits until the endpoint is in the registry in its newest state, and
// returns nil, or until ctx is done: the error then wraps ctx.Err() and what
// went wrong last. After Close it fails with [ErrRegistryClosed] if the
// Registry was closed, and otherwise with an error that says so.
func (g *Registration) Wait(ctx context.Context) error {
	for {
		g.mu.Lock()
		state, news, applied := g.state, g.news, g.applied == g.wanted
		g.mu.Unlock()
		switch {
		case state.Closed:
			return g.closedErr()
		case state.Registered && applied:
			return nil
		}
		select {
		case <-news:
		case <-g.done:
			return g.closedErr()
		case <-ctx.Done():
			if state.Err != nil {
				return fmt.Errorf("%w; the last attempt failed: %w", ctx.Err(), state.Err)
			}
			return ctx.Err()
		}
	}
}

func (g *Registration) closedErr() error {
	if g.registry.ctx.Err() != nil {
		return ErrRegistryClosed
	}
	return errRegistrationClosed
}

var errRegistrationClosed = errors.New("naming: registration closed")

// Update replaces the endpoint's metadata, in place: clients that are connected
// stay so. It waits as Wait does; if it fails because ctx is done, the metadata
// is stored later all the same. Metadata that is not JSON is [ErrInvalid].
func (g *Registration) Update(ctx context.Context, metadata json.RawMessage) error {
	e, err := Endpoint{ID: g.endpoint.ID, Addr: g.endpoint.Addr, Metadata: metadata}.normalize()
	if err != nil {
		return fmt.Errorf("naming: update in %q: %w: %w", g.service, ErrInvalid, err)
	}
	g.change(func() { g.endpoint.Metadata = e.Metadata })
	return g.wait(ctx, "update")
}

// Drain marks the endpoint as draining, so that clients turn to others while
// there are any, and Resume takes the mark away. The mark is a member of the
// metadata; metadata that is neither an object nor null has no place for it,
// and is left as it is. Both wait as Update does.
func (g *Registration) Drain(ctx context.Context) error {
	g.change(func() { g.state.Draining = true })
	return g.wait(ctx, "drain")
}

// Resume ends what Drain began.
func (g *Registration) Resume(ctx context.Context) error {
	g.change(func() { g.state.Draining = false })
	return g.wait(ctx, "resume")
}

// change changes what is to be in the registry. f is called with g.mu held.
func (g *Registration) change(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
	want := g.endpoint
	if g.state.Draining {
		want.Metadata = markDraining(want.Metadata)
	}
	if !want.Equal(g.want) {
		g.want = want
		g.wanted++
		g.poke()
	}
}

func (g *Registration) wait(ctx context.Context, what string) error {
	if err := g.Wait(ctx); err != nil {
		return fmt.Errorf("naming: %s %q in %q: %w", what, g.endpoint.ID, g.service, err)
	}
	return nil
}

// markDraining returns metadata with the member "draining", if it can have one.
func markDraining(m json.RawMessage) json.RawMessage {
	if isNull(m) {
		return json.RawMessage(`{"draining":true}`)
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(m, &members) != nil {
		return m
	}
	members["draining"] = json.RawMessage("true")
	marked, err := json.Marshal(members)
	if err != nil {
		return m
	}
	return marked
}

func (g *Registration) poke() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// run keeps the endpoint in the registry until ctx is done.
func (g *Registration) run(ctx context.Context) {
	defer close(g.done)
	var b backoff
	var putAt time.Time // of the last put that succeeded
	confirm := time.NewTimer(0)
	defer confirm.Stop()
	for missing := true; ; {
		if missing || !g.upToDate() {
			_ = g.deleted() // what was deleted before this is no news after it
			// What is there before the first put is a predecessor's. What is
			// there when ours was lost is a successor's.
			if err := g.put(ctx, !putAt.IsZero()); err != nil {
				if ctx.Err() != nil {
					return
				}
				lost, overdue := g.leaseEnded()
				missing = missing || lost
				g.note(err, missing || overdue)
				if !sleep(ctx, b.delay()) {
					return
				}
				continue
			}
			if !putAt.IsZero() && time.Since(putAt) >= healthyAfter {
				b.reset()
			}
			missing, putAt = false, time.Now()
			confirm.Reset(confirmAfter)
			g.lease.setOverdue(nil) // it took the endpoint, so it lives
			g.note(nil, false)
		}
		changed, overdue := g.lease.state()
		if (overdue == nil) != g.State().Registered {
			g.note(overdue, true)
		}
		var lost error
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-g.lease.gone:
			g.leaseEnded()
			lost = ErrLeaseLost
		case <-g.wake:
			if g.deleted() {
				lost = ErrDeleted
			}
		case <-confirm.C:
			// A put that the watch has not told of by now was undone before
			// the watch began. Later deletions it tells of as they happen.
			switch there, known := g.own.shared.has(g.endpoint.ID); {
			case !known:
				confirm.Reset(confirmAfter)
			case !there:
				lost = ErrDeleted
			}
		}
		if lost != nil {
			missing = true
			g.note(lost, true)
			// Everybody may have lost theirs in this moment.
			if !sleep(ctx, b.delay()) {
				return
			}
		}
	}
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

// confirmAfter is how long the watch may take to tell of a put.
const confirmAfter = 5 * time.Second

// upToDate reports whether the newest state was put.
func (g *Registration) upToDate() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.applied == g.wanted
}

// put puts the endpoint under a lease, which it takes if need be. If gentle it
// leaves the endpoint to another that has it.
func (g *Registration) put(ctx context.Context, gentle bool) error {
	if g.lease == nil {
		l := g.registry.leases.take(g.opts.TTL)
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
	g.mu.Lock()
	want, wanted := g.want, g.wanted
	g.mu.Unlock()
	call, cancel := context.WithTimeout(ctx, callTimeout(g.opts.TTL))
	defer cancel()
	if !g.lease.adopt(call, g.service, g.endpoint.ID) {
		return call.Err()
	}
	err := g.registry.store.Apply(call, g.service, Change{Endpoint: want, Lease: g.lease.lease, IfFree: gentle})
	if err != nil {
		if errors.Is(err, ErrLeaseLost) {
			g.lease.lost()
			g.lease.leave()
			g.lease = nil
		}
		return err
	}
	g.mu.Lock()
	g.applied = wanted
	g.mu.Unlock()
	return nil
}

// deleted reports whether the watch told of the endpoint's deletion since it was
// last asked. A first set without the endpoint does not count: it may be older
// than the put.
func (g *Registration) deleted() bool {
	news, _ := g.own.read()
	for _, c := range news.changes {
		if c.id() == g.endpoint.ID {
			return c.new == nil
		}
	}
	return false
}

// note notes what is known now: an error, and whether it means that the endpoint
// is not in the registry; or, without an error, that it is there.
func (g *Registration) note(err error, gone bool) {
	g.mu.Lock()
	was := g.state
	s := &g.state
	s.Err = err
	switch {
	case err == nil:
		s.Registered, s.Attempts = true, 0
	case gone && s.Registered:
		s.Registered = false
	default:
		s.Attempts++
	}
	if s.Registered != was.Registered {
		s.Since = time.Now()
	}
	again := g.registered
	g.registered = g.registered || s.Registered
	state, e := *s, g.want
	g.mu.Unlock()

	log, hooks := g.registry.log, &g.registry.hooks
	attrs := []any{slog.String("service", g.service), slog.String("endpoint", e.ID), slog.Any("err", err)}
	switch {
	case state.Registered && !was.Registered:
		if again {
			log.Info("naming: registered again", append(attrs[:2], slog.Duration("after", state.Since.Sub(was.Since)))...)
		}
		if hooks.Registered != nil {
			hooks.Registered(g.service, e, again)
		}
	case !state.Registered && was.Registered:
		log.Warn("naming: registration lost, will be made again", attrs...)
		if hooks.Lost != nil {
			hooks.Lost(g.service, e, err)
		}
	case err != nil:
		level := slog.LevelDebug
		if was.Err == nil {
			level = slog.LevelWarn
		}
		log.Log(context.Background(), level, "naming: registration failed, will be tried again", attrs...)
		if hooks.RegisterFailed != nil {
			hooks.RegisterFailed(g.service, e, err)
		}
	}
	if g.opts.OnChange != nil && (err != nil || was.Err != nil || state.Registered != was.Registered) {
		g.opts.OnChange(state)
	}
	// Last, so that who waited for the change finds that all were told of it.
	g.mu.Lock()
	g.tell()
	g.mu.Unlock()
}

// tell wakes those who wait for the state to change. g.mu is held.
func (g *Registration) tell() {
	close(g.news)
	g.news = make(chan struct{})
}

// Close withdraws the endpoint in the order that drops no call: it marks the
// endpoint as draining, waits for the propagation time, and removes it, if it
// is still the one that was put here and not a successor's. The server should
// serve until Close has returned, and then stop gracefully.
//
// Close needs no context and returns within CloseTimeout also while the
// registry is down, then with an error: the endpoint is removed when the
// registry is back, or else stays listed until its lease ends. It may be called
// more than once; every call waits, and returns the same.
func (g *Registration) Close() error {
	g.mu.Lock()
	first := !g.state.Closed
	g.state.Closed = true
	g.tell()
	g.mu.Unlock()
	if !first {
		<-g.closed // not a sync.Once, which would stop the time of a synctest bubble
		return g.err
	}
	defer close(g.closed)
	defer g.registry.discharge(g)
	ctx, cancel := context.WithTimeout(context.Background(), g.opts.CloseTimeout)
	defer cancel()
	marked := g.mark(ctx)
	if marked {
		sleep(ctx, g.opts.Propagation)
	}
	g.err = g.withdraw(ctx)
	if g.err == nil && !marked {
		// Clients were told nothing before, so they are given the time now.
		sleep(ctx, g.opts.Propagation)
	}
	if g.err != nil {
		g.registry.log.Warn("naming: endpoint not withdrawn, its lease will end", slog.String("service", g.service), slog.String("endpoint", g.endpoint.ID), slog.Any("err", g.err))
	}
	if f := g.registry.hooks.Withdrawn; f != nil {
		g.mu.Lock()
		e := g.want
		g.mu.Unlock()
		f(g.service, e, g.err)
	}
	return g.err
}

// mark marks the endpoint as draining, and reports whether it did in time.
func (g *Registration) mark(ctx context.Context) bool {
	g.change(func() { g.state.Draining = true })
	g.mu.Lock()
	markable := Endpoint{Metadata: g.want.Metadata}.Info().Draining
	g.mu.Unlock()
	if !markable {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, (g.opts.CloseTimeout-g.opts.Propagation)/2)
	defer cancel()
	for {
		g.mu.Lock()
		marked, registered, news := g.applied == g.wanted, g.state.Registered, g.news
		g.mu.Unlock()
		if marked && registered {
			return true
		}
		select {
		case <-news:
		case <-g.done:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// withdraw ends run and removes the endpoint.
func (g *Registration) withdraw(ctx context.Context) error {
	g.cancel()
	<-g.done
	g.own.close()
	l := g.lease
	if l == nil {
		return nil // nothing was put, or what was is gone with its lease
	}
	g.lease = nil
	var b backoff
	var err error
	for {
		call, cancel := context.WithTimeout(ctx, callTimeout(g.opts.TTL))
		err = g.registry.store.Apply(call, g.service, Change{Op: Delete, Endpoint: Endpoint{ID: g.endpoint.ID, Addr: g.endpoint.Addr}, Lease: l.lease})
		cancel()
		if err == nil || !sleep(ctx, b.delay()) {
			break
		}
	}
	if err != nil {
		l.orphan(g.service, g.endpoint.ID)
	}
	if l.leave() && err == nil {
		// Nothing hangs on it any more: if this fails it ends by itself.
		_ = l.lease.Revoke(ctx)
	}
	g.mu.Lock()
	g.state.Registered = false
	g.state.Since = time.Now()
	g.tell()
	g.mu.Unlock()
	if err != nil {
		return fmt.Errorf("naming: withdraw %q from %q: stays listed for up to %v: %w", g.endpoint.ID, g.service, l.lease.TTL(), err)
	}
	return nil
}
