package naming

import "time"

// Hooks are functions that a [Client] calls when something happened that an
// operator may want to count. Each may be nil. Each gets one struct, so that later
// versions can add fields.
//
// A Client calls hooks from goroutines that others depend on, concurrently, and
// without a lock held. A hook must not block, nor call methods of the Client.
// Slices are shared and must not be modified.
type Hooks struct {
	// Registered is called when an endpoint of this process came to be in the
	// registry: the first time, and again after it was lost.
	Registered func(RegisteredInfo)
	// Lost is called when an endpoint of this process left the registry, or can be
	// assumed to have left it. The Client puts it there again.
	Lost func(LostInfo)
	// RegisterFailed is called when an attempt to put an endpoint of this process
	// into the registry failed. The Client tries again.
	RegisterFailed func(RegisterFailedInfo)
	// Withdrawn is called when a [Registration] was closed, unless a newer one has the
	// entry.
	Withdrawn func(WithdrawnInfo)

	// WatchFailed is called when a watch failed, and after each failed attempt to
	// start it again.
	WatchFailed func(WatchFailedInfo)
	// Stale is called when a service's endpoints became stale, and when they
	// ceased to be.
	Stale func(StaleInfo)
	// Resynced is called when the first snapshot of a new watch replaced a set that
	// was known before.
	Resynced func(ResyncedInfo)

	// Held is called when endpoints vanished in a way that looks like a fault of
	// the registry, and are held: see [Hold].
	Held func(HeldInfo)
	// Released is called when endpoints are no longer held.
	Released func(ReleasedInfo)

	// Withheld is called when the registry began or ceased to say that endpoints
	// must not be used.
	Withheld func(WithheldInfo)

	// Published is called when package resolver handed a set of addresses to a gRPC
	// channel, or to a reader of its Builder.Watch.
	Published func(PublishedInfo)
}

// RegisteredInfo is the argument of [Hooks.Registered].
type RegisteredInfo struct {
	// Service is the name of the service.
	Service string
	// Endpoint is what was registered.
	Endpoint Endpoint
	// Again is true if the endpoint was registered before and then lost.
	Again bool
}

// LostInfo is the argument of [Hooks.Lost].
type LostInfo struct {
	// Service is the name of the service.
	Service string
	// Endpoint is what was lost.
	Endpoint Endpoint
	// Err is the reason.
	Err error
}

// RegisterFailedInfo is the argument of [Hooks.RegisterFailed].
type RegisterFailedInfo struct {
	// Service is the name of the service.
	Service string
	// Endpoint is what could not be registered.
	Endpoint Endpoint
	// Err is the reason.
	Err error
}

// WithdrawnInfo is the argument of [Hooks.Withdrawn].
type WithdrawnInfo struct {
	// Service is the name of the service.
	Service string
	// Endpoint is what was withdrawn.
	Endpoint Endpoint
	// Err is nil if nothing of the endpoint stays listed. Otherwise the endpoint may
	// stay listed until its lease ends.
	Err error
}

// WatchFailedInfo is the argument of [Hooks.WatchFailed].
type WatchFailedInfo struct {
	// Service is the name of the service. It is empty for the list of services.
	Service string
	// Err is the reason.
	Err error
}

// StaleInfo is the argument of [Hooks.Stale].
type StaleInfo struct {
	// Service is the name of the service. It is empty for the list of services.
	Service string
	// Since is when the endpoints became stale. It is the zero time when they are
	// fresh again, or are no longer watched.
	Since time.Time
}

// ResyncedInfo is the argument of [Hooks.Resynced].
type ResyncedInfo struct {
	// Service is the name of the service. It is empty for the list of services.
	Service string
	// Changed is the number of endpoints, or services, that the snapshot changed.
	Changed int
}

// HeldInfo is the argument of [Hooks.Held].
type HeldInfo struct {
	// Service is the name of the service.
	Service string
	// Endpoints are those that are held from now on.
	Endpoints []Endpoint
}

// ReleasedInfo is the argument of [Hooks.Released].
type ReleasedInfo struct {
	// Service is the name of the service.
	Service string
	// Endpoints are those that are no longer held.
	Endpoints []Endpoint
	// Back is true if the endpoints are in the set again. It is false if their time
	// ran out, if too many are held, or if the service is no longer watched.
	Back bool
}

// WithheldInfo is the argument of [Hooks.Withheld]. An endpoint whose reason
// changed is in both lists.
type WithheldInfo struct {
	// Service is the name of the service.
	Service string
	// Began are the endpoints that must not be used from now on, as they are now.
	Began []Withheld
	// Ceased are the endpoints that may be used again, are gone, or are no longer
	// watched, as they were.
	Ceased []Withheld
}

// PublishedInfo is the argument of [Hooks.Published].
type PublishedInfo struct {
	// Service is the name of the service.
	Service string
	// Addresses is the number of addresses.
	Addresses int
}

// JoinHooks returns hooks that call the given ones in their order. A function that
// is nil in all of them is nil in the result. A nil pointer is skipped. JoinHooks
// reads the hooks when it is called: later changes to them have no effect.
func JoinHooks(hooks ...*Hooks) *Hooks {
	joined := new(Hooks)
	for _, h := range hooks {
		if h == nil {
			continue
		}
		join(&joined.Registered, h.Registered)
		join(&joined.Lost, h.Lost)
		join(&joined.RegisterFailed, h.RegisterFailed)
		join(&joined.Withdrawn, h.Withdrawn)
		join(&joined.WatchFailed, h.WatchFailed)
		join(&joined.Stale, h.Stale)
		join(&joined.Resynced, h.Resynced)
		join(&joined.Held, h.Held)
		join(&joined.Released, h.Released)
		join(&joined.Withheld, h.Withheld)
		join(&joined.Published, h.Published)
	}
	return joined
}

// join makes *to a function that calls what it was, and then next.
func join[Info any](to *func(Info), next func(Info)) {
	switch first := *to; {
	case next == nil:
	case first == nil:
		*to = next
	default:
		*to = func(i Info) { first(i); next(i) }
	}
}
