package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
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
	// Prefix is put before every key, as it is: a namespace, such as
	// "/naming/". The default is none, so that keys are shared with
	// [GRPCResolver] and with programs on etcd's own naming packages. New
	// deployments want one: without, Services has to look at every key there
	// is, and a user of etcd's role based access control needs rights to it.
	Prefix string

	// Codec is the wire format. Nil means [Default].
	Codec *Codec

	// OnMalformed, if not nil, is called for every entry that a watch leaves
	// out because it cannot be understood, with its whole key. It is called
	// from the loops that range over watches, concurrently if there are
	// several, and must not block.
	OnMalformed func(*naming.Malformed)

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
// or give the Registry a Reread.
//
// A service whose name is the beginning of another's, as "a" is of "a/b", reads
// and is sent the entries of both, and leaves out those that are not its own.
//
// # Snapshots
//
// A snapshot is one state of the registry, at one revision, however many reads
// it takes. The first is asked of any member (a serializable read), which also
// one that is cut off from its quorum answers. It counts only if it is not older
// than what this Store has yielded or written before. If it is, the next is a linearizable
// one, and that counts always: if it is older still, then the registry was
// replaced or restored, and what was seen before says nothing any more.
//
// # Order
//
// Apply is linearizable, as far as it is one transaction: all of it takes effect
// at one moment between its call and its return; once, or never, and possibly
// later, if it returns an error.
//
// A snapshot, and so a list, is not: it may miss what another Store has just
// written. It does have what this Store had yielded or written before the
// snapshot was asked for, as long as the registry is not replaced. To list all
// that anybody had written before, apply something on the same Store first; a
// Delete of an endpoint that is not there is enough, and changes nothing.
//
// # Silence
//
// Sequences end with an error when nothing was heard for Options.SilenceBound.
// While nothing changes, etcd says nothing, so a Store that heard nothing for
// half of that time asks for a sign of life: it makes a watch and cancels it, once
// for all of its watches together, however many, on the stream that they share.
// It reads nothing. It is the only thing that idle watches ask, and the
// goroutine that does is there while there is a watch. Watches require a leader: they end
// with an error when the member they are on has lost the quorum.
//
// # Leases
//
// etcd counts in seconds: Grant rounds the time to live up to the next one, and
// etcd to its own minimum, 2 seconds by default. After an election etcd gives
// all leases their full time again.
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
type Store struct {
	client *clientv3.Client
	layout layout
	report func(*naming.Malformed)
	bound  time.Duration

	mu    sync.Mutex
	link  *link // of the watches to come; nil if there is none to share
	known epoch
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
		o.OnMalformed = func(*naming.Malformed) {}
	}
	if o.SilenceBound <= 0 {
		o.SilenceBound = DefaultSilenceBound
	}
	return &Store{
		client: client,
		layout: layout{prefix: o.Prefix + o.Codec.Root, codec: o.Codec},
		report: o.OnMalformed,
		bound:  o.SilenceBound,
	}
}

// Apply implements [naming.Store].
func (s *Store) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	changes, err := naming.Normalize(service, changes)
	if err != nil {
		return err
	}
	fates, err := s.fates(service, changes)
	if err != nil {
		return err
	}
	for len(fates) > 0 {
		n, ops := 0, 0
		for n < len(fates) && ops+fates[n].ops() <= MaxTxnOps {
			ops += fates[n].ops()
			n++
		}
		if err := s.commit(ctx, service, fates[:n]); err != nil {
			return fmt.Errorf("etcd: apply to %q: %w", service, s.describe(ctx, err))
		}
		fates = fates[n:]
	}
	return nil
}

// fate is all that is to become of one ID: a transaction must not name a key
// twice.
type fate struct {
	id, key string
	raw     string // where else the endpoint may be; empty: nowhere
	steps   []step
}

// step is a change, with the value that Encode made.
type step struct {
	add    bool
	value  string
	lease  clientv3.LeaseID // of a Delete: NoLease means no condition
	ifFree bool
}

// ops is how many operations of a transaction it takes at most.
func (f *fate) ops() int {
	if f.raw != "" {
		return 2
	}
	return 1
}

