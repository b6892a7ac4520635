package etcd_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/client/v3/naming/endpoints"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/internal/etcdtest"
)

// rpcx returns the format of rpcx's etcd plugin, with the address in the key:
//
//	/rpcx_test/Arith/tcp@127.0.0.1:8972 = group=test&weight=7
func rpcx() *etcd.Codec {
	return &etcd.Codec{
		Root: "/rpcx_test/",
		Keys: &etcd.Keys{
			Tail: func(id string) string {
				if strings.Contains(id, "@") {
					return id
				}
				return "tcp@" + id
			},
			Split: func(path string) (service, id string, ok bool) {
				i := strings.LastIndexByte(path, '/')
				if i <= 0 {
					return "", "", false
				}
				network, addr, ok := strings.Cut(path[i+1:], "@")
				if !ok || addr == "" {
					return "", "", false
				}
				if network == "tcp" {
					return path[:i], addr, true
				}
				return path[:i], path[i+1:], true
			},
		},
		Encode: func(_ string, e naming.Endpoint) ([]byte, error) {
			if _, addr, ok := strings.Cut(e.ID, "@"); e.Addr != e.ID && (!ok || addr != e.Addr) {
				return nil, errors.New("the address is the ID, or what follows network@ in it")
			}
			values := url.Values{}
			var members map[string]any
			if e.Metadata != nil && json.Unmarshal(e.Metadata, &members) != nil {
				return nil, errors.New("metadata is a query")
			}
			for name, v := range members {
				values.Set(name, fmt.Sprint(v))
			}
			return []byte(values.Encode()), nil
		},
		Decode: func(_, tail string, value []byte) (e naming.Endpoint, err error) {
			_, e.Addr, _ = strings.Cut(tail, "@")
			values, err := url.ParseQuery(string(value))
			if err != nil || len(values) == 0 {
				return e, err
			}
			members := make(map[string]any)
			for name := range values {
				members[name] = values.Get(name)
			}
			if w := values.Get("weight"); json.Valid([]byte(w)) {
				members["weight"] = json.RawMessage(w)
			}
			e.Metadata, err = json.Marshal(members)
			return e, err
		},
		NoDrainingMark: true,
	}
}

// goFrame returns the format of GoFrame's etcd registry, with the version and the
// address in the key:
//
//	/service/default/default/hello.svc/latest/127.0.0.1:8000 = {"insecure":true}
func goFrame() *etcd.Codec {
	return &etcd.Codec{
		Root: "/service/default/default/",
		Keys: &etcd.Keys{
			Tail: func(id string) string {
				if strings.Contains(id, "/") {
					return id
				}
				return "latest/" + id
			},
			Split: func(path string) (service, id string, ok bool) {
				parts := strings.Split(path, "/")
				if len(parts) != 3 || slices.Contains(parts, "") {
					return "", "", false
				}
				if parts[1] == "latest" {
					return parts[0], parts[2], true
				}
				return parts[0], parts[1] + "/" + parts[2], true
			},
		},
		Encode: func(_ string, e naming.Endpoint) ([]byte, error) {
			if e.Metadata == nil {
				return []byte("{}"), nil
			}
			return e.Metadata, nil
		},
		Decode: func(_, tail string, value []byte) (e naming.Endpoint, err error) {
			version, addr, _ := strings.Cut(tail, "/")
			e.Addr, _, _ = strings.Cut(addr, ",")
			var members map[string]json.RawMessage
			if err := json.Unmarshal(value, &members); err != nil {
				return e, err
			}
			if version != "latest" {
				members["version"], _ = json.Marshal(version)
			}
			if len(members) > 0 {
				e.Metadata, err = json.Marshal(members)
			}
			return e, err
		},
		NoDrainingMark: true,
	}
}

