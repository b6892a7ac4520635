// Package open makes a [naming.Store] from a URL, so that the configuration of a program
// says which registry it uses.
//
//	store, done, err := open.Store(ctx, "etcd://10.0.0.1:2379?prefix=/naming/", nil)
//	if err != nil {
//		return err
//	}
//	defer done()
//	c := naming.New(store, nil)
//	defer c.Close()
//
// A program that imports this package links the clients of all registries. A program
// that needs a single registry, or configures its client in another way, imports the
// package of the backend instead.
//
// # memory:
//
// Each call returns a new [memory.Store].
//
// # etcd://host:port and etcds://host:port
//
// The result is a [naming.Store] of package backend/etcd, with its own client. The client
// uses TLS if the scheme is etcds. The default port is 2379. Parameters of the query:
//
//	endpoint          host:port of another member; may occur more than once
//	prefix            the beginning of every key, such as /naming/
//	codec             the wire format, to share services with programs on other
//	                  frameworks: default, kratos, kratos-grpcs (kratos with
//	                  TLS), kitex, go-micro, go-zero or go-kit
//	deep              true: keys below a service's path belong to the service,
//	                  as in etcd's endpoints.Manager
//	no-draining-mark  true: endpoints are never marked as draining
//	cacert            file with the certificates that verify the servers', in PEM;
//	                  the default is the system's (etcds)
//	cert, key         files with the client's certificate and key, in PEM
//	                  (etcds); read again for every connection
//	username-file     file with the name of the user, and
//	password-file     file with the password; a line end at the end is removed
//	username-env      environment variable with the name of the user, and
//	password-env      environment variable with the password
//
// The options of package backend/etcd describe prefix, codec, deep and no-draining-mark.
//
// Further members are parameters because package net/url does not parse
// "host1:2379,host2:2379" as a host.
//
// Store does not wait for a connection, with one exception: a client with a password
// fetches a token first. Store waits for the token until ctx is done, at most five
// seconds, and returns an error if etcd cannot be reached. The log of the etcd client is
// off: the same failures are errors of the Store, which the Client logs. If the
// environment has the variable ETCD_CLIENT_DEBUG, the etcd client logs to standard error,
// as it does by default.
//
// # consul://host:port and consuls://host:port
//
// The result is a [naming.Store] of package backend/consul, with its own client of the
// agent at that address. The client uses TLS if the scheme is consuls. The default port
// is 8500, or 8501 with consuls. A path instead of host and port, as in
// consul:///run/consul.sock, is the unix socket of the agent. Without host and path, the
// environment says where the agent is. The default is localhost. Parameters of the query:
//
//	prefix            the beginning of the name of every service
//	codec             the wire format, to share services with programs on other
//	                  frameworks: default, kratos, go-micro or grpc-spring
//	dc                datacenter to read from; such a Store cannot write
//	partition, ns     partition and namespace, of Consul Enterprise
//	tag               only services that have this tag
//	node-meta         key:value; only services on nodes that have this metadata;
//	                  may occur more than once
//	port-name         the name of the port to use, such as grpc, of another
//	                  writer's entry that has several named ports
//	stale             true: any server may answer, not only the leader
//	include-warning   true: services whose worst check is warning are included
//	include-proxies   true: proxies and gateways of the mesh are included
//	no-draining-mark  true: endpoints are never marked as draining
//	token-file        file with the ACL token, read again for every request, or
//	token-env         environment variable with the ACL token
//	cacert            file with the certificates that verify the agent's, in PEM
//	                  (consuls)
//	cert, key         files with the client's certificate and key, in PEM
//	                  (consuls); read again for every connection
//
// The options of package backend/consul describe the parameters before token-file.
//
// The environment sets what the URL does not set, as for Consul's own tools:
//
//	CONSUL_HTTP_ADDR        if the URL has no host and no path: host:port, or a
//	                        URL of http or https, also with the path of a proxy,
//	                        or unix:// and the path of a socket
//	CONSUL_HTTP_SSL         true: TLS also with the scheme consul
//	CONSUL_HTTP_SSL_VERIFY  false: any certificate is accepted, unless the URL
//	                        has cacert
//	CONSUL_CACERT           like cacert; or
//	CONSUL_CAPATH           a directory of such files
//	CONSUL_CLIENT_CERT,     like cert
//	CONSUL_CLIENT_KEY       and key
//	CONSUL_TLS_SERVER_NAME  the name that the agent's certificate must have
//	CONSUL_HTTP_TOKEN_FILE  like token-file; has precedence over
//	CONSUL_HTTP_TOKEN       the ACL token
//	CONSUL_HTTP_AUTH        user:password for a proxy that requires them
//	CONSUL_NAMESPACE        like ns
//	CONSUL_PARTITION        like partition
//
// Store makes no request to the agent. It succeeds while the agent is down.
//
// # Secrets
//
// URLs appear in logs, process lists and bug reports. So a URL has no place for a
// password: Store refuses a URL with a user. No error contains a value that may be a
// secret in the wrong place. An error names the part of the URL, or the variable of the
// environment, that is wrong. It quotes only the scheme, the names of parameters and the
// names of certificate files.
package open

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
)

