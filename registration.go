package naming

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	// A shorter TTL removes a dead server sooner. It costs more renewals. An outage of
	// the registry that lasts about half of TTL may end the lease.
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

	// OnChange, if not nil, is called with the new status after each change. During
	// Close it is still called for the draining mark. The removal that follows is in
	// Status only, and OnChange is not called after Close has returned. There is one call
	// at a time, from the goroutine that keeps the endpoint registered, and without a
	// lock held. OnChange must not block. Of the Registration's methods it may call
	// Status and Ready only.
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

// Registration keeps an endpoint in the registry until it is closed. A lease that is
// lost or revoked, an endpoint that somebody deleted, a registry that was wiped,
// refused the credentials or was down for hours: after each of them, the endpoint is
// put again. Status shows the progress. All methods may be called concurrently. A nil
// context means [context.Background].
//
// An operator who edits an entry by hand leaves an entry under no lease. If such an
// entry has the address of the endpoint, the Registration puts it under the lease
// again with the wanted content, and Close removes it. An entry with another address,
// or under another lease, belongs to a successor and stays untouched. An endpoint that
// the registry says not to use (see [Withheld]) is renewed, updated and removed as any
// other. The Registration does not put it again for that reason.
//
// A draining mark that somebody else sets (see [Client.Mark]) stays: the Registration
// keeps it until it is removed from the registry, or until Drain or Resume is called. A
// mark of Drain or Close that somebody else removes is put again.
//
// Content that the store refuses with [ErrInvalid] is not retried, because the same
// call fails again: see Update, Drain and [RegistrationStatus].
//
// Of several Registrations of one Client with the same service and ID, the newest owns
// the entry. While the newest is open, the older ones do not write the entry. Their
// Status has the error [ErrReplaced], their Update, Drain and Resume return
// ErrReplaced, and their Close returns nil at once. When the newest is closed, the next
// newest open one puts its endpoint again.
//
// Registrations of one Client with equal time to live share leases, up to a hundred
// endpoints each.
type Registration struct {
	client      *Client
	service, id string
	part        Announcement // an announcer, or what a Composite returned
}

// RegistrationStatus is the status of a [Registration].
type RegistrationStatus struct {
	// Registered says that the endpoint is in the registry, as far as is known: it
	// was put there, and its lease was renewed in time.
	Registered bool
	// Since is when Registered last changed, or when Register was called.
	Since time.Time
	// Err is why the endpoint is not registered, why its newest content is not in the
	// registry, or that its entry has lost its lease. It is nil before the first attempt,
	// and otherwise if nothing is wrong. Its text is safe to log (see [SafeError]).
	//
	// An Err that is [ErrInvalid] is the store's refusal. The refused content is not
	// tried again until Update, Drain or Resume changes it, or ten minutes have
	// passed. If Registered is true, the refused change was undone and the registry
	// has the content of before. [ErrReplaced] means that a newer Registration has
	// the entry.
	Err error
	// FailedAttempts counts the failed attempts since the last that succeeded.
	FailedAttempts int
	// Withheld says that the registry has the endpoint and says not to use it, and
	// why: an operator's maintenance mode, or a check. Registered does not change. It
	// is nil while the endpoint may be used. It is shared and must not be modified.
	Withheld *Withheld
	// Draining says that the endpoint is marked as draining, or is to be marked.
	Draining bool
	// MarkedByOther says that Draining does not come from this program: somebody else,
	// such as an operator with [Client.Mark], marked the entry in the registry. The
	// Registration keeps the mark at each put, until somebody removes it from the
	// registry, or until the program calls Drain or Resume. A maintenance mode of the
	// registry is in Withheld instead.
	MarkedByOther bool
	// Closed says that Close was called.
	Closed bool
}

// Register announces an endpoint of a service and keeps it announced until the
// Registration is closed. It replaces an endpoint with the same ID, such as one that
// an earlier process left behind. An endpoint with Draining set is announced as if
// Drain had been called first.
//
// The error is [ErrInvalid], at once, for arguments that can never work: an address
// that [CheckAddress] refuses, metadata that is not JSON, a time to live out of range.
// A registry that is down is not an error. Register then returns at once, and the
// endpoint is announced when the registry is back.
//
// With the Wait option Register waits until the endpoint is announced, until ctx is
// done, or until the store refuses the endpoint with ErrInvalid. In the last two cases
// it returns an error, and nothing is left registered. After Register has returned,
// ctx has no effect on the Registration.
func (c *Client) Register(ctx context.Context, service string, e Endpoint, opts *RegisterOptions) (*Registration, error) {
	e, o, err := c.checkRegister(service, e, opts)
	if err != nil {
		return nil, err
	}
	g, err := c.announce(service, e, o)
	if err != nil {
		return nil, fmt.Errorf("naming: register in %q: %w", service, err)
	}
	if o.Wait {
		if err := g.Wait(ctx); err != nil {
			g.abandon()
			return nil, fmt.Errorf("naming: register %q in %q: %w", cut(e.ID), service, err)
		}
	}
	return g, nil
}

