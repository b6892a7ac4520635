package open

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
)

var (
	etcdParams = []string{"endpoint", "prefix", "username-file", "username-env", "password-file", "password-env"}
	tlsParams  = []string{"cacert", "cert", "key"}
)

// tokenTimeout bounds the call for a token that comes with a password.
const tokenTimeout = 5 * time.Second

func openEtcd(ctx context.Context, u *url.URL, params url.Values, opts *Options) (naming.Store, func() error, error) {
	config, err := etcdConfig(u, params)
	if err != nil {
		return nil, nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	// The client's context is for as long as it lives, ours for its making.
	var cancel context.CancelFunc
	config.Context, cancel = context.WithCancel(context.Background())
	stop := context.AfterFunc(ctx, cancel)
	client, err := clientv3.New(*config)
	if err == nil && !stop() {
		_ = client.Close()
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		switch c := ctx.Err(); {
		case c != nil && !errors.Is(err, c):
			err = fmt.Errorf("%w: %w", c, err)
		case errors.Is(err, rpctypes.ErrAuthFailed), errors.Is(err, rpctypes.ErrUserNotFound):
			err = fmt.Errorf("%w: %w", naming.ErrPermission, err)
		}
		return nil, nil, err
	}
	done := func() error {
		defer cancel()
		return client.Close()
	}
	return etcd.New(client, &etcd.Options{Prefix: params.Get("prefix"), OnMalformed: opts.OnMalformed}), done, nil
}

// etcdConfig returns the configuration of the client, for which it reads files
// and the environment.
func etcdConfig(u *url.URL, params url.Values) (*clientv3.Config, error) {
	config := &clientv3.Config{
		DialTimeout: tokenTimeout,
		// A dead connection is noticed, for requests too.
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
	}
	var err error
	if config.Endpoints, err = endpoints(u, params); err != nil {
		return nil, err
	}
	if u.Scheme == "etcds" {
		if config.TLS, err = tlsConfig(params); err != nil {
			return nil, err
		}
	}
	if config.Username, err = secret(params, "username"); err != nil {
		return nil, err
	}
	if config.Password, err = secret(params, "password"); err != nil {
		return nil, err
	}
	if (config.Username == "") != (config.Password == "") {
		return nil, invalid("of the name of a user and a password it has one without the other")
	}
	return config, nil
}

func endpoints(u *url.URL, params url.Values) ([]string, error) {
	if u.Opaque != "" {
		return nil, invalid("there are no slashes before the host: write %s://host:port", u.Scheme)
	}
	if u.Path != "" && u.Path != "/" {
		return nil, invalid("it has a path, and none is defined: what keys begin with is a parameter, ?prefix=/naming/")
	}
	scheme := "http://"
	if u.Scheme == "etcds" {
		scheme = "https://"
	}
	var list []string
	if u.Host != "" {
		addr, ok := hostPort(u.Host)
		if !ok {
			return nil, invalid("what follows %s:// is not host:port (further hosts are parameters: ?endpoint=host:port)", u.Scheme)
		}
		list = append(list, scheme+addr)
	}
	for i, e := range params["endpoint"] {
		addr, ok := hostPort(e)
		if !ok {
			return nil, invalid("parameter %q number %d is not host:port", "endpoint", i+1)
		}
		list = append(list, scheme+addr)
	}
	if len(list) == 0 {
		return nil, invalid("there is no host: write %s://host:port", u.Scheme)
	}
	return list, nil
}

// hostPort completes and checks the address of a member.
func hostPort(s string) (string, bool) {
	u, err := url.Parse("//" + s)
	if err != nil || u.Host != s {
		return "", false
	}
	host, port := u.Hostname(), u.Port()
	if _, err := netip.ParseAddr(host); err != nil && (host == "" || strings.ContainsAny(host, ":, ")) {
		return "", false // such as several hosts
	}
	if port == "" {
		port = "2379"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", false
	}
	return net.JoinHostPort(host, port), true
}

func tlsConfig(params url.Values) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if file := params.Get("cacert"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("parameter %q: %w", "cacert", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("parameter %q: %s has no certificate in PEM", "cacert", file)
		}
	}
	cert, key := params.Get("cert"), params.Get("key")
	if (cert == "") != (key == "") {
		return nil, invalid("of the parameters %q and %q it has one without the other", "cert", "key")
	}
	if cert != "" {
		// Once to find what is wrong with it, and then for every connection:
		// certificates are replaced while programs run.
		load := func() (*tls.Certificate, error) {
			c, err := tls.LoadX509KeyPair(cert, key)
			if err != nil {
				return nil, fmt.Errorf("parameters %q and %q: %w", "cert", "key", err)
			}
			return &c, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return config, nil
}

// secret returns what the parameters name-file or name-env refer to, and nothing
// if there is neither. Errors do not say what they refer to: it may be the secret
// itself, by mistake.
func secret(params url.Values, name string) (string, error) {
	file, env := params.Get(name+"-file"), params.Get(name+"-env")
	switch {
	case file != "" && env != "":
		return "", invalid("it has both of the parameters %q and %q", name+"-file", name+"-env")
	case env != "":
		s := os.Getenv(env)
		if s == "" {
			return "", fmt.Errorf("parameter %q: the environment variable is not set, or empty", name+"-env")
		}
		return s, nil
	case file != "":
		s, err := readSecret(file)
		if err != nil {
			return "", fmt.Errorf("parameter %q: %w", name+"-file", err)
		}
		return s, nil
	}
	return "", nil
}

func readSecret(file string) (string, error) {
	const most = 64 << 10
	f, err := os.Open(file)
	if err != nil {
		return "", withoutPath(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	switch {
	case err != nil:
		return "", withoutPath(err)
	case len(b) > most:
		return "", fmt.Errorf("the file has more than %d bytes", most)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(b) == 0 {
		return "", errors.New("the file is empty")
	}
	return string(b), nil
}

func withoutPath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