// Options configures [Store]. A nil pointer means the defaults.
type Options struct {
	// Logger logs a warning for an entry of the registry that the store cannot
	// understand: once for each entry and reason, and for the first 1,000 entries of
	// a store. Nil means slog.Default(). The [naming.Client] logs all other events.
	Logger *slog.Logger

	// OnMalformed, if not nil, is called each time the store reads an entry that it
	// cannot understand. Nothing is logged then. OnMalformed may be called
	// concurrently and must not block.
	OnMalformed func(*naming.MalformedError)
}

// maxLogged bounds the entries that a store logs, and the memory for them.
const maxLogged = 1000

// malformedLog logs malformed entries. Its methods may be called concurrently.
type malformedLog struct {
	log *slog.Logger

	mu     sync.Mutex
	logged map[string]string // guarded by mu: the last reason of each key
}

// report logs an entry, unless it was logged for the same reason.
func (l *malformedLog) report(m *naming.MalformedError) {
	reason := naming.SafeError(m.Err).Error()
	if !l.first(naming.SafeText(m.Key), reason) {
		return
	}
	l.log.Warn("naming: entry left out, as it cannot be understood", slog.String("service", naming.SafeText(m.Service)),
		slog.String("key", naming.SafeText(m.Key)), slog.String("err", reason))
}

// first reports whether the entry must be logged, and remembers it.
func (l *malformedLog) first(key, reason string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	was, known := l.logged[key]
	if known && was == reason || !known && len(l.logged) >= maxLogged {
		return false
	}
	if l.logged == nil {
		l.logged = make(map[string]string)
	}
	l.logged[key] = reason
	return true
}

// opener makes a store from a URL of one scheme. The parameters that open gets are among
// params.
type opener struct {
	params []string // the names of the parameters that the scheme has
	open   func(context.Context, *url.URL, url.Values, *Options) (naming.Store, func() error, error)
}

// openers returns the openers by scheme.
func openers() map[string]opener {
	return map[string]opener{
		"memory":  {nil, openMemory},
		"etcd":    {etcdParams, openEtcd},
		"etcds":   {append(slices.Clone(etcdParams), tlsParams...), openEtcd},
		"consul":  {consulParams, openConsul},
		"consuls": {append(slices.Clone(consulParams), tlsParams...), openConsul},
	}
}

// Store returns the store that a URL names, and a function that closes its client. Call
// the function after the last use of the store. ctx bounds Store and has no effect
// afterwards.
//
// The error is [naming.ErrInvalid] if the URL can never work. No error contains a secret.
func Store(ctx context.Context, rawURL string, opts *Options) (naming.Store, func() error, error) {
	var own Options
	if opts != nil {
		own = *opts
	}
	if own.Logger == nil {
		own.Logger = slog.Default()
	}
	if own.OnMalformed == nil {
		own.OnMalformed = (&malformedLog{log: own.Logger}).report
	}
	u, o, params, err := parse(rawURL)
	if err != nil {
		return nil, nil, err
	}
	store, done, err := o.open(ctx, u, params, &own)
	if err != nil {
		return nil, nil, fmt.Errorf("open %s store: %w", u.Scheme, err)
	}
	return store, done, nil
}

