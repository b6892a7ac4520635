package naming

import "time"

// Hooks are functions that a [Registry] calls when something happened that an
// operator may want to count. Each may be nil. They are called from goroutines
// that others depend on, concurrently, and without a lock held; they must not
// block, nor call methods of the Registry. Slices are shared and must not be
// modified.
type Hooks struct {
	// Registered is called when an endpoint of this process has come to be in
	// the registry: at first, and again after it was lost.
	Registered func(service string, e Endpoint, again bool)
	// Lost is called when an endpoint of this process is in the registry no
	// more, or can be assumed not to be, and why. It will be put there again.
	Lost func(service string, e Endpoint, err error)
	// Withdrawn is called when an endpoint was closed, with an error if it may
	// stay listed until its lease ends.
	Withdrawn func(service string, e Endpoint, err error)

	// WatchFailed is called whenever a watch failed, including each failed
	// attempt to start it again. The service is empty for the list of services,
	// here and below.
	WatchFailed func(service string, err error)
	// Stale is called when a service's endpoints became stale, with the time
	// since when they are, and with the zero time when they are fresh again.
	Stale func(service string, since time.Time)
	// Resynced is called when a snapshot replaced a set that was known before,
	// with the number of endpoints that it changed.
	Resynced func(service string, changed int)

	// Held is called when endpoints vanished in a way that looks like a fault
	// of the registry and are held (see [Hold]); Released when they are held
	// no more, because they came back or because their time was up.
	Held     func(service string, endpoints []Endpoint)
	Released func(service string, endpoints []Endpoint, back bool)

	// Published is called when a set of addresses was handed to a gRPC
	// channel, with their number.
	Published func(service string, addresses int)
}
