package etcd

import (
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
)

// DefaultSilenceBound is the default of Options.SilenceBound.
const DefaultSilenceBound = 20 * time.Second

// MaxTxnOps is how many changes one transaction has at most: etcd's own default
// limit (--max-txn-ops). An Apply of more is made in several.
const MaxTxnOps = 128

// Options are the options of a [Store]. The zero value, and a nil pointer, mean
// the defaults.
type Options struct {
	// Prefix is put before every key: a namespace, such as "/naming/". It is a
	// path: one that does not end in a slash gets one, unless the Codec's Root
	// begins with one, so that "/naming" and "/naming/" are the same namespace
	// and neither has anything of "/naming2/".
	//
	// The default is none, so that keys are shared with [GRPCResolver] and with
	// programs on etcd's own naming packages. New deployments should set one:
	// without a Prefix, Services has to look at every key there is, and a user
	// of etcd's role based access control needs rights to all of them.
	Prefix string

	// Codec is the wire format. Nil means [Default].
	Codec *Codec

	// Deep makes every entry below a service's path one of the service, however
	// many slashes follow, as [GRPCResolver] and the endpoints.Manager of etcd's
	// client/v3/naming have it: of a target "off/svc", the Manager may add keys
	// such as "off/svc/sub/two". The ID of an endpoint is then what follows the
	// service's path, as it is: "sub/two". So an endpoint of a service "off/svc/sub"
	// is one of "off/svc" as well, and Services lists of every key the name
	// that its last slash ends. Without Deep, the last slash of a key always
	// ends the name of the only service that the entry belongs to.
	//
	// It has no effect with a Codec that has Keys.
	Deep bool

	// NoDrainingMark makes the Store refuse an endpoint that drains with
	// [naming.ErrInvalid], without a request, so that it writes nothing that
	// the wire format's own programs do not write. It then sets NoDrain on
	// every endpoint that it reads without a mark. Codecs whose format has no
	// place for the mark have the same effect.
	NoDrainingMark bool

	// OnMalformed, if not nil, is called for every entry that a watch leaves
	// out because it cannot be understood, with its whole key. It is called
	// from the loops that range over watches, concurrently if there are
	// several, and must not block.
	OnMalformed func(*naming.MalformedError)

	// SilenceBound is how long a sequence bears etcd, or the link to it, in
	// silence, be it when it starts or later. 0 means [DefaultSilenceBound].
	SilenceBound time.Duration
}

