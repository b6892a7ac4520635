package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/naming-go/naming"
)

// seat is the entry of the Bridge that was elected, in the metadata of an endpoint of
// [Service] without an address.
type seat struct {
	// Holder is a random text of the Bridge. By names its host and process, for people.
	Holder string `json:"holder"`
	By     string `json:"by,omitempty"`
	// Epoch is the number of the election. It is 0 until the Bridge has read the target.
	Epoch uint64 `json:"epoch"`
	// Digest is that of the deletions that wait for an approval, and Deletes is their
	// number.
	Digest  string `json:"digest,omitempty"`
	Deletes int    `json:"deletes,omitempty"`
}

// seatID returns the ID of the entry of this migration and direction. The names have no
// '~', so that no other migration has the ID.
func (o *Options) seatID() string { return o.Name + "~" + o.SourceName + "~" + o.TargetName }

// approvalID returns the ID of the entry that approves a plan.
func (o *Options) approvalID() string { return o.seatID() + "~approval" }

// host names this process, for people.
func host() string {
	name, err := os.Hostname()
	if err != nil {
		name = "unknown"
	}
	return fmt.Sprintf("%s/%d", name, os.Getpid())
}

// leadership is a won election.
type leadership struct {
	store naming.Store
	id    string
	lease naming.Lease // nil without an election
	seen  uint64       // the highest epoch that was seen before
	epoch atomic.Uint64

	// deadline is until when the others cannot have been elected, in nanoseconds after
	// start. It uses the monotonic clock.
	start    time.Time
	deadline atomic.Int64

	seat chan seat // has the entry, unless a goroutine is writing it
}

func newLeadership(store naming.Store, id string, lease naming.Lease, s seat, granted time.Time) *leadership {
	l := &leadership{store: store, id: id, lease: lease, start: granted, seat: make(chan seat, 1)}
	if lease != nil {
		l.deadline.Store(int64(lease.TTL()))
	}
	l.seat <- s
	return l
}

// valid reports whether no other Bridge can have been elected. A Bridge that was paused
// finds out here, before each write.
func (l *leadership) valid() bool {
	return l.lease == nil || time.Since(l.start) < time.Duration(l.deadline.Load())
}

// keep renews the lease. It returns when the election is lost, or ctx is done.
func (l *leadership) keep(ctx context.Context) error {
	if l.lease == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	ttl := l.lease.TTL()
	for wait := ttl / 3; l.valid(); {
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		began := time.Since(l.start)
		bounded, cancel := context.WithTimeout(ctx, ttl/3)
		err := l.lease.Renew(bounded)
		cancel()
		switch {
		case err == nil:
			l.deadline.Store(int64(began + ttl))
			wait = ttl / 3
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, naming.ErrLeaseLost):
			l.deadline.Store(0)
			return fmt.Errorf("%w: %w", errDeposed, naming.SafeError(err))
		default:
			wait = ttl / 10
		}
	}
	return fmt.Errorf("%w: the election's lease was not renewed in time", errDeposed)
}

// publish changes the entry. It never takes the place of another Bridge's entry.
func (l *leadership) publish(ctx context.Context, change func(*seat)) error {
	if l.lease == nil {
		return nil
	}
	s := <-l.seat
	defer func() { l.seat <- s }()
	change(&s)
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return l.store.Apply(bounded, Service, s.add(l.id, l.lease))
}

// add returns the change that puts the entry.
func (s seat) add(id string, lease naming.Lease) naming.Change {
	return naming.Change{Op: naming.Add, Endpoint: s.endpoint(id), Lease: lease, IfFree: true}
}

func (s seat) endpoint(id string) naming.Endpoint {
	metadata, _ := json.Marshal(s) // strings and numbers are always JSON
	return naming.Endpoint{ID: id, Metadata: metadata}
}

// checkElection returns an error if the election's registry cannot elect, as far as its
// Store says.
func (o *Options) checkElection() error {
	if o.NoElection {
		return nil
	}
	if x, ok := o.Election.(exclusive); ok && !x.ExclusiveAdds() {
		return fmt.Errorf("%w: the election's registry cannot elect, as its Apply is not atomic: set Election to the other registry, or NoElection", naming.ErrInvalid)
	}
	m, ok := o.Election.(naming.Mapper)
	if !ok {
		return nil
	}
	want := seat{Holder: "holder", By: "host/1", Epoch: 1, Digest: "00ff", Deletes: 1}
	shown, err := m.Map(Service, want.endpoint(o.seatID()))
	if got, _ := findSeat(naming.View{Endpoints: []naming.Endpoint{shown}}, o.seatID()); err == nil && got != want {
		err = fmt.Errorf("%w: the format loses a part", naming.ErrInvalid)
	}
	if err != nil {
		return fmt.Errorf("the election's registry cannot hold the entry of an election, set Election to a Store with another format: %w", err)
	}
	return nil
}

// free ends the election, so that another Bridge is elected at once.
func (l *leadership) free(ctx context.Context) {
	if l.lease == nil {
		return
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), freeTimeout)
	defer cancel()
	_ = l.lease.Revoke(bounded) // otherwise the lease lapses
}

