package naming

import "time"

// Hooks are functions that a [Client] calls when something happened that an
// operator may want to count. Each may be nil. They are called from goroutines
// that others depend on, concurrently, and without a lock held; they must not
// block, nor call methods of the Client. Slices are shared and must not be
// modified.
type Hooks struct {
	// Registered is called when an endpoint of this process has come to be in
	// the registry: at first, and again after it was lost.
	Registered func(service string, e Endpoint, again bool)
	// Lost is called when an endpoint of this process is in the registry no
	// more, or can be assumed not to be, and why. It will be put there again.
	Lost func(service string, e Endpoint, err error)
	// RegisterFailed is called when an attempt to put an endpoint of this
	// process into the registry failed. It will be tried again.
	RegisterFailed func(service string, e Endpoint, err error)
	// Withdrawn is called when an endpoint was closed, with an error if it may
	// stay listed until its lease ends.
	Withdrawn func(service string, e Endpoint, err error)

	// WatchFailed is called whenever a watch failed, including each failed
	// attempt to start it again. The service is empty for the list of services,
	// here and below.
	WatchFailed func(service string, err error)
	// Stale is called when a service's endpoints became stale, with the time
	// since when they are, and with the zero time when they are fresh again or
	// are not watched any more.
	Stale func(service string, since time.Time)
	// Resynced is called when the first snapshot of a new watch replaced a set
	// that was known before, with the number of endpoints that it changed.
	Resynced func(service string, changed int)

	// Held is called when endpoints vanished in a way that looks like a fault
	// of the registry and are held (see [Hold]); Released when they are held
	// no more, because they came back or because not: their time was up, or the
	// service is not watched any more.
	Held     func(service string, endpoints []Endpoint)
	Released func(service string, endpoints []Endpoint, back bool)

	// Withheld is called when the registry began or ceased to say that
	// endpoints of a service are not to be used. Those that began are given as
	// they are now, and those that ceased, because they may be used again or
	// are gone, as they were; one whose reason changed is in both.
	Withheld func(service string, began, ceased []Withheld)

	// Published is called when a set of addresses was handed to a gRPC
	// channel, with their number.
	Published func(service string, addresses int)
}

// JoinHooks returns hooks that call those given, one after the other in their
// order. A function that none of them has is nil, and so may be a pointer among
// them. They are read now: changing them later has no effect.
func JoinHooks(hooks ...*Hooks) *Hooks {
	joined := new(Hooks)
	for _, h := range hooks {
		if h == nil {
			continue
		}
		join3(&joined.Registered, h.Registered)
		join3(&joined.Lost, h.Lost)
		join3(&joined.RegisterFailed, h.RegisterFailed)
		join3(&joined.Withdrawn, h.Withdrawn)
		join2(&joined.WatchFailed, h.WatchFailed)
		join2(&joined.Stale, h.Stale)
		join2(&joined.Resynced, h.Resynced)
		join2(&joined.Held, h.Held)
		join3(&joined.Released, h.Released)
		join3(&joined.Withheld, h.Withheld)
		join2(&joined.Published, h.Published)
	}
	return joined
}

// join2 makes *to a function that calls what it was, and then next.
func join2[A, B any](to *func(A, B), next func(A, B)) {
	switch first := *to; {
	case next == nil:
	case first == nil:
		*to = next
	default:
		*to = func(a A, b B) { first(a, b); next(a, b) }
	}
}

// join3 is join2 for functions of three arguments.
func join3[A, B, C any](to *func(A, B, C), next func(A, B, C)) {
	switch first := *to; {
	case next == nil:
	case first == nil:
		*to = next
	default:
		*to = func(a A, b B, c C) { first(a, b, c); next(a, b, c) }
	}
}
