package etcd_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/etcdcodec"
	"github.com/naming-go/naming/internal/etcdtest"
)

// mapMetadata are metadata of which most formats lose something.
var mapMetadata = []string{
	``, `null`, `1`, `"text"`, `[1,2]`, `{}`, `{"a":"b"}`, `{"weight":3}`, `{"weight":1.5}`, `{"weight":"3"}`, `{"zone":"a","tags":["x"]}`,
	`{"version":"v1","n":1}`, `{"version":1}`, `{"draining":true}`, `{"draining":"no"}`, `{"@entry":{"draining":false,"x":1}}`, `{"@metadata":1}`,
	`{"a":{"b":[1.0,null]}}`, `{"naming-copy":{"origin":"old","bridge":"b","epoch":1}}`,
}

// mapEndpoints returns endpoints with different IDs that formats change or refuse.
func mapEndpoints() (eps []naming.Endpoint) {
	for i, m := range mapMetadata {
		for _, draining := range []bool{false, true} {
			eps = append(eps, naming.Endpoint{ID: fmt.Sprintf("m%d%v", i, draining), Addr: "10.0.0.1:80", Metadata: json.RawMessage(m), Draining: draining})
		}
	}
	for i, addr := range []string{"", "10.0.0.7:9000", "[2001:db8::1]:9000", "unix:/run/a.sock", "unix:a", "h", "h:http", "dns:///a:1", "例え.jp:80"} {
		eps = append(eps, naming.Endpoint{Addr: addr}, naming.Endpoint{ID: fmt.Sprint("a", i), Addr: addr, Metadata: []byte(`{"weight":2}`)})
	}
	for _, id := range []string{"a/b", "/", "%2F", "a b", "~old~10.0.0.7:9000", "世界", "a\x00", "..", "unix:/other.sock"} {
		eps = append(eps, naming.Endpoint{ID: id, Addr: "10.0.0.8:9000"})
	}
	// The ID, escaped, is the address.
	eps = append(eps, naming.Endpoint{ID: "[fe80::1%eth0]:80", Addr: "[fe80::1%25eth0]:80"}, naming.Endpoint{ID: "unix:%", Addr: "unix:%25"})
	return eps
}

// TestMap: in every format, with every option that changes entries, Map says what a list
// has after Apply.
func TestMap(t *testing.T) {
	codecs := map[string]*etcd.Codec{
		"default": etcd.Default(), "kratos": etcdcodec.Kratos(), "kratos TLS": etcdcodec.KratosScheme("grpcs"), "kitex": etcdcodec.Kitex(),
		"gomicro": etcdcodec.GoMicro(), "gozero": etcdcodec.GoZero(), "gokit": etcdcodec.GoKit(),
	}
	cluster := etcdtest.Start(t, nil)
	client := cluster.Client(t)
	for name, codec := range codecs {
		for i, o := range []etcd.Options{{}, {NoDrainingMark: true}, {Deep: true}} {
			o.Codec, o.Prefix = codec, fmt.Sprintf("/%s/%d/", name, i)
			t.Run(fmt.Sprint(name, "/", i), func(t *testing.T) {
				if n := mapAgrees(t, etcd.New(client, &o)); n < 5 {
					t.Errorf("the format holds %d endpoints: the test shows nothing", n)
				}
			})
		}
	}
}

// mapAgrees returns how many endpoints the format holds.
func mapAgrees(t *testing.T, s *etcd.Store) (held int) {
	lease, err := s.Grant(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range mapEndpoints() {
		service := fmt.Sprint("service-", i) // an endpoint of its own, as entries under one key replace each other
		want, mapErr := s.Map(service, e)
		err := s.Apply(t.Context(), service, naming.Change{Op: naming.Add, Endpoint: e, Lease: lease})
		if mapErr != nil {
			if !errors.Is(mapErr, naming.ErrInvalid) || err == nil && len(listOf(t, s, service)) > 0 {
				t.Errorf("%+v: Map returned %v, and Apply %v", e, mapErr, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: Map returned no error, and Apply %v", e, err)
			continue
		}
		held++
		got := listOf(t, s, service)
		if len(got) != 1 || !got[0].Equal(want) || got[0].NoDrainingMark != want.NoDrainingMark || got[0].Unleased != want.Unleased {
			t.Errorf("a list has %+v\nMap returned %+v", got, want)
		}
	}
	return held
}

// TestMapToAnotherService: a format without IDs in its values has keys that belong to
// another service. Nobody who reads the service gets such an endpoint.
func TestMapToAnotherService(t *testing.T) {
	codec := &etcd.Codec{
		Encode: func(_ string, e naming.Endpoint) ([]byte, error) { return []byte(e.Addr), nil },
		Decode: func(_, _ string, value []byte) (naming.Endpoint, error) {
			return naming.Endpoint{Addr: string(value)}, nil
		},
	}
	s := etcd.New(nil, &etcd.Options{Codec: codec})
	e := naming.Endpoint{ID: "a/b", Addr: "unix:/run/a%2Fb"}
	if got, err := s.Map("svc/unix:/run", e); !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("Map returned %+v, %v", got, err)
	}
	if got, err := s.Map("svc", e); err != nil || !got.Equal(e) {
		t.Errorf("Map returned %+v, %v", got, err)
	}
}

func listOf(t *testing.T, s naming.Store, service string) []naming.Endpoint {
	t.Helper()
	for b, err := range s.Watch(t.Context(), service) {
		if err != nil {
			t.Fatal(err)
		}
		return b.Put
	}
	return nil
}
