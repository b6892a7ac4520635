package consul

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
)

// The defaults of Options.
const (
	DefaultWait            = 30 * time.Second
	DefaultDeregisterAfter = 10 * time.Minute
)

// How a Store bounds its connections: see [Store].
const (
	maxDirect = 50 // watches with a blocking query of their own
	maxShared = 18 // blocking queries for all other sequences: three, and those that were given up
	maxShort  = 32 // requests at once that do not wait for a change
	maxWrites = 8  // of them are left to Apply and to leases
)

// Options are the options of a [Store]. The zero value, and a nil pointer, mean
// the defaults.
type Options struct {
	// Prefix is put before every service's name: a namespace, for those who
	// share a Consul without having Consul's own. Services outside of it do
	// not exist for the Store.
	Prefix string

	// Datacenter is where to read. The default is the agent's own, which is
	// the only one that can be written to: Apply of a Store that has this set
	// is naming.ErrInvalid.
	Datacenter string

	// Partition and Namespace are those of Consul Enterprise. A Consul that is
	// not refuses every request that names one, which is naming.ErrInvalid.
	Partition, Namespace string

	// NodeMeta and Tag narrow what the sequences yield: to services on nodes
	// that have all of this metadata, and to services that have this tag in
	// Consul, be it of the endpoint or for a Codec. Of several registrations
	// of an endpoint, the tags of the one that counts decide. They have no
	// effect on Apply.
	NodeMeta map[string]string
	Tag      string

	// Token, if not nil, returns the token to use. It is called for every
	// request, and so may return another each time; it must return soon, and
	// be safe to call concurrently. Endpoints that were put with another
	// token than it returns now are registered with the new one when their
	// lease is renewed: the agent keeps the token and needs it later.
	Token func(ctx context.Context) (string, error)

	// AllowStale lets any server answer for the sequences, not only the
	// leader: they then may go back to an older state. Consul's own limit is
	// how far it is behind, which it does not tell in advance.
	AllowStale bool

	// IncludeWarning makes endpoints usable whose worst check is warning. By
	// default all checks have to pass, and an endpoint with another is
	// withheld. An entry of another writer in that state has the weight that
	// Consul has for it.
	IncludeWarning bool

	// Codec is another framework's format, to share services with programs
	// that use it: [Kratos], [GoMicro] or [GRPCSpring]. Nil means none.
	Codec *Codec

	// NoDrainingMark makes Apply refuse to mark an endpoint as draining, with
	// naming.ErrInvalid and before anything is asked. The mark is a key of the
	// service's Meta. Endpoints without it are then read as NoDrain.
	NoDrainingMark bool

	// PortName is which port is meant of an entry of another writer that has
	// several with a name each, such as "grpc". One that has none of that name
	// has its default port, as with an empty PortName.
	PortName string

	// IncludeProxies makes the sidecar proxies and gateways of Consul's service
	// mesh services and endpoints like any other. By default they are left out.
	IncludeProxies bool

	// OnMalformed, if not nil, is called for every entry that a watch leaves
	// out because it cannot be understood, with "node/service ID" for a key.
	// It is called from the loops that range over watches, concurrently if
	// there are several, and must not block.
	OnMalformed func(*naming.MalformedError)

	// DeregisterAfter is how long after its lease ended without being revoked
	// an endpoint is removed from the agent; before, it is listed no more, but
	// still there, with what an operator said of it. Consul rounds it up to a minute, and looks only twice a
	// minute. 0 means [DefaultDeregisterAfter].
	DeregisterAfter time.Duration

	// Wait is how long a question waits for a change before it is asked
	// again, less a random eighth. 0 means [DefaultWait]; Consul's own limit
	// is ten minutes. See [Store.SilenceBound].
	Wait time.Duration
}

