// Package open makes a [naming.Store] of a URL, so that a program's
// configuration says which registry it uses:
//
//	store, done, err := open.Store(ctx, "etcd://10.0.0.1:2379?prefix=/naming/", nil)
//	if err != nil {
//		return err
//	}
//	defer done()
//	c := naming.New(store, nil)
//	defer c.Close()
//
// A program that imports this package links the client of every registry. One
// that needs a single registry, or more say in how its client is made, imports
// that backend instead.
//
// # memory:
//
// A [memory.Store] of its own for each call.
//
// # etcd://host:port and etcds://host:port
//
// A [naming.Store] of package backend/etcd on a client of its own, with TLS in
// the case of etcds. The port is 2379 if there is none. Parameters of the query:
//
//	endpoint          host:port of another member; may come more than once
//	prefix            the path that every key begins with, such as /naming/
//	codec             the wire format, to share services with programs on other
//	                  frameworks: default, kratos, kratos-grpcs (kratos with
//	                  TLS), kitex, go-micro, go-zero or go-kit
//	deep              true: what is below a service's path is the service's,
//	                  as etcd's endpoints.Manager has it
//	no-draining-mark  true: no endpoint is ever marked as draining
//	cacert            file with the certificates that the servers' are checked
//	                  against, in PEM; the system's if there is none (etcds)
//	cert, key         files with the client's certificate and key, in PEM
//	                  (etcds); read again for every connection
//	username-file     file with the name of the user, and
//	password-file     with the password; a line end after them is cut off
//	username-env      name of the environment variable with the name of the
//	password-env      user, and with the password
//
// The options of package backend/etcd tell more of the second to the fifth.
//
// Further members are parameters because package net/url takes
// "host1:2379,host2:2379" for no host.
//
// The client is made as etcd's is, without waiting, except that one with a
// password fetches a token first. Store waits for that, until ctx is done or
// for five seconds, and fails if etcd cannot be reached. The client's own log is
// off: what it would say comes back as errors, which the Client logs. With the
// variable ETCD_CLIENT_DEBUG in the environment, the client logs to standard error
// as it does by default.
//
// # consul://host:port and consuls://host:port
//
// A [naming.Store] of package backend/consul on a client of its own, of the agent
// at that address: with TLS in the case of consuls. The port is 8500, or 8501 of
// consuls, if there is none. With a path in the place of host and port, as in
// consul:///run/consul.sock, the agent serves at this unix socket; with neither,
// the environment says where, or it is localhost. Parameters of the query:
//
//	prefix            what the name of every service begins with
//	codec             the wire format, to share services with programs on other
//	                  frameworks: default, kratos, go-micro or grpc-spring
//	dc                datacenter to read from; such a Store cannot write
//	partition, ns     partition and namespace, of Consul Enterprise
//	tag               only services that have this tag
//	node-meta         key:value; only services on nodes that have this metadata;
//	                  may come more than once
//	port-name         which port is meant of another writer's entry that has
//	                  several with names, such as grpc
//	stale             true: any server may answer, not only the leader
//	include-warning   true: services count whose worst check is warning
//	include-proxies   true: the mesh's proxies and gateways are services as well
//	no-draining-mark  true: no endpoint is ever marked as draining
//	token-file        file with the ACL token, read again for every request, or
//	token-env         name of the environment variable with it
//	cacert            file with the certificates that the agent's is checked
//	                  against, in PEM (consuls)
//	cert, key         files with the client's certificate and key, in PEM
//	                  (consuls); read again for every connection
//
// The options of package backend/consul tell more of those before token-file.
//
// What the URL does not say is taken from the environment, as Consul's own tools
// do:
//
//	CONSUL_HTTP_ADDR        if the URL has no host and no path: host:port, or that
//	                        as a URL of http or https, also with the path of a
//	                        proxy, or unix:// and the path of a socket
//	CONSUL_HTTP_SSL         true: TLS also with consul
//	CONSUL_HTTP_SSL_VERIFY  false: any certificate will do, unless there is cacert
//	CONSUL_CACERT           as cacert; or
//	CONSUL_CAPATH           a directory of such files
//	CONSUL_CLIENT_CERT,     as cert
//	CONSUL_CLIENT_KEY       and key
//	CONSUL_TLS_SERVER_NAME  the name that the agent's certificate has to be for
//	CONSUL_HTTP_TOKEN_FILE  as token-file; it comes before
//	CONSUL_HTTP_TOKEN       the ACL token
//	CONSUL_HTTP_AUTH        user:password for a proxy that wants them
//	CONSUL_NAMESPACE        as ns
//	CONSUL_PARTITION        as partition
//
// Store asks the agent nothing: one that is down is no error.
//
// # Secrets
//
// URLs end up in logs, process lists and bug reports, so there is no place in
// one for a password: a URL with a user in it is refused. No error repeats what
// might be a secret that came to the wrong place; it names the part of the URL
// or the variable of the environment that is wrong, and quotes of it only the
// scheme, the names of parameters and of certificate files.
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