func (s *Store) fates(service string, changes []naming.Change) ([]*fate, error) {
	list := make([]*fate, 0, len(changes))
	byID := make(map[string]*fate, len(changes))
	for _, c := range changes {
		id := c.Endpoint.ID
		st := step{add: c.Op == naming.Add, ifFree: c.IfFree}
		if c.Lease != nil {
			l, ok := c.Lease.(*lease)
			if !ok || l.store != s {
				return nil, fmt.Errorf("%w: lease of %q in service %q is of another store", naming.ErrInvalid, id, service)
			}
			st.lease = l.id
		}
		if st.add {
			value, err := s.layout.codec.Encode(service, c.Endpoint)
			if err != nil {
				return nil, fmt.Errorf("%w: %v of %q in service %q: %w", naming.ErrInvalid, c.Op, id, service, err)
			}
			st.value = string(value)
		}
		f := byID[id]
		if f == nil {
			f = &fate{id: id, key: s.layout.key(service, id)}
			f.raw, _ = s.layout.rawKey(service, id)
			byID[id] = f
			list = append(list, f)
		}
		f.steps = append(f.steps, st)
	}
	return list, nil
}

// holding is what may be there: nothing, an entry under a lease, or under
// anything else if the lease is unknown.
type holding struct {
	there   bool
	lease   clientv3.LeaseID
	unknown bool
}

// outcome returns the operation that the steps come to for what is there, none
// if that stays.
func (f *fate) outcome(h holding) []clientv3.Op {
	var ops []clientv3.Op
	under := func(id clientv3.LeaseID) bool { return !h.unknown && h.lease == id }
	for _, st := range f.steps {
		switch {
		case st.add && (!st.ifFree || !h.there || under(st.lease)):
			h = holding{there: true, lease: st.lease}
			var opts []clientv3.OpOption
			if st.lease != clientv3.NoLease {
				opts = append(opts, clientv3.WithLease(st.lease))
			}
			ops = []clientv3.Op{clientv3.OpPut(f.key, st.value, opts...)}
		case !st.add && h.there && (st.lease == clientv3.NoLease || under(st.lease)):
			h = holding{}
			ops = []clientv3.Op{clientv3.OpDelete(f.key)}
		}
	}
	return ops
}

// own returns the operation on the key that the Store itself uses. raw is what
// is at the other key.
func (f *fate) own(raw holding) []clientv3.Op {
	var conditions []clientv3.LeaseID
	for _, st := range f.steps {
		if st.ifFree || !st.add && st.lease != clientv3.NoLease {
			conditions = append(conditions, st.lease)
		}
	}
	ops := f.outcome(holding{there: true, unknown: true})
	if len(conditions) == 0 {
		return ops
	}
	// One transaction in the other, whose conditions are nobody else's.
	none := f.outcome(raw)
	stays := len(ops) == 0
	for _, id := range conditions {
		ops = []clientv3.Op{clientv3.OpTxn(
			[]clientv3.Cmp{clientv3.Compare(clientv3.LeaseValue(f.key), "=", id)},
			f.outcome(holding{there: true, lease: id}), ops)}
	}
	if stays && len(none) == 0 {
		return ops // as nothing is under a lease that is not there
	}
	return []clientv3.Op{clientv3.OpTxn(
		[]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(f.key), "=", 0)}, none, ops)}
}

