package bridge

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

// Service is the service that has the entries of elections and approvals. No Bridge copies
// it.
const Service = migrate.BridgeService

// ConsulTTL and ConsulRate are the recommended [Options.TTL] and [Options.Rate] for a
// target on Consul. There each copy is renewed by a request of its own, and an agent takes
// about 80 registrations in a second.
const (
	ConsulTTL  = time.Hour
	ConsulRate = 50
)

// Options are the options of [New]. The zero value and a nil pointer mean the defaults.
// Values out of range are not an error: New takes the nearest value in range.
type Options struct {
	// Name is the name of the migration. Bridges with different names never touch each
	// other's copies, where the format has room for the mark. Empty means "default". A
	// name has the form that [migrate.CheckName] allows.
	Name string

	// SourceName and TargetName name the registries in logs and in the IDs of copies.
	// Empty means "old" and "new". Programs of the same migration use the same names:
	// see [migrate.Options].
	SourceName, TargetName string

	// Services says which services are copied. Nil means all, which on Consul includes
	// every service that any program registered in the catalogue. The services of this
	// package and of package migrate are never copied. Services must be fast, and always
	// return the same result for the same name.
	Services func(service string) bool

	// Election is the Store on which the Bridges of this migration and direction elect
	// the one that works. Its Apply must be atomic, and its format must hold an endpoint
	// without an address and with metadata. The formats of other frameworks mostly do
	// not: use a second Store on the same etcd, with the default format. Nil means the
	// target.
	//
	// Never elect on Consul: of several Adds of one entry at the same time, more than
	// one may take effect. New refuses a Store that has a method ExclusiveAdds() bool
	// which returns false. Beside Consul, use the other registry of the migration.
	Election naming.Store

	// NoElection says that the caller runs one Bridge at most, as is necessary from
	// Consul to Consul. Approvals of other processes are then not read.
	NoElection bool

	// ElectionTTL is how long the others wait for a Bridge that died. 0 means 15
	// seconds, the least is one second, and the most is ten minutes.
	ElectionTTL time.Duration

	// TTL is the time to live of the copies' leases. It should be much longer than a
	// restart of the Bridge takes. A longer TTL keeps the copies through a longer
	// absence of the Bridge, and keeps copies of dead servers if no Bridge comes back.
	// 0 means 15 minutes, the least is three seconds, and the most is a week. Use
	// [ConsulTTL] on Consul.
	TTL time.Duration

	// Rate bounds the calls of Apply in a second. A call changes up to 100 copies of one
	// service. 0 means 1,000, and the most is 100,000. Use [ConsulRate] on Consul.
	Rate int

	// DeleteDelay is how long an endpoint must be absent from the source until its copy
	// is deleted, unless a known reason explains the absence: the endpoint was draining,
	// an operator withholds it, or the target still has its address. Losses that come
	// one after another thus count together. 0 means two seconds, and the most is an
	// hour. A negative value means no delay.
	DeleteDelay time.Duration

	// Hold is the hold of the source. The copy of an endpoint that is held stays.
	Hold naming.Hold

	// Fuse bounds the deletions.
	Fuse Fuse

	// Logger gets a warning when the fuse blows, when an endpoint cannot be copied as it
	// is, when the Bridge is deposed, and when a registry begins to fail. It gets an info
	// when the Bridge is elected or stands by, and when such a state is over. Nil means
	// slog.Default().
	Logger *slog.Logger

	// Hooks, if not nil, are called when something happened.
	Hooks *Hooks
}

// Fuse says how many copies a [Bridge] may delete without an approval. The limit is a
// share of the copies that the target has, per service and of all services together, and
// at least one copy.
//
// Deletions that a known reason explains do not count: the endpoint was draining, an
// operator withholds it, the target still has its address, or the deletion was approved.
type Fuse struct {
	// Share is the part of the copies that may be deleted at once, and the part by which
	// the copies may shrink within Window. 0, a negative value and NaN mean 0.25, and
	// more than 1 means 1.
	//
	// A quarter is what a rolling restart with common settings takes away at once. A
	// smaller Share finds smaller losses, and needs approvals for what is normal.
	Share float64
	// Window is the time within which deletions add up. Copies of endpoints that
	// appeared meanwhile are subtracted, because a rolling restart replaces every
	// endpoint. 0 and negative values mean one minute, and the most is a day.
	Window time.Duration
}

const (
	defaultElectionTTL = 15 * time.Second
	defaultTTL         = 15 * time.Minute
	defaultRate        = 1000
	maxRate            = 100_000
	defaultDeleteDelay = 2 * time.Second
	defaultShare       = 0.25
	defaultWindow      = time.Minute
)

// withDefaults returns the options with every value in range.
func (o Options) withDefaults() Options {
	if o.Name == "" {
		o.Name = "default"
	}
	if o.SourceName == "" {
		o.SourceName = "old"
	}
	if o.TargetName == "" {
		o.TargetName = "new"
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Hooks == nil {
		o.Hooks = new(Hooks)
	}
	if o.Rate <= 0 {
		o.Rate = defaultRate
	}
	o.Rate = min(o.Rate, maxRate)
	o.ElectionTTL = inRange(o.ElectionTTL, defaultElectionTTL, time.Second, 10*time.Minute)
	o.TTL = inRange(o.TTL, defaultTTL, 3*time.Second, 7*24*time.Hour)
	o.DeleteDelay = inRange(o.DeleteDelay, defaultDeleteDelay, 0, time.Hour)
	if !(o.Fuse.Share > 0) { // also if it is not a number
		o.Fuse.Share = defaultShare
	}
	o.Fuse.Share = min(o.Fuse.Share, 1)
	o.Fuse.Window = inRange(max(o.Fuse.Window, 0), defaultWindow, time.Second, 24*time.Hour)
	return o
}

// inRange returns d, or the default for 0, but at least least and at most most.
func inRange(d, otherwise, least, most time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return min(max(d, least), most)
}

// exclusive is what a Store may implement to say whether of several Adds of one entry with
// IfFree, at the same time and from several processes, at most one takes effect.
type exclusive interface{ ExclusiveAdds() bool }

// check returns an error if the options cannot work.
func (o *Options) check() error {
	if err := errors.Join(migrate.CheckName(o.Name), migrate.CheckName(o.SourceName), migrate.CheckName(o.TargetName)); err != nil {
		return err
	}
	if o.SourceName == o.TargetName {
		return fmt.Errorf("%w: both registries have the name %q", naming.ErrInvalid, o.SourceName)
	}
	return nil
}

// copies reports whether the services' filter has a service.
func (o *Options) copies(service string) bool {
	return service != Service && service != migrate.RecordService && (o.Services == nil || o.Services(service))
}

// limit returns how many of n copies may be deleted.
func (f Fuse) limit(n int) int { return max(1, int(math.Floor(f.Share*float64(n)))) }
