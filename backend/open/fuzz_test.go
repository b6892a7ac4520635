package open

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/naming-go/naming"
)

// check runs all parts of Store and Client that make no requests.
func check(url string) error {
	schemes := openers()
	schemes[migrateScheme] = opener{params: migrateParams}
	t, err := parse(url, schemes)
	if err != nil {
		return err
	}
	if t.url.Scheme != migrateScheme {
		return checkStore(t)
	}
	m, err := parseMigration(t)
	if err != nil {
		return err
	}
	for _, side := range m.sides {
		if err := checkStore(side.target); err != nil {
			return inParameter(side.param, err)
		}
	}
	return nil
}

// checkStore is check of the URL of one registry.
func checkStore(t *target) (err error) {
	switch t.url.Scheme {
	case "etcd", "etcds":
		if _, err = endpoints(t.url, t.params); err == nil {
			_, err = etcdOptions(t.params)
		}
	case "consul", "consuls":
		if _, err = agentOfURL(t.url); err == nil {
			_, err = consulOptions(t.params)
		}
	case "memory":
		_, _, err = openMemory(context.Background(), t.url, nil, new(Options))
	}
	return err
}

// FuzzSecret puts a password anywhere into a URL, with any text in the middle of the
// password. No error contains a part of it.
func FuzzSecret(f *testing.F) {
	f.Add("etcd://", "", "host:2379")
	f.Add("etcd://", "#", "host:2379?prefix=/a/")
	f.Add("etcd://", "/?&=", "host")
	f.Add("etcd://h?endpoint=", "&", "i:1")
	f.Add("etcds://h?", "=", "")
	f.Add("", "://", "h")
	f.Add("memory:", "%zz", "")
	f.Add("consul://", "", "host")
	f.Add("consul://host/", "/", "")
	f.Add("consuls:///?node-meta=", "&stale=", "")
	f.Add("etcd://h:1#", " ", "\x00")
	f.Add("etcd://h:1?codec=", "&deep=", "")
	f.Add("consul://h:1?codec=", "", "")
	f.Add("migrate:?to=memory:&phases=records&from=etcd://", "", "h:1")
	f.Add("migrate:?from=memory:&phase=", "&to=memory:&share=", "")
	f.Add("migrate:?from=memory:&to=consul%3A%2F%2F", "%26", "h&phases=x&old-name=")
	f.Add("migrate:?from=memory:&to=memory:&phases=records&leave-delay=", "&read-only=", "")
	f.Fuzz(func(t *testing.T, before, middle, after string) {
		if strings.Contains(strings.ToLower(before+"\x00"+middle+"\x00"+after), "hun") || strings.Contains(middle, "ter2") {
			return // another part of the URL equals a part of the password
		}
		err := check(before + "user:hunter1" + middle + "hunter2@" + after)
		if err == nil {
			return
		}
		if !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("error %v is not ErrInvalid", err)
		}
		if strings.Contains(err.Error(), "hunter") {
			t.Errorf("the error repeats a secret: %v", err)
		}
	})
}

// FuzzStore opens URLs that refer to no files and no variables.
func FuzzStore(f *testing.F) {
	for _, url := range []string{"memory:", "etcd://h:1?endpoint=i&prefix=/x/", "etcds://[::1]", "etcd://[fe80::1%25eth0]:1", "etcd://h1,h2", "etcd:", "http://x",
		"consul:", "consul://h:1?dc=x&tag=y", "consuls://[::1]?stale=1", "consul:///run/x?ns=a",
		"etcd://h?codec=kratos&deep=true", "consul://h?codec=kratos", "etcd://h?codec=gozero",
		"migrate:?from=memory:&to=etcd://h:1&phases=records", "migrate:?from=memory:&to=memory:&phase=union", "migrate:?from=migrate:&to=memory:&phase=4&share=0.1"} {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		if check(url) != nil || strings.Contains(url, "-") || strings.Contains(url, "cert") || strings.Contains(url, "key") || strings.Contains(url, "%") {
			return
		}
		open := openOne
		if strings.HasPrefix(strings.ToLower(url), migrateScheme) {
			open = openClient
		}
		done, err := open(t.Context(), url)
		if err != nil {
			t.Fatalf("error %v of a URL that passed every check", err)
		}
		if err := done(); err != nil {
			t.Error(err)
		}
	})
}

// openOne opens the URL of one registry, and checks the results.
func openOne(ctx context.Context, url string) (func() error, error) {
	store, done, err := Store(ctx, url, nil)
	if (err == nil) != (store != nil) || (err == nil) != (done != nil) {
		return nil, fmt.Errorf("store %v, error %w", store, err)
	}
	return done, err
}

// openClient opens a migrate URL, and checks the results.
func openClient(ctx context.Context, url string) (func() error, error) {
	c, done, err := Client(ctx, url, nil)
	if (err == nil) != (c != nil) || (err == nil) != (done != nil) {
		return nil, fmt.Errorf("client %v, error %w", c, err)
	}
	return done, err
}