// TestFieldE8AddressInKey checks that a Codec can describe a format with the address in
// the key, and that a Store with such a Codec sees what the framework writes.
func TestFieldE8AddressInKey(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	for name, tt := range map[string]struct {
		codec          *etcd.Codec
		service        string
		other          map[string]string // entries of other services or of none
		key, value     string            // an entry as the framework writes it
		want           string
		later          string // a later value of the same key
		wantLater      string
		id             string // the ID of the framework's endpoint
		put, putKey    string // the address of an endpoint, and the key that it gets
		refused        []string
		invalid        string // a malformed value
		serviceOfOther string
	}{
		"rpcx": {
			codec: rpcx(), service: "Arith",
			other: map[string]string{"/rpcx_test": "rpcx_path", "/rpcx_test/Arith": "Arith", "/rpcx_test/Arith/none": "", "/rpcx_test/Arith2/tcp@127.0.0.1:1": ""},
			key:   "/rpcx_test/Arith/tcp@127.0.0.1:8972", value: "group=test&weight=7",
			want:  `+127.0.0.1:8972=127.0.0.1:8972{"group":"test","weight":7}`,
			later: "", wantLater: "+127.0.0.1:8972=127.0.0.1:8972", id: "127.0.0.1:8972",
			put: "127.0.0.1:8973", putKey: "/rpcx_test/Arith/tcp@127.0.0.1:8973",
			refused: []string{"tcp@127.0.0.1:1", "a/b@127.0.0.1:1"}, invalid: "a;b", serviceOfOther: "Arith2",
		},
		"goframe": {
			codec: goFrame(), service: "hello.svc",
			other: map[string]string{"/service/default/default/hello.svc/latest": "{}", "/service/default/default/hello.svc/v1/a:1/x": "{}", "/service/default/default/hello.svc2/v1/a:1": "{}"},
			key:   "/service/default/default/hello.svc/v1.0.0/127.0.0.1:8000", value: `{"insecure":true,"weight":7}`,
			want:  `+v1.0.0/127.0.0.1:8000=127.0.0.1:8000{"insecure":true,"version":"v1.0.0","weight":7}`,
			later: "{}", wantLater: `+v1.0.0/127.0.0.1:8000=127.0.0.1:8000{"version":"v1.0.0"}`, id: "v1.0.0/127.0.0.1:8000",
			put: "127.0.0.1:8001", putKey: "/service/default/default/hello.svc/latest/127.0.0.1:8001",
			refused: []string{"latest/127.0.0.1:1", "a/b/c"}, invalid: "{", serviceOfOther: "hello.svc2",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, cluster, nil)
			s := r.store(tt.codec)
			for key, value := range tt.other {
				r.put(t, key, value)
			}
			c := follow(t, s, tt.service)
			same(t, "a watch", batch(t, c), "snapshot ")
			r.put(t, tt.key, tt.value)
			same(t, "a watch", batch(t, c), tt.want)
			same(t, "a list", list(t, s, tt.service), tt.want)
			same(t, "the services", fmt.Sprint(services(t, s)), fmt.Sprint([]string{tt.service, tt.serviceOfOther}))
			r.put(t, tt.key, tt.later)
			same(t, "a watch", batch(t, c), tt.wantLater)

			must(t, s.Apply(t.Context(), tt.service, add("", tt.put)))
			same(t, "a watch", batch(t, c), "+"+tt.put+"="+tt.put)
			if resp, err := r.admin.Get(t.Context(), r.prefix+tt.putKey); err != nil || len(resp.Kvs) != 1 {
				t.Errorf("the endpoint is not under the key %q: %v, err %v", tt.putKey, resp, err)
			}
			for _, id := range tt.refused {
				if err := s.Apply(t.Context(), tt.service, add(id, "127.0.0.1:1")); !errors.Is(err, naming.ErrInvalid) {
					t.Errorf("endpoint %q: err %v, want ErrInvalid", id, err)
				}
			}
			r.put(t, tt.key, tt.invalid)
			same(t, "a watch", batch(t, c), "-"+tt.id)
			same(t, "what is reported", r.reported[0].Key, r.prefix+tt.key)
			must(t, s.Apply(t.Context(), tt.service, del(tt.id), del(tt.put)))
			gone := []string{"-" + tt.id, "-" + tt.put} // The first ID appears again: its key is gone too.
			slices.Sort(gone)
			same(t, "a watch", batch(t, c), strings.Join(gone, " "))
			same(t, "the services", fmt.Sprint(services(t, s)), fmt.Sprint([]string{tt.serviceOfOther}))
			for key := range tt.other {
				if resp, err := r.admin.Get(t.Context(), r.prefix+key); err != nil || len(resp.Kvs) != 1 {
					t.Errorf("the entry %q of another service was changed: %v, err %v", key, resp, err)
				}
			}
		})
	}
}

