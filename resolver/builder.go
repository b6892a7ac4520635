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
	// DefaultScheme is the default of Options.Scheme.
	DefaultScheme = "naming"
	// DefaultServiceConfig is the default of Options.ServiceConfig: round_robin.
	DefaultServiceConfig = `{"loadBalancingConfig":[{"round_robin":{}}]}`
	// DefaultFirstAnswerTimeout is the default of Options.FirstAnswerTimeout.
	DefaultFirstAnswerTimeout = 5 * time.Second
	// DefaultCacheMaxAge is the default of Options.CacheMaxAge.
	DefaultCacheMaxAge = 24 * time.Hour
)

// Options are the options of a [Builder]. The zero value and a nil pointer mean the
// defaults.
type Options struct {
	// Scheme is the scheme of the targets, in lower case. Empty means
	// [DefaultScheme].
	Scheme string

	// ServiceConfig is the service config of the ClientConns, as JSON. It takes
	// precedence over grpc.WithDefaultServiceConfig. Empty means
	// [DefaultServiceConfig]: gRPC's own default, pick_first, would send all calls
	// to one endpoint. Package balancer makes service configs that use weights and
	// zones.
	ServiceConfig string

	// NoServiceConfig leaves the service config to grpc.WithDefaultServiceConfig,
	// or else to gRPC's default. The load balancing policy then decides what
	// callers read in the error after a service lost its last endpoint.
	// round_robin has "no children to pick from".
	NoServiceConfig bool

	// FirstAnswerTimeout is how long the registry may be silent before a
	// ClientConn without endpoints gets an error:
	//
	//	time until calls that do not wait for ready fail = FirstAnswerTimeout
	//
	// A longer timeout lets such calls hang on a registry that is down. A shorter
	// one fails calls although the registry is merely slow. The watch goes on in
	// both cases, and its first answer ends the error. 0 means
	// [DefaultFirstAnswerTimeout].
	FirstAnswerTimeout time.Duration

	// WithAddresses also gives ClientConns the addresses in the form that gRPC had
	// before it had endpoints, for load balancing policies that read nothing else.
	// The policies made with gRPC's package balancer/base are of that kind. Every
	// change costs 64 more bytes for each endpoint.
	//
	// A policy made with balancer/base never sees a changed metadata or weight of
	// an endpoint that it has: base keeps the Address with which it made the
	// connection, and hands that Address to the picker
	// (base.SubConnInfo.Address). Such a policy must not depend on what can
	// change. Write a policy that does on gRPC's package balancer or
	// balancer/endpointsharding. Both get the Endpoints of every state, and need
	// no Addresses.
	WithAddresses bool

	// PanicThreshold is the share of a service's endpoints, from 0 to 1, that must
	// be usable:
	//
	//	share = usable / (usable + failed + held)
	//
	// While the share is below the threshold, endpoints that failed a check of the
	// registry's ([naming.FailedCheck]) and held endpoints (Held in
	// [naming.Status]) are used as well. Endpoints in maintenance are never used,
	// and do not count.
	//
	// A higher threshold spreads the load sooner over endpoints of which some are
	// dead. A lower threshold leaves the load to fewer endpoints, which may be too
	// few for it. The word and the rule are Envoy's, whose default is 0.5:
	// https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/panic_threshold
	//
	// The default, 0, turns the threshold off: failed endpoints are never used.
	// Held endpoints are used only while nothing else is usable, and for ten
	// seconds beside the endpoints that then take over. Both ends of a time below
	// the threshold are logged (Warn, Info).
	PanicThreshold float64

	// CacheDir is a directory for the last good set of each service, for programs
	// that start while the registry is down. It is created if necessary, readable
	// by the program's user only. Programs can share a directory. Registries
	// cannot. Empty means that nothing is saved.
	//
	// A saved set is used if the registry fails before its first answer, or is
	// silent for a second, or for half of FirstAnswerTimeout if that is less. That is logged (Warn), and load balancing policies can
	// ask for it with [CachedAt]. The registry's first answer replaces the saved
	// set.
	//
	// A set is saved if the registry vouches for it: it is not empty, not stale,
	// and has no held endpoints. Withheld endpoints are saved as withheld, and are
	// not used from the cache either. The first set is saved at once, and changes
	// at most every 10 seconds. So the last changes before the end of a program may
	// be missing.
	//
	// A saved set decides where calls go, so it is trusted as ssh trusts its
	// configuration: on Unix, the directory and the file must belong to the
	// program's user or root, and must not be writable by others. Other systems
	// have no such check. There, only the program's user may have the right to
	// write to the directory. Only a regular file of at most 256 MiB is opened. A
	// file that is refused, cannot be read or was changed is logged (Warn) and
	// otherwise ignored. An endpoint that [naming.CheckEndpoint] refuses is left
	// out, and so are the largest endpoints of a set that needs a larger file.
	// Both are logged.
	CacheDir string

	// CacheMaxAge is the greatest age of a saved set that is used. The age counts
	// from when the registry last vouched for the set. A higher age lets a program
	// start after a longer outage, with endpoints of which more have gone. A lower
	// age fails the calls instead. 0 means [DefaultCacheMaxAge].
	CacheMaxAge time.Duration

	// Logger gets what an operator should know about the cache and about the
	// PanicThreshold. Nil means slog.Default().
	Logger *slog.Logger
}

