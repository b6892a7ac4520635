// Package peer is the common part of the programs on other libraries. Such a program gets
// requests over its standard input. Each library runs in a process of its own, with the
// versions of gRPC and etcd's client that it was made for, and may crash there.
//
// The package is a module of its own, without requirements. The requirements of one library
// must not choose the versions of another.
package peer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrUnsupported is the error of a request that the library does not support.
var ErrUnsupported = errors.New("the library does not support this")

// Instance is an endpoint as every library has it. Weight 0 means no weight.
type Instance struct {
	ID, Addr string
	Weight   int               `json:",omitempty"`
	Metadata map[string]string `json:",omitempty"`
}

// Servers are the registries.
type Servers struct {
	Etcd   []string
	Consul string // host:port
}

// Client is a library, connected to its registry.
type Client interface {
	// Register registers an instance of a service, and keeps it registered. If the
	// library has leases, the lease has the library's shortest time to live. The
	// returned function deregisters the instance in order.
	Register(ctx context.Context, service string, i Instance) (deregister func(context.Context) error, err error)

	// Watch calls update with all instances of a service, first at once and then after
	// every change. update may keep the slice.
	Watch(service string, update func([]Instance)) error

	// Dial returns a function that makes a unary call to the service, balanced as the
	// library does it, and returns the server's address.
	Dial(service string) (call func(context.Context) (addr string, err error), err error)
}

// Request is a request to a program.
type Request struct {
	Do       string // "register", "deregister", "watch", "seen", "call", "report"
	Service  string
	Instance Instance
}

// Reply is the reply to a Request.
type Reply struct {
	Err         string `json:",omitempty"`
	Unsupported bool   `json:",omitempty"`

	Seen []Instance `json:",omitempty"` // for "seen", sorted by address

	// For "report": the calls since "call" or the last report.
	Calls, Failed int
	To            map[string]int `json:",omitempty"` // by the server's address
	FirstErr      string         `json:",omitempty"`
}

// callEvery is the time between two calls of a service.
const callEvery = 5 * time.Millisecond

// Main serves requests on the standard input until its end. The first argument of the
// program names the library. The second argument has Servers as JSON.
func Main(libraries map[string]func(Servers) (Client, error)) {
	if err := run(libraries, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(libraries map[string]func(Servers) (Client, error), args []string) error {
	if len(args) != 2 || libraries[args[0]] == nil {
		return fmt.Errorf("want a library and servers, not %q", args)
	}
	var servers Servers
	if err := json.Unmarshal([]byte(args[1]), &servers); err != nil {
		return err
	}
	client, err := libraries[args[0]](servers)
	if err != nil {
		return err
	}
	p := &program{client: client, registered: make(map[string]func(context.Context) error)}
	requests, replies := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.Stdout)
	for {
		var req Request
		switch err := requests.Decode(&req); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		reply := new(Reply)
		if err := p.serve(&req, reply); err != nil {
			reply.Err, reply.Unsupported = err.Error(), errors.Is(err, ErrUnsupported)
		}
		if err := replies.Encode(reply); err != nil {
			return err
		}
	}
}

type program struct {
	client     Client
	registered map[string]func(context.Context) error

	seen  latest
	calls tally
}

// latest has the last set of each watch, by service.
type latest struct {
	mu    sync.Mutex
	lists map[string][]Instance
}

func (l *latest) set(service string, list []Instance) {
	slices.SortFunc(list, func(a, b Instance) int { return strings.Compare(a.Addr, b.Addr) })
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lists == nil {
		l.lists = make(map[string][]Instance)
	}
	l.lists[service] = list
}

func (l *latest) get(service string) []Instance {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lists[service]
}

// tally counts calls.
type tally struct {
	mu  sync.Mutex
	now Reply
}

func (t *tally) add(addr string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now.Calls++
	if err != nil {
		t.now.Failed++
		if t.now.FirstErr == "" {
			t.now.FirstErr = err.Error()
		}
		return
	}
	if t.now.To == nil {
		t.now.To = make(map[string]int)
	}
	t.now.To[addr]++
}

// take returns the counts and resets them.
func (t *tally) take() Reply {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.now
	t.now = Reply{}
	return r
}

func (p *program) serve(req *Request, reply *Reply) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	switch req.Do {
	case "register":
		deregister, err := p.client.Register(ctx, req.Service, req.Instance)
		p.registered[req.Instance.Addr] = deregister
		return err
	case "deregister":
		return p.registered[req.Instance.Addr](ctx)
	case "watch":
		return p.client.Watch(req.Service, func(list []Instance) { p.seen.set(req.Service, list) })
	case "seen":
		reply.Seen = p.seen.get(req.Service)
		return nil
	case "call":
		call, err := p.client.Dial(req.Service)
		if err != nil {
			return err
		}
		go func() {
			for range time.Tick(callEvery) {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				p.calls.add(call(ctx))
				cancel()
			}
		}()
		return nil
	case "report":
		*reply = p.calls.take()
		return nil
	}
	return fmt.Errorf("unknown request %q", req.Do)
}

// Texts returns the members of metadata that is a JSON object, and nil for other
// metadata. Strings are returned as they are, other values as JSON.
func Texts(metadata any) map[string]string {
	members, ok := metadata.(map[string]any)
	if !ok {
		return nil
	}
	all := make(map[string]string, len(members))
	for name, v := range members {
		if s, ok := v.(string); ok {
			all[name] = s
		} else if b, err := json.Marshal(v); err == nil {
			all[name] = string(b)
		}
	}
	return all
}
