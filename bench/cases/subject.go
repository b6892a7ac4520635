package cases

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/naming-go/naming/bench/actor"
	"github.com/naming-go/naming/bench/peer"
)

// RoleName is the name under which a program passes [Role] to [actor.Main].
const RoleName = "case"

// command is a command to a subject.
type command struct {
	Do      string // open, resolve, register or call
	Peer    string
	Servers peer.Servers
	Service string
	ID      string
	Addr    string
	Timeout time.Duration // of a call
}

// event is an event of a subject.
type event struct {
	Of          string // the command that caused the event, or "set"
	Err         string
	Unsupported bool     // the peer cannot do what the command asks
	Addrs       []string // of a set, sorted
	Took        time.Duration
}

// Role returns the role of a process that uses a peer.
func Role(peers []peer.Peer) actor.Role {
	return func(commands <-chan json.RawMessage, tell func(any)) error {
		var u user
		for raw := range commands {
			var c command
			if err := json.Unmarshal(raw, &c); err != nil {
				return err
			}
			reply := func(err error, took time.Duration) {
				e := event{Of: c.Do, Took: took}
				if err != nil {
					e.Err, e.Unsupported = err.Error(), errors.Is(err, errors.ErrUnsupported)
				}
				tell(e)
			}
			if c.Do != "open" {
				go u.do(c, tell, reply) // may block for as long as the registry is down
				continue
			}
			i := slices.IndexFunc(peers, func(p peer.Peer) bool { return p.Name == c.Peer })
			if i < 0 {
				return fmt.Errorf("there is no peer %q", c.Peer)
			}
			var err error
			u = user{peer: peers[i], servers: c.Servers}
			u.client, err = u.peer.Open(context.Background(), u.servers)
			reply(err, 0)
		}
		return nil
	}
}

// user is a peer in use.
type user struct {
	peer    peer.Peer
	servers peer.Servers
	client  peer.Client
}

// do carries out a command.
func (u user) do(c command, tell func(any), reply func(error, time.Duration)) {
	switch c.Do {
	case "resolve":
		reply(u.resolve(c.Service, tell), 0)
	case "register":
		e := peer.Endpoint{ID: c.ID, Addr: c.Addr}
		_, err := u.client.Register(context.Background(), c.Service, e)
		reply(err, 0)
		if u.peer.Backend == "consul" && err == nil {
			renew(u.servers, u.peer.Entry(c.Service, e))
		}
	case "call":
		call(u.client, c, reply)
	}
}

// resolve resolves a service, and sends every set as an event.
func (u user) resolve(service string, tell func(any)) error {
	_, _, err := u.client.Dial(service)
	// A peer that does not serve gRPC gives strings to a function of its user. The
	// function can refuse them.
	picky := errors.Is(err, errors.ErrUnsupported)
	_, err = u.client.Resolve(service, func(n int, addr func(int) string) {
		e := event{Of: "set"}
		for i := range n {
			if _, _, err := net.SplitHostPort(addr(i)); err == nil || !picky {
				e.Addrs = append(e.Addrs, addr(i))
			}
		}
		slices.Sort(e.Addrs)
		tell(e)
	})
	return err
}

// renew lets the check of an entry pass, again and again. Some registrars leave this
// to their users. Without such a check renew has no effect. Registrars that renew
// their checks themselves have other service IDs.
func renew(servers peer.Servers, e peer.Entry) {
	client, err := api.NewClient(&api.Config{Address: servers.Consul})
	if err != nil {
		return
	}
	for tick := time.NewTicker(5 * time.Second); ; <-tick.C {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_ = client.Agent().UpdateTTLOpts("service:"+e.Service.ID, "", api.HealthPassing, (&api.QueryOptions{}).WithContext(ctx))
		cancel()
	}
}

// call makes one call after the other. Each call waits for the service.
func call(client peer.Client, c command, reply func(error, time.Duration)) {
	target, opts, err := client.Dial(c.Service)
	if err != nil {
		reply(err, 0)
		return
	}
	conn, err := grpc.NewClient(target, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())...)
	if err != nil {
		reply(err, 0)
		return
	}
	h := healthpb.NewHealthClient(conn)
	for tick := time.NewTicker(500 * time.Millisecond); ; <-tick.C {
		ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
		start := time.Now()
		_, err := h.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
		reply(err, time.Since(start))
		cancel()
	}
}

// subject is a process with a peer in it, and the events that it sent.
type subject struct {
	*actor.Process // set once, by newSubject

	mu      sync.Mutex       // guards the fields below
	told    map[string]event // the last event of each command
	slowest time.Duration    // the duration of the slowest call
	set     []string         // the newest set, sorted
	sets    int
	repeats int             // sets that were equal to the one before
	seen    map[string]bool // every address that was in a set
}

func newSubject(p peer.Peer, servers peer.Servers) (*subject, error) {
	s := &subject{told: make(map[string]event), seen: make(map[string]bool)}
	var err error
	if s.Process, err = actor.Start(RoleName, s.hear); err != nil {
		return nil, err
	}
	return s, s.Send(command{Do: "open", Peer: p.Name, Servers: servers})
}

func (s *subject) hear(raw json.RawMessage) {
	var e event
	if err := json.Unmarshal(raw, &e); err != nil {
		panic(err) // the bench wrote the event itself
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Of != "set" {
		s.told[e.Of] = e
		s.slowest = max(s.slowest, e.Took)
		return
	}
	if s.sets > 0 && slices.Equal(s.set, e.Addrs) {
		s.repeats++
	}
	s.set = e.Addrs
	s.sets++
	for _, a := range e.Addrs {
		s.seen[a] = true
	}
}

// answer returns the last event of a command, or false before the first.
func (s *subject) answer(do string) (event, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.told[do]
	return e, ok
}

// shown returns the newest set.
func (s *subject) shown() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set
}

// counts returns the number of sets, and how many of them repeated the set before.
func (s *subject) counts() (sets, repeats int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sets, s.repeats
}

// saw reports whether an address ever was in a set.
func (s *subject) saw(addr string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[addr]
}

// slowestCall returns the duration of the slowest call.
func (s *subject) slowestCall() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slowest
}
