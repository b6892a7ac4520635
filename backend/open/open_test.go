package open_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/backend/open"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/servertest"
)

// The variables of the developer's registries must not affect the tests.
func TestMain(m *testing.M) {
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "CONSUL_") {
			_ = os.Unsetenv(name)
		}
	}
	os.Exit(m.Run())
}

// roundTrip puts an endpoint and reads it back.
func roundTrip(t *testing.T, store naming.Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), servertest.Patience)
	defer cancel()
	want := naming.Endpoint{ID: "a:1", Addr: "a:1"}
	if err := store.Apply(ctx, "greeter", naming.Change{Endpoint: want}); err != nil {
		t.Fatal(err)
	}
	for b, err := range store.Watch(ctx, "greeter") {
		if err != nil {
			t.Fatal(err)
		}
		if !b.Snapshot || len(b.Put) != 1 || !b.Put[0].Equal(want) {
			t.Errorf("read %+v, want a snapshot with %+v", b, want)
		}
		break
	}
}

func mustOpen(t *testing.T, url string) naming.Store {
	t.Helper()
	store, done, err := open.Store(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := done(); err != nil {
			t.Error(err)
		}
	})
	return store
}

func TestMemory(t *testing.T) {
	roundTrip(t, mustOpen(t, "memory:"))

	var reported []*naming.MalformedError
	store, _, err := open.Store(t.Context(), "memory:", &open.Options{
		OnMalformed: func(m *naming.MalformedError) { reported = append(reported, m) },
	})
	if err != nil {
		t.Fatal(err)
	}
	store.(*memory.Store).PutMalformed("greeter", "x", errors.New("no JSON"))
	for range store.Watch(t.Context(), "greeter") {
		break
	}
	if len(reported) != 1 || reported[0].Key != "x" {
		t.Errorf("reported %v, want the entry x", reported)
	}
}

// A URL that can never work is refused, and the error says what is wrong.
func TestInvalid(t *testing.T) {
	const knownConsul = "known for consul are codec, dc, include-proxies, include-warning, no-draining-mark, node-meta, ns, partition, port-name, prefix, stale, tag, token-env, token-file"
	const known = "known for etcd are codec, deep, endpoint, no-draining-mark, password-env, password-file, prefix, username-env, username-file"
	for url, want := range map[string]string{
		"":                "it has no scheme; known are consul, consuls, etcd, etcds, memory",
		"greeter":         "it has no scheme; known are consul, consuls, etcd, etcds, memory",
		"zookeeper://h:1": `unknown scheme "zookeeper"; known are consul, consuls, etcd, etcds, memory`,
		"localhost:2379":  `unknown scheme "localhost"; known are consul, consuls, etcd, etcds, memory`,
		"::":              "it has no scheme",
		"etcd://[::1":     "it is not a URL",
		"memory://h":      `unexpected text after "memory:"`,
		"memory:x":        `unexpected text after "memory:"`,
		"memory:?x=1":     `unknown parameter "x": memory has none`,
		"migrate:?from=memory:&to=memory:&phase=old": "a Client and not a Store: open it with open.Client",
		"etcd:":                              "there is no host: write etcd://host:port",
		"etcd://":                            "there is no host: write etcd://host:port",
		"etcd:h:2379":                        "no slashes before the host: write etcd://host:port",
		"etcd://h1:2379,h2:2379":             "(further hosts are parameters: ?endpoint=host:port)",
		"etcd://h1,h2:2379/":                 "not host:port (further hosts are parameters: ?endpoint=host:port)",
		"etcd://h:0":                         "not host:port",
		"etcd://h:70000":                     "not host:port",
		"etcd://h:http":                      "the port is not a number",
		"etcd://h/naming/":                   "?prefix=/naming/",
		"etcd://h#x":                         "fragment",
		"etcd://h?prefix=%zz":                "escape",
		"etcd://h%zz":                        "escape",
		"etcd://h?a;b":                       "semicolon",
		"etcd://h?timeout=3s":                `unknown parameter "timeout"; ` + known,
		"etcd://h?password=hunter2":          `unknown parameter "password"; ` + known,
		"etcd://h?hunter2:hunter2=1":         "unknown parameter; " + known,
		"etcd://h?cacert=x":                  `unknown parameter "cacert"; ` + known,
		"etcd://h?prefix=a&prefix=b":         `parameter "prefix" occurs more than once`,
		"etcd://h?prefix=":                   `parameter "prefix" is empty`,
		"etcd://h?endpoint=i:1&endpoint=j:x": `parameter "endpoint" number 2 is not host:port`,
		"etcd://h?endpoint=http://i:1":       `parameter "endpoint" number 1 is not host:port`,
		"etcds://h?cert=x":                   `only one of the parameters "cert" and "key"`,
		"etcd://user:hunter2@h":              "it has a user before the host",
		"etcd://user@h":                      "it has a user before the host",
		"etcd://us er:hunter2@h":             "it has a user before the host",
		"etcd://user:hun#ter2@h":             "the port is not a number",
		"zookeeper://user:hunter2@h":         "it has a user before the host",
		"etcd://h?endpoint=user:hunter2@i:1": `parameter "endpoint" number 1 is not host:port`,
		"etcd://h?username-file=/dev/null&username-env=X": `both of the parameters "username-file" and "username-env"`,

		"etcd://h?codec=hunter2":            `parameter "codec" must be one of default, go-kit, go-micro, go-zero, kitex, kratos, kratos-grpcs`,
		"etcd://h?codec=kratos&codec=kitex": `parameter "codec" occurs more than once`,
		"etcd://h?deep=hunter2":             `parameter "deep" is neither true nor false`,
		"etcd://h?no-draining-mark=x":       `parameter "no-draining-mark" is neither true nor false`,
		"consul://h?codec=hunter2":          `parameter "codec" must be one of default, go-micro, grpc-spring, kratos`,
		"consul://h?include-proxies=x":      `parameter "include-proxies" is neither true nor false`,
		"consul://h?deep=true":              `unknown parameter "deep"; ` + knownConsul,

		"consul:h:8500":                               "no slashes before the host: write consul://host:port",
		"consul://h1:8500,h2:8500":                    "not host:port, of one agent",
		"consul://h1,h2":                              "not host:port, of one agent",
		"consul://h:http":                             "the port is not a number",
		"consul://h:0":                                "not host:port",
		"consul://h/naming":                           "?prefix=naming.",
		"consul://user:hunter2@h":                     "it has a user before the host",
		"consul://hunter2@h":                          "it has a user before the host",
		"consul://h?token=hunter2":                    `unknown parameter "token"; ` + knownConsul,
		"consul://h?endpoint=i:1":                     `unknown parameter "endpoint"; ` + knownConsul,
		"consul://h?cacert=x":                         `unknown parameter "cacert"; ` + knownConsul,
		"consul://h?hunter2:hunter2=1":                `unknown parameter; ` + knownConsul,
		"consul://h?dc=a&dc=b":                        `parameter "dc" occurs more than once`,
		"consul://h?stale":                            `parameter "stale" is empty`,
		"consul://h?stale=hunter2":                    `parameter "stale" is neither true nor false`,
		"consul://h?include-warning=x":                `parameter "include-warning" is neither true nor false`,
		"consul://h?node-meta=a:b&node-meta=":         `parameter "node-meta" is empty`,
		"consul://h?node-meta=a:&node-meta=x":         `parameter "node-meta" number 2 is not key:value`,
		"consul://h?node-meta=:hunter2":               `parameter "node-meta" number 1 is not key:value`,
		"consuls://h?cert=x":                          `only one of the parameters "cert" and "key"`,
		"consul://h?token-file=/dev/null&token-env=X": `both of the parameters "token-file" and "token-env"`,
	} {
		_, _, err := open.Store(t.Context(), url, nil)
		if !errors.Is(err, naming.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want ErrInvalid with %q", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error repeats a secret: %v", url, err)
		}
	}
}

