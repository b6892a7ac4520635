package open

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/consul/consulcodec"
)

var consulParams = []string{"codec", "dc", "include-proxies", "include-warning", "no-draining-mark", "node-meta", "ns", "partition", "port-name", "prefix", "stale", "tag", "token-env", "token-file"}

// openConsul makes a client and a store of package backend/consul. It makes no requests.
func openConsul(ctx context.Context, u *url.URL, params url.Values, opts *Options) (naming.Store, func() error, error) {
	where, err := agentOfURL(u)
	if err != nil {
		return nil, nil, err
	}
	o, err := consulOptions(params)
	if err != nil {
		return nil, nil, err
	}
	o.OnMalformed = opts.OnMalformed
	// Before DefaultConfig: it logs the value of a variable that is neither true nor
	// false.
	secure, err := envBool(api.HTTPSSLEnvName, false)
	if err != nil {
		return nil, nil, err
	}
	verify, err := envBool(api.HTTPSSLVerifyEnvName, true)
	if err != nil {
		return nil, nil, err
	}
	if err := where.complete(secure); err != nil {
		return nil, nil, err
	}
	if o.Token, err = consulToken(params); err != nil {
		return nil, nil, err
	}
	config := api.DefaultConfig()
	if err := setTransport(config.Transport, where, params, verify); err != nil {
		return nil, nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	transport := config.Transport
	config.Scheme, config.Address, config.PathPrefix = where.scheme, where.addr, where.path
	config.HttpClient = &http.Client{Transport: transport}
	config.Namespace, config.Partition = o.Namespace, o.Partition
	// The Store sends the token. An empty token file keeps the client from reading the
	// token of the environment.
	config.Token, config.TokenFile = "", os.DevNull
	client, err := consul.NewClient(config)
	if err != nil {
		return nil, nil, err
	}
	done := func() error {
		transport.CloseIdleConnections()
		return nil
	}
	if opts.OnConsul != nil {
		opts.OnConsul(client, *o)
	}
	return consul.New(client, o), done, nil
}

// setTransport sets how the client connects to the agent.
func setTransport(transport *http.Transport, where *agent, params url.Values, verify bool) (err error) {
	// On HTTP/2 all requests share one connection, and all of them wait if it is dead.
	transport.ForceAttemptHTTP2 = false
	// A Store has up to 100 requests at once. By default the client keeps fewer
	// connections. The limit of an agent is 200, for all programs of the host.
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost, transport.MaxConnsPerHost = 0, 100, 100
	if where.scheme == "https" {
		if transport.TLSClientConfig, err = consulTLS(params, verify); err != nil {
			return err
		}
	}
	if where.socket != "" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", where.socket)
		}
	}
	return nil
}

// agent is where an agent serves HTTP.
type agent struct {
	scheme string // http or https
	addr   string // host:port
	path   string // of a proxy in front of the agent
	socket string // the path of a unix socket; replaces addr
	given  bool   // the URL says where the agent is
}

// agentOfURL returns what the URL says about the agent.
func agentOfURL(u *url.URL) (*agent, error) {
	if u.Opaque != "" {
		return nil, invalid("there are no slashes before the host: write %s://host:port", u.Scheme)
	}
	a, port := &agent{scheme: "http"}, "8500"
	if u.Scheme == "consuls" {
		a.scheme, port = "https", "8501"
	}
	path := strings.TrimSuffix(u.Path, "/")
	switch {
	case u.Host == "":
		a.addr, a.socket, a.given = net.JoinHostPort("localhost", port), path, path != ""
	case path != "":
		return nil, invalid("it has a path after the host: the beginning of the names of services is a parameter, ?prefix=naming.")
	default:
		var ok bool
		if a.addr, ok = hostPort(u.Host, port); !ok {
			return nil, invalid("what follows %s:// is not host:port, of one agent", u.Scheme)
		}
		a.given = true
	}
	return a, nil
}

// complete adds what the environment says about the agent, as Consul's tools read it.
// secure says that the environment wants TLS. The errors do not contain the value of a
// variable.
func (a *agent) complete(secure bool) error {
	if addr := os.Getenv(api.HTTPAddrEnvName); addr != "" && !a.given {
		bad := fmt.Errorf("%s is neither host:port nor a URL of http, https or unix", api.HTTPAddrEnvName)
		scheme, rest, ok := strings.Cut(addr, "://")
		if !ok {
			scheme, rest = "http", addr
		}
		port := "80"
		switch scheme {
		case "unix":
			if a.socket = rest; rest == "" {
				return bad
			}
		case "https":
			secure, port = true, "443"
			fallthrough
		case "http":
			u, err := url.Parse("//" + rest)
			if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
				return bad
			}
			if a.addr, ok = hostPort(u.Host, port); !ok {
				return bad
			}
			a.path = strings.TrimSuffix(u.Path, "/")
		default:
			return bad
		}
	}
	if secure {
		a.scheme = "https"
	}
	return nil
}