// TestFieldE9Neighbour checks that a Store whose prefix has no slash at its end reads no
// keys of a neighbour whose prefix begins with the same letters.
func TestFieldE9Neighbour(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	r := newRig(t, cluster, nil)
	r.put(t, "naming2/greeter/a:1", `{"Op":0,"Addr":"a:1","Metadata":null}`)
	s := etcd.New(r.client, &etcd.Options{Prefix: r.prefix + "naming"})
	other := etcd.New(r.client, &etcd.Options{Prefix: r.prefix + "naming/"})
	same(t, "the services", fmt.Sprint(services(t, s)), "[]")
	must(t, s.Apply(t.Context(), "greeter", add("", "b:2")))
	for _, s := range []naming.Store{s, other} {
		same(t, "the services", fmt.Sprint(services(t, s)), "[greeter]")
		same(t, "a list", list(t, s, "greeter"), "+b:2=b:2")
		same(t, "a list", list(t, s, "2/greeter"), "")
	}
	if r.value(t, "naming/greeter/b:2") == "" {
		t.Error("the endpoint is not under the key naming/greeter/b:2")
	}
}

// TestFieldI9Manager checks that keys of etcd's Manager that are deeper than its target
// belong to the target with Options.Deep, and to another service without Options.Deep.
func TestFieldI9Manager(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	client := cluster.Client(t)
	ctx := t.Context()
	m, err := endpoints.NewManager(client, "off/svc")
	must(t, err)
	must(t, m.AddEndpoint(ctx, "off/svc/one", endpoints.Endpoint{Addr: "a:1"}))
	must(t, m.AddEndpoint(ctx, "off/svc/sub/two", endpoints.Endpoint{Addr: "b:2"}))
	flat, deep := etcd.New(client, nil), etcd.New(client, &etcd.Options{Deep: true})
	same(t, "a list", list(t, flat, "off/svc"), "+one=a:1")
	same(t, "a list", list(t, flat, "off/svc/sub"), "+two=b:2")
	same(t, "a list", list(t, deep, "off/svc"), "+one=a:1 +sub/two=b:2")
	same(t, "a list", list(t, deep, "off/svc/sub"), "+two=b:2")
	same(t, "the services", fmt.Sprint(services(t, deep)), "[off/svc off/svc/sub]")

	c := follow(t, deep, "off/svc")
	same(t, "a watch", batch(t, c), "snapshot +one=a:1 +sub/two=b:2")
	// The Manager lists the Store's endpoints under the same keys, and the other way
	// round.
	must(t, deep.Apply(ctx, "off/svc", add("sub/two", "c:3")))
	same(t, "a watch", batch(t, c), "+sub/two=c:3")
	listed, err := m.List(ctx)
	must(t, err)
	if len(listed) != 2 || listed["off/svc/sub/two"].Addr != "c:3" {
		t.Errorf("the Manager lists %+v", listed)
	}
	must(t, m.DeleteEndpoint(ctx, "off/svc/sub/two"))
	same(t, "a watch", batch(t, c), "-sub/two")
}
