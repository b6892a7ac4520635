package naming

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// Options are the options of a [Client]. The zero value and a nil pointer mean the
// defaults. Values out of range are not an error: [New] takes the nearest value in
// range. Durations of more than a year mean a year.
type Options struct {
	// Logger receives what an operator wants to know. It gets a warning when a
	// service's endpoints become stale, an info when they are fresh again, and a
	// debug record for each failed attempt in between. A healthy Client logs
	// nothing. Nil means slog.Default().
	Logger *slog.Logger

	// IdleGrace is how long the watch of a service continues after its last reader
	// left. A reader that comes within IdleGrace is answered from memory. A gRPC
	// channel that goes idle, by default after 30 minutes, is such a reader.
	//
	// A longer IdleGrace answers more readers at once. It costs the memory and the
	// traffic of watches that nobody reads. A shorter one frees them sooner, and
	// the next reader waits for a full read. 0 means one hour. A negative value
	// ends the watch with its last reader.
	IdleGrace time.Duration

	// Hooks, if not nil, are called when something happened.
	Hooks *Hooks

	// Hold says what happens when most of a service's endpoints vanish at once.
	Hold Hold

	// ResyncEvery replaces a watch by a new one at this interval, give or take a
	// tenth. The new watch begins with a full read, which repairs what a faulty
	// watch lost without an error.
	//
	// The cost is one full read of every watched service in each interval. A
	// shorter interval repairs sooner and reads more. 0 and negative values turn
	// it off. The shortest interval is one second.
	ResyncEvery time.Duration
}

// The range of durations in options, where they do not say another.
const (
	maxOption      = 365 * 24 * time.Hour
	minResyncEvery = time.Second
)

// withDefaults returns the options with every value in range.
func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.IdleGrace == 0 {
		o.IdleGrace = defaultIdleGrace
	}
	o.IdleGrace = min(o.IdleGrace, maxOption)
	if o.ResyncEvery > 0 {
		o.ResyncEvery = min(max(o.ResyncEvery, minResyncEvery), maxOption)
	}
	o.Hold = o.Hold.withDefaults()
	return o
}

const defaultIdleGrace = time.Hour

// Client finds and announces endpoints of services, on any [Store]. A program has one
// Client for each registry. All readers of a service in one Client share one watch. All
// methods may be called concurrently. A nil context means context.Background().
type Client struct {
	// Set by New and never changed.
	store       Store
	composite   Composite // nil: the Client is on store
	log         *slog.Logger
	hooks       Hooks
	hold        Hold
	idleGrace   time.Duration
	resyncEvery time.Duration

	leases  leases
	retries retries
	claims  claims

	ctx    context.Context // done once the Client is closed
	cancel context.CancelFunc
	wg     sync.WaitGroup // the goroutines of watches, leases and registrations that were bequeathed, and calls of Announce

	compositeClosed chan struct{} // closed when the composite's Close has returned; nil without a composite

	state struct {
		mu            sync.Mutex // also guards shared.usage
		closed        bool
		composite     compositeState
		watches       map[subject]*shared
		ending        map[subject]*shared // dropped, and their goroutines have not ended
		registrations map[*Registration]struct{}
	}
}

// compositeState is how far the Close of a Composite is.
type compositeState int

const (
	compositeOpen compositeState = iota
	compositeClosing
	compositeClosed
)

// subject is a service, or the list of services if the name is empty.
type subject struct{ service string }

func (s subject) attr() slog.Attr {
	if s.service == "" {
		return slog.String("list", "services")
	}
	return slog.String("service", s.service)
}

