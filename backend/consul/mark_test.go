package consul_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/servertest"
)

// standings returns the endpoints of a service with how they stand, as text.
func standings(t *testing.T, s naming.Store, service string) (texts []string) {
	t.Helper()
	for b, err := range s.Watch(t.Context(), service) {
		must(t, err)
		for _, e := range b.Put {
			texts = append(texts, e.Addr+" usable")
		}
		for _, w := range b.Withheld {
			texts = append(texts, fmt.Sprintf("%s %v", w.Endpoint.Addr, w.Reason))
		}
		break
	}
	return texts
}

func stands(t *testing.T, what string, s naming.Store, service, want string) {
	t.Helper()
	if got := strings.Join(standings(t, s, service), ", "); got != want {
		t.Fatalf("%s: got %q, want %q", what, got, want)
	}
}

// TestMarkOfRegistration marks an endpoint that another program keeps registered. The
// endpoint stays withheld through an Update, a lost registration and a restart of the
// program, until an operator ends it.
func TestMarkOfRegistration(t *testing.T) {
	t.Parallel()
	r := newRig(t, consultest.Start(t, nil), nil)
	operator := naming.New(newRig(t, r.agent, func(_ *api.Config, o *consul.Options) { o.Prefix = r.prefix }), &naming.Options{})
	t.Cleanup(operator.Close)
	start := func() (*naming.Client, *naming.Registration) {
		program := naming.New(consul.New(r.client, &consul.Options{Prefix: r.prefix}), &naming.Options{})
		t.Cleanup(program.Close)
		g, err := program.Register(t.Context(), "svc", naming.Endpoint{Addr: "10.0.0.1:80"}, &naming.RegisterOptions{TTL: 2 * time.Second, Wait: true, DrainDelay: -1})
		must(t, err)
		return program, g
	}
	_, g := start()
	must(t, operator.Mark(t.Context(), "svc", "10.0.0.1:80", true))
	stands(t, "marked", r, "svc", "10.0.0.1:80 maintenance")
	must(t, g.Update(t.Context(), []byte(`{"weight":2}`)))
	stands(t, "after an Update", r, "svc", "10.0.0.1:80 maintenance")
	servertest.Poll(t, "the status does not say so", func() error {
		if st := g.Status(); st.Withheld == nil || st.Withheld.Reason != naming.Maintenance || st.MarkedByOther {
			return fmt.Errorf("status %+v", st)
		}
		return nil
	})
	_, _ = start() // the program, started again beside its former self
	stands(t, "after a restart", r, "svc", "10.0.0.1:80 maintenance")
	must(t, operator.Mark(t.Context(), "svc", "10.0.0.1:80", false))
	stands(t, "without the mark", r, "svc", "10.0.0.1:80 usable")
}

// TestMarkOfOtherWriters marks an entry of a program that knows nothing of this package, and
// the entries of several agents.
func TestMarkOfOtherWriters(t *testing.T) {
	t.Parallel()
	server := consultest.Start(t, nil)
	client := server.StartClient(t, nil)
	here, there := newRig(t, server, nil), (*rig)(nil)
	there = newRig(t, client, func(_ *api.Config, o *consul.Options) { o.Prefix = here.prefix })
	register := func(a *consultest.Agent, id string) {
		t.Helper()
		must(t, a.Client(t).Agent().ServiceRegister(&api.AgentServiceRegistration{ID: id, Name: here.prefix + "svc", Address: "10.0.0.1", Port: 80}))
	}
	const id = "10.0.0.1:80" // the service ID is the address, so that both registrations are one endpoint
	register(server, id)
	must(t, here.Mark(t.Context(), "svc", id, true))
	stands(t, "marked", here, "svc", id+" maintenance")
	register(server, id)
	stands(t, "registered again", here, "svc", id+" maintenance")

	err := there.Mark(t.Context(), "svc", id, false)
	if !errors.Is(err, naming.ErrInvalid) || !strings.Contains(err.Error(), server.Name) || !strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("Mark at another agent: got error %v, want ErrInvalid with the node and its address", err)
	}
	stands(t, "after a Mark at another agent", here, "svc", id+" maintenance")

	// Both agents have the endpoint, so both are asked.
	register(client, id)
	servertest.Poll(t, "the second registration is not there", func() error {
		if got := standings(t, here, "svc"); len(got) != 1 || got[0] != id+" usable" {
			return fmt.Errorf("got %q", got)
		}
		return nil
	})
	must(t, there.Mark(t.Context(), "svc", id, true))
	stands(t, "marked at both", here, "svc", id+" maintenance")

	// An operator's own maintenance ends as well, and that of a node stays.
	must(t, client.Client(t).Agent().ServiceDeregister(id))
	must(t, here.Mark(t.Context(), "svc", id, false))
	must(t, here.admin.Agent().EnableServiceMaintenance(id, "a new disk"))
	must(t, here.Mark(t.Context(), "svc", id, true))
	must(t, here.Mark(t.Context(), "svc", id, false))
	stands(t, "without maintenance", here, "svc", id+" usable")
	must(t, here.admin.Agent().EnableNodeMaintenance("a new disk"))
	must(t, here.Mark(t.Context(), "svc", id, true))
	must(t, here.Mark(t.Context(), "svc", id, false))
	stands(t, "in maintenance of the node", here, "svc", id+" maintenance")
}

// TestMarkReadsOnly: a Store that only reads refuses to mark, without a request.
func TestMarkReadsOnly(t *testing.T) {
	s := consul.New(nil, &consul.Options{Datacenter: "dc2"})
	if err := s.Mark(t.Context(), "svc", "a:1", true); !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("got error %v, want ErrInvalid", err)
	}
}

// TestMarkAfterTheLease: an endpoint whose lease has ended is not there. Its maintenance, which
// the next registration would take over, can still be ended.
func TestMarkAfterTheLease(t *testing.T) {
	t.Parallel()
	r := newRig(t, consultest.Start(t, nil), nil)
	put := func(ttl time.Duration) {
		t.Helper()
		l, err := r.Grant(t.Context(), ttl)
		must(t, err)
		must(t, r.Apply(t.Context(), "svc", add(l, ep("a", "10.0.0.1:80", ""))...))
	}
	gone := func() {
		t.Helper()
		servertest.Poll(t, "the endpoint does not go", func() error {
			if got := standings(t, r, "svc"); len(got) != 0 {
				return fmt.Errorf("got %q", got)
			}
			return nil
		})
	}
	put(time.Second)
	gone()
	if err := r.Mark(t.Context(), "svc", "a", true); !errors.Is(err, naming.ErrNotFound) {
		t.Errorf("Mark after the lease has ended: got error %v, want ErrNotFound", err)
	}
	put(time.Second)
	must(t, r.Mark(t.Context(), "svc", "a", true))
	gone()
	must(t, r.Mark(t.Context(), "svc", "a", false))
	put(time.Hour)
	stands(t, "put again", r, "svc", "10.0.0.1:80 usable")
}
