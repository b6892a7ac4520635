package open

import (
	"errors"
	"strings"
	"testing"

	"github.com/naming-go/naming"
)

// check runs all parts of Store that make no requests.
func check(url string) error {
	u, _, params, err := parse(url)
	if err != nil {
		return err
	}
	switch u.Scheme {
	case "etcd", "etcds":
		if _, err = endpoints(u, params); err == nil {
			_, err = etcdOptions(params)
		}
	case "consul", "consuls":
		if _, err = agentOfURL(u); err == nil {
			_, err = consulOptions(params)
		}
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
		"etcd://h?codec=kratos&deep=true", "consul://h?codec=kratos", "etcd://h?codec=gozero"} {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		if check(url) != nil || strings.Contains(url, "-") || strings.Contains(url, "cert") || strings.Contains(url, "key") || strings.Contains(url, "%") {
			return
		}
		store, done, err := Store(t.Context(), url, nil)
		if (err == nil) != (store != nil) || (err == nil) != (done != nil) {
			t.Fatalf("store %v, error %v", store, err)
		}
		if err != nil {
			t.Fatalf("error %v of a URL that passed every check", err)
		}
		if err := done(); err != nil {
			t.Error(err)
		}
	})
}
