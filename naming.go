package naming

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"strconv"
	"time"
)

// Operation says what a change does. It keeps the values, and so the JSON, of
// the type of the same name in gRPC's former package naming.
type Operation uint8

const (
	// Add puts an endpoint: a new one, or a new state of one that is there.
	Add Operation = iota
	// Delete removes an endpoint.
	Delete
)

// String returns "Add", "Delete", or the number of an operation that is neither.
func (op Operation) String() string {
	switch op {
	case Add:
		return "Add"
	case Delete:
		return "Delete"
	}
	return "Operation(" + strconv.Itoa(int(op)) + ")"
}

// Update is one change as programs written for gRPC's former package naming
// know it. The type is frozen: its JSON,
//
//	{"Op":0,"Addr":"10.0.0.7:9000","Metadata":null}
//
// is what etcd's old clientv3/naming stored, and what this package stores by
// default.
type Update struct {
	// Op says whether the endpoint was added (or changed) or deleted.
	Op Operation
	// Addr is the address that gRPC dials.
	Addr string
	// Metadata is what encoding/json makes of the entry's metadata: nil, a
	// bool, a float64, a string, a []any or a map[string]any; numbers are of
	// type json.Number where one of them is too large for a float64. All
	// watchers of a service share one value, so a receiver must not modify it.
	// A sender may use any value that encoding/json can marshal.
	Metadata any
}

// Watcher reads the changes of one service. It is the type of the same name in
// gRPC's former package naming, and [Client.Resolve] returns one.
type Watcher interface {
	// Next returns the full set of the service when it is first called, as
	// Updates with Op Add; the slice is empty, not nil, when there are no
	// endpoints. Every later call blocks until something changed and returns
	// the net changes since the call before, at least one: deletions first,
	// each group in the order of the endpoints' IDs. A Delete carries the
	// address and the metadata that were last returned for the endpoint. A
	// change of metadata is one Add; a change of address under the same ID is
	// a Delete and an Add. Apply the whole slice before acting on the result.
	//
	// The slice belongs to the caller; the metadata in it is shared.
	//
	// Next waits as long as it takes: a registry that is down, or a watch that
	// broke, is never an error here. It returns an error only after Close, or
	// after the Client was closed, and then always; the error is
	// [ErrWatcherClosed].
	//
	// It may be called concurrently; each change then goes to one of the calls.
	Next() ([]*Update, error)

	// Close ends the watcher and makes a blocked Next return. It may be called
	// at any time, from any goroutine, more than once.
	Close()
}

// Resolver makes Watchers. It is the type of the same name in gRPC's former
// package naming; [Client] implements it.
type Resolver interface {
	// Resolve returns a Watcher of the service named target. It does not wait
	// for the registry.
	Resolve(target string) (Watcher, error)
}

// The errors on which a caller acts. Every other error tells of a registry that
// could not be asked or did not answer: it may pass, and trying again is right.
// Wrapped errors keep their cause, so that errors.As finds the error of the
// backend's client library.
var (
	// ErrWatcherClosed is returned by [Watcher.Next] after the Watcher or its
	// Client was closed, and for no other reason.
	ErrWatcherClosed = errors.New("naming: watcher closed")

	// ErrClientClosed is returned by every method of a [Client] that was
	// closed, except Close.
	ErrClientClosed = errors.New("naming: client closed")

	// ErrLeaseLost is returned by [Lease.Renew] and by [Store.Apply] when the
	// lease has ended, whether it was revoked, expired or forgotten by the
	// registry. The caller makes a new lease and puts its endpoints under it.
	//
	// A Store that returns it vouches that no endpoint put under the lease is in
	// the registry, nor will be. A Store that has only given up on the lease,
	// because its own connection or session ended, first removes what the lease
	// held, or returns another error. ErrLeaseLost is not returned when the
	// registry could not be asked.
	ErrLeaseLost = errors.New("naming: lease lost")

	// ErrDeleted is why an endpoint is not registered that somebody deleted
	// from the registry: see [RegistrationStatus]. No function returns it.
	ErrDeleted = errors.New("naming: endpoint deleted from the registry")

	// ErrReplaced is the error of a [Registration] while a newer one of the
	// same Client, with the same service and ID, has the entry. Its Update,
	// Drain and Resume return it, and its Status has it.
	ErrReplaced = errors.New("naming: replaced by a newer registration of the endpoint")

	// ErrInvalid is returned for arguments that can never work, such as an
	// empty service name or metadata that is not JSON. Nothing was stored, and
	// trying again does not help.
	ErrInvalid = errors.New("naming: invalid argument")

	// ErrPermission is returned when the registry refused the caller's
	// credentials: it was reached, and said no. Trying again helps once the
	// credentials, or the rights they carry, are others.
	ErrPermission = errors.New("naming: permission denied")
)

