// Package etcdtest runs real etcd servers for tests, and injects the faults that
// servers suffer in operation.
//
//	c := etcdtest.Start(t, nil)
//	client := c.Client(t)
//	c.Members[0].Pause(t)
//
// The servers are processes on 127.0.0.1 with their data below t.TempDir(). They
// end with the test. Without a binary to run, a test is skipped or fails: see
// [servertest.Missing].
//
// A verb is a method that does something to servers. It gets the test that calls
// it, and fails the test with FailNow if it does not succeed. A verb returns when
// its effect is complete: servers that it started answer, servers that it killed
// are gone.
package etcdtest

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming/internal/servertest"
)

// Release says which etcd to run.
type Release string

const (
	// Pinned is the release that tools/etcd pins: bin/etcd.
	Pinned Release = "pinned"
	// V34 is etcd 3.4, the oldest supported release. It is bin/etcd34, which
	// tools/etcd34 pins. Without that file it is etcd in $PATH or /usr/bin, if its
	// version is 3.4.
	V34 Release = "3.4"
)

// Options are the options of [Start].
type Options struct {
	// Members is how many servers form the cluster, 1 by default.
	Members int
	// Release is the etcd to run, Pinned by default.
	Release Release
	// TLS makes the servers serve clients over TLS and require a client
	// certificate of the cluster's CA.
	TLS bool
	// TokenTTL is how long an unused token lives, in whole seconds. etcd's
	// default is 5 minutes. TokenTTL has an effect after [Cluster.EnableAuth].
	TokenTTL time.Duration
	// ProgressInterval is how often etcd sends progress notifications on a watch
	// that asked for them. etcd's default is 10 minutes.
	ProgressInterval time.Duration
	// Args are additional flags. They follow all others.
	Args []string
}

// Cluster is one or more etcd servers. Its verbs apply to all members.
type Cluster struct {
	// Members are the servers.
	Members []*Member
	// Version is the version of the servers, such as "3.7.3".
	Version string

	ca         *servertest.CA // nil without TLS
	tls        *tls.Config    // of clients; nil without TLS
	certFile   string         // of the servers: certificate and key
	user, pass string         // of root, after EnableAuth
}

// Member is one server of a cluster.
type Member struct {
	// Name is the name of the member.
	Name string
	// Addr is the address at which the member serves clients.
	Addr string

	*servertest.Process
	cluster *Cluster
	peer    string
	data    string
}

// Start starts a cluster and waits until every member is healthy.
func Start(tb testing.TB, opts *Options) *Cluster {
	tb.Helper()
	var o Options
	if opts != nil {
		o = *opts
	}
	o.Members = max(o.Members, 1)
	path, version := find(tb, o.Release)
	c := &Cluster{Version: version}
	dir := tb.TempDir()
	caFile := filepath.Join(dir, "ca.pem")
	if o.TLS {
		c.ca = servertest.NewCA(tb)
		c.certFile = filepath.Join(dir, "server.pem")
		servertest.WriteFile(tb, caFile, c.ca.PEM)
		c.RotateCertificate(tb, 24*time.Hour)
		c.tls = c.ca.ClientConfig(tb, "admin")
	}
	servertest.Start(tb, func() []*servertest.Process {
		// Another attempt has other ports, so it needs another directory.
		dir := tb.TempDir()
		ports := servertest.Ports(tb, 2*o.Members)
		c.Members = make([]*Member, o.Members)
		for i := range c.Members {
			name := fmt.Sprintf("etcd%d", i)
			c.Members[i] = &Member{
				Name:    name,
				Addr:    servertest.Addr(ports[2*i]),
				cluster: c,
				peer:    "http://" + servertest.Addr(ports[2*i+1]),
				data:    filepath.Join(dir, name),
			}
		}
		ps := make([]*servertest.Process, o.Members)
		for i, m := range c.Members {
			m.Process = servertest.NewProcess(tb, m.Name, servertest.Command{
				Path:    path,
				Args:    c.flags(m, &o, caFile),
				Env:     []string{"ETCD_UNSUPPORTED_ARCH=" + runtime.GOARCH}, // etcd 3.4 requires it on arm64.
				Healthy: m.healthy,
				Serving: m.serving,
			})
			ps[i] = m.Process
		}
		return ps
	})
	return c
}