// Options are the options of [Store]. A nil pointer means the defaults.
type Options struct {
	// Logger receives a Warn for every entry of the registry that cannot be
	// understood, once for each entry and reason, and for the first 1,000 entries
	// of a Store. Nil means slog.Default(). What else there is to log, the
	// [naming.Client] logs.
	Logger *slog.Logger

	// OnMalformed, if not nil, is called for every entry of the registry that
	// cannot be understood, each time that it is read, and nothing is logged
	// then. It may be called concurrently and must not block.
	OnMalformed func(*naming.MalformedError)
}

// maxLogged is for how many entries a Store logs that they cannot be understood.
const maxLogged = 1000

// malformedLog logs entries that cannot be understood. Its method may be called
// concurrently.
type malformedLog struct {
	log *slog.Logger

	mu     sync.Mutex
	logged map[string]string // guarded by mu: the reason by the key
}

func (l *malformedLog) report(m *naming.MalformedError) {
	reason := naming.SafeError(m.Err).Error()
	if !l.first(naming.SafeText(m.Key), reason) {
		return
	}
	l.log.Warn("naming: entry left out, as it cannot be understood", slog.String("service", naming.SafeText(m.Service)),
		slog.String("key", naming.SafeText(m.Key)), slog.String("err", reason))
}

// first reports whether an entry is to be logged.
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

// opener makes a store of a URL. It is given the parameters of the query that it
// knows.
type opener struct {
	params []string // those that it knows
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

// Store returns the store that a URL names, and a function that releases what it
// holds, to be called after the last use of the store. ctx bounds Store and
// has no effect afterwards.
//
// An error is [naming.ErrInvalid] if the URL can never work. No error contains a
// secret.
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

// parse takes a URL apart. It neither reads files nor asks anybody.
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
		return fail("it has a fragment (#), and none is defined; %q in a parameter is written %q", "#", "%23")
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
			return fail("parameter %q comes more than once", name)
		case slices.Contains(params[name], ""):
			return fail("parameter %q is empty", name)
		}
	}
	return u, o, params, nil
}

// describe names a parameter, unless it looks like something else that came to
// its place, and lists those that there are.
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

// reason says what is wrong with a URL that does not parse. The error of package
// url says it with the URL.
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

// oneOf returns what the value of a parameter stands for, or the zero value if the
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

// flags sets what parameters that are true or false stand for.
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

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: URL of a store: "+format, append([]any{naming.ErrInvalid}, args...)...)
}

func openMemory(_ context.Context, u *url.URL, _ url.Values, opts *Options) (naming.Store, func() error, error) {
	if u.Host != "" || u.Path != "" || u.Opaque != "" {
		return nil, nil, invalid("there is something after %q", "memory:")
	}
	return &memory.Store{OnMalformed: opts.OnMalformed}, func() error { return nil }, nil
}
