package migrate

import (
	"time"

	"github.com/naming-go/naming"
)

// Options are the options of [Join]. The zero value and a nil pointer mean the defaults.
//
// The registry that counts in a phase decides whether a server is ready: the old one up to
// Union, and the new one from PreferNew on. If a service goes from Union to PreferNew while
// the new registry is down, servers that run cease to be ready as well. Clients still use
// them, but a readiness probe may restart them or take them out.
type Options struct {
	// Client are the options of the joined Client. Hold is that of the joined set.
	// Logger, IdleGrace and ResyncEvery also apply to the Clients of both registries.
	// Hooks are called for the joined sets, and for registrations as a whole: Registered
	// when an endpoint came to be in the registry that counts, and Lost when that registry
	// lost the endpoint. A change of the registry that counts calls neither of both. The
	// endpoint stays in the former one until it is in the new one. Only if the former one
	// loses the endpoint before that is Lost called, and Registered afterwards.
	// RegisterFailed is called for the registry that counts at that time.
	Client naming.Options

	// OldName and NewName name the registries in logs, in [naming.SideStatus] and in
	// the IDs of copies. Empty means "old" and "new". A bridge of the same migration
	// has to use the same names.
	OldName, NewName string

	// OldHooks and NewHooks, if not nil, are the hooks of the single registries: a
	// watch of the old one that fails, a registration in the new one that is lost.
	OldHooks, NewHooks *naming.Hooks

	// Hooks, if not nil, are called when something about the migration happened.
	Hooks *Hooks

	// OldReadOnly and NewReadOnly say that a registry cannot be written, such as DNS,
	// or a cluster that registers its servers itself. A server does not register
	// there, and does not wait for it. The coverage of the registry still decides
	// when a reader leaves the other one.
	OldReadOnly, NewReadOnly bool

	// LeaveDelay is how long a server stays in a registry that its phase no longer
	// writes, after its endpoint is in the one that counts and after the change of
	// the phase. It is the time in which every reader hears of both. 0 means five
	// seconds, and the most is an hour. A negative value means no delay.
	//
	// A longer LeaveDelay suits slow watches and phases that take long to reach all
	// programs. It costs nothing but time.
	LeaveDelay time.Duration

	// FirstWait bounds how long the first set waits for the second registry, while
	// the first one has answered. 0 means two seconds, and the most is a minute. A
	// negative value means not to wait. A registry that failed is not waited for.
	//
	// FirstWait also bounds how long a reader of both registries keeps endpoints that one of
	// them lost while the other one had not answered yet, or was down. The other one may
	// have them. Endpoints that were draining do not stay.
	FirstWait time.Duration

	// FallbackAfter is how long the new registry must fail to cover the old one in
	// PreferNew until that is reported as a fallback. The set is complete all the
	// time. 0 means five seconds, because a rolling restart interrupts the coverage
	// for moments.
	FallbackAfter time.Duration

	// ParityAfter is how long a difference between the registries must last until it
	// is reported. 0 means five seconds.
	ParityAfter time.Duration

	// Accept is what may be different in the two registries. An address whose other data
	// are equal is not reported as a difference.
	Accept Accept

	// ClientID decides whether this client is in the share of [PreferNew]. A client
	// with the same ID gets the same decision for a service and a share, also after
	// a restart. A higher share never removes a client. Empty means a random ID.
	ClientID string
}

const (
	defaultLeaveDelay    = 5 * time.Second
	maxLeaveDelay        = time.Hour
	defaultFirstWait     = 2 * time.Second
	maxFirstWait         = time.Minute
	defaultFallbackAfter = 5 * time.Second
	defaultParityAfter   = 5 * time.Second
	maxReportAfter       = time.Hour
)

// withDefaults returns the options with every value in range.
func (o Options) withDefaults() Options {
	if o.OldName == "" {
		o.OldName = "old"
	}
	if o.NewName == "" {
		o.NewName = "new"
	}
	o.LeaveDelay = inRange(o.LeaveDelay, defaultLeaveDelay, maxLeaveDelay)
	o.FirstWait = inRange(o.FirstWait, defaultFirstWait, maxFirstWait)
	o.FallbackAfter = inRange(o.FallbackAfter, defaultFallbackAfter, maxReportAfter)
	o.ParityAfter = inRange(o.ParityAfter, defaultParityAfter, maxReportAfter)
	return o
}

// inRange returns d, the default for 0, 0 for negative values, and at most most.
func inRange(d, otherwise, most time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return min(max(d, 0), most)
}

// Hooks are functions that a joined Client calls when something about the migration
// happened. The rules of [naming.Hooks] apply.
type Hooks struct {
	// PhaseChanged is called when the state of a service that this program uses
	// became known, or changed, and when the program begins to use a service whose
	// state is not known.
	PhaseChanged func(PhaseChangedInfo)
	// Narrowed is called when a reader began or ceased to use one registry alone.
	Narrowed func(NarrowedInfo)
	// Fallback is called when the new registry has not covered the old one for
	// FallbackAfter, in a phase in which this reader would use the new one alone, and
	// when it does again.
	Fallback func(FallbackInfo)
	// Parity is called when a difference between the registries has lasted for
	// ParityAfter, when it changed, and when it is over.
	Parity func(ParityInfo)
}

// PhaseChangedInfo is the argument of [Hooks.PhaseChanged].
type PhaseChangedInfo struct {
	// Service is the name of the service.
	Service string
	// From and To are the states. From is zero if WasKnown is false, and To if Known is
	// false.
	From, To        State
	WasKnown, Known bool
}

// NarrowedInfo is the argument of [Hooks.Narrowed].
type NarrowedInfo struct {
	// Service is the name of the service.
	Service string
	// Narrow says that the reader uses one registry alone.
	Narrow bool
	// Registry is the name of the registry that the reader prefers.
	Registry string
}

// FallbackInfo is the argument of [Hooks.Fallback].
type FallbackInfo struct {
	// Service is the name of the service.
	Service string
	// Since is when the coverage ended. It is the zero time when the fallback is over.
	Since time.Time
	// Why says what is wrong, in a form that is safe to log.
	Why string
	// Uncovered are addresses that only the other registry has, sorted, at most 100.
	Uncovered []string
}

// ParityInfo is the argument of [Hooks.Parity].
type ParityInfo struct {
	// Service is the name of the service.
	Service string
	// Report is the difference. Its Known is false if the phase of the service has
	// ended the comparison.
	Report *Report
	// Since is since when the registries differ. It is the zero time when the difference
	// is over: the registries agree, or the phase has ended the comparison.
	Since time.Time
}