// find returns the path and the version of the binary of a release.
func find(tb testing.TB, r Release) (path, version string) {
	tb.Helper()
	switch r {
	case "", Pinned:
		path = servertest.Binary(tb, "etcd")
		version, err := versionOf(path)
		if err != nil {
			tb.Fatal(err)
		}
		return path, version
	case V34:
		return find34(tb)
	default:
		tb.Fatalf("unknown etcd release %q", r)
		return "", ""
	}
}

// find34 returns the path and the version of the first etcd 3.4 that it finds.
func find34(tb testing.TB) (path, version string) {
	tb.Helper()
	var passed []string
	for _, name := range []string{filepath.Join(servertest.Root(tb), "bin", "etcd34"), "etcd", "/usr/bin/etcd"} {
		path, err := exec.LookPath(name)
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			version, err = versionOf(path)
		}
		if err != nil {
			tb.Fatal(err)
		}
		if strings.HasPrefix(version, "3.4.") {
			return path, version
		}
		passed = append(passed, fmt.Sprintf("; %s is etcd %s", path, version))
	}
	servertest.Missing(tb, "no bin/etcd34: build it with `make servers`"+strings.Join(passed, ""))
	return "", ""
}

// versionOf returns the version of the etcd server at path.
func versionOf(path string) (version string, err error) {
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", path, err)
	}
	if _, err := fmt.Sscanf(string(out), "etcd Version: %s", &version); err != nil {
		return "", fmt.Errorf("%s --version: %w: %s", path, err, out)
	}
	return version, nil
}

// flags returns the command line of a member.
func (c *Cluster) flags(m *Member, o *Options, caFile string) []string {
	peers := make([]string, len(c.Members))
	for i, m := range c.Members {
		peers[i] = m.Name + "=" + m.peer
	}
	// A lone member elects itself. Among several members, a short timeout on a
	// busy machine causes one election after the other. With both timeouts, the
	// shortest TTL of a lease is one second: etcd rounds one and a half election
	// timeouts up.
	heartbeat, election := 10, 100
	if len(c.Members) > 1 {
		heartbeat, election = 50, 500
	}
	flags := []string{
		"--name", m.Name,
		"--data-dir", m.data,
		"--listen-client-urls", m.Endpoint(),
		"--advertise-client-urls", m.Endpoint(),
		"--listen-peer-urls", m.peer,
		"--initial-advertise-peer-urls", m.peer,
		"--initial-cluster", strings.Join(peers, ","),
		"--initial-cluster-state", "new",
		"--heartbeat-interval", strconv.Itoa(heartbeat),
		"--election-timeout", strconv.Itoa(election),
		"--bcrypt-cost", "4", // The least cost: passwords of tests are public.
		"--logger", "zap",
		"--log-outputs", "stderr",
		"--log-level", "error",
	}
	progress := "--watch-progress-notify-interval"
	if strings.HasPrefix(c.Version, "3.4.") {
		progress = "--experimental-watch-progress-notify-interval"
	} else {
		// The data must survive the death of the process, not of the machine.
		flags = append(flags, "--unsafe-no-fsync")
	}
	if o.ProgressInterval > 0 {
		flags = append(flags, progress, o.ProgressInterval.String())
	}
	if o.TokenTTL > 0 {
		flags = append(flags, "--auth-token-ttl", strconv.Itoa(max(int(o.TokenTTL/time.Second), 1)))
	}
	if o.TLS {
		flags = append(flags, "--client-cert-auth", "--trusted-ca-file", caFile,
			"--cert-file", c.certFile, "--key-file", c.certFile)
	}
	return append(flags, o.Args...)
}

