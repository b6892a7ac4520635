package resolver

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"time"

	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/naming-go/naming"
)

// The defaults of the [Options].
const (
	DefaultScheme        = "naming"
	DefaultServiceConfig = `{"loadBalancingConfig":[{"round_robin":{}}]}`
	DefaultFirstAnswer   = 5 * time.Second
	DefaultCacheMaxAge   = 24 * time.Hour
)

// Options are the options of a [Builder]. The zero value, and a nil pointer,
// mean the defaults.
type Options struct {
	// Scheme is the scheme of the targets, in lower case. Empty means
	// [DefaultScheme].
	Scheme string

	// ServiceConfig is the service config that ClientConns are given with the
	// endpoints, as JSON. Empty means [DefaultServiceConfig]: gRPC's own
	// default, pick_first, would send all calls to one endpoint. It takes
	// precedence over grpc.WithDefaultServiceConfig.
	ServiceConfig string

	// NoServiceConfig says that ClientConns are given none, so that
	// grpc.WithDefaultServiceConfig, or else gRPC's default, counts. What is
	// said then to callers of a service that lost its last endpoint is up to
	// the load balancing policy; round_robin has "no children to pick from".
	NoServiceConfig bool

	// FirstAnswer is how long the registry may be silent before that is
	// reported to a ClientConn that has no endpoints yet. 0 means
	// [DefaultFirstAnswer].
	FirstAnswer time.Duration

	// Addresses says that ClientConns are given the addresses also in the form
	// that gRPC had before it had endpoints, for load balancing policies that
	// read nothing else; those made with gRPC's package balancer/base are such.
	// It makes every change cost 64 more bytes for each endpoint.
	//
	// A policy made with balancer/base never sees a change of the metadata or
	// the weight of an endpoint that it has: base keeps the Address with which
	// it made the connection, and hands that to the picker
	// (base.SubConnInfo.Address). Such a policy must not go by what can change.
	// A policy that does is to be written on gRPC's package balancer or
	// balancer/endpointsharding, which are given the Endpoints of every state,
	// and needs no Addresses.
	Addresses bool

	// PanicThreshold is the share of a service's endpoints, from 0 to 1, that
	// must be usable. While the share is below the threshold, endpoints that
	// failed a check of the registry's ([naming.FailedCheck]) and endpoints that
	// are held (Held in [naming.Status]) are used as well. The share is that of
	// the usable endpoints among the usable, failed and held ones together.
	// Endpoints in maintenance are never used, and are not counted.
	//
	// A higher threshold spreads the load sooner over endpoints of which some
	// are dead. A lower one leaves the load to fewer endpoints, which may be too
	// few for it. The word and the rule are Envoy's, whose default is 0.5:
	// https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/panic_threshold
	//
	// The default, 0, turns it off: failed endpoints are never used, and held
	// ones only while nothing else is usable, and for ten seconds beside what
	// then takes over. Both ends of a time below the threshold are logged (Warn,
	// Info).
	PanicThreshold float64

	// Cache is a directory in which the last good set of each service is kept,
	// for programs that start while the registry is down. It is made if need
	// be, readable by the program's user only, and can be shared by programs
	// but not by registries. Empty means that nothing is kept.
	//
	// A saved set is used if the registry fails, or says nothing for a second,
	// before it has answered for the first time. That is logged (Warn), and
	// load balancing policies can tell with [CachedAt]. What the registry
	// answers in the end replaces it.
	//
	// Saved is what the registry vouches for: neither an empty set, nor a stale
	// one, nor one from which endpoints are held back. Endpoints that the
	// registry withholds are saved as such, and are not used from the cache
	// either. The first set is saved at once and changes at most every 10
	// seconds, so that a program's last changes may be missing.
	//
	// A saved set decides where calls go, so it is trusted as ssh trusts its
	// configuration: on Unix, the directory and the file must belong to the
	// program's user or root and must not be writable by others. Other systems
	// have no such check: there, only the program's user may have the right to
	// write to the directory. Only a regular file of at most 256 MiB is opened.
	// What is refused, cannot be read, or was changed since it was written, is
	// logged (Warn) and otherwise ignored. An endpoint that [naming.CheckEndpoint]
	// refuses is left out, and so are the largest ones of a set that needs a larger
	// file; that is logged as well.
	Cache string

	// CacheMaxAge is how long ago the registry may have vouched for a saved set
	// that is used. 0 means [DefaultCacheMaxAge].
	CacheMaxAge time.Duration

	// Logger receives what an operator wants to know of the cache and of the
	// PanicThreshold. Nil means slog.Default().
	Logger *slog.Logger
}

// Builder makes the resolvers of ClientConns, for grpc.WithResolvers. It
// implements the Builder of gRPC's package resolver. All methods may be called
// concurrently.
//
// It holds nothing while it has no ClientConns, and needs no Close. The Client
// must stay open as long as the ClientConns: after it was closed they keep the
// endpoints they have.
type Builder struct {
	follow      func(service string, wake func()) (source, error)
	scheme      string
	config      string // empty: none
	emptyConfig string // that of a service without endpoints
	firstAnswer time.Duration
	addresses   bool
	cache       *cache                     // nil: none
	published   func(naming.PublishedInfo) // nil, or a hook of the Client's
	log         *slog.Logger
	threshold   float64 // Options.PanicThreshold, from 0 to 1
	atOnce      int     // goroutines of a service that may be busy with telling ClientConns

	mu      sync.Mutex
	targets map[string]*target // by service
}