// Store is a [naming.Store] on Consul's service catalogue. New makes one.
//
// # Apply
//
// Apply is not atomic: the changes are made in their order, one request each or
// more, and are seen one by one. Afterwards the catalogue is read, in the
// consistent mode, and Apply returns nil only when it has them: an agent that
// cannot reach the servers takes a registration all the same.
//
// Registrations of the same endpoint that were there before are removed, also
// those of other agents. That is the limit of it: an agent puts back what was
// removed from the catalogue behind its back, within a minute or, in large
// clusters, some. An endpoint that was put again does not mind, since the newest
// registration counts; one that was deleted comes back if it was registered with
// another agent, unless that or whoever renews it is gone.
//
// The agent speaks to the servers with the token that an endpoint was put with.
// When that was revoked, it cannot tell them any more that a lease has ended: what
// was put with it stays as it is in the catalogue until it is put with another.
//
// Changes to one service made through one Store wait for each other. Conditions
// (IfFree, and a Delete's lease) are exact among those, and among different
// Stores or processes they hold for the moment at which they were looked at.
//
// # Leases
//
// A lease is known to the Store alone, and each endpoint under it has a TTL check
// with its agent: Renew makes each pass, one request per endpoint, eight at a time.
// When a lease
// was not renewed for its time to live, its checks are critical at that moment
// and its endpoints are listed no more, neither by watches nor by Services. (An
// endpoint's check begins anew when it is put: it may stay listed longer than its
// lease lives by as long as it was put after the last Renew.) Consul removes them
// later; see Options.DeregisterAfter.
//
// A lease that was revoked or has expired stays so: Renew and Apply return
// [naming.ErrLeaseLost], also if the endpoints could still be revived. Before it
// says so, Renew makes the checks critical that the lease held: an agent that was
// restarted meanwhile has begun their time anew. They do,
// too, when the agent has forgotten every endpoint of the lease, as one does that
// was replaced. An endpoint that was deregistered by somebody else while others
// of the lease were not, is under it no more.
//
// # Withheld
//
// An endpoint with a check that does not pass is withheld. Maintenance mode, of the
// service or of its node, is [naming.Maintenance] with the operator's note; any other
// check is [naming.FailedCheck] with its name and output. Two checks say that a lease
// has ended instead, and its endpoint is gone: the one that the lease has with the
// agent, when it is critical, and Consul's own check of a node whose agent is lost.
//
// Maintenance of a service outlives the lease of an endpoint: while Consul has the
// registration, the next one is made with it, under whichever lease, until the operator
// ends it by the new service ID. It goes with a registration that is
// deregistered, be it by a Delete, by Revoke, or by Consul after
// Options.DeregisterAfter.
//
// # Watch
//
// A watch reads the service in the consistent mode and then asks a blocking
// query, over and over: its first answer is the snapshot, and of the later ones
// it yields what differs, if anything. An index that went backwards counts for
// nothing, nor does what came with it: the service is read anew. (An agent that
// streams tells only when the wait is over that a snapshot was restored.) No watch
// reads more than 15,000 entries a second once it has read 30,000, where an answer
// counts as 150 entries at least, whatever Consul answers, and none asks more than
// 16 times and then twice a second while the answers bring nothing new. An answer is the
// whole service, so a watch rests after news: 20 µs for each entry, and four times the
// excess if reading and showing took more than 0.5 ms and those 20 µs for each entry. A
// rest lasts 0.1 s at most, and one of less than 2 ms is skipped. Changes that come closer
// together are read together; a change that comes alone is read at once. So an idle
// machine shows every change if a service of up to 200 instances changes every 15 ms.
// While nothing changes a watch asks once in Options.Wait, as Consul knows no other way:
// that is the one thing that an idle watch asks.
//
// A transport may ask a question again by itself when a connection breaks that it
// has used before. The question has the same index, so nothing is missed.
//
// Consul's reply to a token that may not read everything is to leave it out. A
// watch then ends with [naming.ErrPermission], as what is left out is not known
// to be gone; Services yields what there is, if there is anything. To requests
// without any token Consul does not even tell.
//
// # Services
//
// A service counts if it has an endpoint, to be used or withheld. It costs one read
// each to know that of services in which a lease has ended without being revoked, or
// which have an instance on a node whose agent is lost, and nothing for the others. A
// service whose only entries are malformed is listed. One of another writer whose
// name no path can have, such as "/a" or "a//b", is not: Consul has no way to ask for
// its instances, so a watch would show none.
//
// # Connections
//
// A blocking query is a connection, of which an agent by default takes 200 from
// one address, for all programs there. A Store has one each for its first 50
// watches. For those beyond, and for Services, it has three altogether, which wake
// up when anything in the catalogue or in any check changes; then all of them read
// their service again. After such a round they rest for as long as it took, or a
// millisecond for each of them if that is longer. So a watch among them shows a
// change by the end of the next round, which begins after one round and one rest
// at most: within the time of three rounds, or of two and that millisecond each.
// A round of 1,900 services takes a second or two on two cores that the agent
// shares, and while much changes they ask no more than a thousand times a second.
//
// Requests that do not wait for a change, of Apply and leases too, are made 32 at
// a time, of which those of watches and lists are 24 at most. Consul may keep the connection of a query that was given up until its
// wait is over (see Options.Wait): such a query counts until then, and there are
// up to 15 of them besides the 50 and the three. That is 100 requests at most, and
// as many connections; an http.Transport may briefly have some more, as it closes
// those for which MaxIdleConnsPerHost has no room and opens others, unless its
// MaxConnsPerHost says otherwise.
//
// When the agent refuses a connection, as there are too many from its host,
// registrations and renewals come before watches: half of the watches that have a
// query of their own give it up and join those that share three, and what was
// refused is asked again, up to seven times within about six seconds. A query that
// is refused itself is given up too. The Store takes queries back one in ten
// seconds, for watches that begin then. Behind TLS an agent only closes the
// connection, which cannot be told from another failure.
//
// # Silence
//
// [Store.SilenceBound] says how long a sequence bears Consul, or the link to it,
// in silence. Other calls end with their context.
type Store struct {
	client *api.Client
	opts   Options
	gate   chan struct{} // holds a token for each request that is being made and does not wait for a change
	reads  chan struct{} // holds a token for each of those that a sequence makes
	direct chan struct{} // holds a token for each watch with a blocking query of its own
	shared chan struct{} // holds a token for each blocking query of a hub
	seats  seats         // of the watches in direct

	mu     sync.Mutex
	locks  map[string]*lock  // by Consul's name of a service
	leases map[string]*lease // those that may not have ended, by ID
	hub    *hub              // nil if there is none to share
}