// freeTimeout bounds how long a Bridge that stops waits for the election's registry.
const freeTimeout = 2 * time.Second

// findSeat returns the entry in a view of [Service]. An entry that cannot be understood is
// an occupied seat with no holder.
func findSeat(v naming.View, id string) (s seat, occupied bool) {
	for _, e := range v.Endpoints {
		if e.ID != id {
			continue
		}
		if json.Unmarshal(e.Metadata, &s) != nil || s.Epoch > maxEpoch {
			return seat{}, true
		}
		return s, true
	}
	return seat{}, false
}

// electionClient returns a Client on the election's registry.
func (b *Bridge) electionClient() *naming.Client {
	return b.client(b.election(), "election", naming.Hold{Disabled: true}, &naming.Hooks{
		WatchFailed: func(i naming.WatchFailedInfo) { b.reportFailure(i.Service, i.Err) },
	})
}

// campaign stands by until this Bridge is elected. It returns an error only when ctx is
// done.
func (b *Bridge) campaign(ctx context.Context) (*leadership, error) {
	if b.opts.NoElection {
		return newLeadership(nil, "", nil, seat{}, time.Now()), ctx.Err()
	}
	c := b.electionClient()
	defer c.Close()
	for tries := 0; ; tries++ {
		if err := b.awaitSeat(ctx, c); err != nil {
			return nil, err
		}
		l, err := b.stand(ctx, c)
		switch {
		case l != nil:
			return l, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil:
			b.reportFailure(Service, err)
			if err := sleep(ctx, backoff(tries)); err != nil {
				return nil, err
			}
		default:
			tries = 0
		}
	}
}

// awaitSeat returns when no Bridge is elected, or with ctx.Err().
func (b *Bridge) awaitSeat(ctx context.Context, c *naming.Client) error {
	first, holder := true, ""
	for v, err := range c.Watch(ctx, Service) {
		if err != nil {
			return ctx.Err()
		}
		if v.Stale() {
			continue
		}
		b.noteSuccess()
		s, occupied := findSeat(v, b.opts.seatID())
		if !occupied {
			return nil
		}
		if first || s.Holder != holder {
			first, holder = false, s.Holder
			b.opts.Logger.Info("bridge: stands by, another Bridge works", b.attr(), slog.String("by", naming.SafeText(s.By)), slog.Uint64("epoch", s.Epoch))
		}
		b.noteSeat(s)
	}
	return ctx.Err()
}

// stand puts the entry if no Bridge has put one, and reads whose entry is there. It
// returns nil without an error if another Bridge was elected.
func (b *Bridge) stand(ctx context.Context, c *naming.Client) (*leadership, error) {
	bounded, cancel := context.WithTimeout(ctx, min(b.opts.ElectionTTL, callTimeout))
	defer cancel()
	granted := time.Now()
	lease, err := b.election().Grant(bounded, b.opts.ElectionTTL)
	if err != nil {
		return nil, err
	}
	own := seat{Holder: b.holder, By: b.by}
	id := b.opts.seatID()
	l := newLeadership(b.election(), id, lease, own, granted)
	// An Apply that failed may have taken effect: the list decides.
	err = b.election().Apply(bounded, Service, own.add(id, lease))
	v, listErr := c.List(bounded, Service)
	s, occupied := findSeat(v, id)
	if listErr == nil && occupied && s.Holder == b.holder {
		l.seen = b.seenEpoch.Load()
		return l, nil
	}
	l.free(ctx)
	if listErr == nil && occupied {
		return nil, nil
	}
	return nil, errors.Join(err, listErr)
}

// watchSeat returns when the entry is another Bridge's, or is gone. It applies approvals.
func (b *Bridge) watchSeat(ctx context.Context, t *term) error {
	if b.opts.NoElection {
		<-ctx.Done()
		return ctx.Err()
	}
	c := b.electionClient()
	defer c.Close()
	seated := false
	for v, err := range c.Watch(ctx, Service) {
		if err != nil {
			return ctx.Err()
		}
		if v.Stale() {
			continue
		}
		b.noteSuccess()
		s, occupied := findSeat(v, b.opts.seatID())
		mine := occupied && s.Holder == b.holder
		if !mine && (seated || s.Epoch > 0) {
			b.noteSeat(s)
			return fmt.Errorf("%w: the entry of the election was replaced or removed", errDeposed)
		}
		seated = seated || mine
		b.applyApproval(v, t)
	}
	return ctx.Err()
}

// noteSeat notes another Bridge's election. A Bridge with an epoch has read the target, and
// puts the copies under its own leases.
func (b *Bridge) noteSeat(s seat) {
	if s.Epoch > 0 && s.Holder != b.holder {
		b.noteEpoch(s.Epoch)
		b.stopKeeping()
	}
}

// noteEpoch notes the epoch of an election.
func (b *Bridge) noteEpoch(epoch uint64) {
	for {
		was := b.seenEpoch.Load()
		if epoch <= was || b.seenEpoch.CompareAndSwap(was, epoch) {
			return
		}
	}
}
