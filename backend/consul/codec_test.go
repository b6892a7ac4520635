package consul

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/internal/mutant"
)

// stored returns what Consul would say of a registration.
func stored(t *testing.T, r *api.AgentServiceRegistration) *instance {
	t.Helper()
	if len(r.Meta) > maxPairs {
		t.Errorf("%d pairs of Meta", len(r.Meta))
	}
	for key, value := range r.Meta {
		if len(key) > maxKey || len(value) > maxValue || !utf8.ValidString(value) || strings.ContainsFunc(key, func(r rune) bool {
			return r > 0x7f || !letterOrDigit(byte(r)) && r != '-' && r != '_'
		}) {
			t.Errorf("Consul would refuse %q: %q", key, value)
		}
	}
	if w := r.Weights; w != nil && (w.Passing < 1 || w.Passing > 65535) {
		t.Errorf("Consul would refuse weight %d", w.Passing)
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var i instance
	i.Node.Address = "192.0.2.1"
	if err := json.Unmarshal(b, &i.Service); err != nil {
		t.Fatal(err)
	}
	if i.Service.Weights.Passing == 0 {
		i.Service.Weights.Passing = 1
	}
	return &i
}

// trip fails the test if an endpoint does not come back.
func trip(t *testing.T, e naming.Endpoint) {
	t.Helper()
	changes, err := naming.Normalize("s", []naming.Change{{Endpoint: e}})
	if err != nil {
		return
	}
	e = changes[0].Endpoint
	r, err := encode(e, 7, nil)
	if err != nil {
		// Most of it is in pieces of 512 bytes, and there are some sixty.
		if len(e.Metadata)+len(e.ID)+len(e.Addr) < 12_000 {
			t.Errorf("%q %q %.200s: %v", e.ID, e.Addr, e.Metadata, err)
		}
		return
	}
	i := stored(t, r)
	got, err := i.endpoint(&Options{})
	if err != nil || !got.Equal(e) {
		t.Errorf("got %q %q %.1000s, %v\nwant %q %q %.1000s", got.ID, got.Addr, got.Metadata, err, e.ID, e.Addr, e.Metadata)
	}
	if i.gen() != 7 {
		t.Errorf("number %d, want 7", i.gen())
	}
}

var someValues = []string{
	``, `null`, `true`, `0`, `-0`, `1.0`, `1e400`, `12345678901234567890`, `""`, `"a"`, `"\u0000"`, `"é\u2028<>&"`, `[]`, `[1,"1"]`, `{}`,
	`{"":""}`, `{"a":null}`, `{"a":"b"}`, `{"a":1}`, `{"a":1.0}`, `{"naming-id":"x","naming-json":"y","consul-x":"z","Naming-Form":"w"}`,
	`{"weight":1}`, `{"weight":3}`, `{"weight":1.0}`, `{"weight":0}`, `{"weight":-1}`, `{"weight":65535}`, `{"weight":65536}`, `{"weight":"3"}`, `{"weight":1e0}`,
	`{"tags":[]}`, `{"tags":["x"]}`, `{"tags":["x","x",""]}`, `{"tags":[null]}`, `{"tags":["x",1]}`, `{"tags":"x"}`, `{"tags":null}`,
	`{"weight":3,"zone":"eu","version":"1","tags":["a","b"],"draining":true}`,
	`{"a":"1","a":2}`, `{"a":"\ud800"}`, ` { "a" : "b" } `,
}

func TestRoundTrip(t *testing.T) {
	for _, metadata := range someValues {
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
	for _, metadata := range someValues {
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
		if _, err := encode(e, 1, nil); err == nil {
			t.Errorf("ID of %d bytes, metadata of %d: no error", len(e.ID), len(e.Metadata))
		}
		err := New(nil, nil).Apply(t.Context(), "s", naming.Change{Endpoint: e})
		if !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("Apply: %v, want ErrInvalid", err)
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
		var i instance
		if err := json.Unmarshal([]byte(test.entry), &i); err != nil {
			t.Fatal(err)
		}
		e, err := i.endpoint(&Options{})
		if got := fmt.Sprintf("%s %s %s", e.ID, e.Addr, e.Metadata); err != nil || got != test.want {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", test.entry, got, err, test.want)
		}
	}
}

// As it is in Consul, for those who look at it there.
func TestWireFormat(t *testing.T) {
	r, err := encode(naming.Endpoint{ID: "a", Addr: "10.0.0.7:9000", Metadata: json.RawMessage(`{"weight":3,"zone":"eu","tags":["x"],"draining":true,"n":1.0}`)}, 5, nil)
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
		var i instance
		if err := json.Unmarshal([]byte(entry), &i); err != nil {
			t.Fatal(err)
		}
		if e, err := i.endpoint(&Options{}); err == nil {
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
		var i instance
		meta["naming-id"] = "x"
		i.Service.Meta = meta
		if e, err := i.endpoint(&Options{}); err == nil || e.ID != "x" {
			t.Errorf("%q: got %+v, %v, want an error and the ID", meta, e, err)
		}
	}
}

func TestNames(t *testing.T) {
	plainly := []string{"a", "greeter", "my.pkg.Greeter", "a/b", "a b", "é", "%2F", "a?b#c", "~", "a~b", "a~2", "a~2fb", "~zz", "a~2Fb", strings.Repeat("x", 500)}
	for _, name := range plainly {
		if got := toConsul(name); got != name {
			t.Errorf("%q is %q in Consul", name, got)
		}
		if got := fromConsul(name); got != name {
			t.Errorf("Consul's %q is %q", name, got)
		}
	}
	seen := make(map[string]string)
	for _, name := range append(plainly, "/", "//", "/a", "a/", "a//b", ".", "..", "a/./b", "../a", "\x00", "a\nb", "\u200b", "~2E", "~7E2E", "~2Fa") {
		c := toConsul(name)
		if other, ok := seen[c]; ok {
			t.Errorf("%q and %q are both %q", name, other, c)
		}
		seen[c] = name
		if got := fromConsul(c); got != name || !plain(c) {
			t.Errorf("%q is %q in Consul, and that %q", name, c, got)
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, name := range []string{"a", "a/b", "/", "~2F", "~7E2F", "a~00", "é", "\u200b"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if naming.CheckService(name) != nil {
			return
		}
		c := toConsul(name)
		if got := fromConsul(c); got != name || !plain(c) {
			t.Errorf("%q is %q in Consul, and that %q", name, c, got)
		}
		// And the other way: what is in Consul is found there.
		if got := toConsul(fromConsul(name)); plain(name) && got != name {
			t.Errorf("Consul's %q is looked for at %q", name, got)
		}
	})
}

// TestDigest: a digest changes with whatever an entry says of its endpoint, and
// with nothing else.
func TestDigest(t *testing.T) {
	const base = `{"Node":{"Node":"n","Address":"a"},"Service":{"ID":"i","Service":"s","Tags":["ab","c"],"Address":"h","Port":80,"Meta":{"k":"v"},"Weights":{"Passing":1}}}`
	seen := make(map[digest]string)
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
		d := parse(t, text).digest()
		if other, ok := seen[d]; ok {
			t.Errorf("%s\nhas the digest of\n%s", text, other)
		}
		seen[d] = text
	}
	other := strings.Replace(base, `"Weights"`, `"CreateIndex":1,"ModifyIndex":2,"Weights"`, 1)
	if d := parse(t, strings.TrimSuffix(other, "}")+`,"Checks":[{"Status":"critical"}]}`).digest(); seen[d] != base {
		t.Error("the digest depends on indices or checks")
	}
	var many instance
	many.Service.Meta = map[string]string{"a": "1", "b": "2", "c": "3", "d": "4", "e": "5"}
	d := many.digest()
	for range 100 {
		if many.digest() != d {
			t.Fatal("one entry has several digests")
		}
	}
}
