package kitexnaming

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/utils"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
)

const greeter = "greeter"

// newClient returns a Client on a store in memory. The Client is closed when t ends.
func newClient(t *testing.T, store naming.Store) *naming.Client {
	t.Helper()
	c := naming.New(store, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(c.Close)
	return c
}

// info returns the Info that kitex makes for a server at addr.
func info(addr string) *registry.Info {
	return &registry.Info{ServiceName: greeter, Addr: utils.NewNetAddr("tcp", addr), Weight: 10}
}

// listed returns the endpoints of the service in the registry.
func listed(t *testing.T, store *memory.Store) []naming.Endpoint {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for b, err := range store.Watch(ctx, greeter) {
		if err != nil {
			t.Fatal(err)
		}
		return b.Put
	}
	t.Fatal("the watch has no snapshot")
	return nil
}

// TestRegister follows a server from its start to its stop.
func TestRegister(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory.Store{}
		r := NewRegistry(newClient(t, store), nil)
		in := info("10.0.0.7:8888")
		in.Tags = map[string]string{"zone": "a"}
		if err := r.Register(in); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		got := listed(t, store)
		if len(got) != 1 || got[0].Addr != "10.0.0.7:8888" || string(got[0].Metadata) != `{"weight":10,"zone":"a"}` {
			t.Fatalf("registered: %+v", got)
		}

		began := time.Now()
		done := make(chan error, 1)
		go func() { done <- r.Deregister(in) }()
		time.Sleep(DefaultDrainDelay - time.Second)
		synctest.Wait()
		if got := listed(t, store); len(got) != 1 || !got[0].Draining {
			t.Errorf("within the drain delay: %+v, want a draining endpoint", got)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < 6*time.Second {
			t.Errorf("Deregister returned after %v: kitex clients read every five seconds", took)
		}
		if got := listed(t, store); len(got) != 0 {
			t.Errorf("after Deregister: %+v", got)
		}
	})
}

// TestRegisterWhileTheRegistryIsDown checks that a server starts without the registry.
func TestRegisterWhileTheRegistryIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory.Store{}
		store.Down(errors.New("no leader"))
		r := NewRegistry(newClient(t, store), &RegistryOptions{Register: &naming.RegisterOptions{Wait: true, DrainDelay: -1}})
		began := time.Now()
		if err := r.Register(info("10.0.0.7:8888")); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("Register returned after %v", took)
		}
		time.Sleep(time.Hour)
		store.Up()
		time.Sleep(time.Minute)
		if got := listed(t, store); len(got) != 1 {
			t.Errorf("after the outage: %+v", got)
		}
		if err := r.Deregister(info("10.0.0.7:8888")); err != nil {
			t.Error(err)
		}
	})
}

// TestRegisterAgain checks that the last Register of an address has the entry.
func TestRegisterAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory.Store{}
		r := NewRegistry(newClient(t, store), nil)
		for _, weight := range []int{1, 2} {
			in := info("10.0.0.7:8888")
			in.Weight = weight
			if err := r.Register(in); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if got := listed(t, store); len(got) != 1 || string(got[0].Metadata) != `{"weight":2}` {
			t.Errorf("registered: %+v", got)
		}
		if err := r.Deregister(info("10.0.0.7:8888")); err != nil {
			t.Error(err)
		}
		if got := listed(t, store); len(got) != 0 {
			t.Errorf("after Deregister: %+v", got)
		}
	})
}

// TestStopsBeforeItIsRegistered checks that Deregister does nothing for a server that kitex
// has not registered, and that Register refuses what kitex passes after such a stop.
func TestStopsBeforeItIsRegistered(t *testing.T) {
	r := NewRegistry(newClient(t, &memory.Store{}), nil)
	for _, in := range []*registry.Info{info("10.0.0.7:8888"), info("[::]:8888"), {ServiceName: greeter}, nil} {
		if err := r.Deregister(in); err != nil {
			t.Errorf("Deregister(%+v) = %v", in, err)
		}
	}
	if err := r.Register(nil); !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("Register(nil) = %v", err)
	}
	if err := NewRegistry(nil, nil).Register(info("10.0.0.7:8888")); !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("Register without a Client = %v", err)
	}
}

// TestAddresses checks that an address is announced as it is, or by an explicit option, or
// not at all.
func TestAddresses(t *testing.T) {
	for _, test := range []struct {
		addr net.Addr
		host string
		want string // empty: ErrInvalid
	}{
		{utils.NewNetAddr("tcp", "10.0.0.7:8888"), "", "10.0.0.7:8888"},
		{utils.NewNetAddr("tcp", "10.0.0.7:8888"), "10.9.9.9", "10.0.0.7:8888"},
		{&net.TCPAddr{Port: 8888}, "", ""},
		{&net.TCPAddr{Port: 8888}, "10.0.0.7", "10.0.0.7:8888"},
		{&net.TCPAddr{IP: net.IPv6unspecified, Port: 8888}, "", ""},
		{&net.TCPAddr{IP: net.IPv6unspecified, Port: 8888}, "fd00::7", "[fd00::7]:8888"},
		{&net.TCPAddr{IP: net.IPv4zero, Port: 8888}, "greeter-0.greeter", "greeter-0.greeter:8888"},
		{&net.TCPAddr{IP: net.IPv4zero, Port: 8888}, "::", ""},
		{utils.NewNetAddr("unix", "/run/greeter.sock"), "10.0.0.7", "unix:/run/greeter.sock"},
		{utils.NewNetAddr("unix", "@greeter"), "", "unix-abstract:greeter"},
		{utils.NewNetAddr("tcp", "greeter"), "10.0.0.7", ""},
		{nil, "10.0.0.7", ""},
	} {
		r := NewRegistry(newClient(t, &memory.Store{}), &RegistryOptions{Host: test.host}).(*serverRegistry)
		e, err := r.endpoint(&registry.Info{ServiceName: greeter, Addr: test.addr})
		if e.Addr != test.want && err == nil || (err == nil) != (test.want != "") || err != nil && !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("%v with host %q: %q, %v, want %q", test.addr, test.host, e.Addr, err, test.want)
		}
	}
}

// TestMetadata checks what becomes of weights and tags.
func TestMetadata(t *testing.T) {
	for _, test := range []struct {
		weight int
		tags   map[string]string
		want   string // "-": ErrInvalid
	}{
		{0, nil, ""},
		{-1, nil, ""},
		{7, nil, `{"weight":7}`},
		{7, map[string]string{"zone": "a", "n": "1", "draining": "true"}, `{"draining":"true","n":"1","weight":7,"zone":"a"}`},
		{7, map[string]string{"weight": "9"}, "-"},
	} {
		m, err := metadata(&registry.Info{Weight: test.weight, Tags: test.tags})
		if errors.Is(err, naming.ErrInvalid) {
			m = json.RawMessage("-")
		} else if err != nil {
			t.Error(err)
		}
		if string(m) != test.want {
			t.Errorf("weight %d, tags %v: %s, want %s", test.weight, test.tags, m, test.want)
		}
	}
}