// parse checks a URL and returns its opener and parameters. It reads no files and makes
// no requests.
func parse(rawURL string) (*url.URL, opener, url.Values, error) {
	fail := func(format string, args ...any) (*url.URL, opener, url.Values, error) {
		return nil, opener{}, nil, invalid(format, args...)
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return fail("%s", reason(rawURL, err))
	}
	if u.User != nil {
		return fail("it has a user before the host: credentials are read from files or the environment")
	}
	all := openers()
	o, ok := all[u.Scheme]
	schemes := strings.Join(slices.Sorted(maps.Keys(all)), ", ")
	if u.Scheme == "" {
		return fail("it has no scheme; known are %s", schemes)
	}
	if !ok {
		return fail("unknown scheme %q; known are %s", u.Scheme, schemes)
	}
	if u.Fragment != "" {
		return fail("it has a fragment (#), which no scheme has; %q in a parameter is written %q", "#", "%23")
	}
	params, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return fail("the query has a broken escape (%%) or a semicolon")
	}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		switch {
		case !slices.Contains(o.params, name):
			return fail("unknown %s", describe(name, u.Scheme, o.params))
		case len(params[name]) > 1 && name != "endpoint" && name != "node-meta":
			return fail("parameter %q occurs more than once", name)
		case slices.Contains(params[name], ""):
			return fail("parameter %q is empty", name)
		}
	}
	return u, o, params, nil
}

// describe returns the name of a parameter and the names that the scheme has. It leaves
// out a name that does not look like the name of a parameter, as it may be a secret.
func describe(name, scheme string, known []string) string {
	const letters = "abcdefghijklmnopqrstuvwxyz-_"
	if name != "" && len(name) <= 20 && strings.Trim(strings.ToLower(name), letters) == "" {
		name = fmt.Sprintf("parameter %q", name)
	} else {
		name = "parameter"
	}
	if len(known) == 0 {
		return fmt.Sprintf("%s: %s has none", name, scheme)
	}
	known = slices.Sorted(slices.Values(known))
	return fmt.Sprintf("%s; known for %s are %s", name, scheme, strings.Join(known, ", "))
}

// reason returns what is wrong with a URL that does not parse. The error of package url
// contains the URL, which may contain a secret.
func reason(rawURL string, err error) string {
	var parse *url.Error
	if errors.As(err, &parse) {
		err = parse.Err
	}
	var escape url.EscapeError
	switch {
	case errors.As(err, &escape):
		return "it has a broken escape (%)"
	case strings.Contains(err.Error(), "port") && strings.HasPrefix(rawURL, "etcd"):
		return "the port is not a number (further hosts are parameters: ?endpoint=host:port)"
	case strings.Contains(err.Error(), "port"):
		return "the port is not a number"
	case strings.Contains(err.Error(), "userinfo"):
		return "it has a user before the host: credentials are read from files or the environment"
	case strings.Contains(err.Error(), "scheme"):
		return "it has no scheme"
	}
	return "it is not a URL"
}

// oneOf returns the entry of known for the value of a parameter, or the zero value if the
// parameter is not set.
func oneOf[T any](params url.Values, name string, known map[string]T) (v T, err error) {
	s := params.Get(name)
	if s == "" {
		return v, nil
	}
	v, ok := known[s]
	if !ok {
		return v, invalid("parameter %q must be one of %s", name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
	}
	return v, nil
}

// flags sets the variables of the parameters that are true or false.
func flags(params url.Values, known map[string]*bool) error {
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if s := params.Get(name); s != "" {
			b, err := strconv.ParseBool(s)
			if err != nil {
				return invalid("parameter %q is neither true nor false", name)
			}
			*known[name] = b
		}
	}
	return nil
}

// invalid returns an error that wraps ErrInvalid.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: URL of a store: "+format, append([]any{naming.ErrInvalid}, args...)...)
}

// openMemory returns a new store of package backend/memory.
func openMemory(_ context.Context, u *url.URL, _ url.Values, opts *Options) (naming.Store, func() error, error) {
	if u.Host != "" || u.Path != "" || u.Opaque != "" {
		return nil, nil, invalid("unexpected text after %q", "memory:")
	}
	return &memory.Store{OnMalformed: opts.OnMalformed}, func() error { return nil }, nil
}