// Endpoint returns the URL at which the member serves clients.
func (m *Member) Endpoint() string {
	if m.cluster.certFile != "" {
		return "https://" + m.Addr
	}
	return "http://" + m.Addr
}

// healthy returns nil if the member can serve requests. It needs a leader for
// that.
func (m *Member) healthy() error {
	return get(m.Endpoint()+"/health", m.cluster.adminTLS(), func(body io.Reader) error {
		b, err := io.ReadAll(body)
		if err == nil && !strings.Contains(string(b), `"health":"true"`) {
			err = errors.New(string(b))
		}
		return err
	})
}

// serving returns nil if the member answers the request that a new member sends to
// its peers. If a peer has its port open and does not answer yet, a new member
// waits for seconds.
func (m *Member) serving() error {
	return get(m.peer+"/version", nil, func(io.Reader) error { return nil })
}

// get reads the body of a URL with read. It returns an error for every status other
// than 200.
func get(url string, config *tls.Config, read func(io.Reader) error) error {
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: 2 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return read(resp.Body)
}

// Metric returns the value of the member's metric, summed over all labels. An
// example of a name is etcd_debugging_mvcc_watcher_total.
func (m *Member) Metric(tb testing.TB, name string) float64 {
	tb.Helper()
	var sum float64
	found := false
	err := get(m.Endpoint()+"/metrics", m.cluster.adminTLS(), func(body io.Reader) error {
		lines := bufio.NewScanner(body)
		for lines.Scan() {
			// name{labels} value
			rest, ok := strings.CutPrefix(lines.Text(), name)
			if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
				continue
			}
			v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
			if err != nil {
				return err
			}
			sum += v
			found = true
		}
		return lines.Err()
	})
	if err == nil && !found {
		err = errors.New("the member has no such metric")
	}
	if err != nil {
		tb.Fatalf("metric %s of %s: %v", name, m.Name, err)
	}
	return sum
}

// Metric returns the value of a metric, summed over all members that are up.
func (c *Cluster) Metric(tb testing.TB, name string) float64 {
	tb.Helper()
	var sum float64
	for _, m := range c.up() {
		sum += m.Metric(tb, name)
	}
	return sum
}

// up returns the members that are neither dead nor paused.
func (c *Cluster) up() []*Member {
	return slices.DeleteFunc(slices.Clone(c.Members), func(m *Member) bool { return !m.Up() })
}

// Endpoints returns the URLs of all members.
func (c *Cluster) Endpoints() []string {
	urls := make([]string, len(c.Members))
	for i, m := range c.Members {
		urls[i] = m.Endpoint()
	}
	return urls
}

// Config returns the configuration of a client. The client connects to the given
// endpoints, such as a proxy's. Without endpoints it connects to all members.
func (c *Cluster) Config(endpoints ...string) clientv3.Config {
	if len(endpoints) == 0 {
		endpoints = c.Endpoints()
	}
	return clientv3.Config{
		Endpoints:   endpoints,
		DialTimeout: 5 * time.Second,
		TLS:         c.ClientTLS(),
		Username:    c.user,
		Password:    c.pass,
	}
}

// adminConfig returns the configuration of the verbs' clients. They accept every
// certificate, so that verbs work while clients reject the servers' certificate.
func (c *Cluster) adminConfig(endpoints ...string) clientv3.Config {
	config := c.Config(endpoints...)
	config.TLS = c.adminTLS()
	return config
}

func (c *Cluster) adminTLS() *tls.Config {
	config := c.ClientTLS()
	if config != nil {
		config.InsecureSkipVerify = true
	}
	return config
}

// ClientTLS returns the TLS configuration of a client, nil without TLS.
func (c *Cluster) ClientTLS() *tls.Config { return c.tls.Clone() }

// CA returns the authority that issues the certificates of servers and clients, nil
// without TLS.
func (c *Cluster) CA() *servertest.CA { return c.ca }