// The files and variables of a URL are missing or wrong.
func TestReferences(t *testing.T) {
	dir := t.TempDir()
	empty, junk := filepath.Join(dir, "empty"), filepath.Join(dir, "junk")
	servertest.WriteFile(t, empty, []byte("\n"))
	servertest.WriteFile(t, junk, []byte("hunter2"))
	blank := filepath.Join(dir, "blank")
	servertest.WriteFile(t, blank, []byte(" \n\n"))
	large := filepath.Join(dir, "large")
	servertest.WriteFile(t, large, make([]byte, 65<<10))
	t.Setenv("OPEN_TEST_USER", "hunter2")
	for _, c := range []struct {
		url, want string
		is        error
	}{
		{"etcds://h?cacert=" + dir + "/none", dir + "/none: no such file", fs.ErrNotExist},
		{"etcds://h?cacert=" + junk, "no certificate in PEM", nil},
		{"etcds://h?cert=" + junk + "&key=" + junk, `parameter "cert" and parameter "key"`, nil},
		{"etcd://h?password-file=hunter2", `parameter "password-file": no such file`, fs.ErrNotExist},
		{"etcd://h?password-file=" + dir, `parameter "password-file"`, nil},
		{"etcd://h?password-file=" + empty, "empty", nil},
		{"etcd://h?password-file=" + large, "more than 65536 bytes", nil},
		{"etcd://h?password-env=hunter2", `parameter "password-env": the environment variable is not set`, nil},
		{"etcd://h?username-env=OPEN_TEST_USER", "only one of", naming.ErrInvalid},
		{"etcd://h?password-file=" + junk, "only one of", naming.ErrInvalid},
		{"consuls://h?cacert=" + dir + "/none", dir + "/none: no such file", fs.ErrNotExist},
		{"consuls://h?cert=" + junk + "&key=" + junk, `parameter "cert" and parameter "key"`, nil},
		{"consul://h?token-file=hunter2", `parameter "token-file": no such file`, fs.ErrNotExist},
		{"consul://h?token-file=" + empty, `parameter "token-file": the file is empty`, nil},
		{"consul://h?token-file=" + blank, "the token is empty", nil},
		{"consul://h?token-env=hunter2", `parameter "token-env": the environment variable is not set`, nil},
	} {
		_, _, err := open.Store(t.Context(), c.url, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%q: error %v, want one with %q", c.url, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error repeats a secret: %v", c.url, err)
		}
	}
}