// source is a *naming.Follower.
type source interface {
	Next() (naming.Event, bool)
	Retry()
	Close()
}

// NewBuilder returns a Builder on r. It asks the registry nothing.
//
// If r is nil, every Build fails with [naming.ErrInvalid].
func NewBuilder(c *naming.Client, opts *Options) *Builder {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Scheme == "" {
		o.Scheme = DefaultScheme
	}
	if o.ServiceConfig == "" {
		o.ServiceConfig = DefaultServiceConfig
	}
	if o.NoServiceConfig {
		o.ServiceConfig = ""
	}
	if o.FirstAnswer <= 0 {
		o.FirstAnswer = DefaultFirstAnswer
	}
	if o.CacheMaxAge <= 0 {
		o.CacheMaxAge = DefaultCacheMaxAge
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if !(o.PanicThreshold > 0) { // also if it is NaN
		o.PanicThreshold = 0
	}
	b := &Builder{
		atOnce: max(runtime.GOMAXPROCS(0)/2, 1),
		follow: func(service string, wake func()) (source, error) {
			if c == nil {
				return nil, fmt.Errorf("%w: NewBuilder was given a nil Client", naming.ErrInvalid)
			}
			return c.Follow(service, wake)
		},
		scheme:      o.Scheme,
		config:      o.ServiceConfig,
		emptyConfig: withPickFirst(o.ServiceConfig),
		firstAnswer: o.FirstAnswer,
		addresses:   o.Addresses,
		log:         o.Logger,
		threshold:   min(o.PanicThreshold, 1),
		targets:     make(map[string]*target),
	}
	if o.Cache != "" {
		b.cache = &cache{dir: o.Cache, maxAge: o.CacheMaxAge, log: o.Logger}
	}
	if c != nil {
		b.published = c.Hooks().Published
	}
	return b
}

// withPickFirst returns a service config with another load balancing policy.
// pick_first is the one that tells callers why there are no endpoints; what
// round_robin tells them is "no children to pick from".
func withPickFirst(config string) string {
	var members map[string]json.RawMessage
	if json.Unmarshal([]byte(config), &members) != nil || members == nil {
		return ""
	}
	delete(members, "loadBalancingPolicy")
	members["loadBalancingConfig"] = json.RawMessage(`[{"pick_first":{}}]`)
	out, err := json.Marshal(members)
	if err != nil {
		return ""
	}
	return string(out)
}

// Scheme returns the scheme of the targets.
func (b *Builder) Scheme() string { return b.scheme }

// Target returns the target of a service, for grpc.NewClient.
func (b *Builder) Target(service string) string {
	// Slashes are fine as they are, and easier to read.
	return b.scheme + ":///" + strings.ReplaceAll(url.PathEscape(service), "%2F", "/")
}

// service returns the name of the service in a target. The error is
// [naming.ErrInvalid] and names the part that is wrong.
func (b *Builder) service(target url.URL) (string, error) {
	fail := func(part, value string) error {
		return fmt.Errorf("%w: target %q has the %s %q, and none is defined: write %s:///service",
			naming.ErrInvalid, target.Redacted(), part, value, b.scheme)
	}
	switch {
	case target.Opaque != "":
		// Its escapes would not be undone.
		return "", fmt.Errorf("%w: target %q has no slashes after the scheme: write %s:///service",
			naming.ErrInvalid, target.Redacted(), b.scheme)
	case target.User != nil:
		return "", fail("user", target.User.Username())
	case target.Host != "":
		return "", fail("authority", target.Host)
	case target.RawQuery != "" || target.ForceQuery:
		return "", fail("query", target.RawQuery)
	case target.Fragment != "":
		return "", fail("fragment", target.Fragment)
	}
	service := strings.TrimPrefix(target.Path, "/")
	if err := naming.CheckService(service); err != nil {
		return "", fmt.Errorf("naming: target %q: %w", target.Redacted(), err)
	}
	return service, nil
}

// Build implements the Builder of gRPC's package resolver. It does not wait for
// the registry. If the endpoints are known already, or why they are not, cc is
// told before Build returns.
//
// The error is [naming.ErrInvalid], for a target that does not name a service
// or a service config that gRPC does not understand, or
// [naming.ErrClientClosed].
func (b *Builder) Build(target grpcresolver.Target, cc grpcresolver.ClientConn, opts grpcresolver.BuildOptions) (grpcresolver.Resolver, error) {
	service, err := b.service(target.URL)
	if err != nil {
		return nil, err
	}
	c := &conn{cc: cc}
	if b.config != "" && !opts.DisableServiceConfig {
		c.config = cc.ParseServiceConfig(b.config)
		if c.config != nil && c.config.Err != nil {
			return nil, fmt.Errorf("%w: service config: %w", naming.ErrInvalid, c.config.Err)
		}
	}
	c.target = b.acquire(service)
	if err := c.target.start(); err != nil {
		b.release(c.target)
		return nil, err
	}
	c.target.dispatcher.join(c)
	return c, nil
}

// acquire returns the target of a service. The caller starts it, and releases
// it in the end.
func (b *Builder) acquire(service string) *target {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.targets[service]
	if t == nil {
		t = newTarget(b, service)
		b.targets[service] = t
	}
	t.users++
	return t
}

// release gives up what acquire returned. The last one ends the target: the
// Client keeps the watch for a while, and answers the next from memory.
func (b *Builder) release(t *target) {
	b.mu.Lock()
	t.users--
	last := t.users == 0
	if last {
		delete(b.targets, t.service)
	}
	b.mu.Unlock()
	if last {
		t.close()
	}
}
