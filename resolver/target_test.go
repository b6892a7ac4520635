package resolver_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/resolver"
)

func TestTarget(t *testing.T) {
	for _, c := range []struct{ scheme, service, want string }{
		{"", "greeter", "naming:///greeter"},
		{"", "a/b/c", "naming:///a/b/c"},
		{"", "/a", "naming:////a"},
		{"", "..", "naming:///.."},
		{"", "50% off?#1", "naming:///50%25%20off%3F%231"},
		{"", "%2F", "naming:///%252F"},
		{"", "größe", "naming:///gr%C3%B6%C3%9Fe"},
		{"registry", "host:1", "registry:///host:1"},
	} {
		b := resolver.NewBuilder(nil, &resolver.Options{Scheme: c.scheme})
		if got := b.Target(c.service); got != c.want {
			t.Errorf("Target(%q) = %q, want %q", c.service, got, c.want)
		}
		if got, want := b.Scheme(), strings.Split(c.want, ":")[0]; got != want {
			t.Errorf("Scheme() = %q, want %q", got, want)
		}
	}
}

func TestTargetsThatAreErrors(t *testing.T) {
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	b := resolver.NewBuilder(c, nil)
	for _, c := range []struct{ target, part string }{
		{"naming://etcd:2379/greeter", `authority "etcd:2379"`},
		{"naming://me:secret@/greeter", `user "me"`},
		{"naming:///greeter?zone=a", `query "zone=a"`},
		{"naming:///greeter?", `query ""`},
		{"naming:///greeter#a", `fragment "a"`},
		{"naming:greeter", "no slashes"},
		{"naming:///", "empty service name"},
		{"naming:", "empty service name"},
		{"naming:///%ff", "not UTF-8"},
	} {
		cc := new(clientConn)
		_, err := b.Build(target(t, c.target), cc, grpcresolver.BuildOptions{})
		if !errors.Is(err, naming.ErrInvalid) || !strings.Contains(err.Error(), c.part) {
			t.Errorf("%s: got error %v, want ErrInvalid with %q", c.target, err, c.part)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error shows the password: %v", c.target, err)
		}
		if calls := cc.newCalls(); len(calls) != 0 {
			t.Errorf("%s: got %q", c.target, addresses(calls))
		}
	}
}

func TestBuildWithoutRegistry(t *testing.T) {
	_, err := resolver.NewBuilder(nil, nil).Build(target(t, "naming:///s"), new(clientConn), grpcresolver.BuildOptions{})
	if !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("got error %v, want ErrInvalid", err)
	}
}

// badConfig is a ClientConn that understands no service config.
type badConfig struct{ clientConn }

var errConfig = errors.New("what is that?")

func (*badConfig) ParseServiceConfig(string) *serviceconfig.ParseResult {
	return &serviceconfig.ParseResult{Err: errConfig}
}

func TestBadServiceConfig(t *testing.T) {
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	for _, config := range []string{"", "null", "{", `{"loadBalancingConfig":[{"nobody":{}}]}`} {
		b := resolver.NewBuilder(c, &resolver.Options{ServiceConfig: config})
		_, err := b.Build(target(t, "naming:///s"), new(badConfig), grpcresolver.BuildOptions{})
		if !errors.Is(err, naming.ErrInvalid) || !errors.Is(err, errConfig) {
			t.Errorf("%q: got error %v, want ErrInvalid and the cause", config, err)
		}
	}
}

// catcher is a Builder that notes the service it is asked for, as gRPC parsed
// the target.
type catcher struct {
	*resolver.Builder
	target grpcresolver.Target
}

func (c *catcher) Build(target grpcresolver.Target, cc grpcresolver.ClientConn, opts grpcresolver.BuildOptions) (grpcresolver.Resolver, error) {
	c.target = target
	return c.Builder.Build(target, cc, opts)
}

// FuzzTarget: the service of a target is the argument of Target, for every name. The
// requests to the store have the service.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{"a", "a/b", "//", "..", ".", "%", "%2f", "?", "#", "a b", ":1", "@", "naming:///x", "größe", "\x00", "[::1]:1", "\n", "a:b@c/d?e#f", "", "\xff", strings.Repeat("x", naming.MaxServiceName), strings.Repeat("x", naming.MaxServiceName+1)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, service string) {
		asked := make(chan string, 1)
		store := new(memory.Store)
		store.RefuseFunc(func(_, service string) error {
			select {
			case asked <- service:
			default:
			}
			return errors.New("refused")
		})
		c := naming.New(store, quiet)
		defer c.Close()
		b := &catcher{Builder: resolver.NewBuilder(c, nil)}
		conn, err := grpc.NewClient(b.Target(service), grpc.WithResolvers(b), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatalf("%q: %v", service, err)
		}
		defer conn.Close()
		conn.Connect()
		if b.target.URL.Scheme != "naming" {
			t.Fatalf("%q: gRPC did not take %q for a target of the scheme: %v", service, b.Target(service), b.target)
		}
		if naming.CheckService(service) != nil {
			if _, err := b.Build(b.target, new(clientConn), grpcresolver.BuildOptions{}); !errors.Is(err, naming.ErrInvalid) {
				t.Errorf("%q: got error %v, want ErrInvalid", service, err)
			}
			return
		}
		select {
		case got := <-asked:
			if got != service {
				t.Errorf("Target(%q) = %q reached the registry as %q", service, b.Target(service), got)
			}
		case <-time.After(patience):
			t.Errorf("Target(%q) = %q did not reach the registry", service, b.Target(service))
		}
	})
}

// FuzzBuild: no target makes Build panic, and every accepted target names a service.
func FuzzBuild(f *testing.F) {
	for _, s := range []string{"naming:///a", "naming:a", "naming://a/b", "naming:///%41?b#c", "naming:/a", "://"} {
		f.Add(s)
	}
	c := naming.New(new(memory.Store), nil)
	f.Cleanup(c.Close)
	b := resolver.NewBuilder(c, nil)
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.Parse(s)
		if err != nil {
			return
		}
		res, err := b.Build(grpcresolver.Target{URL: *u}, new(clientConn), grpcresolver.BuildOptions{})
		if err != nil {
			if !errors.Is(err, naming.ErrInvalid) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		res.Close()
		if u.Host != "" || u.RawQuery != "" || u.Fragment != "" || len(strings.TrimPrefix(u.Path, "/")) == 0 {
			t.Errorf("%q was taken", s)
		}
	})
}