// announce starts to announce an endpoint, with checked options.
func (c *Client) announce(service string, e Endpoint, o RegisterOptions) (*Registration, error) {
	g := &Registration{client: c, service: service, id: e.ID}
	if c.composite != nil {
		return c.announceComposite(g, e, o)
	}
	a, err := c.newAnnouncer(service, e, o)
	if err != nil {
		return nil, err
	}
	g.part = a
	if !c.enroll(g, a) {
		a.discard()
		return nil, ErrClientClosed
	}
	a.start()
	return g, nil
}

// announceComposite is announce for a Client on a Composite. Close of the Client waits for
// it before it closes the Composite.
func (c *Client) announceComposite(g *Registration, e Endpoint, o RegisterOptions) (*Registration, error) {
	if !c.beginAnnounce() {
		return nil, ErrClientClosed
	}
	defer c.wg.Done()
	part, err := c.composite.Announce(g.service, e, o)
	if err != nil {
		return nil, err
	}
	g.part = part
	if !c.enroll(g, nil) {
		g.abandon()
		return nil, ErrClientClosed
	}
	return g, nil
}

// beginAnnounce has Close wait until the caller calls wg.Done. After Close has begun it
// does nothing and reports false.
func (c *Client) beginAnnounce() bool {
	c.state.mu.Lock()
	defer c.state.mu.Unlock()
	if c.state.closed {
		return false
	}
	c.wg.Add(1)
	return true
}

// abandon removes what Register may have put. Its caller has an error to return that
// matters more than that of the removal.
func (g *Registration) abandon() {
	ctx, cancel := context.WithTimeout(context.Background(), closeMargin/5)
	defer cancel()
	_ = g.Withdraw(ctx)
}

// checkRegister returns the arguments of Register with the defaults, or ErrInvalid.
func (c *Client) checkRegister(service string, e Endpoint, opts *RegisterOptions) (Endpoint, RegisterOptions, error) {
	var o RegisterOptions
	if err := c.check(service); err != nil {
		return e, o, fmt.Errorf("naming: register in %q: %w", cut(service), err)
	}
	if opts != nil {
		o = *opts
	}
	if err := o.setDefaults(); err != nil {
		return e, o, fmt.Errorf("naming: register in %q: %w", service, err)
	}
	if err := CheckAddress(e.Addr); err != nil {
		return e, o, fmt.Errorf("naming: register in %q: %w", service, err)
	}
	changes, err := Normalize(service, []Change{{Endpoint: e}})
	if err != nil {
		return e, o, fmt.Errorf("naming: register: %w", err)
	}
	return changes[0].Endpoint, o, nil
}

// setDefaults checks the options and sets the defaults. Afterwards a DrainDelay of 0
// means that Close does not wait for clients.
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