// consulCodecs are the wire formats by the value of the parameter "codec".
var consulCodecs = map[string]func() *consul.Codec{
	"default":     func() *consul.Codec { return nil },
	"go-micro":    consulcodec.GoMicro,
	"grpc-spring": consulcodec.GRPCSpring,
	"kratos":      consulcodec.Kratos,
}

// consulOptions returns the options that the parameters set. The environment sets those
// that have a variable and no parameter.
func consulOptions(params url.Values) (*consul.Options, error) {
	o := &consul.Options{
		Prefix:     params.Get("prefix"),
		Datacenter: params.Get("dc"),
		Partition:  lookup(params, "partition", api.HTTPPartitionEnvName).value,
		Namespace:  lookup(params, "ns", api.HTTPNamespaceEnvName).value,
		Tag:        params.Get("tag"),
		PortName:   params.Get("port-name"),
	}
	for i, pair := range params["node-meta"] {
		key, value, ok := strings.Cut(pair, ":")
		if !ok || key == "" {
			return nil, invalid("parameter %q number %d is not key:value", "node-meta", i+1)
		}
		if o.NodeMeta == nil {
			o.NodeMeta = make(map[string]string)
		}
		o.NodeMeta[key] = value
	}
	codec, err := oneOf(params, "codec", consulCodecs)
	if err != nil {
		return nil, err
	}
	if codec != nil {
		o.Codec = codec()
	}
	return o, flags(params, map[string]*bool{
		"stale": &o.AllowStale, "include-warning": &o.IncludeWarning,
		"include-proxies": &o.IncludeProxies, "no-draining-mark": &o.NoDrainingMark,
	})
}

// consulToken returns the function that reads the token, or nil if no token is set. The
// function reads a file again each time: tokens are replaced while programs run.
func consulToken(params url.Values) (func(context.Context) (string, error), error) {
	read := func() (string, error) { return secret(params, "token") }
	if params.Get("token-file") == "" && params.Get("token-env") == "" {
		file := os.Getenv(api.HTTPTokenFileEnvName)
		fixed := os.Getenv(api.HTTPTokenEnvName)
		switch {
		case file != "":
			read = func() (string, error) {
				s, err := readSecret(file)
				if err != nil {
					return "", fmt.Errorf("%s: %w", api.HTTPTokenFileEnvName, err)
				}
				return s, nil
			}
		case fixed != "":
			read = func() (string, error) { return fixed, nil }
		default:
			return nil, nil
		}
	}
	token := func(context.Context) (string, error) {
		s, err := read()
		if s = strings.TrimSpace(s); err == nil && s == "" {
			err = errors.New("the token is empty")
		}
		return s, err
	}
	_, err := token(context.Background())
	return token, err
}

// consulTLS returns the configuration of TLS. It reads files and the environment.
func consulTLS(params url.Values, verify bool) (*tls.Config, error) {
	config, err := tlsConfig(params, api.HTTPCAFile, api.HTTPClientCert, api.HTTPClientKey)
	if err != nil {
		return nil, err
	}
	if config.RootCAs == nil {
		dir, err := api.SetupTLSConfig(&api.TLSConfig{CAPath: os.Getenv(api.HTTPCAPath)})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", api.HTTPCAPath, err)
		}
		config.RootCAs = dir.RootCAs
	}
	config.ServerName = os.Getenv(api.HTTPTLSServerName)
	if host, _, err := net.SplitHostPort(config.ServerName); err == nil {
		config.ServerName = host
	}
	// A URL with cacert wants the certificate verified.
	config.InsecureSkipVerify = !verify && params.Get("cacert") == ""
	return config, nil
}

// envBool returns the value of a variable that is true or false, or otherwise if it is not
// set.
func envBool(name string, otherwise bool) (bool, error) {
	s := os.Getenv(name)
	if s == "" {
		return otherwise, nil
	}
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, fmt.Errorf("%s is neither true nor false", name)
	}
	return b, nil
}