var _ naming.Store = (*Store)(nil)

// New returns a Store on a client, which it does not own and which must outlive
// it. It asks Consul nothing. The client should always reach the same agent: what
// was registered with one cannot be renewed with another.
func New(client *api.Client, opts *Options) *Store {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.OnMalformed == nil {
		o.OnMalformed = func(*naming.MalformedError) {}
	}
	if o.Wait <= 0 {
		o.Wait = DefaultWait
	}
	o.Wait = min(max(o.Wait, time.Second), 10*time.Minute)
	if o.DeregisterAfter <= 0 {
		o.DeregisterAfter = DefaultDeregisterAfter
	}
	return &Store{
		client: client,
		opts:   o,
		gate:   make(chan struct{}, maxShort),
		reads:  make(chan struct{}, maxShort-maxWrites),
		direct: make(chan struct{}, maxDirect),
		shared: make(chan struct{}, maxShared),
		locks:  make(map[string]*lock),
		leases: make(map[string]*lease),
	}
}

// SilenceBound returns how long a sequence bears Consul in silence, be it when it
// starts or later: the wait, the sixteenth that Consul adds to it, and an eighth
// of it, at least a second, for the way. With the default it is 36 seconds.
func (s *Store) SilenceBound() time.Duration {
	w := s.opts.Wait
	return w + w/16 + max(w/8, time.Second)
}

// lock is a mutex of one service, for which one can wait with a context.
type lock struct {
	ch   chan struct{}
	refs int // guarded by Store.mu
}

