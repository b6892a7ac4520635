// For authors of backends: the interface that a backend implements, and what its
// methods take and return. The checks that every backend shares are in check.go.

package naming

import (
	"context"
	"iter"
	"strconv"
	"time"
)

// Store is what the author of a backend implements and what a [Client] uses: a
// registry. Package conformance checks every rule below. Package backend/memory is
// the implementation to read first. A Store may also be a [Mapper].
//
// A Store is a thin layer. It does not retry what the registry failed to do, does not
// log, does not cache, and has no goroutine beyond the sequences that are being
// ranged over. Its caller retries. Two things are not retries: a loop that settles a
// race with another writer, and a timer that removes what a lease held. All methods
// may be called concurrently.
//
// A Store that holds a connection, a session or a timer of its own has a Close
// method. A [Client] does not call it: the program that made the Store closes it,
// after [Client.Close].
//
// Every method that can block returns soon after its context is done, with an error
// for which errors.Is(err, ctx.Err()) holds. A call that ended with its context may
// still take effect. Errors wrap their cause. An argument that can never work is
// [ErrInvalid]. Credentials that the registry refuses are [ErrPermission]. Any other
// error means that the registry is unavailable for now.
//
// The set of services and of endpoints is what the registry has, including what other
// programs wrote there. A Store leaves out an entry that it cannot understand or that
// [CheckEndpoint] refuses. It passes a [MalformedError] with the entry's key to a
// function that the backend's options name. Such an entry hides no other entry, and
// the good value that it replaced is gone. A set of more than [MaxEndpoints], or a
// list of more than [MaxServices], ends the sequence with an error.
//
// An endpoint that the registry has and says not to use is in [Batch.Withheld], with
// the reason. It is not deleted. Apply, leases and IfFree treat it as any other
// endpoint, and its service is in the list of services. An operator's decision stays
// when the endpoint is put again, even under another lease.
//
// [Endpoint.Draining] makes the round trip beside Metadata. A Store whose format has
// no place for the mark, or whose options turn the mark off, refuses an Add with the
// mark: it returns [ErrInvalid] and makes no request. It sets [Endpoint.NoDrainingMark] on
// the endpoints that it reads in such a format.
//
// Any valid service name, any ID, any JSON metadata, and IPv6 and unix addresses make
// the round trip unchanged. Of metadata, the JSON value must stay the same, not its
// spelling (see [Endpoint.Equal]).
type Store interface {
	// Apply makes changes to a service: all of them or none where the registry can,
	// in their order where it cannot. The backend documents which. Apply returns nil
	// only when every change is in the registry, where watches that the same Store
	// starts afterwards find it. Of changes to one ID, the last counts. After an
	// error the caller does not know what is stored, and applies the changes again.
	// To apply a change twice is the same as to apply it once. To delete an endpoint
	// that does not exist is not an error.
	//
	// Of several Adds of one ID with IfFree at once, each under another lease, at
	// most one puts. No Apply stores an endpoint that outlives its lease, not even if
	// it runs at the same time as the lease's Revoke.
	//
	// It returns [ErrInvalid], and has stored nothing, for changes that [Normalize]
	// refuses, or that exceed a limit of the backend's own, which the backend
	// documents. It returns [ErrLeaseLost], and has stored nothing that outlives the
	// lease, for an Add under a lease that has ended. A Store need not check the
	// lease of an Add that it skips, because of IfFree or because a later change of
	// the same call overrides it. The Store does not keep the slice.
	Apply(ctx context.Context, service string, changes ...Change) error

	// Watch returns the state of a service and then its changes, from the moment the
	// sequence is ranged over until ctx is done, the loop is left, or the store
	// fails. Before the sequence is ranged over, nothing is asked, held or started.
	// After the loop, nothing is left. Each range over the sequence is a new watch.
	//
	// The first batch is a snapshot. It is empty for a service that has no endpoints:
	// a service without endpoints and one that never existed are the same. A list is a
	// watch that is left after its first batch. It costs at most the requests of one
	// read of the set, whose number the backend documents. Later batches are changes,
	// or snapshots again.
	//
	// A snapshot that is not complete is not yielded. Changes that the registry made
	// at once are in one batch. An older state of an endpoint never follows a newer
	// one. That also holds across two watches of one Store, if the second begins
	// after the first has yielded the newer state: a replica that lags must not be
	// the source. A state may be repeated. A state that did not last may be left out.
	// A state that lasts is yielded.
	//
	// The sequence always ends with an error, and with exactly one: the zero Batch
	// and ctx.Err() if ctx is done, or else what went wrong. It also ends with an
	// error when the registry, or the link to it, falls silent without a reset or a
	// close. The backend documents the bound within which it notices. While nothing
	// changes, an idle watch makes no request except those that it takes to notice
	// such a silence, which the backend documents.
	Watch(ctx context.Context, service string) iter.Seq2[Batch, error]

	// Services returns the names of the services that have endpoints, sorted and
	// without duplicates: the whole list first, and the whole list again after each
	// change. The sequence obeys the rules of Watch, and ends like it. The slices
	// belong to the receiver.
	Services(ctx context.Context) iter.Seq2[[]string, error]

	// Grant makes a lease whose endpoints are removed if it is not renewed for ttl.
	// The backend may round ttl up to what the registry supports. It may round ttl
	// down only to the longest that the registry supports. The lease's TTL returns
	// the result. A ttl that is not positive is [ErrInvalid]. If the registry answers
	// with a time to live that is not positive, or that overflows a [time.Duration],
	// Grant returns an error and no lease.
	Grant(ctx context.Context, ttl time.Duration) (Lease, error)
}

