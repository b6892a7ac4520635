package open_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/open"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/servertest"
	"github.com/naming-go/naming/migrate"
)

// mustClient opens a Client, which the end of the test closes.
func mustClient(t *testing.T, url string, opts *open.ClientOptions) *naming.Client {
	t.Helper()
	c, done, err := open.Client(t.Context(), url, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := done(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// TestClient: the function that Client returns closes the Client and its store, and may
// be called again.
func TestClient(t *testing.T) {
	for _, url := range []string{"memory:", "migrate:?from=memory:&to=memory:&phase=union"} {
		c, done, err := open.Client(t.Context(), url, nil)
		if err != nil {
			t.Fatal(err)
		}
		reg, err := c.Register(t.Context(), "greeter", naming.Endpoint{Addr: "a:1"}, &naming.RegisterOptions{Wait: true, DrainDelay: -1})
		if err != nil {
			t.Fatal(err)
		}
		view, err := c.List(t.Context(), "greeter")
		if err != nil || len(view.Endpoints) != 1 {
			t.Errorf("%s: the endpoints are %v, %v", url, view.Endpoints, err)
		}
		if err := errors.Join(done(), done()); err != nil {
			t.Error(err)
		}
		if _, err := c.List(t.Context(), "greeter"); !errors.Is(err, naming.ErrClientClosed) {
			t.Errorf("%s: after the end, the error is %v", url, err)
		}
		if err := reg.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestClientCloses: the end withdraws what was registered, before it closes the store.
// A Client that could not be opened leaves nothing open.
func TestClientCloses(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	addr := "etcd://" + cluster.Members[0].Addr
	client := cluster.Client(t)
	for _, url := range []string{addr + "?prefix=/a/", "migrate:?from=" + addr + "?prefix=/a/&to=" + addr + "?prefix=/b/&phases=records"} {
		c, done, err := open.Client(t.Context(), url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Register(t.Context(), "greeter", naming.Endpoint{Addr: "a:1"}, &naming.RegisterOptions{Wait: true, DrainDelay: -1}); err != nil {
			t.Fatal(err)
		}
		if got, err := client.Get(t.Context(), "/a/greeter/a:1"); err != nil || len(got.Kvs) != 1 {
			t.Errorf("%s: registered is %v, %v", url, got, err)
		}
		if err := done(); err != nil {
			t.Error(err)
		}
		for _, key := range []string{"/a/greeter/a:1", "/b/greeter/a:1"} {
			if got, err := client.Get(t.Context(), key); err != nil || len(got.Kvs) > 0 {
				t.Errorf("%s: left is %v, %v", url, got, err)
			}
		}
	}
	before := runtime.NumGoroutine()
	for range 10 {
		_, _, err := open.Client(t.Context(), "migrate:?from="+addr+"&to=etcds://h?cacert=/none&phases=records", nil)
		if err == nil || !strings.Contains(err.Error(), `parameter "to": open etcds store: parameter "cacert": open /none: no such file`) {
			t.Fatalf("error %v", err)
		}
	}
	servertest.Poll(t, "goroutines", func() error {
		if n := runtime.NumGoroutine(); n > before+5 {
			return fmt.Errorf("there are %d, and were %d", n, before)
		}
		return nil
	})
}

// A migrate URL that can never work is refused, and the error says what is wrong and
// repeats no secret.
func TestClientInvalid(t *testing.T) {
	const both = "migrate:?from=memory:&to=memory:"
	for url, want := range map[string]string{
		"":                "it has no scheme; known are consul, consuls, etcd, etcds, memory, migrate",
		"zookeeper://h:1": `unknown scheme "zookeeper"; known are consul, consuls, etcd, etcds, memory, migrate`,
		"etcd://h?x=1":    `unknown parameter "x"; known for etcd are`,

		"migrate:":                                                               `it has no parameter "from", the URL of a registry`,
		"migrate:?from=memory:":                                                  `it has no parameter "to", the URL of a registry`,
		"migrate:?to=memory:&phase=old":                                          `it has no parameter "from", the URL of a registry`,
		"migrate://hunter2?from=memory:":                                         `unexpected text after "migrate:"`,
		"migrate:hunter2?from=memory:":                                           `unexpected text after "migrate:"`,
		"migrate://user:hunter2@h?from=memory:":                                  "it has a user before the host",
		both:                                                                     `it needs one of the parameters "phases" and "phase"`,
		both + "&phases=records&phase=old":                                       `it needs one of the parameters "phases" and "phase"`,
		both + "&phases=records&phases=x":                                        `parameter "phases" occurs more than once`,
		both + "&phases=":                                                        `parameter "phases" is empty`,
		both + "&phase=hunter2":                                                  `parameter "phase" is neither a number from 0 to 7 nor the name of a phase, such as union`,
		both + "&phase=8":                                                        `parameter "phase" is neither`,
		both + "&phase=prefer-new":                                               `the phase prefer-new needs the parameter "share"`,
		both + "&phase=4&share=hunter2":                                          `parameter "share" is not a number from 0 to 1`,
		both + "&phase=4&share=1.01":                                             `parameter "share" is not a number from 0 to 1`,
		both + "&phase=4&share=NaN":                                              `parameter "share" is not a number from 0 to 1`,
		both + "&phases=x&share=1":                                               `it has the parameter "share" without "phase"`,
		both + "&phase=3&read-only=hunter2":                                      `parameter "read-only" is neither from nor to`,
		both + "&phase=3&old-name=hunter2:":                                      `parameter "old-name" is not a name of 1 to 64 letters`,
		both + "&phase=3&new-name=~hunter2":                                      `parameter "new-name" is not a name of 1 to 64 letters`,
		both + "&phase=3&old-name=new":                                           `both registries have the name "new"`,
		both + "&phase=3&leave-delay=hunter2":                                    `parameter "leave-delay" is not a time from 0s to 1h, such as 30s`,
		both + "&phase=3&leave-delay=-1s":                                        `parameter "leave-delay" is not a time`,
		both + "&phase=3&leave-delay=61m":                                        `parameter "leave-delay" is not a time`,
		both + "&phase=3&store=x":                                                `unknown parameter "store"; known for migrate are client-id, from, leave-delay, new-name, old-name, phase, phases, read-only, share, to; "&" in the URL`,
		"migrate:?from=migrate:&to=memory:&phase=3":                              `parameter "from" is a migrate URL, which cannot be in another migrate URL`,
		"migrate:?from=memory:&to=Migrate:?&phase=3":                             `parameter "to" is a migrate URL, which cannot be in another migrate URL`,
		"migrate:?from=zookeeper:&to=memory:&phase=3":                            `URL of a store: parameter "from": unknown scheme "zookeeper"; known are consul, consuls, etcd, etcds, memory`,
		"migrate:?from=memory:&to=etcd://user:hunter2@h&phase=3":                 `parameter "to": it has a user before the host`,
		"migrate:?from=memory:&to=etcd://h?password=hunter2&phase=3":             `parameter "to": unknown parameter "password"; known for etcd are`,
		"migrate:?from=memory:&to=etcd://h?deep=hunter2&phase=3":                 `parameter "deep" is neither true nor false`,
		"migrate:?from=etcd://h:1?endpoint=user:hunter2@i:1&to=etcd://h&phase=3": `parameter "from": parameter "endpoint" number 1 is not host:port`,
		"migrate:?from=etcd://h&to=etcd://h&phase=3":                             `parameters "from" and "to" are the same registry`,
		"migrate:?from=memory:&to=consul://h?dc=a&tag=hunter2&phase=3":           `unknown parameter "tag"; known for migrate are`,
	} {
		_, _, err := open.Client(t.Context(), url, nil)
		if !errors.Is(err, naming.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want ErrInvalid with %q", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error repeats a secret: %v", url, err)
		}
	}
}

// TestMigrateOptions: the parameters of the URL have precedence over the options, and the
// hooks of the options are called.
func TestMigrateOptions(t *testing.T) {
	var text bytes.Buffer
	var joined *migrate.Joined
	changed := make(chan migrate.PhaseChangedInfo, 1)
	opts := &open.ClientOptions{
		Store: open.Options{Logger: slog.New(slog.NewTextHandler(&text, nil))},
		Migrate: migrate.Options{
			OldName: "before", NewName: "after",
			Hooks: &migrate.Hooks{PhaseChanged: func(i migrate.PhaseChangedInfo) {
				select {
				case changed <- i:
				default:
				}
			}},
		},
		OnJoin: func(j *migrate.Joined) { joined = j },
	}
	c := mustClient(t, "migrate:?from=memory:&to=memory:&phase=prefer-new&share=0.5&old-name=a.1&client-id=x&leave-delay=0s&read-only=from", opts)
	if joined == nil || joined.Client != c {
		t.Errorf("joined is %v, want that of the Client", joined)
	}
	reg, err := c.Register(t.Context(), "greeter", naming.Endpoint{Addr: "a:1"}, &naming.RegisterOptions{Wait: true, DrainDelay: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	var sides []string
	for view, err := range c.Watch(t.Context(), "greeter") {
		if err != nil {
			t.Fatal(err)
		}
		if len(view.Endpoints) == 0 {
			continue
		}
		for _, s := range view.Sides {
			sides = append(sides, fmt.Sprint(s.Name, " ", s.Endpoints))
		}
		break
	}
	if want := []string{"a.1 0", "after 1"}; !slices.Equal(sides, want) {
		t.Errorf("the sides are %v, want %v", sides, want)
	}
	if got := <-changed; got.To != (migrate.State{Phase: migrate.PreferNew, Share: 0.5}) {
		t.Errorf("the hook got %+v", got)
	}
}

// registered waits until the registries have so many endpoints of a service.
func registered(t *testing.T, old, next naming.Store, service string, want [2]int) {
	t.Helper()
	servertest.Poll(t, fmt.Sprint("endpoints in the registries: ", want), func() error {
		got := [2]int{len(read(t, old, service)), len(read(t, next, service))}
		if got != want {
			return fmt.Errorf("there are %v", got)
		}
		return nil
	})
}

// TestMigrateRecords: a deployed program follows the records in both registries, from
// Consul to another framework's format in etcd. The records are in the default format.
func TestMigrateRecords(t *testing.T) {
	consulURL := "consul://" + consultest.Start(t, nil).Addr
	etcdURL := "etcd://" + etcdtest.Start(t, nil).Members[0].Addr
	kratos := etcdURL + "?codec=kratos"
	old, next, records := mustOpen(t, consulURL), mustOpen(t, kratos), mustOpen(t, etcdURL)
	c := mustClient(t, "migrate:?leave-delay=100ms&phases=records&from="+url.QueryEscape(consulURL+"?codec=kratos&tag=version=v1")+"&to="+url.QueryEscape(kratos), nil)
	_, err := c.Register(t.Context(), "greeter", naming.Endpoint{Addr: "127.0.0.1:1", Metadata: json.RawMessage(`{"version":"v1"}`)}, &naming.RegisterOptions{DrainDelay: -1})
	if err != nil {
		t.Fatal(err)
	}
	registered(t, old, next, "greeter", [2]int{1, 1}) // unknown: in both
	for _, step := range []struct {
		phase migrate.Phase
		want  [2]int
	}{{migrate.Old, [2]int{1, 0}}, {migrate.Union, [2]int{1, 1}}, {migrate.Done, [2]int{0, 1}}, {migrate.Old, [2]int{1, 0}}} {
		if _, err := migrate.WriteRecord(t.Context(), old, records, "*", migrate.State{Phase: step.phase}); err != nil {
			t.Fatal(err)
		}
		registered(t, old, next, "greeter", step.want)
	}
	if _, err := migrate.WriteRecord(t.Context(), old, next, "*", migrate.State{}); !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("a record in the format of kratos: error %v", err)
	}
}

// TestMigrateFile: a deployed program follows a file.
func TestMigrateFile(t *testing.T) {
	addr := "etcd://" + etcdtest.Start(t, nil).Members[0].Addr
	from, to := addr+"?prefix=/a/", addr+"?prefix=/b/"
	old, next := mustOpen(t, from), mustOpen(t, to)
	file := filepath.Join(t.TempDir(), "phases.json")
	c := mustClient(t, "migrate:?leave-delay=100ms&phases="+file+"&from="+from+"&to="+to, nil)
	if _, err := c.Register(t.Context(), "greeter", naming.Endpoint{Addr: "a:1"}, &naming.RegisterOptions{DrainDelay: -1}); err != nil {
		t.Fatal(err)
	}
	registered(t, old, next, "greeter", [2]int{1, 1})
	for content, want := range map[string][2]int{
		`{"services":{"greeter":{"phase":"old"}}}`:  {1, 0},
		`{"services":{"greeter":{"phase":"done"}}}`: {0, 1},
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		registered(t, old, next, "greeter", want)
	}
}

// A context that is done ends Client.
func TestClientContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, url := range []string{"etcd://127.0.0.1:1", "migrate:?from=memory:&to=etcd://127.0.0.1:1&phases=records"} {
		if _, _, err := open.Client(ctx, url, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: error %v, want that of the context", url, err)
		}
	}
}
