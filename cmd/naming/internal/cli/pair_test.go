package cli

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/naming-go/naming"
)

// TestResolvePair: the flags have precedence, and a migrate URL completes them.
func TestResolvePair(t *testing.T) {
	const both = "migrate:?from=consul://a&to=etcd://b?prefix=%2Fx%2F&phases=records"
	for _, c := range []struct {
		store    string
		flags    pairFlags
		want     pairFlags
		readOnly string
		fails    bool
	}{
		{both, pairFlags{}, pairFlags{"consul://a", "etcd://b?prefix=/x/", "old", "new"}, "", false},
		{both, pairFlags{oldURL: "etcd://c"}, pairFlags{"etcd://c", "etcd://b?prefix=/x/", "old", "new"}, "", false},
		{both + "&old-name=here&new-name=there&read-only=from", pairFlags{}, pairFlags{"consul://a", "etcd://b?prefix=/x/", "here", "there"}, "from", false},
		{both + "&read-only=from", pairFlags{oldURL: "etcd://c"}, pairFlags{"etcd://c", "etcd://b?prefix=/x/", "old", "new"}, "", false},
		{both + "&read-only=to", pairFlags{oldURL: "etcd://c"}, pairFlags{"etcd://c", "etcd://b?prefix=/x/", "old", "new"}, "to", false},
		{"etcd://c", pairFlags{"etcd://a", "etcd://b", "", ""}, pairFlags{"etcd://a", "etcd://b", "old", "new"}, "", false},
		{"etcd://c", pairFlags{}, pairFlags{}, "", true},
		{"", pairFlags{oldURL: "etcd://a"}, pairFlags{}, "", true},
		{"", pairFlags{oldURL: "etcd://a", newURL: "etcd://a"}, pairFlags{}, "", true},
		{"", pairFlags{"etcd://a", "etcd://b", "x y", ""}, pairFlags{}, "", true},
		{"", pairFlags{"etcd://a", "etcd://b", "x", "x"}, pairFlags{}, "", true},
		{both + "&read-only=both", pairFlags{}, pairFlags{}, "", true},
		{"migrate:?from=consul://a&to=etcd://b&phases=/etc/phases.json", pairFlags{}, pairFlags{}, "", true},
		{"migrate:?from=consul://a&to=etcd://b&phase=union", pairFlags{}, pairFlags{}, "", true},
		{"migrate:?from=%zz", pairFlags{}, pairFlags{}, "", true},
	} {
		a := &app{store: c.store}
		got, readOnly, err := a.resolvePair(c.flags)
		if c.fails {
			if statusOf(err) != statusUsage {
				t.Errorf("%q, %+v: %v, want an error of usage", c.store, c.flags, err)
			}
			continue
		}
		if err != nil || got != c.want || readOnly != c.readOnly {
			t.Errorf("%q, %+v: %+v, %q, %v", c.store, c.flags, got, readOnly, err)
		}
	}
}

func TestURLs(t *testing.T) {
	for _, c := range []struct{ url, records, within string }{
		{"etcd://a", "etcd://a", "etcd://a?prefix=drill%2F"},
		{"etcd://a?prefix=/x", "etcd://a?prefix=/x", "etcd://a?prefix=%2Fx%2Fdrill%2F"},
		{"etcd://a?codec=kratos&prefix=/x/", "etcd://a?prefix=%2Fx%2F", "etcd://a?codec=kratos&prefix=%2Fx%2Fdrill%2F"},
		{"consul://a?tag=x&dc=y", "consul://a?dc=y", "consul://a?dc=y&prefix=drill-&tag=x"},
		{"consul://a?prefix=x-", "consul://a?prefix=x-", "consul://a?prefix=x-drill-"},
		{"memory:", "memory:", "memory:"},
		{"%zz", "%zz", "%zz"},
	} {
		if got := recordsURL(c.url); got != c.records {
			t.Errorf("records of %s: %s, want %s", c.url, got, c.records)
		}
		if got := within(c.url, "drill"); got != c.within {
			t.Errorf("within %s: %s, want %s", c.url, got, c.within)
		}
	}
}

// TestPairDown: a registry that cannot be opened is one that fails, and not an error: a step
// back works all the same. A URL that can never work is an error that names the flag.
func TestPairDown(t *testing.T) {
	t.Setenv("NAMING_TEST_USER", "ada")
	t.Setenv("NAMING_TEST_PASSWORD", "secret")
	a := &app{Env: Env{Err: io.Discard}, timeout: 2e9}
	p, err := a.pair(t.Context(), pairFlags{oldURL: "memory:", newURL: "etcd://127.0.0.1:1?username-env=NAMING_TEST_USER&password-env=NAMING_TEST_PASSWORD"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if err := p.New.Apply(context.Background(), "x"); err == nil || errors.Is(err, naming.ErrInvalid) {
		t.Errorf("a registry that is down: %v", err)
	}
	if _, err := a.pair(t.Context(), pairFlags{oldURL: "memory:", newURL: "foo://x"}); statusOf(err) != statusUsage {
		t.Errorf("an unknown scheme: %v", err)
	}
}
