// Package consultest runs real Consul agents for tests, and does to them what
// happens to agents.
//
//	a := consultest.Start(t, nil)
//	client := a.Client(t)
//	a.Restart(t) // nothing that was in memory is left
//
// The agents are processes on 127.0.0.1 and end with the test. They serve HTTP,
// or HTTPS, and nothing else. A test is skipped when there is no binary to run,
// or fails: see [servertest.Missing].
//
// Every verb gets the test that uses it, and fails that test with FailNow if it
// cannot be carried out. A verb returns when what it says is so: agents that it
// started answer, those that it killed are gone.
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
	// Disk makes a server keep its data on disk, so that they are there after
	// a Restart. In memory it starts faster and elects itself at once. Client
	// agents always keep what is registered with them on disk.
	Disk bool
	// ACL demands a token that allows it for everything; see
	// [Agent.CreateToken]. A client agent does as its server.
	ACL bool
	// TLS makes the agent serve HTTPS in the place of HTTP, and demand a
	// certificate of its CA from each client. A client agent does as its
	// server.
	TLS bool
	// Config is further configuration, in the form of Consul's configuration
	// files. It wins over what this package sets.
	Config map[string]any
}

// Agent is a Consul agent, in server mode unless StartClient started it.
type Agent struct {
	// Name is the name of its node.
	Name string
	// Addr is the address it serves HTTP at.
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

// StartClient starts a client agent that joins the server, and waits until it
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
	// A node that is wiped is the same node: Consul would not let another have
	// its name before it has found the first one dead.
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
		// A node that is paused is dead after two seconds or so; on a busy
		// machine a shorter limit would find living ones dead.
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
		config["acl"] = map[string]any{
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
	if a.ca != nil {
		port["http"], port["https"] = off, ports[0]
		config["tls"] = map[string]any{"https": map[string]any{
			"ca_file":         a.caFile,
			"cert_file":       a.certFile,
			"key_file":        a.certFile,
			"verify_incoming": true,
		}}
	}
	return config
}

// healthy asks for what the server's leader knows of the agent. It is asked in
// the mode that needs a leader that has finished to take office.
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

// transport returns what the verbs connect with, whatever was done to the agent
// and its certificate before.
func (a *Agent) transport() *http.Transport {
	t := &http.Transport{DisableKeepAlives: true}
	if a.ca != nil {
		t.TLSClientConfig = a.TLS()
		t.TLSClientConfig.InsecureSkipVerify = true
	}
	return t
}

// URL returns the URL the agent serves HTTP at.
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
		panic(err) // it is ours
	}
	return &tls.Config{RootCAs: a.ca.Pool(), Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
}

// CA returns what issues the certificates of agents and clients, nil without
// TLS.
func (a *Agent) CA() *servertest.CA { return a.ca }

// Config returns what a client needs to connect to the agent, with the token
// that allows everything. Its transport is used by nobody else.
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

// admin calls f with a client of its own, one that knows nothing of what was
// done to the agent before. It is given a context for each of its calls.
func (a *Agent) admin(tb testing.TB, verb string, f func(context.Context, *api.Client) error) {
	tb.Helper()
	// Not the test's context: verbs are for its cleanups, too.
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

// Wipe replaces the agent by an empty one at the same addresses. Nothing is
// registered with it, and if it is a server, the catalogue is empty and its
// index starts again; tokens that were created are gone.
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

// Continue lets the agent go on after a Pause, and waits until it is healthy.
func (a *Agent) Continue(tb testing.TB) {
	tb.Helper()
	a.Process.Continue(tb)
	a.Await(tb)
}

// Join makes an agent and another that do not know each other one cluster.
// Client agents look for their server by themselves only when they start, so
// this is what to do after a Wipe of the server. Even then it may take a client
// agent some minutes to put again into the catalogue what is registered with
// it: it does so regularly, and when it has noticed that the server was away.
func (a *Agent) Join(tb testing.TB, other *Agent) {
	tb.Helper()
	a.admin(tb, "join", func(ctx context.Context, client *api.Client) error {
		return client.Agent().Join(other.serf, false)
	})
	a.Await(tb)
}

// Index returns the index of the list of services: that of the last change of
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

// Restore replaces the state of the servers by a snapshot. Its index is that of
// the snapshot: it goes backwards.
func (a *Agent) Restore(tb testing.TB, snapshot []byte) {
	tb.Helper()
	a.admin(tb, "restore", func(ctx context.Context, client *api.Client) error {
		return client.Snapshot().Restore((&api.WriteOptions{}).WithContext(ctx), bytes.NewReader(snapshot))
	})
	a.Await(tb)
}

// Token is an ACL token. Its Secret is what clients show.
type Token struct {
	Secret string

	accessor, policy string
}

// CreateToken makes a token that allows what the rules say, such as
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

// RevokeToken makes a token unknown.
func (a *Agent) RevokeToken(tb testing.TB, t *Token) {
	tb.Helper()
	a.admin(tb, "revoke token", func(ctx context.Context, client *api.Client) error {
		_, err := client.ACL().TokenDelete(t.accessor, (&api.WriteOptions{}).WithContext(ctx))
		return err
	})
}

// RestoreToken makes a token that was revoked good again.
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

// Reload makes the agent read its configuration again. As it then begins with
// what it finds on disk, one without forgets what is registered with it, and
// some time later takes it out of the catalogue.
func (a *Agent) Reload(tb testing.TB) {
	tb.Helper()
	a.Process.Reload(tb)
}

// RotateCertificate gives the agent a new certificate, valid for the given time;
// one that is not positive makes it one that has expired. Connections that are
// open stay open. The agent needs its data on disk, since this is a Reload.
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
