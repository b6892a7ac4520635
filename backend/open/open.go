// Package open makes a [naming.Client] from a URL, so that the configuration of a program
// says which registry it uses, or which two registries during a migration.
//
//	c, done, err := open.Client(ctx, "etcd://10.0.0.1:2379?prefix=/naming/", nil)
//	if err != nil {
//		return err
//	}
//	defer done()
//
// [Store] makes a [naming.Store] of the URL of one registry.
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
// # migrate:
//
// The result of [Client] is the Client on two registries of package migrate. So a program
// joins a migration by its configuration:
//
//	migrate:?from=consul://10.0.0.1:8500&to=etcd://10.0.0.2:2379&phases=records
//
// Parameters of the query:
//
//	from, to      the URLs of the old and the new registry, of the schemes above
//	phases        where the phases of services are: the word records, for the
//	              records in both registries, or else the path of a file
//	phase         instead of phases, the phase of all services, such as union,
//	              which never changes
//	share         the share of the phase prefer-new, from 0 to 1
//	old-name      the name of the old registry in logs and in the IDs of
//	              copies; the default is old
//	new-name      the name of the new registry; the default is new
//	read-only     from or to: the registry that cannot be written
//	client-id     decides whether this client is in the share of prefer-new; it
//	              must differ between programs, and is random by default
//	leave-delay   how long a server stays in a registry after it is in the one
//	              that counts, such as 30s; the default is 5s, the most is 1h
//
// The options of package migrate describe the parameters after share. Its functions File
// and Records describe the file and the records. The leave-delay must be longer than a
// change of the phases takes to reach all programs. A Kubernetes config map takes a
// minute or two.
//
// The URLs of from and to are percent-encoded, as every parameter is: & is written %26,
// and % is written %25. A URL with a single parameter needs no encoding. Records are in
// the default format of the registry, also if its URL has a codec, deep, tag or node-meta.
// Client then opens a second store for the records, without these parameters.
//
// # Secrets
//
// URLs appear in logs, process lists and bug reports. So a URL has no place for a
// password: Store and Client refuse a URL with a user. No error contains a value that may be a
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

	"github.com/hashicorp/consul/api"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/etcd"
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

	// OnEtcd and OnConsul, if not nil, are called before Store returns, for a program that
	// also asks the registry what a Store cannot ask: its version, its members, its rights.
	// They get the client of the Store, which the program must not close, and the options of
	// the Store, among them the ACL token of Consul: the client itself has no token.
	OnEtcd   func(*clientv3.Client, etcd.Options)
	OnConsul func(*api.Client, consul.Options)
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

// openers returns the openers of stores by scheme.
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
// afterwards. A URL of the scheme migrate is not a store: see [Client].
//
// The error is [naming.ErrInvalid] if the URL can never work. No error contains a secret.
func Store(ctx context.Context, rawURL string, opts *Options) (naming.Store, func() error, error) {
	t, err := parse(rawURL, openers())
	if err != nil {
		return nil, nil, err
	}
	return t.openStore(ctx, opts)
}

// target is a URL that was checked.
type target struct {
	url    *url.URL
	opener opener
	params url.Values
}

// openStore is Store.
func (t *target) openStore(ctx context.Context, opts *Options) (naming.Store, func() error, error) {
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
	store, done, err := t.opener.open(ctx, t.url, t.params, &own)
	if err != nil {
		return nil, nil, fmt.Errorf("open %s store: %w", t.url.Scheme, err)
	}
	return store, done, nil
}

// parse checks a URL whose scheme is one of schemes. It reads no files and makes no
// requests.
func parse(rawURL string, schemes map[string]opener) (*target, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, invalid("%s", reason(rawURL, err))
	}
	if u.User != nil {
		return nil, invalid("it has a user before the host: credentials are read from files or the environment")
	}
	o, ok := schemes[u.Scheme]
	if !ok {
		return nil, unknownScheme(u.Scheme, schemes)
	}
	if u.Fragment != "" {
		return nil, invalid("it has a fragment (#), which no scheme has; %q in a parameter is written %q", "#", "%23")
	}
	params, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, invalid("the query has a broken escape (%%) or a semicolon")
	}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		switch {
		case !slices.Contains(o.params, name):
			return nil, invalid("unknown %s", describe(name, u.Scheme, o.params))
		case len(params[name]) > 1 && name != "endpoint" && name != "node-meta":
			return nil, invalid("parameter %q occurs more than once", name)
		case slices.Contains(params[name], ""):
			return nil, invalid("parameter %q is empty", name)
		}
	}
	return &target{u, o, params}, nil
}

// unknownScheme returns the error of a scheme that is not one of schemes.
func unknownScheme(scheme string, schemes map[string]opener) error {
	known := strings.Join(slices.Sorted(maps.Keys(schemes)), ", ")
	switch scheme {
	case "":
		return invalid("it has no scheme; known are %s", known)
	case migrateScheme:
		return invalid("it joins two registries, which is a Client and not a Store: open it with open.Client")
	}
	return invalid("unknown scheme %q; known are %s", scheme, known)
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
	text := fmt.Sprintf("%s; known for %s are %s", name, scheme, strings.Join(known, ", "))
	if scheme == migrateScheme {
		text += `; "&" in the URL of a registry is written "%26"`
	}
	return text
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

// invalidError is the error of a URL that can never work. It wraps ErrInvalid.
type invalidError struct{ text string }

func (e *invalidError) Error() string {
	return naming.ErrInvalid.Error() + ": URL of a store: " + e.text
}

func (e *invalidError) Unwrap() error { return naming.ErrInvalid }

// invalid returns an error that wraps ErrInvalid.
func invalid(format string, args ...any) error {
	return &invalidError{fmt.Sprintf(format, args...)}
}

// inParameter returns an error of a URL that is the value of a parameter.
func inParameter(name string, err error) error {
	var e *invalidError
	if errors.As(err, &e) {
		return invalid("parameter %q: %s", name, e.text)
	}
	return fmt.Errorf("parameter %q: %w", name, err)
}

// openMemory returns a new store of package backend/memory.
func openMemory(_ context.Context, u *url.URL, _ url.Values, opts *Options) (naming.Store, func() error, error) {
	if u.Host != "" || u.Path != "" || u.Opaque != "" {
		return nil, nil, invalid("unexpected text after %q", "memory:")
	}
	return &memory.Store{OnMalformed: opts.OnMalformed}, func() error { return nil }, nil
}
