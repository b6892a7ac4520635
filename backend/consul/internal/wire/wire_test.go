package wire_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul/internal/wire"
	"github.com/naming-go/naming/backend/consul/internal/wire/wiretest"
	"github.com/naming-go/naming/internal/mutant"
)

// trip fails the test if an endpoint does not come back.
func trip(t *testing.T, e naming.Endpoint) {
	t.Helper()
	changes, err := naming.Normalize("s", []naming.Change{{Endpoint: e}})
	if err != nil {
		return
	}
	e = changes[0].Endpoint
	r, err := wiretest.Encode(t, e, 7, nil)
	if err != nil {
		// Most of the metadata is in pieces of 512 bytes, of which about sixty fit.
		if len(e.Metadata)+len(e.ID)+len(e.Addr) < 12_000 {
			t.Errorf("%q %q %.200s: %v", e.ID, e.Addr, e.Metadata, err)
		}
		return
	}
	i := wiretest.Stored(t, r)
	got, err := i.Endpoint(wire.Rules{})
	if err != nil || !got.Equal(e) {
		t.Errorf("got %q %q %.1000s, %v\nwant %q %q %.1000s", got.ID, got.Addr, got.Metadata, err, e.ID, e.Addr, e.Metadata)
	}
	if i.Number() != 7 {
		t.Errorf("number %d, want 7", i.Number())
	}
}

func TestRoundTrip(t *testing.T) {
	for _, metadata := range wiretest.Values {
		for _, addr := range []string{"", "10.0.0.1:80", "[::1]:80", "[fe80::1%eth0]:80", "unix:/a", "0.0.0.0:80", "[::]:80", "[0:0::0]:80", "a b:80", "h:080", "h:0", "h:70000", ":80", "h"} {
			trip(t, naming.Endpoint{ID: "id", Addr: addr, Metadata: json.RawMessage(metadata)})
		}
	}
	long := strings.Repeat("é", 3000)
	trip(t, naming.Endpoint{ID: long, Addr: long, Metadata: json.RawMessage(strconv.Quote(long))})
	var many []string
	for i := range 500 {
		many = append(many, fmt.Sprintf("%q:%q", fmt.Sprint("k", i), "v"))
	}
	trip(t, naming.Endpoint{ID: "id", Addr: "a:1", Metadata: json.RawMessage("{" + strings.Join(many, ",") + "}")})
}

// randomJSON returns a random value.
func randomJSON(r *rand.Rand, depth int) string {
	text := func() string {
		letters := []rune("abcXYZ09-_ .<&\"\\\x00\n\u2028é世🙂")
		s := make([]rune, r.IntN(12))
		if r.IntN(20) == 0 {
			s = make([]rune, r.IntN(1500))
		}
		for i := range s {
			s[i] = letters[r.IntN(len(letters))]
		}
		b, _ := json.Marshal(string(s))
		return string(b)
	}
	kind := r.IntN(8)
	if depth == 0 {
		kind = r.IntN(4)
	}
	switch kind {
	case 0:
		return []string{"null", "true", "false"}[r.IntN(3)]
	case 1:
		return []string{"0", "-0.0", "1", "7", "1.50", "1e-400", "65536", "123456789012345678901234567890"}[r.IntN(8)]
	case 2, 3:
		return text()
	case 4:
		var list []string
		for range r.IntN(5) {
			list = append(list, randomJSON(r, depth-1))
		}
		return "[" + strings.Join(list, ",") + "]"
	}
	var members []string
	for range r.IntN(80 / (4 - depth) / (4 - depth)) {
		key := text()
		if r.IntN(3) > 0 {
			key = []string{`"weight"`, `"tags"`, `"zone"`, `"k` + strconv.Itoa(r.IntN(90)) + `"`, `"naming-id"`, `"consul-a"`}[r.IntN(6)]
		}
		members = append(members, key+":"+randomJSON(r, depth-1))
	}
	return "{" + strings.Join(members, ",") + "}"
}

