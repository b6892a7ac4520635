package etcd

import (
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
)

// DefaultSilenceBound is the default of Options.SilenceBound.
const DefaultSilenceBound = 20 * time.Second

// MaxTxnOps is how many changes one transaction has at most: etcd's own default limit
// (--max-txn-ops). An Apply of more changes makes several transactions.
const MaxTxnOps = 128

// Options are the options of a [Store]. The zero value, and a nil pointer, mean
// the defaults.
type Options struct {
	// Prefix begins every key. It is a namespace, such as "/naming/", and a path: if it
	// does not end in a slash, it gets a slash, unless the Codec's Root begins with one.
	// So "/naming" and "/naming/" are the same namespace, and neither has a key of
	// "/naming2/".
	//
	// The default is the empty prefix, so that keys are shared with [GRPCResolver] and with
	// programs on etcd's own naming packages. Set a prefix in a new deployment. Without
	// a prefix, Services has to look at every key in etcd, and a user of etcd's role
	// based access control needs rights to all keys.
	Prefix string

	// Codec is the wire format. Nil means [Default].
	Codec *Codec

	// Deep makes every entry below a service's path an entry of the service, however
	// many slashes follow. [GRPCResolver] and the endpoints.Manager of etcd's
	// client/v3/naming read keys in this way: for a target "off/svc", the Manager may add
	// keys such as "off/svc/sub/two". The ID of an endpoint is then what follows the
	// service's path, unescaped: "sub/two". So an endpoint of a service "off/svc/sub" is
	// also an endpoint of "off/svc". Of every key, Services lists the name that ends at
	// the last slash. Without Deep, the last slash of a key always ends the name of the
	// only service that the entry belongs to.
	//
	// Deep has no effect with a Codec that has Keys.
	Deep bool

	// NoDrainingMark turns the mark of an endpoint that drains off. The Store then writes
	// nothing that the wire format's own programs do not write. It refuses an endpoint
	// that drains with [naming.ErrInvalid], without a request, and sets NoDrainingMark on every
	// endpoint that it reads without a mark. A Codec whose format has no place for the
	// mark has the same effect.
	//
	// With the mark, readers of this package direct calls away from a server before it
	// stops. Without the mark they see the server leave, and [naming.Hold] by default
	// holds none of its endpoints.
	NoDrainingMark bool

	// OnMalformed, if not nil, is called for every entry that a watch leaves out because
	// it cannot be understood, with the entry's whole key. The loops that range over
	// watches call it, concurrently if there are several loops. It must not block.
	OnMalformed func(*naming.MalformedError)

	// SilenceBound is how long etcd, or the link to etcd, may be silent before a sequence
	// ends with an error, at its start or later. 0 means [DefaultSilenceBound].
	//
	// A Store that heard nothing for SilenceBound/2 sends a probe, which etcd has until
	// SilenceBound to answer. If etcd leaves the request of a watch, or the rest of a
	// revision, unanswered for 3/4*SilenceBound, all watches of the Store end before
	// SilenceBound is over. A shorter bound notices a dead link earlier and costs idle watches
	// more probes: about two for each bound, for all watches of a Store together. With a
	// bound that is shorter than the pauses of a busy server, watches of a healthy server
	// end and are read anew.
	SilenceBound time.Duration
}