// commit makes the changes of some IDs, together.
func (s *Store) commit(ctx context.Context, service string, fates []*fate) error {
	// A raw key is found to be ours by its value, so it is read, and must be
	// the same still when it is deleted.
	const tries = 10
	for range tries {
		raw, err := s.rawEntries(ctx, service, fates)
		if err != nil {
			return err
		}
		var guards []clientv3.Cmp
		var ops []clientv3.Op
		for _, f := range fates {
			var h holding
			if kv := raw[f]; kv != nil {
				h = holding{there: true, lease: clientv3.LeaseID(kv.Lease)}
				guards = append(guards, clientv3.Compare(clientv3.ModRevision(f.raw), "=", kv.ModRevision))
				if len(f.outcome(h)) > 0 {
					ops = append(ops, clientv3.OpDelete(f.raw))
				}
			}
			ops = append(ops, f.own(h)...)
		}
		if len(guards) > 0 || len(ops) > 1 {
			ops = []clientv3.Op{clientv3.OpTxn(guards, ops, nil)}
		}
		resp, err := s.client.Do(ctx, ops[0])
		if err != nil {
			return err
		}
		switch {
		case resp.Put() != nil:
			s.wrote(resp.Put().Header)
		case resp.Del() != nil:
			s.wrote(resp.Del().Header)
		default:
			s.wrote(resp.Txn().Header)
		}
		if len(guards) == 0 || resp.Txn().Succeeded {
			return nil
		}
	}
	return fmt.Errorf("the entries were changed %d times while they were looked at", tries)
}

// rawEntries reads the entries that a program on the old package's API has put
// for some IDs.
func (s *Store) rawEntries(ctx context.Context, service string, fates []*fate) (map[*fate]*mvccpb.KeyValue, error) {
	var gets []clientv3.Op
	byKey := make(map[string]*fate)
	for _, f := range fates {
		if f.raw != "" {
			gets = append(gets, clientv3.OpGet(f.raw))
			byKey[f.raw] = f
		}
	}
	if len(gets) == 0 {
		return nil, nil
	}
	resp, err := s.client.Do(ctx, clientv3.OpTxn(nil, gets, nil))
	if err != nil {
		return nil, err
	}
	raw := make(map[*fate]*mvccpb.KeyValue)
	dir := s.layout.dir(service)
	for _, r := range resp.Txn().Responses {
		for _, kv := range r.GetResponseRange().GetKvs() {
			f := byKey[string(kv.Key)]
			if f == nil {
				continue
			}
			if _, id, mine, _ := s.layout.entry(service, f.raw[len(dir):], kv.Value); mine && id == f.id {
				raw[f] = kv
			}
		}
	}
	return raw, nil
}

// lease is a naming.Lease.
type lease struct {
	store *Store
	id    clientv3.LeaseID
	ttl   time.Duration
}

// Grant implements [naming.Store].
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (naming.Lease, error) {
	if ttl <= 0 {
		return nil, fmt.Errorf("%w: time to live %v of a lease", naming.ErrInvalid, ttl)
	}
	seconds := int64(ttl / time.Second)
	if ttl%time.Second > 0 {
		seconds++
	}
	resp, err := s.client.Grant(ctx, seconds)
	if err == nil && resp.Error != "" {
		err = errors.New(resp.Error)
	}
	if err != nil {
		return nil, fmt.Errorf("etcd: grant: %w", s.describe(ctx, err))
	}
	return &lease{store: s, id: resp.ID, ttl: time.Duration(resp.TTL) * time.Second}, nil
}

// LeaseID returns the ID by which etcd knows a lease that a Store granted, and
// [clientv3.NoLease] for any other, such as nil. It is what [clientv3.WithLease]
// wants.
func LeaseID(l naming.Lease) clientv3.LeaseID {
	if l, ok := l.(*lease); ok {
		return l.id
	}
	return clientv3.NoLease
}

// TTL implements [naming.Lease].
func (l *lease) TTL() time.Duration { return l.ttl }

// Renew implements [naming.Lease].
func (l *lease) Renew(ctx context.Context) error {
	for try := 0; ; try++ {
		_, err := l.store.client.KeepAliveOnce(ctx, l.id)
		if err == nil {
			return nil
		}
		if !unknownToken(err) || !wait(ctx, try) {
			return fmt.Errorf("etcd: renew lease %x: %w", l.id, l.store.describe(ctx, err))
		}
	}
}

// Revoke implements [naming.Lease].
func (l *lease) Revoke(ctx context.Context) error {
	resp, err := l.store.client.Revoke(ctx, l.id)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("etcd: revoke lease %x: %w", l.id, l.store.describe(ctx, err))
	}
	l.store.wrote(resp.Header)
	return nil
}