// Endpoint is one instance of a service.
type Endpoint struct {
	// ID tells the endpoints of one service apart. It defaults to Addr. Two
	// endpoints with different IDs are different ones even if their addresses
	// are equal.
	ID string

	// Addr is what gRPC dials: "host:port", "[v6]:port" or "unix:path".
	Addr string

	// Metadata is any JSON value (RFC 8259, in UTF-8), passed through as it
	// is. Nil and the JSON value null both mean none. These members have a
	// meaning when it is an object: "weight" (number), "zone" and "version"
	// (strings), "tags" (list of strings), "draining" (bool; see Draining).
	//
	// The bytes are shared by everyone who holds the endpoint: whoever gets an
	// Endpoint from this package must not modify them, and whoever gives one
	// to it must not modify them afterwards.
	Metadata json.RawMessage

	// Draining says that the endpoint is about to leave: it serves what it
	// has, and wants no more while there are others. It is no part of Metadata,
	// which belongs to the caller; a member "draining" of Metadata, which other
	// programs and earlier versions write, means the same to [Endpoint.Info].
	//
	// A Store whose format has no place for the mark, or whose options turn it
	// off, answers an Add that has it with [ErrInvalid] and stores nothing.
	Draining bool

	// NoDrain says that whoever keeps the entry has no way to mark it as
	// Draining, so that its removal looks the same whether it left in order or
	// was lost. A Store sets it in what it reads; Apply and Equal ignore it.
	NoDrain bool

	// Unleased says that the entry is under no lease: nothing removes it but a
	// deletion. A Store that knows sets it in what it reads, and yields the
	// endpoint again when it changes; Apply and Equal ignore it.
	Unleased bool
}

// Withheld is an endpoint that the registry has and says not to use. It is not
// lost: nothing puts it again, and nothing takes its absence for a fault.
type Withheld struct {
	// Endpoint is the endpoint as the registry has it.
	Endpoint Endpoint
	// Reason is why it is not to be used.
	Reason Reason
	// Detail is what the registry says of it in its own words, such as the
	// operator's note or the output of a check; it may be empty. It has the
	// form of [SafeText].
	Detail string
}

// Reason is why the registry says that an endpoint is not to be used.
type Reason uint8

const (
	// Maintenance means that an operator, or the owner, took the endpoint out
	// of use. Such an endpoint is never used. A Reason that is neither
	// Maintenance nor FailedCheck is treated as Maintenance.
	Maintenance Reason = iota + 1
	// FailedCheck means that a check of the registry's found the endpoint not
	// healthy. Package resolver can be told to use such endpoints when too few
	// others are left.
	FailedCheck
)

// String returns "maintenance", "failed check", or the number of another reason.
func (r Reason) String() string {
	switch r {
	case Maintenance:
		return "maintenance"
	case FailedCheck:
		return "failed check"
	}
	return "Reason(" + strconv.Itoa(int(r)) + ")"
}

// Change is one change to the endpoints of a service.
type Change struct {
	// Op is Add or Delete.
	Op Operation

	// Endpoint is what to add. To delete, its ID (or else its Addr) suffices.
	Endpoint Endpoint

	// Lease, of an Add, is the lease that the endpoint is put under. An
	// endpoint put without one stays until it is deleted. An endpoint is under
	// the lease of the last Add only, which may be none.
	//
	// Lease, of a Delete, is a condition: the endpoint is deleted only if it
	// is still under that lease, and left alone, without an error, if it is
	// not. A Delete without a lease deletes unconditionally.
	//
	// A lease of another Store is ErrInvalid.
	Lease Lease

	// IfFree, of an Add with a lease, is a condition: the endpoint is put only
	// if there is none with its ID, or it is under that lease already, and
	// left alone, without an error, if it is not. Of several such Adds at once,
	// at most one puts. It is how a server that held an endpoint puts it again
	// without taking it from a successor.
	IfFree bool

	// Reclaim, of an Add with IfFree or of a Delete with a lease, widens the
	// condition: it also holds for an endpoint that is under no lease at all.
	// It is how one who held an endpoint takes back, or removes, an entry that
	// lost its lease, such as one that an operator edited by hand.
	Reclaim bool
}

