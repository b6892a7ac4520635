package open

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/etcdcodec"
)

var (
	etcdParams = []string{"codec", "deep", "endpoint", "no-draining-mark", "prefix", "username-file", "username-env", "password-file", "password-env"}
	tlsParams  = []string{"cacert", "cert", "key"}
)

// tokenTimeout bounds the request for a token, which a client with a password makes.
const tokenTimeout = 5 * time.Second

// openEtcd makes a client and a store of package backend/etcd.
func openEtcd(ctx context.Context, u *url.URL, params url.Values, opts *Options) (naming.Store, func() error, error) {
	o, err := etcdOptions(params)
	if err != nil {
		return nil, nil, err
	}
	o.OnMalformed = opts.OnMalformed
	config, err := etcdConfig(u, params)
	if err != nil {
		return nil, nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	// The context of the client must outlive ctx, which bounds only the start of the
	// client.
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
	if opts.OnEtcd != nil {
		opts.OnEtcd(client, *o)
	}
	return etcd.New(client, o), done, nil
}

// etcdCodecs are the wire formats by the value of the parameter "codec".
var etcdCodecs = map[string]func() *etcd.Codec{
	"default":      etcd.Default,
	"go-kit":       etcdcodec.GoKit,
	"go-micro":     etcdcodec.GoMicro,
	"go-zero":      etcdcodec.GoZero,
	"kitex":        etcdcodec.Kitex,
	"kratos":       etcdcodec.Kratos,
	"kratos-grpcs": func() *etcd.Codec { return etcdcodec.KratosScheme("grpcs") },
}

// etcdOptions returns the options that the parameters set.
func etcdOptions(params url.Values) (*etcd.Options, error) {
	o := &etcd.Options{Prefix: params.Get("prefix")}
	codec, err := oneOf(params, "codec", etcdCodecs)
	if err != nil {
		return nil, err
	}
	if codec != nil {
		o.Codec = codec()
	}
	return o, flags(params, map[string]*bool{"deep": &o.Deep, "no-draining-mark": &o.NoDrainingMark})
}

// disableLog turns off the log of the etcd client. The client reports the same failures as
// errors of calls, which the naming.Client logs once. With the log on, a registry that is
// down fills the standard error of a program. The variable of the environment that the
// client reads turns the log on again.
//
// The logger of the client is of a package that this module does not import. So its
// configuration is made from JSON. It has no output.
func disableLog(config *clientv3.Config) error {
	if os.Getenv("ETCD_CLIENT_DEBUG") != "" {
		return nil
	}
	config.LogConfig = alloc(config.LogConfig)
	return json.Unmarshal([]byte(`{"level":"fatal","encoding":"json"}`), config.LogConfig)
}

// alloc returns a pointer to a new value of the type of its argument.
func alloc[T any](*T) *T { return new(T) }

// etcdConfig returns the configuration of the client. It reads files and the environment.
func etcdConfig(u *url.URL, params url.Values) (*clientv3.Config, error) {
	config := &clientv3.Config{
		DialTimeout: tokenTimeout,
		// So that a request on a dead connection fails.
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
	}
	if err := disableLog(config); err != nil {
		return nil, err
	}
	var err error
	if config.Endpoints, err = endpoints(u, params); err != nil {
		return nil, err
	}
	if u.Scheme == "etcds" {
		if config.TLS, err = tlsConfig(params, "", "", ""); err != nil {
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
		return nil, invalid("it has only one of the name of a user and a password")
	}
	return config, nil
}

// endpoints returns the URLs of the members.
func endpoints(u *url.URL, params url.Values) ([]string, error) {
	if u.Opaque != "" {
		return nil, invalid("there are no slashes before the host: write %s://host:port", u.Scheme)
	}
	if u.Path != "" && u.Path != "/" {
		return nil, invalid("it has a path: the beginning of the keys is a parameter, ?prefix=/naming/")
	}
	scheme := "http://"
	if u.Scheme == "etcds" {
		scheme = "https://"
	}
	var list []string
	if u.Host != "" {
		addr, ok := hostPort(u.Host, "2379")
		if !ok {
			return nil, invalid("what follows %s:// is not host:port (further hosts are parameters: ?endpoint=host:port)", u.Scheme)
		}
		list = append(list, scheme+addr)
	}
	for i, e := range params["endpoint"] {
		addr, ok := hostPort(e, "2379")
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