// New returns a Client on store, which the caller closes. New calls no method of the
// store. The Client does not own the store, which must outlive the Client.
//
// A nil store makes every method fail with [ErrInvalid].
func New(store Store, opts *Options) *Client {
	var o Options
	if opts != nil {
		o = *opts
	}
	o = o.withDefaults()
	c := &Client{
		store: store, log: o.Logger, hold: o.Hold, idleGrace: o.IdleGrace, resyncEvery: o.ResyncEvery,
	}
	c.state.watches = make(map[subject]*shared)
	c.state.ending = make(map[subject]*shared)
	c.state.registrations = make(map[*Registration]struct{})
	if o.Hooks != nil {
		c.hooks = *o.Hooks
	}
	c.leases.client = c
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Hooks returns the hooks of the Client's options. It is meant for packages that extend
// a Client, as package resolver does.
func (c *Client) Hooks() Hooks { return c.hooks }

// Close closes all registrations of the Client, ends its watchers, watches and
// followers, and returns after all of its goroutines have ended. Calls in progress end
// with an error: see [ErrClientClosed]. The registry may still make the changes of a
// call of [Client.Update] that ended so. Endpoints that Update put into the registry
// stay there. Close may be called more than once. It must not be called from a function
// that the Client calls.
func (c *Client) Close() {
	watches, registrations := c.beginClose()
	var wg sync.WaitGroup
	for g := range registrations {
		wg.Go(func() { _ = g.Close() }) // Close logs its error
	}
	wg.Wait()
	c.cancel()
	for _, s := range watches {
		s.closeReaders()
	}
	c.wg.Wait()
	if c.composite != nil {
		c.closeComposite()
	}
}

// closeComposite closes the composite once. A second call waits for the first.
func (c *Client) closeComposite() {
	switch c.beginCloseComposite() {
	case compositeOpen:
		defer c.endCloseComposite()
		c.composite.Close()
	case compositeClosing:
		<-c.compositeClosed // a sync.Once would stop the time of a synctest bubble
	case compositeClosed:
	}
}

// beginCloseComposite returns how far Close is. The caller closes a composite that is open.
func (c *Client) beginCloseComposite() compositeState {
	c.state.mu.Lock()
	defer c.state.mu.Unlock()
	was := c.state.composite
	c.state.composite = max(was, compositeClosing)
	return was
}

func (c *Client) endCloseComposite() {
	c.state.mu.Lock()
	defer c.state.mu.Unlock()
	c.state.composite = compositeClosed
	close(c.compositeClosed)
}

// beginClose makes acquire and enroll fail from now on. It returns the watches and the
// registrations to close.
func (c *Client) beginClose() (watches map[subject]*shared, registrations map[*Registration]struct{}) {
	c.state.mu.Lock()
	defer c.state.mu.Unlock()
	c.state.closed = true
	watches, registrations = c.state.watches, maps.Clone(c.state.registrations)
	c.state.watches = nil
	for _, s := range watches {
		if s.usage.linger != nil {
			s.usage.linger.Stop()
		}
	}
	return watches, registrations
}

// enroll adds a registration that Close has to close. It makes a, unless nil, the owner
// of its entry. After Close has begun it does nothing and reports false. The older
// registrations of the entry, which Close closes, must not leave the entry to a then.
func (c *Client) enroll(g *Registration, a *announcer) bool {
	c.state.mu.Lock()
	defer c.state.mu.Unlock()
	if !c.state.closed {
		c.state.registrations[g] = struct{}{}
		if a != nil {
			c.claims.add(a)
		}
	}
	return !c.state.closed
}

// discharge undoes enroll.
func (c *Client) discharge(g *Registration) {
	c.state.mu.Lock()
	defer c.state.mu.Unlock()
	delete(c.state.registrations, g)
}

// usable returns an error if the Client has no store or was closed.
func (c *Client) usable() error {
	if c.store == nil && c.composite == nil {
		return fmt.Errorf("%w: New was given a nil Store", ErrInvalid)
	}
	if c.isClosed() {
		return ErrClientClosed
	}
	return nil
}

// isClosed reports whether Close has begun.
func (c *Client) isClosed() bool {
	c.state.mu.Lock()
	defer c.state.mu.Unlock()
	return c.state.closed
}

// request calls the registry with a context that is also done when the Client is closed.
// It then returns ErrClientClosed instead of the error of call.
func (c *Client) request(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(c.ctx, func() { cancel(ErrClientClosed) })
	defer stop()
	err := call(ctx)
	if err != nil && context.Cause(ctx) == ErrClientClosed {
		return ErrClientClosed
	}
	return err
}

// check returns an error if the Client is not usable, or service is not a valid name.
func (c *Client) check(service string) error {
	if err := c.usable(); err != nil {
		return err
	}
	return CheckService(service)
}

// View is the endpoints of a service as a reader gets them.
type View struct {
	// Service is the name of the service.
	Service string
	// Endpoints are all endpoints that may be used, sorted by ID. All readers share
	// the slice: it must not be modified.
	Endpoints []Endpoint
	// Withheld are the endpoints that the registry has and says not to use, with the
	// reason, sorted by ID. They are not in Endpoints. All readers share the slice: it
	// must not be modified.
	Withheld []Withheld
	// Status says how far the registry vouches for the endpoints.
	Status
}

// Status says how recent the set of a service's endpoints is, and whether its watch
// works.
type Status struct {
	// Synced says that the registry has answered at least once. While it is false
	// nothing is known, which is not the same as an empty set.
	Synced bool
	// AsOf is when a watch that was not stale last delivered a batch of the service.
	// While the set is not stale, the watch vouches that nothing has changed since.
	// The first snapshot counts in any case.
	AsOf time.Time
	// StaleSince is when the watch first failed, and zero while the set is not stale.
	// A set is stale from the first failure until a watch has proved itself.
	//
	// A snapshot replaces a stale set at once, but does not end staleness: a registry
	// that can be read may still fail every watch. A watch has proved itself one
	// second after its snapshot. Each failed attempt since a watch that lived for 30
	// seconds doubles that time, up to 30 seconds.
	StaleSince time.Time
	// Err is the last failure of the watch, and nil while the set is not stale.
	Err error
	// Held are endpoints that are not in the set, but vanished in a way that looks
	// like a fault of the registry. They are probably alive: see [Hold]. They are in
	// the order in which they vanished, and sorted by ID if they vanished together.
	// All readers share the slice: it must not be modified.
	Held []Endpoint
	// Sides is the status of each registry of a Client on several, as package migrate
	// makes it. It is nil for a Client on one registry. Stale is then about all
	// registries together: the set is fresh while a registry that is used vouches
	// for it. All readers share the slice: it must not be modified.
	Sides []SideStatus
}

// Stale reports whether the watch has failed and no later watch has proved itself: see
// StaleSince.
func (s Status) Stale() bool { return !s.StaleSince.IsZero() }

// Watch yields the state of a service as soon as it is known, and again whenever the
// endpoints changed or became stale or fresh. A slow reader gets the newest state and
// skips the states between. It does not delay other readers.
//
// A failure of the registry makes the [View] stale, and does not end the sequence. The
// sequence ends with an error, and a zero View, when ctx is done (ctx.Err()) or the
// Client was closed ([ErrClientClosed]), and at once if the service name is
// [ErrInvalid]. It holds no resources before it is ranged over and after the loop. It
// may be ranged over more than once.
func (c *Client) Watch(ctx context.Context, service string) iter.Seq2[View, error] {
	return func(yield func(View, error) bool) {
		err := c.views(orBackground(ctx), service, yield)
		if err != nil {
			yield(View{}, fmt.Errorf("naming: watch %q: %w", service, err))
		}
	}
}

// views is Watch with ctx set. It returns nil when yield returned false.
func (c *Client) views(ctx context.Context, service string, yield func(View, error) bool) error {
	if err := c.check(service); err != nil {
		return err
	}
	s, err := c.acquire(subject{service})
	if err != nil {
		return err
	}
	defer c.release(s)
	var view View
	return s.each(ctx,
		func() { view = s.view() },
		func() bool { return yield(view, nil) })
}

// Services yields the sorted names of the services that have endpoints, as soon as they
// are known, and again whenever they changed. The sequence ends as that of Watch does.
// Each slice belongs to the receiver.
func (c *Client) Services(ctx context.Context) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		err := c.names(orBackground(ctx), yield)
		if err != nil {
			yield(nil, fmt.Errorf("naming: services: %w", err))
		}
	}
}