// Without credentials Store makes no request, and succeeds while the registry is down.
// With credentials Store waits, no longer than its context.
func TestDown(t *testing.T) {
	mustOpen(t, "etcd://127.0.0.1:1")
	mustOpen(t, "consul://127.0.0.1:1")

	t.Setenv("OPEN_TEST_USER", "user")
	t.Setenv("OPEN_TEST_PASSWORD", "hunter2")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, _, err := open.Store(ctx, "etcd://127.0.0.1:1?username-env=OPEN_TEST_USER&password-env=OPEN_TEST_PASSWORD", nil)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want that of the context", err)
	}
	for _, url := range []string{"etcd://127.0.0.1:1", "consul://127.0.0.1:1"} {
		if _, _, err = open.Store(ctx, url, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: error %v, want that of the context, which was done before", url, err)
		}
	}
}

func TestEtcd(t *testing.T) {
	c := etcdtest.Start(t, &etcdtest.Options{Members: 3})
	addrs := make([]string, len(c.Members))
	for i, m := range c.Members {
		addrs[i] = m.Addr
	}
	store := mustOpen(t, "etcd://"+addrs[0]+"?prefix=/a/&endpoint="+addrs[1]+"&endpoint="+addrs[2])
	roundTrip(t, store)
	roundTrip(t, mustOpen(t, "etcd:///?prefix=/b/&endpoint="+addrs[1]))

	resp, err := c.Client(t).Get(t.Context(), "/a/greeter/a:1")
	if err != nil || len(resp.Kvs) != 1 {
		t.Errorf("at the key with the prefix there is %v, %v", resp, err)
	}
	// The client uses the other members. An election may fail a call or two.
	c.Members[0].Kill(t)
	servertest.Poll(t, "a member that answers", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return store.Apply(ctx, "greeter", naming.Change{Endpoint: naming.Endpoint{Addr: "b:1"}})
	})
}

func TestEtcdTLSAndCredentials(t *testing.T) {
	c := etcdtest.Start(t, &etcdtest.Options{TLS: true})
	c.EnableAuth(t, etcdtest.User{Name: "app", Password: "hunter2", Prefix: "/app/"})
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		servertest.WriteFile(t, path, data)
		return path
	}
	pair := file("pair.pem", c.CA().Issue(t, "", time.Hour))
	url := "etcds://" + c.Members[0].Addr + "?prefix=/app/" +
		"&cacert=" + file("ca.pem", c.CA().PEM) + "&cert=" + pair + "&key=" + pair
	user, password := file("user", []byte("app\n")), file("password", []byte("hunter2\r\n"))
	roundTrip(t, mustOpen(t, url+"&username-file="+user+"&password-file="+password))

	t.Setenv("OPEN_TEST_PASSWORD", "hunter2")
	roundTrip(t, mustOpen(t, url+"&username-file="+user+"&password-env=OPEN_TEST_PASSWORD"))

	if err := os.WriteFile(password, []byte("hunter3"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := open.Store(t.Context(), url+"&username-file="+user+"&password-file="+password, nil)
	if !errors.Is(err, naming.ErrPermission) || strings.Contains(err.Error(), "hunter") {
		t.Errorf("with a wrong password: error %v, want ErrPermission without it", err)
	}
}

// The functions that get the client of a store also get the options of the URL.
func TestOnClient(t *testing.T) {
	var prefixes []string
	o := &open.Options{
		OnEtcd: func(c *clientv3.Client, o etcd.Options) {
			if got := c.Endpoints(); len(got) != 1 || got[0] != "http://127.0.0.1:1" {
				t.Errorf("the client of etcd has the endpoints %v", got)
			}
			prefixes = append(prefixes, o.Prefix)
		},
		OnConsul: func(c *api.Client, o consul.Options) {
			if c == nil {
				t.Error("no client of Consul")
			}
			if token, err := o.Token(t.Context()); token != "of the environment" || err != nil {
				t.Errorf("the token is %q, error %v", token, err)
			}
			prefixes = append(prefixes, o.Prefix)
		},
	}
	t.Setenv("TOKEN", "of the environment")
	for _, url := range []string{"etcd://127.0.0.1:1?prefix=/e/", "consul://127.0.0.1:1?prefix=c-&token-env=TOKEN"} {
		_, done, err := open.Store(t.Context(), url, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := done(); err != nil {
			t.Error(err)
		}
	}
	if got := strings.Join(prefixes, " "); got != "/e/ c-" {
		t.Errorf("the functions were called with the prefixes %q", got)
	}
}
