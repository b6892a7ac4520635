package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming/cmd/naming/internal/devetcd"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/etcdtest"
)

// reading are lines that read a registry, and writing are lines that also write. STORE stands
// for the URL of the registry, and OTHER for that of another one.
var (
	reading = []string{
		"ls -s STORE", "ls --long -s STORE", "get greeter -s STORE", "top -s STORE", "resolve greeter -s STORE",
		"doctor --read-only STORE", "diff STORE OTHER", "diff OTHER STORE", "copy STORE OTHER --dry-run",
		"migrate status --old STORE --new OTHER", "migrate status --old OTHER --new STORE",
		"migrate plan --old STORE --new OTHER", "migrate verify --settle 0s --old STORE --new OTHER",
		"migrate bridge --dry-run --election none --old STORE --new OTHER",
		"migrate bridge --dry-run --election none --old OTHER --new STORE",
	}
	writing = []string{
		"register greeter 10.0.0.9:80 --permanent -s STORE", "deregister greeter one -s STORE",
		"drain greeter one -s STORE", "resume greeter one -s STORE",
		"bench STORE", "copy OTHER STORE", "migrate drill --old OTHER --new STORE",
	}
)

// fill returns the words of a line with its URLs.
func fill(line, store, other string) []string {
	return words(strings.NewReplacer("STORE", store, "OTHER", other).Replace(line))
}

// TestBadURLs gives each command URLs that can never work. The message says where the URL was
// given and what is wrong, and never has the password of the URL.
func TestBadURLs(t *testing.T) {
	t.Parallel()
	lines := slices.Concat([]string{
		"watch -s STORE", "register greeter 10.0.0.9:80 -s STORE", "run greeter --addr 10.0.0.9:80 -s STORE -- true",
		"check STORE", "serve --listen 127.0.0.1:0 -s STORE", "ui --listen 127.0.0.1:0 -s STORE",
		"migrate advance --all --old STORE --new OTHER", "migrate back --all --old OTHER --new STORE",
		"migrate approve 0123 --old STORE --new OTHER", "migrate sweep --old OTHER --new STORE",
	}, reading, writing)
	for url, message := range map[string]string{
		"foo://10.0.0.1":                            `unknown scheme "foo"; known are consul`,
		"etcd://ada:" + secret + "@127.0.0.1:1":     `it has a user before the host: credentials are read from files`,
		"consul://127.0.0.1:1?frob=" + secret:       `unknown parameter "frob"; known for consul are`,
		"etcd://127.0.0.1:1?codec=" + secret + "xx": `parameter "codec" must be one of default`,
	} {
		each(t, lines, url, "memory:", func(t *testing.T, line string, args []string) {
			where := "--store"
			if i := strings.Index(line, "--old STORE"); i >= 0 {
				where = "--old"
			} else if strings.Contains(line, "--new STORE") {
				where = "--new"
			} else if !strings.Contains(line, "-s STORE") {
				where = `(the URL|\w+://127.0.0.1:1|\w+://10.0.0.1)`
			}
			args = slices.Insert(args, 0, "-v", "-v") // before the program of naming run
			execute(t, args...).expect(t, 2, `^naming: `+where+`: .*`+regexp.QuoteMeta(message))
		})
	}
}