// names is Services with ctx set. It returns nil when yield returned false.
func (c *Client) names(ctx context.Context, yield func([]string, error) bool) error {
	if err := c.usable(); err != nil {
		return err
	}
	s, err := c.acquire(subject{})
	if err != nil {
		return err
	}
	defer c.release(s)
	var order, last []*entry
	return s.each(ctx,
		func() { order = s.ordered() },
		func() bool {
			if last != nil && slices.Equal(order, last) {
				return true // only the status changed
			}
			last = order
			names := make([]string, len(order))
			for i, e := range order {
				names[i] = e.ID
			}
			return yield(names, nil)
		})
}

// List reads the endpoints of a service from the registry, those that may be used and
// those that are withheld, each sorted by ID. The View belongs to the caller. Its Synced
// is true and its AsOf is the present time. With an error nothing is known, and the View
// is zero. Use Watch for an answer while the registry is down.
func (c *Client) List(ctx context.Context, service string) (View, error) {
	if err := c.check(service); err != nil {
		return View{}, err
	}
	var v View
	err := c.request(orBackground(ctx), func(ctx context.Context) (err error) {
		v, err = c.list(ctx, service)
		return err
	})
	if err != nil {
		return View{}, fmt.Errorf("naming: list %q: %w", service, err)
	}
	return v, nil
}

