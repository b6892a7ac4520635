package consultest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming/internal/servertest"
)

const allow = `service_prefix "" { policy = "write" } node_prefix "" { policy = "read" }`

// limit bounds what a test waits for.
func limit(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func register(t *testing.T, c *api.Client, service string) {
	t.Helper()
	opts := api.ServiceRegisterOpts{}.WithContext(limit(t, servertest.Patience))
	if err := c.Agent().ServiceRegisterOpts(&api.AgentServiceRegistration{Name: service, Port: 1}, opts); err != nil {
		t.Fatal(err)
	}
}

// awaitService waits until the catalogue has a service, or does not have it. An agent sends
// its registrations to the servers when it can.
func awaitService(t *testing.T, c *api.Client, service string, want bool) {
	t.Helper()
	servertest.Poll(t, "service "+service, func() error {
		entries, _, err := c.Health().Service(service, "", true, query(t, 2*time.Second))
		if err == nil && len(entries) > 0 != want {
			err = fmt.Errorf("%d instances", len(entries))
		}
		return err
	})
}

func query(t *testing.T, d time.Duration) *api.QueryOptions {
	return (&api.QueryOptions{}).WithContext(limit(t, d))
}

func status(err error) int {
	if e, ok := errors.AsType[api.StatusError](err); ok {
		return e.Code
	}
	return 0
}

func TestMemory(t *testing.T) {
	t.Parallel()
	a := Start(t, nil)
	c := a.Client(t)
	register(t, c, "one")
	awaitService(t, c, "one", true)

	a.Pause(t)
	if _, _, err := c.Catalog().Services(query(t, 300*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a paused agent answers %v, want no answer", err)
	}
	a.Continue(t)
	awaitService(t, c, "one", true)

	// The index goes backwards with the state. The changes are made at the catalogue,
	// because an agent would repeat its registrations.
	snapshot := a.Snapshot(t)
	for i := range 50 {
		_, err := c.Catalog().Register(&api.CatalogRegistration{
			Node:    "other",
			Address: "127.0.0.2",
			Service: &api.AgentService{ID: fmt.Sprint(i), Service: "two"},
		}, (&api.WriteOptions{}).WithContext(limit(t, servertest.Patience)))
		if err != nil {
			t.Fatal(err)
		}
	}
	before := a.Index(t)
	a.Restore(t, snapshot)
	if after := a.Index(t); after >= before {
		t.Errorf("index %d after the snapshot was restored, %d before", after, before)
	}
	awaitService(t, c, "one", true)
	awaitService(t, c, "two", false)

	a.Reload(t)
	awaitService(t, c, "one", false)

	register(t, c, "one")
	awaitService(t, c, "one", true)
	a.Kill(t)
	if _, _, err := c.Catalog().Services(query(t, time.Second)); err == nil {
		t.Error("a killed agent answers")
	}
	a.Restart(t)
	awaitService(t, c, "one", false)
}

func TestDisk(t *testing.T) {
	t.Parallel()
	a := Start(t, &Options{Disk: true})
	c := a.Client(t)
	register(t, c, "one")
	awaitService(t, c, "one", true)
	a.Restart(t)
	awaitService(t, c, "one", true)
	a.Wipe(t)
	awaitService(t, c, "one", false)
}

func TestClientAgent(t *testing.T) {
	t.Parallel()
	server := Start(t, &Options{ACL: true, TLS: true})
	agent := server.StartClient(t, nil)
	c := agent.Client(t)
	register(t, c, "one")
	awaitService(t, server.Client(t), "one", true)

	// The registrations of a client agent outlive its process.
	agent.Kill(t)
	agent.Restart(t)
	awaitService(t, c, "one", true)

	agent.Wipe(t)
	awaitService(t, c, "one", false)

	// A wiped server gets the registrations of its clients again.
	server.Wipe(t)
	agent.Join(t, server)
	register(t, c, "three")
	awaitService(t, server.Client(t), "three", true)

	// The client agents accept the tokens of the server, until the server revokes them.
	token := server.CreateToken(t, allow)
	config := agent.Config()
	config.Token = token.Secret
	alice, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	defer config.Transport.CloseIdleConnections()
	register(t, alice, "two")
	server.RevokeToken(t, token)
	_, _, err = alice.Health().Service("two", "", true, query(t, servertest.Patience))
	if status(err) != http.StatusForbidden {
		t.Errorf("with a token that was revoked: %v, want 403", err)
	}
}

func TestACL(t *testing.T) {
	t.Parallel()
	a := Start(t, &Options{ACL: true})
	config := a.Config()
	config.Token = "00000000-0000-0000-0000-000000000002" // the anonymous one
	anonymous, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	defer config.Transport.CloseIdleConnections()
	if err := anonymous.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "x"}); status(err) != http.StatusForbidden {
		t.Errorf("without a token: %v, want 403", err)
	}

	token := a.CreateToken(t, allow)
	config = a.Config()
	config.Token = token.Secret
	alice, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	defer config.Transport.CloseIdleConnections()
	register(t, alice, "one")
	awaitService(t, alice, "one", true)

	a.RevokeToken(t, token)
	_, _, err = alice.Health().Service("one", "", true, query(t, servertest.Patience))
	if status(err) != http.StatusForbidden {
		t.Errorf("with a token that was revoked: %v, want 403", err)
	}
	a.RestoreToken(t, token)
	awaitService(t, alice, "one", true)
	a.SetRules(t, token, "")
	err = alice.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "two"})
	if status(err) != http.StatusForbidden {
		t.Errorf("without any rule: %v, want 403", err)
	}
	a.SetRules(t, token, allow)
	register(t, alice, "two")
}

func TestTLS(t *testing.T) {
	t.Parallel()
	a := Start(t, &Options{TLS: true, Disk: true})
	c := a.Client(t)
	register(t, c, "one")
	awaitService(t, c, "one", true)
	if _, err := tls.Dial("tcp", a.Addr, &tls.Config{}); err == nil {
		t.Error("a client that does not know the CA accepts the certificate")
	}

	config := a.TLS()
	config.Certificates = nil
	anonymous := http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	if resp, err := anonymous.Get(a.URL() + "/v1/status/leader"); err == nil {
		resp.Body.Close()
		t.Error("a client without a certificate is served")
	}

	before := servertest.ServedSerial(t, a.Addr, a.TLS())
	a.RotateCertificate(t, time.Hour)
	if servertest.ServedSerial(t, a.Addr, a.TLS()) == before {
		t.Error("the agent shows the certificate it had before the rotation")
	}
	awaitService(t, a.Client(t), "one", true)

	a.RotateCertificate(t, -time.Hour)
	conn, err := tls.Dial("tcp", a.Addr, a.TLS())
	if err == nil {
		conn.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("the certificate has expired, the handshake says %v", err)
	}
	a.Snapshot(t)
	a.Restart(t)
}