// TestBadURLParts has all that can be wrong in a URL.
func TestBadURLParts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []badLine{
		{"http://127.0.0.1:1", 2, `unknown scheme "http"`},
		{"etcd:127.0.0.1:1", 2, `there are no slashes before the host`},
		{"etcd://127.0.0.1:1/naming", 2, `it has a path: the beginning of the keys is a parameter`},
		{"etcd://127.0.0.1:x", 2, `the port is not a number`},
		{"etcd://127.0.0.1:1?password=" + secret, 2, `unknown parameter "password"`},
		{"etcd://127.0.0.1:1?" + secret, 2, `unknown parameter;`},
		{"etcd://127.0.0.1:1?prefix=", 2, `parameter "prefix" is empty`},
		{"etcd://127.0.0.1:1?prefix=/a&prefix=/b", 2, `parameter "prefix" occurs more than once`},
		{"etcd://127.0.0.1:1?deep=maybe", 2, `parameter "deep" is neither true nor false`},
		{"etcd://127.0.0.1:1?password-env=UNSET&username-env=USER", 3, `"password-env": the environment variable is not set`},
		{"etcd://127.0.0.1:1?username-env=USER", 2, `only one of the name of a user and a password`},
		{"etcd://127.0.0.1:1?password-file=/none&username-env=USER", 3, `"password-file": no such file`},
		{"etcd://127.0.0.1:1?username-env=USER&password-file=" + empty, 3, `"password-file": the file is empty`},
		{"etcds://127.0.0.1:1?cacert=/none/ca.pem", 3, `"cacert": open /none/ca.pem: no such file`},
		{"etcds://127.0.0.1:1?cacert=" + empty, 3, `"cacert": .*has no certificate in PEM`},
		{"etcds://127.0.0.1:1?cert=/none/c.pem&key=/none/k.pem", 3, `"cert" and .*"key": open /none/c.pem`},
		{"etcds://127.0.0.1:1?cert=/none/c.pem", 2, `only one of the parameters "cert" and "key"`},
		{"consuls://127.0.0.1:1?cacert=/none/ca.pem", 3, `"cacert": open /none/ca.pem`},
		{"consul://127.0.0.1:1?token-file=/none", 3, `"token-file": no such file`},
		{"consul://127.0.0.1:1?codec=kitex", 2, `"codec" must be one of default, go-micro`},
		{"memory:somewhere", 2, `unexpected text after "memory:"`},
		{"migrate:", 2, `no parameter "from"`},
		{"migrate:?from=memory:", 2, `no parameter "to"`},
		{"migrate:?from=memory:&to=memory:", 2, `phase`},
		{"migrate:?from=memory:&to=memory:&phase=nowhere", 2, `phase`},
		{"migrate:?from=etcd://ada:" + secret + "@h&to=memory:&phase=old", 2, `parameter "from": it has a user before the host`},
		{"migrate:?from=memory:&to=foo://x&phase=old", 2, `parameter "to": unknown scheme "foo"`},
	} {
		execute(t, "NAMING_STORE="+tt.args, "ls", "-v", "-v").expect(t, tt.status, tt.message)
	}
}