// Store is a [naming.Store] on etcd. New makes one.
//
// # Apply
//
// Apply is one transaction, and so all or nothing, for up to [MaxTxnOps] IDs.
// More are changed in several transactions, in the order in which they first
// come up.
//
// An ID with a slash or a percent sign in it counts twice and costs one more
// read: a program on the old package's API may have put that endpoint under
// another key, which then is replaced or deleted.
//
// A request that is too large for etcd, by default 1.5 MB, is naming.ErrInvalid.
//
// # Watch
//
// A watch reads the snapshot, and watches from the next revision on. All
// watches of a Store are on one gRPC stream, which exists while there is a
// watch. None goes on by itself when the stream breaks: all end with an error,
// and their callers read anew. That is on purpose. The client's own way, to
// resume a watch at the next revision, waits forever on a server that was
// replaced by one that has not come that far, and skips what happened before on
// one that has.
//
// A loop that takes its time holds up no other watch. What comes meanwhile is
// kept, up to 65,536 changes; with more the watch ends with an error. Changes of
// several revisions that were kept are one batch.
//
// If the client's Watcher is not its own but was replaced by another, as package
// namespace makes one, that one is used, and does resume. Its watches end when
// the answers reveal another cluster or an older revision, but a server that was
// replaced by one of the same name may go unnoticed: rather use Options.Prefix,
// or give the Client a ResyncEvery.
//
// A service whose name is the beginning of another's, as "a" is of "a/b", reads
// and is sent the entries of both, and leaves out those that are not its own.
//
// # Snapshots
//
// A snapshot is one state of the registry, at one revision, however many reads
// it takes. The first read is linearizable: it returns the newest state. Only if
// the member has lost its leader, or does not reach its quorum within half of
// Options.SilenceBound, a serializable read follows, which any member answers
// with the state that it has. That state may be old, so the watch that follows
// ends with an error until there is a leader again, and a list may miss what was
// written meanwhile. It is never older than what this Store has yielded or
// written before: then the read is an error.
//
// If a linearizable read is older than what was seen before, the registry was
// replaced or restored, and the new state counts.
//
// # Limits
//
// Every field of an answer is checked. An answer that makes no sense, or is larger
// than 64 MiB, ends the sequence with an error, and so does a set of more than
// [naming.MaxEndpoints] endpoints, of more than 1 GiB, or for which more than
// 5,000,000 keys are to be read. A list of services may have [naming.MaxServices].
// A watch keeps 65,536 changes, and 256 MiB, for a loop that takes its time.
//
// The etcd client repeats some calls by itself, up to a hundred times within
// seconds: those that fail because of a token, and those that a server cancels.
// The Store bounds that for reads and for Grant. With a Watcher or a Lease that
// the user put into the client, the client's own code meets what the server
// answers, and may panic or repeat a renewal without a pause.
//
// # Order
//
// Apply is linearizable, as far as it is one transaction: all of it takes effect
// at one moment between its call and its return; once, or never, and possibly
// later, if it returns an error.
//
// A snapshot, and so a list, is as well, unless the member has no leader: then it
// may miss what another Store has written. It does have what this Store had
// yielded or written before the snapshot was asked for, as long as the registry
// is not replaced.
//
// # Silence
//
// Sequences end with an error when nothing was heard for Options.SilenceBound.
// While nothing changes, etcd says nothing, so a Store that heard nothing for
// half of that time probes the server: it makes a watch and cancels it, once
// for all of its watches together, however many, on the stream that they share.
// The probe reads nothing. Idle watches cost no other request, and the goroutine
// that probes lives as long as there is a watch. Watches require a leader: they end
// with an error when the member they are on has lost the quorum.
//
// # Connections
//
// A call, and a watch that begins, fails after half a second with the cause when
// every member refuses the connection. A stream that a learner refused is opened
// on another member.
//
// # Leases
//
// etcd counts in seconds: Grant rounds the time to live up to the next one, and
// etcd to its own minimum, 2 seconds by default. After an election etcd gives
// all leases their full time again.
//
// All leases of a Store are renewed on one gRPC stream, as the client's KeepAlive
// does: a stream for each renewal would cost an authentication each. The stream
// and its two goroutines exist from the first renewal on until every lease that
// was renewed is revoked, was lost, or was not renewed for its time to live.
//
// # Credentials
//
// Tokens are the client's business. It fetches a new one when one has expired,
// for requests and for each new stream. What it leaves undone, the Store does:
// when etcd refuses a watch on a stream that was opened with a token since
// expired, it opens another, and a token that a member does not know yet because
// another has just given it is tried again, some times within half a second.
//
// Servers before 3.5 want no request with a token that they do not know, not
// even one for a new token, and the client sends the old one with it. So there a
// token must not end while its client lives: a watch, or a lease that is renewed,
// uses it more often than every five minutes, etcd's default, but a password
// that is changed takes a new client.
//
// # Rights
//
// What a user of etcd's role based access control needs, as key ranges:
//
//   - Watch, and so a Client's readers and registrations: read, on all keys that
//     begin with the prefix, the service's name and a slash.
//   - Services: read, on all keys that begin with the prefix.
//   - Apply of an Add, or of a Delete without a lease: write, on the endpoint's key;
//     and read, if its ID has a slash or a percent sign.
//   - Apply of an Add with IfFree, or of a Delete with a lease, as a registration
//     makes them: read and write, on the endpoint's key.
//   - Revoke: write, on every key under the lease. Grant and Renew: no right.
//
// An error says which right is missing, and on which keys. A registration whose
// user may not read the service's keys does not notice that somebody deleted its
// entry.
type Store struct {
	client *clientv3.Client
	layout layout
	report func(*naming.MalformedError)
	bound  time.Duration

	mu    sync.Mutex
	link  *link // of the watches to come; nil if there is none to share
	known epoch
	// keeper renews leases; nil if there are none to be renewed.
	keeper *keeper
	mute   int // how many streams in a row failed before anything was heard
}

var _ naming.Store = (*Store)(nil)

// New returns a Store on a client, which it does not own and which must outlive
// it. It asks etcd nothing.
//
// A client that is told to (DialKeepAliveTime) notices a dead connection by
// itself, for requests too, which otherwise wait as long as their context.
func New(client *clientv3.Client, opts *Options) *Store {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Codec == nil {
		o.Codec = Default()
	}
	if o.OnMalformed == nil {
		o.OnMalformed = func(*naming.MalformedError) {}
	}
	if o.SilenceBound <= 0 {
		o.SilenceBound = DefaultSilenceBound
	}
	return &Store{
		client: client,
		layout: layout{
			prefix: keyPrefix(o.Prefix, o.Codec.Root), codec: o.Codec,
			deep: o.Deep && o.Codec.Keys == nil, noMarks: o.NoDrainingMark,
		},
		report: o.OnMalformed,
		bound:  o.SilenceBound,
	}
}