func TestRoundTripOfAnything(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	n := 500
	if mutant.Full() {
		n = 20_000
	}
	for range n {
		trip(t, naming.Endpoint{ID: "id", Addr: "10.0.0.1:80", Metadata: json.RawMessage(randomJSON(r, 3))})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzRoundTrip(f *testing.F) {
	for _, metadata := range wiretest.Values {
		f.Add("id", "10.0.0.1:80", metadata)
	}
	f.Fuzz(func(t *testing.T, id, addr, metadata string) {
		trip(t, naming.Endpoint{ID: id, Addr: addr, Metadata: json.RawMessage(metadata)})
	})
}

func TestTooLarge(t *testing.T) {
	for _, e := range []naming.Endpoint{
		{ID: "id", Metadata: json.RawMessage(strconv.Quote(strings.Repeat("x", 40_000)))},
		{ID: "id", Metadata: json.RawMessage(`{"a":` + strconv.Quote(strings.Repeat("x", 40_000)) + `}`)},
		{ID: strings.Repeat("x", 40_000)},
	} {
		if _, err := wiretest.Encode(t, e, 1, nil); err == nil {
			t.Errorf("ID of %d bytes, metadata of %d: no error", len(e.ID), len(e.Metadata))
		}
	}
}

func TestOthers(t *testing.T) {
	for _, test := range []struct{ entry, want string }{
		{`{"Node":{"Address":"10.0.0.9"},"Service":{"ID":"web","Port":80,"Weights":{"Passing":1}}}`, `web@10.0.0.9:80 10.0.0.9:80 `},
		{`{"Node":{"Address":"::1"},"Service":{"ID":"web","Port":80}}`, `web@[::1]:80 [::1]:80 `},
		{`{"Service":{"ID":"10.0.0.1:80","Address":"10.0.0.1","Port":80}}`, `10.0.0.1:80 10.0.0.1:80 `},
		{`{"Service":{"ID":"x","Address":"h","Port":1,"Tags":["a"],"Meta":{"zone":"eu","naming-x":"y"},"Weights":{"Passing":10}}}`, `x@h:1 h:1 {"naming-x":"y","tags":["a"],"weight":10,"zone":"eu"}`},
		{`{"Service":{"ID":"x","SocketPath":"/run/s"}}`, `x@unix:/run/s unix:/run/s `},
		{`{"Service":{"ID":"x","Address":"h:1"}}`, `x@h:1 h:1 `},
	} {
		var i wire.Entry
		if err := json.Unmarshal([]byte(test.entry), &i); err != nil {
			t.Fatal(err)
		}
		e, err := i.Endpoint(wire.Rules{})
		if got := fmt.Sprintf("%s %s %s", e.ID, e.Addr, e.Metadata); err != nil || got != test.want {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", test.entry, got, err, test.want)
		}
	}
}

// TestWireFormat has the form of a registration, for people who read Consul.
func TestWireFormat(t *testing.T) {
	r, err := wiretest.Encode(t, naming.Endpoint{ID: "a", Addr: "10.0.0.7:9000", Metadata: json.RawMessage(`{"weight":3,"zone":"eu","tags":["x"],"draining":true,"n":1.0}`)}, 5, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &api.AgentServiceRegistration{
		Address: "10.0.0.7", Port: 9000, Tags: []string{"x"}, Weights: &api.AgentWeights{Passing: 3, Warning: 1},
		Meta: map[string]string{"naming-id": "a", "naming-gen": "5", "naming-form": "object+weight", "zone": "eu", "naming-json": `{"draining":true,"n":1.0}`},
	}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("got  %+v\nwant %+v", r, want)
	}
}

func TestNoPort(t *testing.T) {
	for _, entry := range []string{
		`{"Node":{"Address":"10.0.0.9"},"Service":{"ID":"x"}}`,
		`{"Service":{"ID":"x","Address":"::1"}}`,
		`{"Service":{"ID":"x"}}`,
	} {
		var i wire.Entry
		if err := json.Unmarshal([]byte(entry), &i); err != nil {
			t.Fatal(err)
		}
		if e, err := i.Endpoint(wire.Rules{}); err == nil {
			t.Errorf("%s: got %+v, which nobody could dial", entry, e)
		}
	}
}

func TestBroken(t *testing.T) {
	for _, meta := range []map[string]string{
		{"naming-form": "value"},
		{"naming-form": "value", "naming-json": "{"},
		{"naming-form": "object", "naming-json": "1"},
		{"naming-form": "object", "naming-json": "null"},
		{"naming-form": "other"},
		{"naming-form": ""},
		{"naming-json": "{"},
	} {
		var i wire.Entry
		meta["naming-id"] = "x"
		i.Service.Meta = meta
		if e, err := i.Endpoint(wire.Rules{}); err == nil || e.ID != "x" {
			t.Errorf("%q: got %+v, %v, want an error and the ID", meta, e, err)
		}
	}
}

// TestDigest: a digest changes with everything that an entry says of its endpoint, and
// with nothing else.
func TestDigest(t *testing.T) {
	const base = `{"Node":{"Node":"n","Address":"a"},"Service":{"ID":"i","Service":"s","Tags":["ab","c"],"Address":"h","Port":80,"Meta":{"k":"v"},"Weights":{"Passing":1}}}`
	seen := make(map[wire.Digest]string)
	for _, change := range [][2]string{
		{},
		{`"Node":"n"`, `"Node":"n2"`},
		{`"Address":"a"`, `"Address":"b"`},
		{`"ID":"i"`, `"ID":"j"`},
		{`"ab","c"`, `"a","bc"`},
		{`"ab","c"`, `"c","ab"`},
		{`"ab","c"`, `"ab","c",""`},
		{`"Address":"h"`, `"Address":"g"`},
		{`"Address":"h"`, `"SocketPath":"h"`},
		{`:80`, `:81`},
		{`"k":"v"`, ``},
		{`"k":"v"`, `"kv":""`},
		{`"k":"v"`, `"k":"w"`},
		{`"k":"v"`, `"k":"v","l":"v"`},
		{`"Passing":1`, `"Passing":2`},
		{`"Port"`, `"TaggedAddresses":{"x":{"Address":"x://h"}},"Port"`},
		{`"Port"`, `"TaggedAddresses":{"y":{"Address":"x://h"}},"Port"`},
		{`"Port"`, `"TaggedAddresses":{"y":{"Address":"y://h"}},"Port"`},
	} {
		text := strings.Replace(base, change[0], change[1], 1)
		d := wiretest.Parse(t, text).Digest()
		if other, ok := seen[d]; ok {
			t.Errorf("%s\nhas the digest of\n%s", text, other)
		}
		seen[d] = text
	}
	other := strings.Replace(base, `"Weights"`, `"CreateIndex":1,"ModifyIndex":2,"Weights"`, 1)
	if d := wiretest.Parse(t, strings.TrimSuffix(other, "}")+`,"Checks":[{"Status":"critical"}]}`).Digest(); seen[d] != base {
		t.Error("the digest depends on indices or checks")
	}
	var many wire.Entry
	many.Service.Meta = map[string]string{"a": "1", "b": "2", "c": "3", "d": "4", "e": "5"}
	d := many.Digest()
	for range 100 {
		if many.Digest() != d {
			t.Fatal("one entry has several digests")
		}
	}
}

// TestFieldC12PortName: of several ports, the port with the name of the option is used.
func TestFieldC12PortName(t *testing.T) {
	two := `{"Service":{"ID":"x","Address":"h","Port":8080,"Ports":[{"Name":"http","Port":8080,"Default":true},{"Name":"grpc","Port":9090}]}}`
	bare := `{"Service":{"ID":"x","Address":"h","Ports":[{"Name":"grpc","Port":9090},{"Name":"http","Port":8080,"Default":true}]}}`
	one := `{"Service":{"ID":"x","Address":"h","Port":8080}}`
	for _, test := range []struct{ entry, name, want string }{
		{two, "", "h:8080"}, {two, "grpc", "h:9090"}, {two, "other", "h:8080"},
		{bare, "", "h:8080"}, {bare, "grpc", "h:9090"}, {one, "grpc", "h:8080"},
	} {
		e, err := wiretest.Parse(t, test.entry).Endpoint(wire.Rules{PortName: test.name})
		if err != nil || e.Addr != test.want {
			t.Errorf("%q of %s is %q, %v, want %q", test.name, test.entry, e.Addr, err, test.want)
		}
	}
	if wiretest.Parse(t, two).Digest() == wiretest.Parse(t, strings.Replace(two, "9090", "9091", 1)).Digest() {
		t.Error("Digest ignores the port of a name")
	}
}