// list reads a service from the store or the composite.
func (c *Client) list(ctx context.Context, service string) (View, error) {
	if c.composite != nil {
		return c.composite.List(ctx, service)
	}
	b, err := c.readSnapshot(ctx, service)
	if err != nil {
		return View{}, err
	}
	c.wakeRetries()
	v := View{Service: service, Endpoints: b.Put, Withheld: b.Withheld, Status: Status{Synced: true, AsOf: time.Now()}}
	if v.Endpoints == nil {
		v.Endpoints = []Endpoint{}
	}
	return v, nil
}

// readSnapshot reads one checked snapshot from the store.
func (c *Client) readSnapshot(ctx context.Context, service string) (Batch, error) {
	for b, err := range c.store.Watch(ctx, service) {
		if err != nil {
			return Batch{}, err
		}
		if !b.Snapshot {
			return Batch{}, errNoSnapshot
		}
		return b, b.check()
	}
	return Batch{}, errSilentEnd
}

// orBackground returns ctx, or context.Background() for nil. A program that has no
// context may pass nil, and a method of a nil context would panic.
func orBackground(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}

// acquire returns the shared watch of a subject, which it starts if need be. The caller
// releases it.
func (c *Client) acquire(sub subject) (*shared, error) {
	c.state.mu.Lock()
	defer c.state.mu.Unlock()
	if c.state.closed {
		return nil, ErrClientClosed
	}
	s := c.state.watches[sub]
	if s == nil {
		s = c.newShared(sub)
		if old := c.state.ending[sub]; old != nil {
			if old.usage.done == nil {
				old.usage.done = make(chan struct{})
			}
			s.after = old.usage.done
		}
		c.state.watches[sub] = s
		c.wg.Go(s.run)
	}
	if s.usage.linger != nil {
		s.usage.linger.Stop()
		s.usage.linger = nil
	}
	s.usage.readers++
	return s, nil
}

// release ends the use of a watch that acquire returned. After the last reader's
// release the watch goes on for IdleGrace.
func (c *Client) release(s *shared) {
	c.state.mu.Lock()
	defer c.state.mu.Unlock()
	s.usage.readers--
	if s.usage.readers > 0 || c.state.closed {
		return
	}
	if c.idleGrace < 0 {
		c.drop(s)
		return
	}
	var t *time.Timer
	t = time.AfterFunc(c.idleGrace, func() {
		c.state.mu.Lock()
		defer c.state.mu.Unlock()
		if s.usage.linger == t { // otherwise a reader came, or the Client was closed, as the timer fired
			c.drop(s)
		}
	})
	s.usage.linger = t
}

// drop ends a watch that has no readers. state.mu is held.
func (c *Client) drop(s *shared) {
	delete(c.state.watches, s.subject)
	c.state.ending[s.subject] = s
	s.cancel()
}
