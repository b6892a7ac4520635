package zerodrop

import (
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/faultproxy"
	"github.com/naming-go/naming/internal/servertest"
)

// Consul returns a new Consul agent, which is a server and stores its state on disk. The
// agent ends with tb. Servers and clients of the scenarios have a client of Consul each,
// and reach the agent through a proxy.
//
// There is one server only. Programs talk to agents, which hide from them which server
// leads.
func Consul(tb testing.TB) Backend {
	a := consultest.Start(tb, &consultest.Options{Disk: true})
	proxy := faultproxy.New(tb, a.Addr)
	var flying atomic.Int64
	store := func() *consul.Store {
		config := a.Config()
		config.Address = proxy.Addr()
		// The requests of a scenario reuse connections.
		config.Transport.MaxIdleConnsPerHost = 32
		tb.Cleanup(config.Transport.CloseIdleConnections)
		config.HttpClient = &http.Client{Transport: counted{config.Transport, &flying}}
		client, err := api.NewClient(config)
		if err != nil {
			tb.Fatal(err)
		}
		return consul.New(client, &consul.Options{Wait: 5 * time.Second})
	}
	verb := func(f func()) func() error {
		return func() error { f(); return nil }
	}
	return Backend{
		Name:    "consul",
		URL:     "consul://" + proxy.Addr(),
		Servers: store(),
		Clients: store(),
		TTL:     3 * time.Second,
		// A watch asks at most ten times a second while much changes.
		DrainDelay: 500 * time.Millisecond,
		Close:      4 * time.Second,
		Settle:     90 * time.Second,
		Verbs: Verbs{
			Down:    verb(proxy.Cut),
			Up:      verb(proxy.Heal),
			Restart: verb(func() { a.Restart(tb) }),
			Silence: verb(func() { a.Pause(tb) }),
			Speak:   verb(func() { a.Continue(tb) }),
			Delay:   func(d time.Duration) error { proxy.Delay(d / 2); return nil }, // in both directions
			Wipe:    verb(func() { a.Wipe(tb) }),
			// Consul has no leases. A lease ends when the agent no longer has the
			// endpoints under it.
			ExpireLeases: func() error { return deregisterAll(a.Client(tb)) },
			// A transport retries by itself on another connection. The link stays
			// cut until all requests have failed.
			BreakWatches: func() error {
				proxy.Cut()
				defer proxy.Heal()
				servertest.Poll(tb, "the requests do not end", func() error {
					if n := flying.Load(); n > 0 {
						return fmt.Errorf("%d requests", n)
					}
					return nil
				})
				return nil
			},
		},
	}
}

// counted counts the requests that have no answer yet.
type counted struct {
	http.RoundTripper
	flying *atomic.Int64
}

func (c counted) RoundTrip(req *http.Request) (*http.Response, error) {
	c.flying.Add(1)
	defer c.flying.Add(-1)
	return c.RoundTripper.RoundTrip(req)
}

// deregisterAll deregisters all services of the agent.
func deregisterAll(client *api.Client) error {
	services, err := client.Agent().Services()
	for id := range services {
		e := client.Agent().ServiceDeregister(id)
		if status, _ := errors.AsType[api.StatusError](e); status.Code != http.StatusNotFound { // it has gone meanwhile
			err = errors.Join(err, e)
		}
	}
	return err
}