// Builder makes the resolvers of ClientConns, for grpc.WithResolvers. It implements the
// Builder of gRPC's package resolver. All methods may be called concurrently.
//
// A Builder without ClientConns holds no resources, and needs no Close. Keep the Client
// open as long as the ClientConns: after the Client was closed they keep their
// endpoints, without further changes.
type Builder struct {
	// Constant.
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
	deliverers  int     // that may be busy for one service

	open openTargets
}

// openTargets are the targets that have ClientConns.
type openTargets struct {
	sync.Mutex
	targets map[string]*target // by service; the mutex also guards target.users
}

// source is a *naming.Follower. Tests have others.
type source interface {
	Next() (naming.Event, bool)
	Retry()
	Close()
}

// NewBuilder returns a Builder on c. It sends no request to the registry.
//
// If c is nil, every Build returns [naming.ErrInvalid].
func NewBuilder(c *naming.Client, opts *Options) *Builder {
	o := opts.withDefaults()
	b := &Builder{
		// The other half of the processors is for calls.
		deliverers: max(runtime.GOMAXPROCS(0)/2, 1),
		follow: func(service string, wake func()) (source, error) {
			if c == nil {
				return nil, fmt.Errorf("%w: NewBuilder was given a nil Client", naming.ErrInvalid)
			}
			return c.Follow(service, wake)
		},
		scheme:      o.Scheme,
		config:      o.ServiceConfig,
		emptyConfig: withPickFirst(o.ServiceConfig),
		firstAnswer: o.FirstAnswerTimeout,
		addresses:   o.WithAddresses,
		log:         o.Logger,
		threshold:   min(o.PanicThreshold, 1),
		open:        openTargets{targets: make(map[string]*target)},
	}
	if o.CacheDir != "" {
		b.cache = &cache{dir: o.CacheDir, maxAge: o.CacheMaxAge, log: o.Logger}
	}
	if c != nil {
		b.published = c.Hooks().Published
	}
	return b
}

// withDefaults returns the options with the defaults in place of zero values.
func (opts *Options) withDefaults() Options {
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
	if o.FirstAnswerTimeout <= 0 {
		o.FirstAnswerTimeout = DefaultFirstAnswerTimeout
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
	return o
}

// withPickFirst returns a service config with the load balancing policy pick_first. The
// errors of pick_first have the reason why there are no endpoints. Those of round_robin
// have "no children to pick from".
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

// Scheme returns the scheme of the targets. It implements the Builder of gRPC's package
// resolver.
func (b *Builder) Scheme() string { return b.scheme }

// Target returns the target of a service, for grpc.NewClient.
func (b *Builder) Target(service string) string {
	// Slashes need no escape, and are easier to read.
	return b.scheme + ":///" + strings.ReplaceAll(url.PathEscape(service), "%2F", "/")
}

// serviceOf returns the name of the service in a target. The error is
// [naming.ErrInvalid] and names the part that is wrong.
func (b *Builder) serviceOf(target url.URL) (string, error) {
	fail := func(part, value string) error {
		return fmt.Errorf("%w: target %q has the %s %q, which has no meaning: write %s:///service",
			naming.ErrInvalid, target.Redacted(), part, value, b.scheme)
	}
	switch {
	case target.Opaque != "":
		// The escapes of an opaque target would not be undone.
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

// Build returns the resolver of a ClientConn. It implements the Builder of gRPC's
// package resolver. Build does not wait for the registry. If the endpoints of the
// service are known already, or why they are not, cc gets them before Build returns.
//
// The error is [naming.ErrInvalid] for a target that does not name a service and for a
// service config that gRPC does not understand, or [naming.ErrClientClosed].
func (b *Builder) Build(target grpcresolver.Target, cc grpcresolver.ClientConn, opts grpcresolver.BuildOptions) (grpcresolver.Resolver, error) {
	service, err := b.serviceOf(target.URL)
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

// acquire returns the target of a service. The caller starts the target, and releases
// it in the end.
func (b *Builder) acquire(service string) *target {
	b.open.Lock()
	defer b.open.Unlock()
	t := b.open.targets[service]
	if t == nil {
		t = newTarget(b, service)
		b.open.targets[service] = t
	}
	t.users++
	return t
}

// release gives up what acquire returned. The last release closes the target. The
// Client keeps the watch for a while, and answers the next Build from memory.
func (b *Builder) release(t *target) {
	if b.removeUser(t) {
		t.close()
	}
}

// removeUser removes a user of a target, and reports whether it was the last one.
func (b *Builder) removeUser(t *target) (last bool) {
	b.open.Lock()
	defer b.open.Unlock()
	t.users--
	last = t.users == 0
	if last {
		delete(b.open.targets, t.service)
	}
	return last
}
