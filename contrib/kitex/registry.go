package kitexnaming

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cloudwego/kitex/pkg/registry"

	"github.com/naming-go/naming"
)

// DefaultDrainDelay is the default of DrainDelay in [RegistryOptions]: one second more than
// the interval in which kitex's clients read their registry.
const DefaultDrainDelay = 6 * time.Second

// RegistryOptions are the options of [NewRegistry]. The zero value and a nil pointer mean
// the defaults.
type RegistryOptions struct {
	// Host is the host in the address of a server that listens on all interfaces, as
	// kitex's servers do by default (":8888"). The port is the listener's. Only the
	// operator knows the address at which others reach the server: for a pod it is the
	// pod's IP address, which Kubernetes puts into an environment variable.
	// kitex-contrib/registry-etcd takes the machine's first IPv4 address, or the
	// environment variable KITEX_IP_TO_REGISTRY:
	//
	//	Host: os.Getenv("KITEX_IP_TO_REGISTRY")
	//
	// Without a Host, Register refuses such a server, and server.Run returns the error.
	Host string

	// Register are the options of the registrations. Wait has no effect here: a
	// registry that is down must not keep a server from serving. A DrainDelay of 0
	// means [DefaultDrainDelay].
	Register *naming.RegisterOptions
}

// NewRegistry returns a Registry for kitex's server.WithRegistry. Any number of servers can
// share a Registry. All methods may be called concurrently.
//
// Register returns at once. It uses ServiceName, Addr, Weight and Tags of the Info. The
// error is [naming.ErrInvalid] for an Info that can never work: an address that other
// machines cannot dial (see [naming.CheckAddress]), or a tag "weight", whose place in the
// metadata has the server's weight. To announce an address that is not the listener's, set
// Addr and SkipListenAddr in the server.WithRegistryInfo of the server.
//
// Deregister returns after the drain delay, as [naming.Registration.Close] does. It returns
// nil for a server that was not registered: kitex calls Deregister also for a server that
// stops in its first second, before kitex registers it.
func NewRegistry(c *naming.Client, opts *RegistryOptions) registry.Registry {
	r := &serverRegistry{client: c, open: openRegistrations{byKey: make(map[registrationKey]*naming.Registration)}}
	if opts != nil {
		r.host = opts.Host
		if opts.Register != nil {
			r.options = *opts.Register
		}
	}
	r.options.Wait = false
	if r.options.DrainDelay == 0 {
		r.options.DrainDelay = DefaultDrainDelay
	}
	return r
}

// serverRegistry implements kitex's registry.Registry.
type serverRegistry struct {
	client  *naming.Client
	host    string
	options naming.RegisterOptions

	open openRegistrations
}

// openRegistrations are the servers that are registered.
type openRegistrations struct {
	sync.Mutex
	byKey map[registrationKey]*naming.Registration
}

type registrationKey struct{ service, addr string }

// replace sets the registration of a server, nil for none, and returns the former one.
func (o *openRegistrations) replace(k registrationKey, reg *naming.Registration) (former *naming.Registration) {
	o.Lock()
	defer o.Unlock()
	former = o.byKey[k]
	if reg == nil {
		delete(o.byKey, k)
	} else {
		o.byKey[k] = reg
	}
	return former
}

// Register implements kitex's registry.Registry.
func (r *serverRegistry) Register(info *registry.Info) error {
	e, err := r.endpoint(info)
	if err != nil {
		return fmt.Errorf("naming: register a kitex server: %w", err)
	}
	reg, err := r.client.Register(context.Background(), info.ServiceName, e, &r.options)
	if err != nil {
		return err
	}
	if former := r.open.replace(registrationKey{info.ServiceName, e.Addr}, reg); former != nil {
		return former.Close() // returns at once: the entry belongs to reg
	}
	return nil
}

// Deregister implements kitex's registry.Registry.
func (r *serverRegistry) Deregister(info *registry.Info) error {
	e, err := r.endpoint(info)
	if err != nil {
		return nil // Register has refused the server with the same error.
	}
	if reg := r.open.replace(registrationKey{info.ServiceName, e.Addr}, nil); reg != nil {
		return reg.Close()
	}
	return nil
}

// endpoint returns the endpoint of a server.
func (r *serverRegistry) endpoint(info *registry.Info) (e naming.Endpoint, err error) {
	switch {
	case r.client == nil:
		return e, fmt.Errorf("%w: NewRegistry was given a nil Client", naming.ErrInvalid)
	case info == nil:
		return e, fmt.Errorf("%w: the Info is nil", naming.ErrInvalid)
	}
	if e.Addr, err = r.addr(info.Addr); err != nil {
		return e, err
	}
	e.Metadata, err = metadata(info)
	return e, err
}

// addr returns the address of a server as clients dial it.
func (r *serverRegistry) addr(a net.Addr) (string, error) {
	if a == nil {
		return "", fmt.Errorf("%w: the Info has no Addr", naming.ErrInvalid)
	}
	addr := a.String()
	if a.Network() == "unix" {
		if name, ok := strings.CutPrefix(addr, "@"); ok {
			return "unix-abstract:" + name, nil
		}
		path, err := filepath.Abs(addr)
		return "unix:" + path, err
	}
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && r.host != "" && (host == "" || ip != nil && ip.IsUnspecified()) {
		addr = net.JoinHostPort(r.host, port)
	}
	if err := naming.CheckAddress(addr); err != nil {
		return "", fmt.Errorf("%w: set RegistryOptions.Host, or Addr and SkipListenAddr in the server's registry.Info", err)
	}
	return addr, nil
}

// metadata returns the weight and the tags of a server as the metadata of an endpoint.
func metadata(info *registry.Info) (json.RawMessage, error) {
	members := make(map[string]any, len(info.Tags)+1)
	for name, value := range info.Tags {
		members[name] = value
	}
	if _, ok := members[weightMember]; ok {
		return nil, fmt.Errorf("%w: the tag %q of %q: set Weight in the registry.Info instead", naming.ErrInvalid, weightMember, info.ServiceName)
	}
	if info.Weight > 0 {
		members[weightMember] = info.Weight
	}
	if len(members) == 0 {
		return nil, nil
	}
	return json.Marshal(members)
}
