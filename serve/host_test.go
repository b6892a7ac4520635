package serve_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/serve"
)

func TestHostFromEnv(t *testing.T) {
	for _, c := range []struct{ value, want string }{
		{"10.0.0.7", "10.0.0.7"},
		{"2001:db8::7", "2001:db8::7"},
		{"127.0.0.1", "127.0.0.1"},
		{"pod-7.greeter", "pod-7.greeter"},
		{"", "not set"},
		{"0.0.0.0", "wildcard"},
		{"::", "wildcard"},
		{"10.0.0.7:9000", "host"},
		{"[2001:db8::7]", "host"},
		{"10.0.0.7,2001:db8::7", "host"},
		{"10.0.0.7 ", "host"},
		{"10.0.0.7\n", "U+000A"},
	} {
		t.Setenv("TEST_POD_IP", c.value)
		got, err := serve.HostFromEnv("TEST_POD_IP")(t.Context(), nil)
		if got != "" && got != c.want || got == "" && (!errors.Is(err, naming.ErrInvalid) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "TEST_POD_IP")) {
			t.Errorf("%q: %q, %v; want %q", c.value, got, err, c.want)
		}
	}
}

func TestChooseHost(t *testing.T) {
	for _, c := range []struct {
		ips      string
		loopback bool
		want     string
	}{
		{"10.0.0.7", false, "10.0.0.7"},
		{"2001:db8::7 10.0.0.7 2001:db8::8 fe80::1", false, "10.0.0.7"},
		{"fe80::1 2001:db8::7", false, "2001:db8::7"},
		{"169.254.1.1 2001:db8::7", false, "2001:db8::7"},
		{"127.0.0.1 ::1", true, "127.0.0.1"},
		{"127.0.0.1", false, "error: loopback"},
		{"::1", false, "error: loopback"},
		{"", false, "error: no address"},
		{"fe80::1 169.254.1.1", false, "error: no address"},
		{"10.0.0.7 10.0.0.8 ::1", false, "error: one of 10.0.0.7, 10.0.0.8"},
		{"2001:db8::7 2001:db8::8", false, "error: one of 2001:db8::7, 2001:db8::8"},
	} {
		var ips []netip.Addr
		for ip := range strings.FieldsSeq(c.ips) {
			ips = append(ips, netip.MustParseAddr(ip))
		}
		got, err := serve.ChooseHost(ips, c.loopback)
		if want, bad := strings.CutPrefix(c.want, "error: "); bad {
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "Options.Addr") && !strings.Contains(err.Error(), "loopback") {
				t.Errorf("%q: %q, %v; want an error with %q", c.ips, got, err, want)
			}
		} else if got != c.want || err != nil {
			t.Errorf("%q: %q, %v; want %q", c.ips, got, err, c.want)
		}
	}
}

// loopback returns the name of the loopback interface.
func loopback(t *testing.T) string {
	t.Helper()
	list, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		if i.Flags&net.FlagLoopback != 0 {
			return i.Name
		}
	}
	t.Fatal("this machine has no loopback interface")
	return ""
}

func TestHostOfInterface(t *testing.T) {
	got, err := serve.HostOfInterface(loopback(t))(t.Context(), nil)
	if ip, perr := netip.ParseAddr(got); err != nil || perr != nil || !ip.IsLoopback() {
		t.Errorf("%q, %v", got, err)
	}
	_, err = serve.HostOfInterface("no such interface")(t.Context(), nil)
	if !errors.Is(err, naming.ErrInvalid) || !strings.Contains(err.Error(), loopback(t)) {
		t.Errorf("the error does not list the interfaces: %v", err)
	}
}