// Batch is the whole set of a service's endpoints, or changes to it that took
// effect together. It belongs to whoever received it: a Store does not read or
// write a batch's slices once it has yielded them.
type Batch struct {
	// Snapshot says that Put and Withheld are the whole set: an endpoint that
	// is in neither is gone. Deleted is then empty.
	Snapshot bool

	// Put holds endpoints that were added or changed, or may be used again,
	// each in its new state and with its ID set. No ID is empty, except that of
	// an endpoint without an address, and none occurs twice in a batch, in
	// whichever of its lists. A batch that breaks such a rule ends the watch
	// with an error, and readers keep the last good set.
	Put []Endpoint

	// Deleted holds the IDs of endpoints that were removed.
	Deleted []string

	// Withheld holds endpoints that the registry has and says not to use, each
	// in its new state. One that was to be used before is not to be used from
	// here on, and one that is Put afterwards is again. What an operator
	// decided stays when the endpoint is put again, also under another lease.
	Withheld []Withheld
}

// Store is a registry, as a backend implements it and a [Client] uses it.
// Package conformance holds an implementation to every rule below, and package
// backend/memory is one to read first.
//
// A Store is a thin layer. It does not retry what the registry failed to do for
// a caller, does not log, does not cache, and keeps no goroutine beyond a sequence
// that is being ranged over. Its caller retries. A loop that settles a race with
// another writer is not a retry, nor is a timer that removes what a lease held.
// All methods may be called concurrently.
//
// A Store that holds a connection, a session or a timer of its own has a Close
// method. A [Client] does not call it: the program that made the Store closes
// it, after [Client.Close].
//
// Every method that can block returns soon after its context is done, with an
// error for which errors.Is(err, ctx.Err()) holds. A call that ended with its
// context may still take effect. Errors wrap their cause. An argument that can
// never work is [ErrInvalid]; credentials that the registry refuses are
// [ErrPermission]; any other error means that the registry is unavailable for now.
//
// The set of services and of endpoints is whatever is in the registry, also
// what other programs wrote there. An entry that cannot be understood, or that
// [CheckEndpoint] refuses, is left out, and is reported with its key as a
// [MalformedError] to a function that the backend's options name. It hides no other
// entry, and a good value that it replaced is not kept. A set of more than
// [MaxEndpoints], and a list of more than [MaxServices], is not yielded: the
// sequence ends with an error.
//
// An endpoint that the registry has and says not to use is in [Batch.Withheld],
// with the reason. It is not deleted. Apply, leases and IfFree treat it as any
// other endpoint, and its service is in the list of services. What an operator
// decided stays when the endpoint is put again, also under another lease.
//
// [Endpoint.Draining] makes the round trip beside Metadata. A Store whose format
// has no place for the mark, or whose options turn it off, refuses an Add that has
// the mark with [ErrInvalid], and makes no request. It sets [Endpoint.NoDrain] on
// the endpoints that it reads in such a format.
//
// Any valid service name, any ID, any JSON metadata, and IPv6 and unix
// addresses make the round trip unchanged; of metadata, the JSON value is what
// counts, not its spelling (see [Endpoint.Equal]).
type Store interface {
	// Apply makes changes to a service: all of them or none where the registry
	// can, in their order where it cannot, which the backend documents. It
	// returns nil only when every change is in the registry, where watches that
	// the same Store starts from then on find it. Of changes to one ID the last
	// counts. After an error the caller does not know what is stored, and applies
	// the changes again: applying a change twice is the same as applying it once,
	// and deleting an endpoint that does not exist is not an error.
	//
	// Of several Adds of one ID with IfFree at once, each under another lease, at
	// most one puts. No Apply stores an endpoint that outlives its lease, also if
	// it runs at the same time as the lease's Revoke.
	//
	// It returns [ErrInvalid], and has stored nothing, for changes that
	// [Normalize] refuses or that exceed a limit of the backend's own, which the
	// backend documents. It returns [ErrLeaseLost], and has stored nothing that
	// outlives the lease, for an Add under a lease that has ended. A Store need
	// not check the lease of an Add that it skips, because of IfFree or because a
	// later change of the same call overrides it. The Store does not keep the
	// slice.
	Apply(ctx context.Context, service string, changes ...Change) error

	// Watch returns the state of a service and then its changes, from the
	// moment the sequence is ranged over until ctx is done, the loop is left,
	// or the store fails. Nothing is asked, held or started before it is
	// ranged over, and nothing is left when the loop has ended. Each range
	// over it is a new watch.
	//
	// The first batch is a snapshot, empty for a service that has no
	// endpoints: a service without any does not differ from one that never
	// was. Leaving the loop after the first batch is how a list is made. It
	// costs no more requests than reading the set once takes, which the backend
	// documents. Later batches are changes, or snapshots again.
	//
	// A snapshot is complete or is not yielded. Changes that the registry made
	// at once are in one batch. An older state of an endpoint never follows a
	// newer one, also across two watches of one Store, the second of which
	// begins after the first has yielded the newer: a replica that lags is no
	// source. Repeats are allowed. A state that did not last may be left
	// out; a state that lasts is yielded.
	//
	// The sequence ends with an error, always, and with one only: the zero
	// Batch and ctx.Err() if ctx is done, or what went wrong. It ends so as
	// well, within a bound that the backend documents, when the registry or
	// the link to it fell silent, without a reset or a close. While nothing
	// changes, an idle watch asks the registry nothing but what it takes to
	// notice such a silence, which the backend documents.
	Watch(ctx context.Context, service string) iter.Seq2[Batch, error]

	// Services returns the names of the services that have endpoints, sorted
	// and each once: the whole list at first, and the whole list again when it
	// changed. It is a sequence in the manner of Watch, and ends like it. The
	// slices belong to the receiver.
	Services(ctx context.Context) iter.Seq2[[]string, error]

	// Grant makes a lease whose endpoints are removed once it was not renewed
	// for ttl. The backend may round ttl up to what the registry supports, and
	// down only to the longest that the registry knows. The lease's TTL says
	// what it became. A ttl that is not positive is [ErrInvalid]. A time to live
	// that the registry answers with and that is not positive, or that overflows
	// a [time.Duration], is an error of Grant: no lease is returned.
	Grant(ctx context.Context, ttl time.Duration) (Lease, error)
}