// Ready returns nil if the endpoint is in the registry and clients may use it. It is
// meant for readiness probes, and package serve has a handler that calls it. It makes
// no request.
//
// Otherwise the error says why not: the endpoint is not registered (the error wraps
// that of [RegistrationStatus]), it is draining, it is withheld, or the Registration
// was closed.
func (g *Registration) Ready() error {
	st := g.Status()
	var why error
	switch {
	case st.Closed:
		why = g.closedErr(ErrRegistrationClosed)
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

// MarshalJSON returns the status as a JSON object with a member for each field. Err is
// its text or null, Since is in the form of RFC 3339, and the Reason of Withheld is its
// text.
func (s RegistrationStatus) MarshalJSON() ([]byte, error) {
	type withheld struct {
		ID, Addr       string
		Reason, Detail string
	}
	var out struct {
		Registered     bool
		Since          time.Time
		Err            *string
		FailedAttempts int
		Withheld       *withheld
		Draining       bool
		MarkedByOther  bool
		Closed         bool
	}
	out.Registered, out.Since, out.FailedAttempts = s.Registered, s.Since, s.FailedAttempts
	out.Draining, out.MarkedByOther, out.Closed = s.Draining, s.MarkedByOther, s.Closed
	if s.Err != nil {
		text := SafeText(s.Err.Error())
		out.Err = &text
	}
	if w := s.Withheld; w != nil {
		out.Withheld = &withheld{w.Endpoint.ID, w.Endpoint.Addr, w.Reason.String(), w.Detail}
	}
	return json.Marshal(out)
}

// Status returns the present status of the registration.
func (g *Registration) Status() RegistrationStatus { return g.part.Status() }

// Wait waits until the endpoint is in the registry with its present content. While a
// newer Registration has the entry, Wait waits for the newer one's endpoint.
//
// If ctx is done first, the error wraps ctx.Err() and the error of the last attempt.
// The error is [ErrInvalid], at once, if the store refuses the endpoint. After Close
// the error is [ErrClientClosed] if the Client was closed, and otherwise
// [ErrRegistrationClosed].
func (g *Registration) Wait(ctx context.Context) error {
	return g.closedErr(g.part.Wait(orBackground(ctx)))
}

// Update replaces the endpoint's metadata, in place: connections of clients stay. It
// waits as Wait does. If it fails because ctx is done, the metadata is stored later all
// the same.
//
// The error is [ErrInvalid] for metadata that is not JSON, and for metadata that the
// store refuses. Update then returns the store's error at once, and the endpoint keeps
// the metadata of before.
func (g *Registration) Update(ctx context.Context, metadata json.RawMessage) error {
	return g.callErr("update", g.part.Update(orBackground(ctx), metadata))
}

// Drain marks the endpoint as draining (see [Endpoint.Draining]): clients then use
// other endpoints of the service while it has any. It waits as Update does.
//
// The error is [ErrInvalid] if the registry's format has no place for the mark, or if
// the store's options turn the mark off. Drain then returns the store's error at once,
// and the endpoint and Status stay as they were.
func (g *Registration) Drain(ctx context.Context) error {
	return g.callErr("drain", g.part.Drain(orBackground(ctx)))
}

// Resume removes the mark of Drain, and a mark that somebody else has set. It waits as
// Update does.
func (g *Registration) Resume(ctx context.Context) error {
	return g.callErr("resume", g.part.Resume(orBackground(ctx)))
}

// Close withdraws the endpoint in the order that drops no call: it marks the endpoint
// as draining, waits for the drain delay, and removes the endpoint. It leaves an entry
// that belongs to a successor. The server should serve until Close has returned, and
// then stop gracefully.
//
// If the registry's format has no place for the mark, or if the options say not to wait
// for clients, Close removes the endpoint without marking it. In the first case it
// waits for the drain delay afterwards. Close returns nil at once if the endpoint was
// never put, or if a newer Registration has the entry.
//
// Close needs no context. It returns within CloseTimeout, also while the registry is
// down, and then with an error: the endpoint is removed when the registry is back, or
// stays listed until its lease ends. Close may be called more than once. Every call
// waits, and returns the same.
func (g *Registration) Close() error {
	defer g.client.discharge(g)
	return g.part.Close()
}

// Withdraw removes the endpoint from the registry at once: without the draining mark, and
// without a wait for clients. It is for an endpoint that goes on serving, and that
// clients know from another registry. It leaves an entry that belongs to a successor.
//
// Withdraw tries until ctx is done, and then returns an error as Close does. It returns
// nil at once if the endpoint was never put. A Registration is closed after Withdraw. A
// Withdraw after Close, or a Close after Withdraw, waits for the first and returns its
// result.
func (g *Registration) Withdraw(ctx context.Context) error {
	defer g.client.discharge(g)
	return g.part.Withdraw(orBackground(ctx))
}

// callErr returns the error of a method for its caller.
func (g *Registration) callErr(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("naming: %s %q in %q: %w", what, cut(g.id), g.service, g.closedErr(err))
}

// closedErr returns err. If err says that the Registration was closed, and the Client was
// closed, closedErr returns ErrClientClosed instead. Only the Client knows that its Close
// has begun, so an Announcement returns the same error in both cases.
func (g *Registration) closedErr(err error) error {
	if errors.Is(err, ErrRegistrationClosed) && g.client.isClosed() {
		return ErrClientClosed
	}
	return err
}
