// Package consultest runs real Consul agents for tests, and causes the faults that agents
// have: restarts, pauses, wiped data, restored snapshots, revoked tokens.
//
//	a := consultest.Start(t, nil)
//	client := a.Client(t)
//	a.Restart(t) // everything that was in memory is lost
//
// The agents are processes on 127.0.0.1 and end with the test. They serve HTTP, or HTTPS,
// and nothing else. Without a binary of Consul, a test is skipped or fails: see
// [servertest.Missing].
//
// Every verb takes the test that uses it, and fails that test with FailNow if it cannot do
// its work. A verb returns when its effect is complete: agents that it started answer, and
// agents that it killed are gone.
package consultest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming/internal/servertest"
)

// Options are the options of [Start] and [Agent.StartClient].
type Options struct {
	// Disk makes a server keep its data on disk, so that the data outlive a Restart.
	// Without Disk, a server starts faster and elects itself at once. Client agents
	// always keep their registrations on disk.
	Disk bool
	// ACL makes every request need a token that allows it: see [Agent.CreateToken].
	// A client agent has the setting of its server.
	ACL bool
	// TLS makes the agent serve HTTPS instead of HTTP, and require a certificate of
	// its CA from each client. A client agent has the setting of its server.
	TLS bool
	// Config is further configuration, in the form of Consul's configuration files. It
	// overrides what this package sets.
	Config map[string]any
}

// Agent is a Consul agent, in server mode unless StartClient started it.
type Agent struct {
	// Name is the name of its node.
	Name string
	// Addr is the address at which it serves HTTP.
	Addr string

	*servertest.Process
	server  *Agent // itself in server mode
	clients int    // how many StartClient has started
	serf    string // the address of its gossip
	dir     string // its data, if they are on disk
	token   string // allows everything, if there are ACLs

	ca       *servertest.CA // nil without TLS
	caFile   string
	certFile string // of the agent: certificate and key
	certPEM  []byte // of clients: certificate and key
}

// Start starts an agent in server mode and waits until it is healthy.
func Start(tb testing.TB, opts *Options) *Agent {
	tb.Helper()
	a := &Agent{Name: "server"}
	a.server = a
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.ACL {
		a.token = newUUID()
	}
	if o.TLS {
		a.ca = servertest.NewCA(tb)
		a.certPEM = a.ca.Issue(tb, "client", 24*time.Hour)
	}
	a.start(tb, o)
	return a
}

// StartClient starts a client agent that joins the server, and waits until the client agent
// is healthy.
func (a *Agent) StartClient(tb testing.TB, opts *Options) *Agent {
	tb.Helper()
	a = a.server
	a.clients++
	c := &Agent{
		Name:    fmt.Sprintf("client%d", a.clients),
		server:  a,
		token:   a.token,
		ca:      a.ca,
		certPEM: a.certPEM,
	}
	var o Options
	if opts != nil {
		o = *opts
	}
	o.Disk = true
	c.start(tb, o)
	return c
}

func (a *Agent) start(tb testing.TB, o Options) {
	tb.Helper()
	path := servertest.Binary(tb, "consul")
	dir := tb.TempDir()
	if a.ca != nil {
		a.caFile = filepath.Join(dir, "ca.pem")
		servertest.WriteFile(tb, a.caFile, a.ca.PEM)
		a.certFile = filepath.Join(dir, "agent.pem")
		servertest.WriteFile(tb, a.certFile, a.ca.Issue(tb, a.Name, 24*time.Hour))
	}
	// A wiped agent keeps its node ID. Consul would not give its name to another node
	// before it has found the first node dead.
	id := newUUID()
	servertest.Start(tb, func() []*servertest.Process {
		dir := tb.TempDir()
		args := []string{"agent"}
		if o.Disk {
			a.dir = filepath.Join(dir, "data")
		} else {
			args = append(args, "-dev")
		}
		ports := servertest.Ports(tb, 3)
		a.Addr, a.serf = servertest.Addr(ports[0]), servertest.Addr(ports[1])
		for i, config := range []map[string]any{a.config(id, ports), o.Config} {
			if config == nil {
				continue
			}
			b, err := json.MarshalIndent(config, "", "\t")
			if err != nil {
				tb.Fatal(err)
			}
			file := filepath.Join(dir, fmt.Sprintf("%d.json", i))
			servertest.WriteFile(tb, file, b)
			args = append(args, "-config-file", file)
		}
		a.Process = servertest.NewProcess(tb, a.Name, servertest.Command{
			Path:    path,
			Args:    args,
			Healthy: a.healthy,
		})
		return []*servertest.Process{a.Process}
	})
}