// Client returns a client of all members, or of the given endpoints. After
// [Cluster.EnableAuth] the client is root's. It is closed when tb ends.
func (c *Cluster) Client(tb testing.TB, endpoints ...string) *clientv3.Client {
	tb.Helper()
	client, err := clientv3.New(c.Config(endpoints...))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := client.Close(); err != nil && !errors.Is(err, context.Canceled) {
			tb.Error(err)
		}
	})
	return client
}

// admin calls f with a new client. A new client has no state from before a fault.
func (c *Cluster) admin(tb testing.TB, verb string, f func(context.Context, *clientv3.Client) error, endpoints ...string) {
	tb.Helper()
	// The test's context would not do: it is canceled before cleanups run, and
	// cleanups call verbs.
	ctx, cancel := context.WithTimeout(context.Background(), servertest.Patience)
	defer cancel()
	client, err := clientv3.New(c.adminConfig(endpoints...))
	if err == nil {
		err = f(ctx, client)
		client.Close()
	}
	if err != nil {
		tb.Fatalf("%s: %v", verb, err)
	}
}

// Kill kills all members as kill -9 does.
func (c *Cluster) Kill(tb testing.TB) {
	tb.Helper()
	for _, m := range c.Members {
		m.Kill(tb)
	}
}

// Restart kills all members, starts them again on their data and their ports,
// and waits until they are healthy.
func (c *Cluster) Restart(tb testing.TB) {
	tb.Helper()
	c.Kill(tb)
	ps := make([]*servertest.Process, len(c.Members))
	for i, m := range c.Members {
		ps[i] = m.Process
	}
	servertest.StartAll(tb, ps)
}

// Pause stops all members as kill -STOP does: connections stay open, and requests
// get no answer. See [servertest.Process.Pause].
func (c *Cluster) Pause(tb testing.TB) {
	tb.Helper()
	for _, m := range c.Members {
		m.Pause(tb)
	}
}

// Continue resumes all members after Pause, and waits until they are healthy.
func (c *Cluster) Continue(tb testing.TB) {
	tb.Helper()
	for _, m := range c.Members {
		m.Process.Continue(tb)
	}
	for _, m := range c.Members {
		m.Await(tb)
	}
}

// Wipe replaces the servers by empty servers at the same addresses. Their first
// revision is 1, and authentication is off.
func (c *Cluster) Wipe(tb testing.TB) {
	tb.Helper()
	c.Kill(tb)
	for _, m := range c.Members {
		if err := os.RemoveAll(m.data); err != nil {
			tb.Fatal(err)
		}
	}
	c.user, c.pass = "", ""
	c.Restart(tb)
}

// Revision returns the current revision.
func (c *Cluster) Revision(tb testing.TB) int64 {
	tb.Helper()
	var rev int64
	c.admin(tb, "revision", func(ctx context.Context, client *clientv3.Client) error {
		var err error
		rev, err = revision(ctx, client)
		return err
	})
	return rev
}

func revision(ctx context.Context, client *clientv3.Client) (int64, error) {
	resp, err := client.Get(ctx, "\x00", clientv3.WithCountOnly())
	if err != nil {
		return 0, err
	}
	return resp.Header.Revision, nil
}

// Compact drops the history before the current revision, and returns the current
// revision. etcd refuses a watch from an earlier revision.
func (c *Cluster) Compact(tb testing.TB) int64 {
	tb.Helper()
	var rev int64
	c.admin(tb, "compact", func(ctx context.Context, client *clientv3.Client) error {
		var err error
		if rev, err = revision(ctx, client); err != nil {
			return err
		}
		_, err = client.Compact(ctx, rev, clientv3.WithCompactPhysical())
		return err
	})
	// The other members may lag. A linearizable read makes a member catch up.
	for _, m := range c.up() {
		c.admin(tb, "compact", func(ctx context.Context, client *clientv3.Client) error {
			_, err := revision(ctx, client)
			return err
		}, m.Endpoint())
	}
	return rev
}