// lock waits for the changes that others make to a service. name is Consul's.
func (s *Store) lock(ctx context.Context, name string) (unlock func(), err error) {
	s.mu.Lock()
	l := s.locks[name]
	if l == nil {
		l = &lock{ch: make(chan struct{}, 1)}
		s.locks[name] = l
	}
	l.refs++
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.refs--; l.refs == 0 {
			delete(s.locks, name)
		}
	}
	select {
	case l.ch <- struct{}{}:
		return func() { <-l.ch; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// Apply implements [naming.Store].
func (s *Store) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	changes, err := naming.Normalize(service, changes)
	if err != nil {
		return err
	}
	if s.opts.Datacenter != "" {
		return fmt.Errorf("%w: apply to %q: a Store with a Datacenter only reads", naming.ErrInvalid, service)
	}
	a := &apply{
		store: s, service: service, name: toConsul(s.opts.Prefix + service),
		there: make(map[string][]*instance),
		puts:  make(map[string]*holding),
		dels:  make(map[string]map[string]bool),
	}
	for _, c := range changes {
		if _, err := a.lease(c); err != nil {
			return err
		}
		if c.Op == naming.Add {
			// Before anything is written.
			if c.Endpoint.Draining && s.opts.NoDrainingMark {
				return fmt.Errorf("%w: put %.100q in service %.100q: a Store with NoDrainingMark marks nothing as draining", naming.ErrInvalid, c.Endpoint.ID, service)
			}
			if _, err := encode(c.Endpoint, 0, s.opts.Codec); err != nil {
				return fmt.Errorf("%w: put %.100q in service %.100q: %w", naming.ErrInvalid, c.Endpoint.ID, service, err)
			}
		}
	}
	if err := a.run(ctx, changes); err != nil {
		return fmt.Errorf("consul: apply to %q: %w", service, describe(ctx, err))
	}
	return nil
}

// apply is one Apply.
type apply struct {
	store         *Store
	service, name string                     // the name is Consul's
	there         map[string][]*instance     // by endpoint ID, those that count first; only if they were read
	puts          map[string]*holding        // by endpoint ID, what was put last
	dels          map[string]map[string]bool // by endpoint ID, the keys of what was deleted
}

func (a *apply) lease(c naming.Change) (*lease, error) {
	if c.Lease == nil {
		return nil, nil
	}
	l, ok := c.Lease.(*lease)
	if !ok || l.store != a.store {
		return nil, fmt.Errorf("%w: lease of %q in service %q is of another store", naming.ErrInvalid, c.Endpoint.ID, a.service)
	}
	return l, nil
}

func (a *apply) run(ctx context.Context, changes []naming.Change) error {
	if len(changes) == 0 {
		return nil
	}
	unlock, err := a.store.lock(ctx, a.name)
	if err != nil {
		return err
	}
	defer unlock()
	var ids []string
	look := false
	for _, c := range changes {
		ids = append(ids, c.Endpoint.ID)
		look = look || c.Op == naming.Delete || c.IfFree
		if l, _ := a.lease(c); l != nil && c.Op == naming.Add && !l.live() {
			return naming.ErrLeaseLost
		}
	}
	if look {
		if a.there, err = a.read(ctx, ids); err != nil {
			return err
		}
	}
	for _, c := range changes {
		l, _ := a.lease(c)
		switch id := c.Endpoint.ID; {
		case c.Op == naming.Delete:
			err = a.delete(ctx, id, l, c.Reclaim)
		case !c.IfFree || a.free(id, l, c.Reclaim):
			err = a.put(ctx, c.Endpoint, l, 0)
		}
		if err != nil {
			return err
		}
	}
	return a.settle(ctx, ids)
}

// read reads what there is of some endpoints.
func (a *apply) read(ctx context.Context, ids []string) (map[string][]*instance, error) {
	q := &api.QueryOptions{RequireConsistent: true}
	if len(ids) <= 8 {
		// The entries of others do not say their endpoints' IDs.
		terms := []string{`"` + metaID + `" not in Service.Meta`}
		for _, id := range ids {
			terms = append(terms, `Service.Meta["`+metaID+`"] == `+quote(id[:firstPiece(id)]))
		}
		q.Filter = strings.Join(terms, " or ")
	}
	if err := a.store.enter(ctx); err != nil {
		return nil, err
	}
	all, meta, err := a.store.instances(ctx, a.name, q)
	a.store.leave()
	if err != nil {
		return nil, err
	}
	if meta.ResultsFilteredByACLs {
		return nil, errFiltered
	}
	there := make(map[string][]*instance)
	for _, i := range all {
		id, _ := i.id(&a.store.opts)
		if slices.Contains(ids, id) {
			there[id] = append(there[id], i)
		}
	}
	for _, list := range there {
		slices.SortFunc(list, func(x, y *instance) int { return a.store.compare(y, x) })
	}
	return there, nil
}

// free reports whether nobody but the lease has an endpoint. Who has one that is
// not to be used has it all the same. With reclaim one that is under no lease is
// free as well.
func (a *apply) free(id string, l *lease, reclaim bool) bool {
	for _, i := range a.there[id] {
		if !a.store.standing(i).gone && !i.lost() {
			if _, err := i.endpoint(&a.store.opts); err == nil {
				return i.Service.ID == l.serviceID(a.name, id) || reclaim && i.Service.ID == serviceID(noLease, a.name, id)
			}
		}
	}
	return true
}

// put registers an endpoint, with a number above another one.
func (a *apply) put(ctx context.Context, e naming.Endpoint, l *lease, above uint64) error {
	h := &holding{name: a.name, endpoint: e, gen: max(uint64(time.Now().UnixNano()), above+1)}
	// One clock may stand still or go back: here numbers only grow.
	if p := a.puts[e.ID]; p != nil {
		h.gen = max(h.gen, p.gen+1)
	}
	for _, i := range a.there[e.ID] {
		h.gen = max(h.gen, i.gen()+1)
	}
	r, err := encode(e, h.gen, a.store.opts.Codec)
	if err != nil {
		return err
	}
	r.Name, r.Partition, r.Namespace = a.name, a.store.opts.Partition, a.store.opts.Namespace
	h.registration = r
	if l == nil {
		r.ID = serviceID(noLease, a.name, e.ID)
	} else {
		r.ID = l.serviceID(a.name, e.ID)
		h.lease = l
		r.Checks = api.AgentServiceChecks{{
			CheckID: r.ID,
			TTL:     l.ttl.String(),
			Status:  api.HealthPassing,

			DeregisterCriticalServiceAfter: a.store.opts.DeregisterAfter.String(),
		}}
		if !l.hold(h) {
			return naming.ErrLeaseLost
		}
	}
	old := a.there[e.ID]
	if err := a.store.register(ctx, h, maintenance(r.ID, old)...); err != nil {
		return err
	}
	a.puts[e.ID] = h
	delete(a.dels, e.ID)
	if err := a.removeOthers(ctx, r.ID, "", old); err != nil {
		return err
	}
	// What was put is known to a later change by its lease and number alone.
	i := new(instance)
	i.Service.ID, i.Service.Service, i.Service.Meta, i.Service.Tags = r.ID, r.Name, r.Meta, r.Tags
	i.Service.Address, i.Service.Port = r.Address, r.Port
	a.there[e.ID] = []*instance{i}
	return nil
}

// maintenance returns the check to register with, if an operator took another
// registration of the endpoint out of use: the endpoint is to be out of use from
// the first moment, under whichever lease. It is the one that Consul's maintenance
// mode makes, and is ended like it. A registration that has it already keeps it.
func maintenance(id string, old []*instance) api.AgentServiceChecks {
	note, ok := kept(old)
	if !ok || slices.ContainsFunc(old, func(i *instance) bool { return i.Service.ID == id }) {
		return nil
	}
	return api.AgentServiceChecks{{
		CheckID: api.ServiceMaintPrefix + id,
		Name:    "Service Maintenance Mode",
		Notes:   note,
		Status:  api.HealthCritical,
		TTL:     "87600h", // an agent takes only checks that it can run
	}}
}

// delete deregisters an endpoint, if it is under l or l is nil, or if reclaim is true
// and it is under no lease.
func (a *apply) delete(ctx context.Context, id string, l *lease, reclaim bool) error {
	list := a.there[id]
	if len(list) == 0 {
		return nil
	}
	first := list[0].Service.ID
	if l != nil && first != l.serviceID(a.name, id) && !(reclaim && first == serviceID(noLease, a.name, id)) {
		return nil
	}
	ids := make(map[string]int)
	for _, i := range list {
		ids[i.Service.ID]++
	}
	// The one that counts goes last, or another would come up.
	for _, i := range slices.Backward(list) {
		if a.dels[id] == nil {
			a.dels[id] = make(map[string]bool)
		}
		a.dels[id][i.Service.ID] = true
		if err := a.remove(ctx, i, ids[i.Service.ID] > 1); err != nil {
			return err
		}
	}
	delete(a.there, id)
	delete(a.puts, id)
	return nil
}

// removeOthers deregisters all entries but that of a registration with the agent.
// node is the agent's; if it is empty, entries with the registration's ID are left
// alone, as any of them may be the one.
func (a *apply) removeOthers(ctx context.Context, id, node string, list []*instance) error {
	for _, i := range list {
		var err error
		switch {
		case i.Service.ID != id:
			err = a.remove(ctx, i, false)
		case node != "" && i.Node.Node != "" && i.Node.Node != node:
			err = a.store.deregisterAt(ctx, i)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// remove deregisters an entry with the agent if it is the agent's, and at the
// catalogue if it is not or other agents have the same. A service ID is unique on
// one node only: what the agent has under it may be another service altogether.
func (a *apply) remove(ctx context.Context, i *instance, others bool) error {
	there, err := a.store.hasSame(ctx, i)
	if err != nil {
		return err
	}
	if there {
		err = a.store.deregister(ctx, i.Service.ID)
		if there = !unknown(err); !there {
			err = nil
		}
	}
	if err == nil && (!there || others) && i.Node.Node != "" {
		err = a.store.deregisterAt(ctx, i)
	}
	if err == nil && there {
		a.store.dropHeld(i.Service.ID)
	}
	return err
}

// settle makes sure that the catalogue has what was put and has not what was
// deleted, and that what was put counts.
func (a *apply) settle(ctx context.Context, ids []string) error {
	// Somebody may put the same endpoint at the same time. Then the last one
	// counts, which takes another look.
	const looks = 5
	for look := 1; ; look++ {
		there, err := a.read(ctx, ids)
		if errors.Is(err, errFiltered) {
			err = a.undo(ctx)
		}
		if err != nil {
			return err
		}
		again := false
		for id, h := range a.puts {
			done, err := a.settlePut(ctx, h, there[id])
			if err != nil {
				return fmt.Errorf("put %q: %w", id, err)
			}
			again = again || !done
		}
		for id, gone := range a.dels {
			for _, i := range there[id] {
				if gone[i.Service.ID] {
					return fmt.Errorf("delete %q: %w", id, errNotSynced)
				}
			}
		}
		if !again {
			return nil
		}
		if look == looks {
			return fmt.Errorf("others put the same endpoint %d times at the same time", looks)
		}
	}
}

// undo removes what was put with a token that may not read it: nobody could look
// after it. What was there before stays.
func (a *apply) undo(ctx context.Context) error {
	for _, h := range a.puts {
		if h.lease != nil && h.lease.isSure(h) {
			continue
		}
		if err := a.store.deregister(ctx, h.registration.ID); err != nil && !unknown(err) {
			return fmt.Errorf("%w; and it is still registered: %w", errNodeRead, err)
		}
		a.store.dropHeld(h.registration.ID)
	}
	if len(a.puts) == 0 {
		return errFiltered
	}
	return errNodeRead
}

// settlePut reports whether an endpoint is as it was put, and if not, does
// something about it.
func (a *apply) settlePut(ctx context.Context, h *holding, there []*instance) (done bool, err error) {
	var mine *instance
	var above uint64
	for _, i := range there {
		if i.Service.ID == h.registration.ID && i.gen() == h.gen {
			mine = i
		} else {
			above = max(above, i.gen())
		}
	}
	if mine == nil {
		// The agent tells whether somebody has removed it since.
		known, err := a.store.hasRegistered(ctx, h.registration.ID)
		if err == nil && known {
			err = errNotSynced
		}
		return true, err
	}
	if above >= h.gen && above < math.MaxUint64 { // above that, the other is removed
		a.there[h.endpoint.ID] = nil
		return false, a.put(ctx, h.endpoint, h.lease, above)
	}
	// Others are removed when what an operator said of them is known here, too.
	if _, out := mine.maintained(); !out {
		if note, ok := kept(there); ok {
			if err := a.store.maintain(ctx, mine.Service.ID, note); err != nil {
				return false, err
			}
		}
	}
	if err := a.removeOthers(ctx, mine.Service.ID, mine.Node.Node, there); err != nil {
		return false, err
	}
	if h.lease != nil {
		h.lease.confirm(h)
		if !mine.passes() {
			// A check that was there before has kept its state.
			return true, a.store.pass(ctx, h.registration.ID)
		}
	}
	return true, nil
}

// serviceID returns the ID by which Consul knows a registration: what can be read
// of the endpoint's ID, and a hash of that ID, the service and the lease. So it is
// unlike that of any other registration, whatever is on the node.
func serviceID(lease, name, id string) string {
	sum := sha256.Sum256([]byte(lease + "\x00" + name + "\x00" + id))
	return readable(id) + "~" + hex.EncodeToString(sum[:8])
}

// readable returns the start of an ID with '-' for all that would need an escape
// in the path of a URL.
func readable(id string) string {
	const most = 100
	var b strings.Builder
	for _, r := range id {
		if r < utf8.RuneSelf && (letterOrDigit(byte(r)) || strings.ContainsRune("-_.:[]@", r)) {
			b.WriteRune(r)
		} else {
			b.WriteByte('-')
		}
		if b.Len() == most {
			break
		}
	}
	return b.String()
}

// noLease stands for a lease in the service IDs of what is under none. They are
// the same whoever puts the endpoint.
const noLease = "0"

// newID returns an ID that nobody has.
func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// firstPiece returns the length of the first piece of an ID that is kept in
// several.
func firstPiece(id string) int {
	meta := make(map[string]string)
	put(meta, metaID, id)
	return len(meta[metaID])
}