// config returns the configuration of the agent.
func (a *Agent) config(id string, ports []int) map[string]any {
	const off = -1
	port := map[string]int{
		"http": ports[0], "serf_lan": ports[1], "server": ports[2],
		"https": off, "dns": off, "grpc": off, "grpc_tls": off, "serf_wan": off,
	}
	config := map[string]any{
		"node_name":    a.Name,
		"node_id":      id,
		"bind_addr":    "127.0.0.1",
		"client_addr":  "127.0.0.1",
		"ports":        port,
		"server":       a.server == a,
		"log_level":    "error",
		"connect":      map[string]any{"enabled": false},
		"peering":      map[string]any{"enabled": false},
		"performance":  map[string]any{"raft_multiplier": 1},
		"enable_debug": false,
		// A paused node is found dead after about two seconds. A shorter limit would find
		// living nodes dead on a busy machine.
		"gossip_lan": map[string]any{
			"gossip_interval": "100ms",
			"probe_interval":  "500ms",
			"probe_timeout":   "500ms",
			"suspicion_mult":  3,
		},
		"disable_update_check":    true,
		"skip_leave_on_interrupt": true,
	}
	if a.dir != "" {
		config["data_dir"] = a.dir
	}
	switch {
	case a.server != a:
		config["retry_join"] = []string{a.server.serf}
		config["retry_interval"] = "200ms"
	case a.dir != "":
		config["bootstrap_expect"] = 1 // -dev implies it
	}
	if a.token != "" {
		config["acl"] = a.aclConfig()
	}
	if a.ca != nil {
		port["http"], port["https"] = off, ports[0]
		config["tls"] = map[string]any{"https": a.tlsConfig()}
	}
	return config
}

func (a *Agent) aclConfig() map[string]any {
	return map[string]any{
		"enabled":        true,
		"default_policy": "deny",
		"down_policy":    "deny",
		// A client agent would go on to accept a token that was revoked.
		"token_ttl":  "0s",
		"policy_ttl": "0s",
		"role_ttl":   "0s",
		"tokens":     map[string]any{"initial_management": a.token, "agent": a.token},
	}
}

func (a *Agent) tlsConfig() map[string]any {
	return map[string]any{
		"ca_file":         a.caFile,
		"cert_file":       a.certFile,
		"key_file":        a.certFile,
		"verify_incoming": true,
	}
}

// healthy returns an error until the leader of the servers lists the agent as passing. It
// asks in the consistent mode, which needs a leader that is ready.
func (a *Agent) healthy() error {
	transport := a.transport()
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: 2 * time.Second}
	req, err := http.NewRequest(http.MethodGet, a.URL()+"/v1/health/node/"+a.Name+"?consistent", nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Consul-Token", a.token)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, body)
	}
	var checks api.HealthChecks
	if err := json.Unmarshal(body, &checks); err != nil {
		return err
	}
	for _, c := range checks {
		if c.CheckID == "serfHealth" && c.Status == api.HealthPassing {
			return nil
		}
	}
	return fmt.Errorf("the leader has not seen it alive: %s", body)
}

// transport returns the transport of the verbs. It works whatever happened to the agent and
// its certificate before.
func (a *Agent) transport() *http.Transport {
	t := &http.Transport{DisableKeepAlives: true}
	if a.ca != nil {
		t.TLSClientConfig = a.TLS()
		t.TLSClientConfig.InsecureSkipVerify = true
	}
	return t
}

