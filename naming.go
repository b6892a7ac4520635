package naming

import (
	"encoding/json"
	"errors"
	"strconv"
)

// The errors on which a caller acts. Every other error means that the registry was
// unreachable or did not answer: such an error may be temporary, and the caller
// tries again. Wrapped errors keep their cause, so that errors.As finds the error of
// the backend's client library.
var (
	// ErrClientClosed is returned by every method of a [Client] after its Close has
	// begun, except Hooks and Close. The methods of the Client's Registrations return
	// it as well, except Status, Close and Withdraw. A [Follower] has it in its Status.
	//
	// A call that waits when Close begins also ends with ErrClientClosed. A call of a
	// Registration ends at once. Other calls end when Close has closed the
	// Registrations: a server that drains may have to find other servers until then.
	// Only [Watcher.Next] returns [ErrWatcherClosed] instead.
	ErrClientClosed = errors.New("naming: client closed")

	// ErrRegistrationClosed is returned by the methods of a [Registration] after its
	// Close or Withdraw has begun, except Status, Close and Withdraw. A call that waits
	// at that moment also ends with ErrRegistrationClosed. If Close of the Client has
	// begun, the error is [ErrClientClosed] instead.
	ErrRegistrationClosed = errors.New("naming: registration closed")

	// ErrLeaseLost is returned by [Lease.Renew] and by [Store.Apply] when the lease
	// has ended: it was revoked, it expired, or the registry forgot it. The caller
	// makes a new lease and puts its endpoints under that.
	//
	// A Store that returns it guarantees that no endpoint put under the lease is in
	// the registry, and that none will appear there later. A Store that only gave up on the lease, because its
	// own connection or session ended, first removes what the lease held, or returns
	// another error. ErrLeaseLost is never returned when the registry could not be
	// asked.
	ErrLeaseLost = errors.New("naming: lease lost")

	// ErrDeleted is the error of a [Registration] whose endpoint somebody else
	// deleted from the registry: see [RegistrationStatus]. No function returns it.
	ErrDeleted = errors.New("naming: endpoint deleted from the registry")

	// ErrReplaced is the error of a [Registration] while a newer one of the same
	// Client, with the same service and ID, has the entry. Its Update, Drain and
	// Resume return it, and its Status has it.
	ErrReplaced = errors.New("naming: replaced by a newer registration of the endpoint")

	// ErrNotFound is returned by [Client.Mark] and [Marker.Mark] when the registry has no
	// entry with the ID. Nothing was stored.
	ErrNotFound = errors.New("naming: no such endpoint")

	// ErrInvalid is returned for arguments that can never work, such as an empty
	// service name or metadata that is not JSON. Nothing was stored. The same call
	// fails again.
	ErrInvalid = errors.New("naming: invalid argument")

	// ErrPermission is returned when the registry refused the caller's credentials.
	// The same call works after the credentials, or the rights they carry, were
	// changed.
	ErrPermission = errors.New("naming: permission denied")
)

// Endpoint is one instance of a service.
type Endpoint struct {
	// ID identifies the endpoint within its service. It defaults to Addr. Two
	// endpoints with different IDs are different ones, even if their addresses are
	// equal.
	ID string

	// Addr is what gRPC dials: "host:port", "[v6]:port" or "unix:path".
	Addr string

	// Metadata is any JSON value (RFC 8259, in UTF-8). It is passed through
	// unchanged. Nil and the JSON value null both mean none. If it is an object,
	// these members have a meaning: "weight" (number), "zone" and "version"
	// (strings), "tags" (list of strings), "draining" (bool; see Draining).
	//
	// All holders of an endpoint share the bytes. Nobody may modify them: neither a
	// caller that got the Endpoint from this package, nor one that passed it in.
	Metadata json.RawMessage

	// Draining means that the endpoint is about to leave: it finishes the calls it
	// has, and gets new ones only while the service has no other endpoint. The mark
	// is separate from Metadata, which belongs to the caller. A member "draining" of
	// Metadata, which other programs and earlier versions write, means the same to
	// [Endpoint.Info].
	//
	// A Store whose format has no place for the mark, or whose options turn the mark
	// off, refuses an Add with Draining: the error is [ErrInvalid], and nothing is
	// stored.
	Draining bool

	// NoDrainingMark means that the entry has no place for the Draining mark, so that an
	// orderly stop and a loss look the same. A Store sets it in what it reads. Apply
	// and Equal ignore it.
	NoDrainingMark bool

	// Unleased means that the entry is under no lease: only a deletion removes it. A
	// Store that knows sets it in what it reads, and yields the endpoint again when
	// it changes. Apply and Equal ignore it.
	Unleased bool
}

// Withheld is an endpoint that the registry has and says not to use. It is not
// lost: nobody puts it again, and its absence from the usable endpoints is not taken
// for a fault.
type Withheld struct {
	// Endpoint is the endpoint as the registry has it.
	Endpoint Endpoint
	// Reason is why the endpoint must not be used.
	Reason Reason
	// Detail is the registry's own text, such as the operator's note or the output
	// of a check. It may be empty. It has the form of [SafeText].
	Detail string
}

// Reason is why the registry says that an endpoint must not be used.
type Reason uint8

const (
	// Maintenance means that an operator, or the owner, took the endpoint out of
	// use. Such an endpoint is never used. A Reason that is neither Maintenance nor
	// FailedCheck is treated as Maintenance.
	Maintenance Reason = iota + 1
	// FailedCheck means that a check of the registry's own found the endpoint
	// unhealthy. Package resolver has an option to use such endpoints when too few
	// others remain.
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