// Store is a [naming.Store] on etcd. New makes one.
//
// # Apply
//
// Apply is one transaction, and so all or nothing, for up to [MaxTxnOps] IDs. More IDs are
// changed in several transactions, in the order in which the IDs first occur.
//
// An ID that contains a slash or a percent sign counts twice and costs one read more. A
// program on the old package's API may have put that endpoint under another key, which
// the Store then replaces or deletes. If that key is the Store's key of another ID in the
// same Apply, each ID is changed in a transaction of its own: the endpoint "unix:%25" of
// such a program has the key of the ID "unix:%". A Delete of the one ID also deletes the
// entry of such a program under the other one.
//
// A request that is too large for etcd, by default 1.5 MiB, is naming.ErrInvalid.
//
// # Watch
//
// A watch reads the snapshot, and watches from the next revision on. All watches of a
// Store are on one gRPC stream, which exists while there is a watch. When the stream
// breaks, all watches end with an error, and their callers read the snapshot anew. The
// client instead resumes a watch at the next revision. On a server that was replaced by
// another, a resumed watch waits forever if the other has not reached that revision, and
// skips earlier changes if it has.
//
// A slow loop delays no other watch. Changes that come meanwhile are kept, up to 65,536.
// With more, the watch ends with an error. The changes of several revisions that were
// kept are one batch.
//
// If the client's Watcher was replaced by another Watcher, such as one of package
// namespace, the Store uses that Watcher, which does resume. Its watches end when the
// answers reveal another cluster or an older revision. But a server that was replaced by
// one of the same name may go unnoticed: use Options.Prefix instead, or set ResyncEvery
// in the Client's options.
//
// A service whose name begins the name of another, as "a" begins "a/b", reads and is sent
// the entries of both, and leaves out the entries of the other.
//
// # Snapshots
//
// A snapshot is one state of the registry, at one revision, however many reads it takes.
// The first read is linearizable: it returns the newest state. If the member has lost its
// leader, or does not reach its quorum within half of Options.SilenceBound, a serializable
// read follows, which any member answers with the state that it has. That state may be
// old. So the watch that follows ends with an error until there is a leader again, and a
// list may miss recent writes. The state is never older than what this Store has yielded
// or written before: such a read is an error.
//
// If a linearizable read is older than what was seen before, the registry was replaced or
// restored, and the new state counts.
//
// # Limits
//
// Every field of an answer is checked. An answer that makes no sense, or that is larger
// than 64 MiB, ends the sequence with an error. So does a set of more than
// [naming.MaxEndpoints] endpoints, of more than 1 GiB, or for which more than 5,000,000
// keys must be read. A list of services may have [naming.MaxServices]. A watch keeps
// 65,536 changes, and 256 MiB, for a slow loop.
//
// The etcd client repeats some calls by itself, up to a hundred times within seconds:
// calls that fail because of a token, and calls that a server cancels. The Store bounds
// the repetitions of reads and of Grant. With a Watcher or a Lease that the user put into
// the client, the client's own code handles the server's answers. It may panic, or repeat
// a renewal without a pause.
//
// # Order
//
// An Apply that is one transaction is linearizable: all of it takes effect at one moment
// between its call and its return. If it returns an error, it takes effect once or never,
// and possibly later.
//
// A snapshot, and so a list, is linearizable too, unless the member has no leader. Then it
// may miss what another Store has written. It contains what this Store had yielded or
// written before the snapshot was asked for, as long as the registry is not replaced.
//
// # Silence
//
// Sequences end with an error when nothing was heard for Options.SilenceBound. While
// nothing changes, etcd sends nothing. So a Store that heard nothing for half of that time
// probes the server: it makes a watch and cancels it, on the stream that its watches
// share. One probe serves all watches of the Store. The probe reads nothing. Idle watches
// cost no other request, and the goroutine that probes lives as long as there is a watch.
// Watches require a leader: they end with an error when their member has lost the quorum.
//
// # Connections
//
// When every member refuses the connection, a call, and a watch that begins, fails with
// the cause after half a second. A stream that a learner refused is opened on another
// member.
//
// The client rests between two attempts to connect, up to two minutes after a long outage. A
// call, and a watch that begins, ends this rest, at most once in five seconds for each Store.
// So the Store finds the registry as soon as its caller asks again.
//
// # Leases
//
// etcd counts in seconds. Grant rounds the time to live up to the next second, and etcd
// rounds up to its own minimum, 2 seconds by default. After an election etcd gives all
// leases their full time again.
//
// All leases of a Store are renewed on one gRPC stream, as the client's KeepAlive does. A
// stream for each renewal would cost an authentication each. The stream and its two
// goroutines exist from the first renewal on, until every lease that was renewed is
// revoked, was lost, or was not renewed for its time to live.
//
// # Credentials
//
// The client fetches tokens. When a token has expired, the client fetches a new one, for
// requests and for each new stream. The Store handles two cases that the client does not.
// When etcd refuses a watch because the stream was opened with a token that has expired
// since, the Store opens another stream. When a member does not know a token yet that
// another member has just issued, the Store tries the token again, several times within
// half a second.
//
// Servers before 3.5 refuse every request with a token that they do not know, even a
// request for a new token, with which the client sends the old one. With such a server, a
// token must not expire while its client lives. A watch, or a lease that is renewed, uses
// the token more often than every five minutes, etcd's default. After a change of the
// password the program needs a new client.
//
// # Marks
//
// [Store.Mark] changes the draining mark of an entry that any program wrote. It encodes the
// entry anew. If the format cannot hold the entry with the mark, Mark returns
// [naming.ErrInvalid] and writes nothing. An entry of another framework then has the member
// "draining", and so it is not NoDrainingMark afterwards.
//
// # Rights
//
// A user of etcd's role based access control needs these rights on ranges of keys:
//
//   - Watch, and so a Client's readers and registrations: read, on all keys that
//     begin with the prefix, the service's name and a slash.
//   - Services: read, on all keys that begin with the prefix.
//   - Apply of an Add, or of a Delete without a lease: write, on the endpoint's key;
//     and read, if its ID has a slash or a percent sign.
//   - Apply of an Add with IfFree, or of a Delete with a lease, as a registration
//     makes them: read and write, on the endpoint's key.
//   - Mark: read and write, on the endpoint's key.
//   - Revoke: write, on every key under the lease. Grant and Renew: no right.
//
// An error says which right is missing, and on which keys. A registration whose user may
// not read the service's keys does not notice that somebody else deleted its entry.
type Store struct {
	client *clientv3.Client
	layout layout // set once, by New and by acquire
	report func(*naming.MalformedError)
	bound  time.Duration

	reconnects reconnects

	mu     sync.Mutex
	link   *link   // guarded by mu: what new watches join; nil if there is no such link
	known  epoch   // guarded by mu
	keeper *keeper // guarded by mu: renews leases; nil if no lease is renewed
	mute   int     // guarded by mu: how many streams in a row failed before an answer
}

var (
	_ naming.Store  = (*Store)(nil)
	_ naming.Marker = (*Store)(nil)
)

// New returns a Store on a client. It makes no request. The Store does not close the
// client, which must outlive the Store. A nil opts means the defaults.
//
// Set DialKeepAliveTime in the client's configuration: the client then notices a dead
// connection by itself. Without it, a request on a dead connection waits as long as its
// context.
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
