package consul

import (
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
)

// Store is a [naming.Store] on Consul's service catalogue. [New] makes one.
//
// # Apply
//
// Apply is not atomic. It makes the changes in their order, with one request each or
// more, and readers see them one by one. Afterwards it reads the catalogue in the
// consistent mode, and returns nil only if the catalogue has the changes. The reason
// is that an agent accepts a registration also while it cannot reach the servers.
//
// Apply removes earlier registrations of the same endpoint, also those of other
// agents. There is one limit: an agent restores what was removed from the catalogue
// behind its back, within a minute or, in large clusters, some minutes. This does not
// harm an endpoint that was put again, since the newest registration counts. An
// endpoint that was deleted comes back if it was registered with another agent, unless
// that agent, or the program that renews the endpoint, is gone.
//
// The agent speaks to the servers with the token that an endpoint was put with. Once
// that token was revoked, the agent cannot report that a lease has ended: the endpoint
// stays in the catalogue as it is until it is put with another token.
//
// Changes to one service made through one Store wait for each other. Conditions
// (IfFree, and a Delete's lease) are exact among those changes. Among different Stores
// or processes, a condition holds for the moment at which the Store checked it.
//
// # Leases
//
// Only the Store knows a lease. Each endpoint under the lease has a TTL check with its
// agent. Renew makes each check pass, with one request per endpoint, eight at a time.
// When a lease was not renewed for its time to live, its checks become critical, and
// neither watches nor Services list its endpoints. An endpoint's check starts when the
// endpoint is put: the endpoint may outlive its lease by the time between the last
// Renew and the put. Consul removes the endpoints later: see Options.DeregisterAfter.
//
// A lease that was revoked or has expired does not come back: Renew and Apply return
// [naming.ErrLeaseLost], also if the endpoints could still be revived. Before that,
// Renew removes what the lease has left, because an agent that was restarted meanwhile
// has started the time of the checks again. A registration in maintenance mode stays,
// and its check becomes critical. Renew and Apply also return ErrLeaseLost when the
// agent has forgotten every endpoint of the lease, as an agent does that was replaced.
// An endpoint that another program deregistered leaves its lease. The other endpoints
// stay under the lease.
//
// # Withheld
//
// An endpoint with a check that does not pass is withheld. Maintenance mode, of the
// service or of its node, is [naming.Maintenance] with the operator's note. Any other
// check is [naming.FailedCheck] with the check's name and output. Two checks say
// instead that a lease has ended and that its endpoint is gone: the critical check
// that stands for the lease, and Consul's own check of a node whose agent is lost.
//
// [Store.Mark] begins and ends the maintenance of a service.
//
// Maintenance of a service outlives the lease of an endpoint. While Consul has the
// registration, the next registration is made with the same maintenance, under
// whichever lease, until the operator ends it by the new service ID. Maintenance ends
// with a registration that is deregistered: by a Delete, by Revoke, or by Consul after
// Options.DeregisterAfter.
//
// # Watch
//
// A watch reads the service in the consistent mode, which is the snapshot, and then
// asks blocking queries. It yields what differs between two answers. If the index goes
// backwards, the watch ignores the answer and reads the service anew. (An agent that
// streams reports a restored snapshot only when the wait is over.)
//
// While nothing changes, a watch makes one request in Options.Wait, and no other.
// Consul has no other way to wait for a change.
//
// An answer is the whole service, so a watch rests after news:
//
//	rest = 20 µs × entries + 4 × max(0, took - 0.5 ms - 20 µs × entries)
//
// where took is the time to read and to show the answer. A rest is at most 0.1 s, and
// a rest below 2 ms is skipped. Changes that are closer together are read together. A
// change that comes alone is read at once. So an idle machine shows every change if a
// service of up to 200 instances changes every 15 ms.
//
// Two limits hold whatever Consul answers. A watch reads at most 15,000 entries a
// second once it has read 30,000, where an answer counts as 150 entries at least. And
// while the answers bring nothing new, it asks at most 16 times and then twice a
// second.
//
// A transport may repeat a query by itself when a connection breaks that it has used
// before. The query has the same index, so nothing is missed.
//
// Consul leaves out what a token may not read. A watch then ends with
// [naming.ErrPermission], because what is left out may still exist. Services yields
// the services that are left, if there are any. For requests without any token Consul
// does not report that it left something out.
//
// # Services
//
// A service is listed if it has an endpoint, usable or withheld. Two kinds of services
// cost one read each to find out: those in which a lease has ended without a Revoke,
// and those with an instance on a node whose agent is lost. The other services cost
// nothing. A service whose only entries are malformed is listed. A service of another
// writer whose name cannot be part of a path, such as "/a" or "a//b", is not listed:
// Consul cannot be asked for its instances, so a watch would show none.
//
// # Connections
//
// A blocking query is a connection. By default an agent accepts 200 connections from
// one address, for all programs there. A Store has one blocking query each for its
// first 50 watches. For the watches beyond, and for Services, it has three altogether,
// which return when anything in the catalogue or in any check changes. Then all these
// watches read their service again: a round. After a round they rest for as long as
// the round took, or a millisecond for each watch if that is longer. In the worst case
// such a watch shows a change after three rounds, or after two rounds and that rest. A
// round of 1,900 services takes a second or two on two cores that the agent shares.
// While much changes, these watches make at most a thousand requests a second.
//
// Requests that do not wait for a change, also those of Apply and of leases, are made
// 32 at a time, of which watches and lists have 24 at most. Consul may keep the
// connection of an abandoned query until its wait is over (see Options.Wait). Such a
// query counts until then, and there are up to 15 of them besides the 50 and the
// three. That is 100 requests at most, and as many connections. An http.Transport may
// briefly have some more, since it closes connections for which MaxIdleConnsPerHost
// has no room and opens others, unless its MaxConnsPerHost prevents that.
//
// When the agent refuses a connection, because there are too many from its host,
// registrations and renewals have priority over watches. Half of the watches that have
// a blocking query of their own abandon it and join those that share three. So does a
// watch whose own query is refused. Other refused requests are repeated, up to seven
// times within about six seconds. The Store allows one more blocking query in every
// ten seconds, for watches that begin then. Behind TLS an agent only closes the
// connection, which looks like any other failure.
//
// # Silence
//
// [Store.SilenceBound] returns how long a sequence waits for an answer before it ends
// with an error. Other calls end with their context.
type Store struct {
	client *api.Client
	opts   Options
	gates  gates
	seats  seats // of the watches in gates.own
	locks  serviceLocks
	leases leaseSet

	shared struct {
		mu  sync.Mutex
		hub *hub // nil if no sequence needs one
	}
}

var (
	_ naming.Store  = (*Store)(nil)
	_ naming.Marker = (*Store)(nil)
)

// New returns a Store on a client. The Store does not own the client, which must
// outlive it. New makes no request. The client should always reach the same agent,
// because a registration with one agent cannot be renewed with another.
func New(client *api.Client, opts *Options) *Store {
	return &Store{client: client, opts: opts.withDefaults(), gates: newGates()}
}

// SilenceBound returns how long a sequence waits for Consul, or for the link to it,
// when it starts or later. It is the wait, the sixteenth that Consul adds to the wait,
// and for the way an eighth of the wait, at least a second. By default it is about 36
// seconds.
func (s *Store) SilenceBound() time.Duration {
	w := s.opts.Wait
	return w + w/16 + max(w/8, time.Second)
}