// Lease bounds the life of the endpoints that were put under it. Only
// [Store.Grant] makes one. All methods may be called concurrently.
//
// A lease that was not renewed because the registry could not be asked may last
// until the registry can be asked again, and one renewal or removal longer. What
// a lease costs, in the registry and in the Store, depends on the endpoints that
// are under it, and not on how often they were put.
type Lease interface {
	// Renew gives the lease its full time to live again. It asks the registry:
	// a Store does not answer from what it knows itself. Once the lease has
	// ended, Renew either restores all that the lease held or returns
	// [ErrLeaseLost]; it never returns nil while the endpoints are gone. After
	// an outage of any length, it does one of the two as soon as the registry can
	// be asked. It must not bring back an endpoint that is no longer under the
	// lease.
	Renew(ctx context.Context) error

	// Revoke ends the lease and removes the endpoints that are under it, and
	// no others: an endpoint that was put again since, under another lease or
	// under none, stays. It returns nil if, afterwards, the lease has ended,
	// whatever ended it. An Apply under the lease that runs at the same time
	// stores nothing that stays when both have returned.
	Revoke(ctx context.Context) error

	// TTL returns the time to live. It is positive, never changes, and is never
	// more than what the lease outlives: a link that is down for less than TTL
	// since the last Renew does not end the lease.
	TTL() time.Duration
}

// MalformedError describes an entry of a registry that could not be understood and
// was left out. A backend's options name the function that is told of it.
type MalformedError struct {
	// Service is the service that the entry belongs to, as far as its place in
	// the registry tells.
	Service string
	// Key is where the entry is, in the registry's own terms.
	Key string
	// Err says what is wrong with it.
	Err error
}

// Error makes a MalformedError usable as an error.
func (m *MalformedError) Error() string {
	return "naming: malformed entry " + strconv.Quote(cut(m.Key)) + " of service " + strconv.Quote(cut(m.Service)) + ": " + SafeText(m.Err.Error())
}

// Unwrap returns m.Err.
func (m *MalformedError) Unwrap() error { return m.Err }