// TestHostOnRouteTo: the way to an agent on this machine is not the way of clients.
func TestHostOnRouteTo(t *testing.T) {
	for _, to := range []string{"127.0.0.1:8500", "[::1]:8500", "127.0.0.1", "", "127.0.0.1:no-such-port", "localhost:8500"} {
		got, err := serve.HostOnRouteTo(to)(t.Context(), nil)
		if !errors.Is(err, naming.ErrInvalid) || got != "" || !strings.Contains(err.Error(), "Options.Addr") {
			t.Errorf("%q: %q, %v", to, got, err)
		}
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := serve.HostOnRouteTo("registry.example.com:2379")(canceled, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%q, %v", got, err)
	}
	// The route to an address of this machine is the address itself.
	list, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		ip := netip.MustParsePrefix(a.String()).Addr()
		if ip.IsLoopback() || ip.IsLinkLocalUnicast() {
			continue
		}
		if got, err := serve.HostOnRouteTo(netip.AddrPortFrom(ip, 2379).String())(t.Context(), nil); err != nil || got != ip.String() {
			t.Errorf("the route to %v: %q, %v", ip, got, err)
		}
	}
}

// TestHostOfRun: Host is asked for a listener on all interfaces, and only for that.
func TestHostOfRun(t *testing.T) {
	host := func(host string, err error) serve.HostFunc {
		return func(ctx context.Context, lis net.Listener) (string, error) {
			if _, ok := ctx.Deadline(); !ok || lis == nil {
				t.Errorf("Host is called with %v, %v", ctx, lis)
			}
			return host, err
		}
	}
	for _, c := range []struct {
		at, addr string
		host     serve.HostFunc
		want     string // contains; the endpoint's address, or an error
		err      bool
	}{
		{at: "[::]:0", host: host("10.0.0.7", nil), want: "10.0.0.7:"},
		{at: "0.0.0.0:0", host: host("2001:db8::7", nil), want: "[2001:db8::7]:"},
		{at: "127.0.0.1:0", host: host("10.0.0.7", nil), want: "127.0.0.1:"},
		{at: "[::]:0", addr: "10.0.0.9:80", host: host("10.0.0.7", nil), want: "10.0.0.9:80"},
		{at: "[::]:0", host: host("0.0.0.0", nil), want: "wildcard", err: true},
		{at: "[::]:0", host: host("", nil), want: "Options.Host", err: true},
		{at: "[::]:0", host: host("a:b", nil), want: "Options.Host", err: true},
		{at: "[::]:0", host: host("", errors.New("the cause")), want: "the cause", err: true},
		{at: "[::]:0", host: serve.HostFromEnv("NO_SUCH_VARIABLE"), want: "NO_SUCH_VARIABLE", err: true},
		{at: "[::]:0", want: "Options.Host", err: true},
	} {
		addr, log, err := announcedBy(t, c.at, &serve.Options{Addr: c.addr, Host: c.host})
		if c.err {
			if !errors.Is(err, naming.ErrInvalid) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "Options.Addr") && !strings.Contains(err.Error(), "set it to") {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		if err != nil || !strings.HasPrefix(addr, c.want) {
			t.Errorf("%+v: %q, %v", c, addr, err)
		}
		if chosen := strings.Count(log, "address chosen"); chosen > 1 || (chosen == 1) != (c.addr == "" && c.at != "127.0.0.1:0") {
			t.Errorf("%+v: the log is %q", c, log)
		}
	}
}

// announcedBy returns the address that RunHTTP, after Run, announces for a listener at an
// address, and the log.
func announcedBy(t *testing.T, at string, o *serve.Options) (addr, log string, err error) {
	t.Helper()
	c := naming.New(new(memory.Store), quiet)
	defer c.Close()
	var text lockedBuffer
	o.Logger = slog.New(slog.NewTextHandler(&text, nil))
	o.Register = &naming.RegisterOptions{DrainDelay: -1}
	for _, run := range []func(context.Context, net.Listener) error{
		func(ctx context.Context, lis net.Listener) error {
			return serve.Run(ctx, c, service, grpc.NewServer(), lis, o)
		},
		func(ctx context.Context, lis net.Listener) error {
			return serve.RunHTTP(ctx, c, service, new(http.Server), lis, o)
		},
	} {
		text.reset()
		lis := listen(t, at)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		watch, done := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- run(ctx, lis); done() }()
		for v, werr := range c.Watch(watch, service) {
			if werr == nil && len(v.Endpoints) > 0 {
				addr = v.Endpoints[0].Addr
				break
			}
		}
		cancel()
		if err = <-ended; err != nil {
			break
		}
	}
	return addr, text.String(), err
}