// URL returns the URL at which the agent serves HTTP.
func (a *Agent) URL() string { return a.scheme() + "://" + a.Addr }

func (a *Agent) scheme() string {
	if a.ca != nil {
		return "https"
	}
	return "http"
}

// TLS returns the TLS configuration of a client, nil without TLS.
func (a *Agent) TLS() *tls.Config {
	if a.ca == nil {
		return nil
	}
	cert, err := tls.X509KeyPair(a.certPEM, a.certPEM)
	if err != nil {
		panic(err) // this package made the certificate
	}
	return &tls.Config{RootCAs: a.ca.Pool(), Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
}

// CA returns the CA of the certificates of agents and clients, nil without TLS.
func (a *Agent) CA() *servertest.CA { return a.ca }

// Config returns the configuration of a client of the agent, with the token that allows
// everything and with a transport of its own.
func (a *Agent) Config() *api.Config {
	config := &api.Config{
		Address:   a.Addr,
		Scheme:    a.scheme(),
		Token:     a.token,
		Transport: &http.Transport{},
	}
	if a.ca != nil {
		config.TLSConfig = api.TLSConfig{CAPem: a.ca.PEM, CertPEM: a.certPEM, KeyPEM: a.certPEM}
	}
	return config
}

// Client returns a client of the agent. Its connections are closed when tb ends.
func (a *Agent) Client(tb testing.TB) *api.Client {
	tb.Helper()
	config := a.Config()
	client, err := api.NewClient(config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(config.Transport.CloseIdleConnections)
	return client
}

// admin calls f with a new client, which has no connections from before a fault. f uses ctx
// for each of its calls.
func (a *Agent) admin(tb testing.TB, verb string, f func(context.Context, *api.Client) error) {
	tb.Helper()
	// Not the test's context, because cleanups of the test use verbs too.
	ctx, cancel := context.WithTimeout(context.Background(), servertest.Patience)
	defer cancel()
	config := a.Config()
	config.TLSConfig = api.TLSConfig{}
	config.Transport = a.transport()
	client, err := api.NewClient(config)
	if err == nil {
		err = f(ctx, client)
	}
	if err != nil {
		tb.Fatalf("%s: %v", verb, err)
	}
}

// Wipe replaces the agent by an empty agent at the same addresses, without registrations. If
// the agent is a server, the catalogue is empty, its index starts again, and tokens that
// were created are gone.
func (a *Agent) Wipe(tb testing.TB) {
	tb.Helper()
	a.Kill(tb)
	if a.dir != "" {
		if err := os.RemoveAll(a.dir); err != nil {
			tb.Fatal(err)
		}
	}
	a.Restart(tb)
}

// Continue resumes the agent after a Pause, and waits until it is healthy.
func (a *Agent) Continue(tb testing.TB) {
	tb.Helper()
	a.Process.Continue(tb)
	a.Await(tb)
}

// Join joins an agent to another one that does not know it. Call it after a Wipe of the
// server: client agents look for their server by themselves only when they start. After
// that, a client agent may take some minutes to restore its registrations in the catalogue.
// It does so regularly, and when it notices that the server was away.
func (a *Agent) Join(tb testing.TB, other *Agent) {
	tb.Helper()
	a.admin(tb, "join", func(ctx context.Context, client *api.Client) error {
		return client.Agent().Join(other.serf, false)
	})
	a.Await(tb)
}

// Index returns the index of the list of services, which is the index of the last change of
// any service or node.
func (a *Agent) Index(tb testing.TB) uint64 {
	tb.Helper()
	var index uint64
	a.admin(tb, "index", func(ctx context.Context, client *api.Client) error {
		_, meta, err := client.Catalog().Services((&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
		if err == nil {
			index = meta.LastIndex
		}
		return err
	})
	return index
}

// Snapshot returns the state of the servers.
func (a *Agent) Snapshot(tb testing.TB) []byte {
	tb.Helper()
	var b []byte
	a.admin(tb, "snapshot", func(ctx context.Context, client *api.Client) error {
		r, _, err := client.Snapshot().Save((&api.QueryOptions{}).WithContext(ctx))
		if err != nil {
			return err
		}
		defer r.Close()
		b, err = io.ReadAll(r)
		return err
	})
	return b
}

// Restore replaces the state of the servers by a snapshot. The index goes back to that of
// the snapshot.
func (a *Agent) Restore(tb testing.TB, snapshot []byte) {
	tb.Helper()
	a.admin(tb, "restore", func(ctx context.Context, client *api.Client) error {
		return client.Snapshot().Restore((&api.WriteOptions{}).WithContext(ctx), bytes.NewReader(snapshot))
	})
	a.Await(tb)
}

// Token is an ACL token. Clients send its Secret.
type Token struct {
	Secret string

	accessor, policy string
}

// CreateToken makes a token with the rights that the rules say, such as
// `service_prefix "" { policy = "write" }`.
func (a *Agent) CreateToken(tb testing.TB, rules string) *Token {
	tb.Helper()
	t := &Token{Secret: newUUID(), accessor: newUUID()}
	a.admin(tb, "create token", func(ctx context.Context, client *api.Client) error {
		p, _, err := client.ACL().PolicyCreate(&api.ACLPolicy{Name: "test-" + t.accessor, Rules: rules}, (&api.WriteOptions{}).WithContext(ctx))
		if err == nil {
			t.policy = p.ID
		}
		return err
	})
	a.RestoreToken(tb, t)
	return t
}

// RevokeToken deletes a token.
func (a *Agent) RevokeToken(tb testing.TB, t *Token) {
	tb.Helper()
	a.admin(tb, "revoke token", func(ctx context.Context, client *api.Client) error {
		_, err := client.ACL().TokenDelete(t.accessor, (&api.WriteOptions{}).WithContext(ctx))
		return err
	})
}

// RestoreToken makes a revoked token valid again.
func (a *Agent) RestoreToken(tb testing.TB, t *Token) {
	tb.Helper()
	a.admin(tb, "restore token", func(ctx context.Context, client *api.Client) error {
		_, _, err := client.ACL().TokenCreate(&api.ACLToken{
			AccessorID: t.accessor,
			SecretID:   t.Secret,
			Policies:   []*api.ACLTokenPolicyLink{{ID: t.policy}},
		}, (&api.WriteOptions{}).WithContext(ctx))
		return err
	})
}

// SetRules changes what a token allows.
func (a *Agent) SetRules(tb testing.TB, t *Token, rules string) {
	tb.Helper()
	a.admin(tb, "set rules", func(ctx context.Context, client *api.Client) error {
		_, _, err := client.ACL().PolicyUpdate(&api.ACLPolicy{ID: t.policy, Name: "test-" + t.accessor, Rules: rules}, (&api.WriteOptions{}).WithContext(ctx))
		return err
	})
}

// Reload makes the agent read its configuration again. The agent then starts from what is on
// disk. An agent without Disk forgets its registrations, and removes them from the catalogue
// some time later.
func (a *Agent) Reload(tb testing.TB) {
	tb.Helper()
	a.Process.Reload(tb)
}

// RotateCertificate gives the agent a new certificate that is valid for some time. If the
// time is not positive, the certificate has expired. Open connections stay open. The agent
// needs Disk, since this is a Reload.
func (a *Agent) RotateCertificate(tb testing.TB, valid time.Duration) {
	tb.Helper()
	if a.ca == nil || a.dir == "" {
		tb.Fatal("rotate certificate: the agent has to be started with TLS and Disk")
	}
	before := servertest.ServedSerial(tb, a.Addr, a.TLS())
	servertest.WriteFile(tb, a.certFile, a.ca.Issue(tb, a.Name, valid))
	a.Reload(tb)
	servertest.Poll(tb, "the certificate is not rotated", func() error {
		if servertest.ServedSerial(tb, a.Addr, a.TLS()) == before {
			return errors.New("it is as before")
		}
		return nil
	})
}

// newUUID returns a random UUID.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	s := hex.EncodeToString(b[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
