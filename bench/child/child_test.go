package child

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/naming-go/naming/bench/peer"
)

// The test's binary is the child as well.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == Flag {
		if err := Serve(os.Stdin, os.Stdout, func(name string) (peer.Peer, error) {
			if name == "unknown" {
				return peer.Peer{}, errors.New("there is no such peer")
			}
			return peer.Peer{Open: func(context.Context, peer.Servers) (peer.Client, error) { return &fake{}, nil }}, nil
		}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// fake is a peer that behaves as the name of a service says. A registration adds an
// endpoint to every service.
type fake struct {
	consumers []func(int, func(int) string)
	set       []string
}

func (f *fake) Resolve(service string, update func(int, func(int) string)) (func(), error) {
	switch service {
	case "panics":
		go panic("as asked for")
		select {}
	case "hangs":
		select {}
	case "fails":
		return nil, errors.New("no")
	}
	f.consumers = append(f.consumers, update)
	update(len(f.set), func(i int) string { return f.set[i] })
	return func() {}, nil
}

func (f *fake) Register(_ context.Context, _ string, e peer.Endpoint) (func(context.Context) error, error) {
	tell := func() {
		for _, c := range f.consumers {
			c(len(f.set), func(i int) string { return f.set[i] })
		}
	}
	f.set = append(f.set, e.Addr)
	tell()
	return func(context.Context) error {
		f.set = slices.DeleteFunc(f.set, func(a string) bool { return a == e.Addr })
		tell()
		return nil
	}, nil
}

func (*fake) Dial(string) (string, []grpc.DialOption, error) { return "", nil, errors.ErrUnsupported }
func (*fake) Close()                                         {}

func start(t *testing.T) *Child {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c, err := Start(exe, "fake", peer.Servers{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Kill)
	return c
}

func do(t *testing.T, c *Child, req Request) Reply {
	t.Helper()
	reply, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// A round ends when every consumer that counts has the wanted set, and not before.
func TestRounds(t *testing.T) {
	c := start(t)
	a, b := peer.Endpoint{ID: "a", Addr: "a"}, peer.Endpoint{ID: "b", Addr: "b"}
	do(t, c, Request{Do: Arm, Services: []string{"s", "t"}, Each: 3, Want: 0})
	do(t, c, Request{Do: Resolve, Services: []string{"s", "t"}, Each: 3})
	if r := do(t, c, Request{Do: Wait}); r.Have != 6 || r.Of != 6 || r.Updates != 6 {
		t.Errorf("%d of %d consumers, %d updates; want 6 of 6, 6", r.Have, r.Of, r.Updates)
	}

	do(t, c, Request{Do: Arm, From: 2, Want: 1})
	if r, err := c.Do(Request{Do: Wait, Timeout: time.Millisecond}); err == nil || r.Have != 0 {
		t.Errorf("Wait = %v with %d arrived before any change", err, r.Have)
	}
	began := do(t, c, Request{Do: Register, Services: []string{"s"}, Endpoint: a}).Began
	r := do(t, c, Request{Do: Wait})
	if r.Of != 4 || r.Updates != 4 {
		t.Errorf("%d consumers counted, %d updates; want 4, 4: two must not count", r.Of, r.Updates)
	}
	if r.At < began {
		t.Errorf("arrived %v before it began", time.Duration(began-r.At))
	}

	// One endpoint too many, before the set is right.
	do(t, c, Request{Do: Arm, Want: 1})
	do(t, c, Request{Do: Register, Services: []string{"s"}, Endpoint: b})
	if r, err := c.Do(Request{Do: Wait, Timeout: time.Millisecond}); err == nil || r.Have != 0 {
		t.Errorf("Wait = %v with %d arrived; want an error and 0: there is one endpoint too many", err, r.Have)
	}
	do(t, c, Request{Do: Deregister, Endpoint: b})
	do(t, c, Request{Do: Wait})

	// The right number of endpoints, but others.
	do(t, c, Request{Do: Arm, Want: 2, Addrs: []string{"a", "c"}})
	do(t, c, Request{Do: Register, Services: []string{"s"}, Endpoint: b})
	if r, err := c.Do(Request{Do: Wait, Timeout: time.Millisecond}); err == nil || r.Wrong != 6 {
		t.Errorf("Wait = %v, %d wrong; want an error and 6: the addresses differ", err, r.Wrong)
	}
	do(t, c, Request{Do: Arm, Want: 1, Addrs: []string{"b"}})
	do(t, c, Request{Do: Deregister, Endpoint: a})
	do(t, c, Request{Do: Wait})
	if u := do(t, c, Request{Do: Measure}).Usage; u.Memory == 0 || u.Goroutines == 0 || u.Mallocs == 0 {
		t.Errorf("usage = %+v", u)
	}
}

// What a peer does wrong becomes an error that names it.
func TestWrongs(t *testing.T) {
	for _, tt := range []struct {
		req  Request
		want string
	}{
		{Request{Do: Resolve, Services: []string{"panics"}, Each: 1}, "panic: as asked for"},
		{Request{Do: Resolve, Services: []string{"hangs"}, Each: 1, Timeout: 10 * time.Millisecond}, "0 of 1 consumers were made in time"},
		{Request{Do: Resolve, Services: []string{"fails"}, Each: 1}, "no"},
		{Request{Do: Deregister}, "is not registered"},
		{Request{Do: "dance"}, "no verb"},
		{Request{Do: Dial, Services: []string{"s"}}, errors.ErrUnsupported.Error()},
	} {
		_, err := start(t).Do(tt.req)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: error %v, want %q in it", tt.req, err, tt.want)
		}
		if tt.req.Do == Dial && !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%v: error %v is not ErrUnsupported", tt.req, err)
		}
	}
	exe, _ := os.Executable()
	if _, err := Start(exe, "unknown", peer.Servers{}); err == nil || !strings.Contains(err.Error(), "no such peer") {
		t.Errorf("Start of an unknown peer: %v", err)
	}
}

// A process that does nothing is quiet.
func TestQuiet(t *testing.T) {
	if r := do(t, start(t), Request{Do: Quiet, Timeout: 20 * time.Second}); r.At > time.Now().UnixNano() {
		t.Errorf("quiet since a time in the future")
	}
}