// Mapper is what the author of a backend may implement beside [Store], to say in advance
// what the format keeps of an endpoint. Package migrate uses it to list what is lost when
// endpoints move to the registry. A Store that is not a Mapper works as any other. Only
// that list is not available.
type Mapper interface {
	// Map returns e as a watch of the service would yield it after Apply had put it under
	// a lease, with NoDrainingMark and Unleased. It makes no request. All methods may be
	// called concurrently.
	//
	// The error is [ErrInvalid] if Apply would refuse e, or if no reader would get what
	// Apply stored. A limit that only the registry's server knows is not an error of Map.
	Map(service string, e Endpoint) (Endpoint, error)
}

// Lease is what the author of a backend implements to bound the life of endpoints.
// Only [Store.Grant] makes one. All methods may be called concurrently.
//
// A lease that was not renewed because the registry could not be asked may last until
// the registry can be asked again, and one renewal or removal longer. The cost of a
// lease, in the registry and in the Store, depends on the endpoints that are under
// it, and not on how often they were put.
type Lease interface {
	// Renew gives the lease its full time to live again. It asks the registry: a
	// Store does not answer from its own memory. Once the lease has ended, Renew
	// either restores all that the lease held or returns [ErrLeaseLost]. It never
	// returns nil while the endpoints are gone. After an outage of any length, it
	// does one of the two as soon as the registry can be asked. It must not bring
	// back an endpoint that is no longer under the lease.
	Renew(ctx context.Context) error

	// Revoke ends the lease and removes the endpoints that are under it, and no
	// others: an endpoint that was since put under another lease, or under none,
	// stays. It returns nil if the lease has ended afterwards, whatever ended it. An
	// Apply under the lease that runs at the same time stores nothing that remains
	// when both have returned.
	Revoke(ctx context.Context) error

	// TTL returns the time to live. It is positive and never changes. The lease
	// outlives it: a link that is down for less than TTL since the last Renew does
	// not end the lease.
	TTL() time.Duration
}

// Change is what the author of a backend gets in [Store.Apply]: one change to the
// endpoints of a service.
type Change struct {
	// Op is Add or Delete.
	Op Operation

	// Endpoint is what to add. To delete, its ID (or else its Addr) suffices.
	Endpoint Endpoint

	// Lease, of an Add, is the lease that the endpoint is put under. An endpoint put
	// without a lease stays until it is deleted. An endpoint is under the lease of
	// the last Add only. If the last Add had no lease, the endpoint is under none.
	//
	// Lease, of a Delete, is a condition: the endpoint is deleted only if it is still
	// under that lease. Otherwise it stays, and that is not an error. A Delete
	// without a lease deletes unconditionally.
	//
	// A lease of another Store is ErrInvalid.
	Lease Lease

	// IfFree, of an Add with a lease, is a condition: the endpoint is put only if no
	// endpoint has its ID, or if the one that has it is under that lease already.
	// Otherwise that one stays, and that is not an error. Of several such Adds at
	// once, at most one puts. A server that held an endpoint uses IfFree to put it
	// again without taking it from a successor.
	IfFree bool

	// Reclaim, of an Add with IfFree or of a Delete with a lease, widens the
	// condition: it also holds for an endpoint that is under no lease. A server that
	// held an endpoint uses Reclaim to put back, or to remove, an entry that lost its
	// lease, such as one that an operator edited by hand.
	Reclaim bool
}

// Batch is what the author of a backend yields in [Store.Watch]: the whole set of a
// service's endpoints, or changes to it that took effect together. A batch belongs to
// its receiver: a Store does not read or write the slices of a batch that it has
// yielded.
type Batch struct {
	// Snapshot says that Put and Withheld are the whole set: an endpoint that is in
	// neither is gone. Deleted is then empty.
	Snapshot bool

	// Put are the endpoints that were added or changed, or that may be used again,
	// each in its new state and with its ID set. Only an endpoint without an address
	// may have an empty ID. No ID occurs twice in a batch, counting all three lists.
	// A batch that breaks such a rule ends the watch with an error, and readers keep
	// the last good set.
	Put []Endpoint

	// Deleted are the IDs of endpoints that were removed.
	Deleted []string

	// Withheld are the endpoints that the registry has and says not to use, each in
	// its new state. Such an endpoint must not be used until it is in Put again. An
	// operator's decision stays when the endpoint is put again, even under another
	// lease.
	Withheld []Withheld
}

// MalformedError is what the author of a backend reports for an entry that could not
// be understood and was left out. The backend's options name the function that gets
// it.
type MalformedError struct {
	// Service is the service that the entry belongs to, as far as its place in the
	// registry shows.
	Service string
	// Key is where the entry is, in the registry's own terms.
	Key string
	// Err says what is wrong with the entry.
	Err error
}

// Error returns a text with the key, the service and the text of Err, in the form of
// [SafeText].
func (m *MalformedError) Error() string {
	return "naming: malformed entry " + strconv.Quote(cut(m.Key)) + " of service " + strconv.Quote(cut(m.Service)) + ": " + SafeText(m.Err.Error())
}

// Unwrap returns m.Err.
func (m *MalformedError) Unwrap() error { return m.Err }