// other starts a registry with an entry.
func other(t *testing.T) string {
	s, err := devetcd.Start(t.Context(), devetcd.Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	url := "etcd://" + s.Addr() + "?prefix=/other/"
	command(t, "register", "greeter", "10.0.0.2:80", "--permanent", "--id", "two", "-s", url)
	return url
}

// each calls f in parallel with the words of lines.
func each(t *testing.T, lines []string, store, other string, f func(t *testing.T, line string, args []string)) {
	t.Run("lines", func(t *testing.T) {
		for _, line := range lines {
			t.Run(line, func(t *testing.T) {
				t.Parallel()
				f(t, line, fill(line, store, other))
			})
		}
	})
}

// unreachable checks all lines that read and write against a registry that does not answer.
// The status is 3.
func unreachable(t *testing.T, url, timeout, message string) {
	lines := slices.Concat([]string{"check STORE"}, reading, writing)
	each(t, lines, url, other(t), func(t *testing.T, _ string, args []string) {
		execute(t, append(args, "--timeout", timeout)...).expect(t, 3, message)
	})
}

func TestRefusedConnection(t *testing.T) {
	t.Parallel()
	t.Run("etcd", func(t *testing.T) {
		t.Parallel()
		unreachable(t, "etcd://127.0.0.1:1?prefix=/bad/", "5s", `127.0.0.1:1: connect: connection refused`)
	})
	t.Run("consul", func(t *testing.T) {
		t.Parallel()
		unreachable(t, "consul://127.0.0.1:1", "5s", `127.0.0.1:1: connect: connection refused`)
	})
}

// A registry whose process hangs keeps connections open and answers nothing.
func TestHangingRegistry(t *testing.T) {
	t.Parallel()
	t.Run("etcd", func(t *testing.T) {
		t.Parallel()
		c := etcdtest.Start(t, nil)
		c.Pause(t)
		unreachable(t, "etcd://"+c.Members[0].Addr, "2s", `deadline exceeded|no answer within 2s`)
	})
	t.Run("consul", func(t *testing.T) {
		t.Parallel()
		a := consultest.Start(t, nil)
		a.Pause(t)
		unreachable(t, "consul://"+a.Addr, "2s", `deadline exceeded|no answer within 2s`)
	})
}

// refused checks credentials that the registry refuses, which are in the environment env and
// in the URL.
func refused(t *testing.T, url, other, message string, env ...string) {
	lines := slices.Concat([]string{"check STORE"}, reading, writing)
	each(t, lines, url, other, func(t *testing.T, line string, args []string) {
		r := execute(t, append(append(slices.Clone(env), args...), "--timeout", "1m")...)
		if strings.HasPrefix(line, "doctor") && r.status == 1 { // The registry has answered.
			r.err = r.out
		} else if r.status != 3 {
			t.Errorf("the status is %d", r.status)
		}
		r.expect(t, r.status, message)
	})
}

// readOnly checks credentials that may read and not write.
func readOnly(t *testing.T, url, other string, env ...string) {
	each(t, slices.Concat([]string{"check STORE", "doctor STORE"}, reading, writing), url, other, func(t *testing.T, line string, args []string) {
		r := execute(t, append(append(slices.Clone(env), args...), "--timeout", "1m")...)
		switch name, _, _ := strings.Cut(line, " "); {
		case name == "check" || line == "doctor STORE" || strings.HasPrefix(line, "migrate drill"):
			r.err += r.out
			r.expect(t, 1, `permission denied|problem +rights +denied`)
		case name == "resume": // The endpoint has no mark that could be removed.
			r.expect(t, 0, ``)
		case slices.Contains(writing, line):
			r.expect(t, 3, `permission denied`)
		case r.status > 1:
			t.Errorf("the status of %s is %d: %s", line, r.status, r.err)
		}
		r.sober(t)
	})
}

func TestBadCredentialsEtcd(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, nil)
	url, to := "etcd://"+c.Members[0].Addr+"?prefix=/n/", other(t)
	command(t, "register", "greeter", "10.0.0.1:80", "--permanent", "--id", "one", "-s", url)
	c.EnableAuth(t)
	root := c.Client(t)
	_, err1 := root.RoleAdd(t.Context(), "reader")
	_, err2 := root.RoleGrantPermission(t.Context(), "reader", "/n/", "/n0", clientv3.PermissionType(clientv3.PermRead))
	_, err3 := root.UserAdd(t.Context(), "reader", secret)
	_, err4 := root.UserGrantRole(t.Context(), "reader", "reader")
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	const params = "&username-env=WHO&password-env=PASS"
	t.Run("without", func(t *testing.T) {
		refused(t, url, to, `permission denied: etcdserver: user name is empty|user name is empty`)
	})
	t.Run("wrong password", func(t *testing.T) {
		refused(t, url+params, to, `permission denied: etcdserver: authentication failed, invalid user ID or password`, "WHO=reader", "PASS="+secret[1:])
	})
	t.Run("reader", func(t *testing.T) { readOnly(t, url+params, to, "WHO=reader", "PASS="+secret) })
}

func TestBadCredentialsConsul(t *testing.T) {
	a := consultest.Start(t, &consultest.Options{ACL: true})
	reader := a.CreateToken(t, `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`)
	writer := a.CreateToken(t, `service_prefix "" { policy = "write" } node_prefix "" { policy = "write" } agent_prefix "" { policy = "read" }`)
	t.Setenv("TOKEN", writer.Secret)
	url, to := "consul://"+a.Addr+"?prefix=n-&token-env=TOKEN", other(t)
	command(t, "register", "greeter", "10.0.0.1:80", "--permanent", "--id", "one", "-s", url)
	t.Run("wrong token", func(t *testing.T) { refused(t, url, to, `403 \(ACL not found\)`, "TOKEN="+secret) })
	t.Run("reader", func(t *testing.T) { readOnly(t, url, to, "TOKEN="+reader.Secret) })
}
