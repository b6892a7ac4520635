package etcd

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd/internal/entry"
)

// codecs are the formats under test, by the names of their golden files. External tests
// add the formats of package etcdcodec.
var codecs = map[string]*Codec{"default": Default()}

// AddCodecs adds formats to the tests of this package.
func AddCodecs(more map[string]*Codec) { maps.Copy(codecs, more) }

// golden reads the lines of a golden file: a value as the framework writes it, a
// tab, and either the endpoint of the value, as JSON, or "malformed".
func golden(t testing.TB, name string) (lines [][2]string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "golden", name))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		value, want, ok := strings.Cut(strings.TrimRight(line, "\n"), "\t")
		if !ok {
			t.Fatalf("%s: no tab in %q", name, line)
		}
		lines = append(lines, [2]string{value, want})
	}
	return lines
}

const service, id = "greeter", "i-1"

// decode returns the endpoint that a Store reads from a value.
func decode(c *Codec, value string) (naming.Endpoint, error) {
	l := &layout{codec: c}
	e, _, _, err := l.entry(service, id, []byte(value))
	return e, err
}

func TestGolden(t *testing.T) {
	for name, c := range codecs {
		for _, line := range golden(t, name) {
			value, want := line[0], line[1]
			got, err := decode(c, value)
			if want == "malformed" {
				if err == nil {
					t.Errorf("%s: %s decodes to %+v, want an error", name, value, got)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %s: %v", name, value, err)
				continue
			}
			var e struct {
				Addr                     string
				Metadata                 json.RawMessage
				Draining, NoDrainingMark bool
			}
			if err := json.Unmarshal([]byte(want), &e); err != nil {
				t.Fatal(err)
			}
			w := naming.Endpoint{ID: id, Addr: e.Addr, Metadata: entry.OmitNull(e.Metadata), Draining: e.Draining}
			if !got.Equal(w) || got.NoDrainingMark != e.NoDrainingMark {
				t.Errorf("%s: %s decodes to\n%s, NoDrainingMark %v, want\n%s, NoDrainingMark %v", name, value, show(got), got.NoDrainingMark, show(w), e.NoDrainingMark)
			}
			// Encoding the decoded endpoint again loses nothing, and keeps the
			// framework's own spelling.
			again, err := c.Encode(service, got)
			if err != nil {
				t.Errorf("%s: encoding again: %v", name, err)
				continue
			}
			if sameValue(string(again), value) {
				continue
			}
			e2, err := decode(c, string(again))
			if err != nil || !e2.Equal(got) {
				t.Errorf("%s: %s, encoded again, is\n%s, err %v", name, value, again, err)
			}
		}
	}
}

func show(e naming.Endpoint) string {
	return fmt.Sprintf("%q at %q, draining %v, %s", e.ID, e.Addr, e.Draining, e.Metadata)
}

func sameValue(a, b string) bool {
	return a == b || naming.Endpoint{Metadata: []byte(a)}.Equal(naming.Endpoint{Metadata: []byte(b)})
}

// TestWritten pins the written value byte by byte. The old package's programs may
// compare values.
func TestWritten(t *testing.T) {
	e := naming.Endpoint{ID: id, Addr: "10.0.0.7:9000", Metadata: []byte(`{"version": "v1", "weight":3,"zone":"a"}`)}
	want := `{"Op":0,"Addr":"10.0.0.7:9000","Metadata":{"version":"v1","weight":3,"zone":"a"}}`
	if got, err := Default().Encode(service, e); err != nil || string(got) != want {
		t.Errorf("%s, err %v, want\n%s", got, err, want)
	}
}

var documents = []string{
	"", `{}`, `[]`, `[1,"a",null]`, `"a"`, `0`, `1e400`, `true`, `{"a":null}`, `{"version":"v1"}`, `{"version":1}`, `{"version":""}`,
	`{"weight":1}`, `{"weight":1.0}`, `{"weight":"1"}`, `{"weight":-1}`, `{"tags":["a"],"draining":true,"zone":"z"}`,
	`{"naming.metadata":"{}"}`, `{"naming.metadata":"[1]"}`, `{"naming.metadata":5,"a":"b"}`, `{"url":"http://1.2.3.4"}`,
	`{"@entry":{"a":1}}`, `{"@entry":{"Addr":"x","name":"y","nodes":1}}`, `{"@entry":5}`, `{"@entry":{}}`, `{"@metadata":1}`,
	`{"@entry":{"a":1},"@metadata":{"b":1}}`, `{"@entry":{"a":1},"@metadata":null}`, `{"@entry":{"a":1},"@metadata":[1]}`,
	`{"@entry":{"a":1},"b":"c"}`, `{"@entry":{"endpoints":[1]}}`, `{"@entry":{"endpoints":["grpc://1.2.3.4:5"]}}`, `{"@entry":{"Endpoints":["grpc://1.2.3.4:5"]}}`,
	`{"@entry":{"version":"v2"}}`, `{"@entry":{"version":"v2"},"version":"v1"}`, `{"@entry":{"version":2},"version":"v1"}`, `{"@entry":{"weight":3}}`,
	`{"@entry":{"weight":3},"weight":"x"}`, `{"@entry":{"network":"udp"}}`, `{"@entry":{"draining":true}}`, `{"@entry":{"Draining":"x"}}`, `{"@entry":{"x":null}}`,
	`{"@entry":{"version":"v2"},"@metadata":[1]}`, `{"weight":"30"}`, `{"weight":30.0}`, `{"weight":1.5}`, `{"weight":0.2}`, `{"weight":0}`, `{"weight":"heavy"}`,
	`{"weight":1e30}`, `{"weight":"1e30"}`, `{"weight":1e999}`, `{"weight":null}`, `{"weight":{"a":1}}`, `{"weight":"30","naming.metadata":"{}"}`, `{"@entry":{"endpoints":[1],"metadata":2}}`, `{"<>&":"\u2028\u0000"}`, `{"metadata":{"a":"b"},"endpoints":["grpc://1.2.3.4:5"]}`,
}

func TestRoundTrip(t *testing.T) {
	for name, c := range codecs {
		for _, addr := range []string{"10.0.0.7:9000", "[::1]:80", "[fe80::1%25eth0]:80", "unix:/run/a.sock", "host:80", ""} {
			for i, m := range documents {
				e := naming.Endpoint{ID: id, Addr: addr, Metadata: entry.OmitNull([]byte(m)), Draining: i%2 == 1 && !c.NoDrainingMark}
				value, err := c.Encode(service, e)
				if addr == "" && name != "default" {
					if err == nil {
						t.Errorf("%s: an endpoint without an address is encoded as %s, want an error", name, value)
					}
					continue
				}
				if err != nil {
					if name == "gozero" || name == "gokit" {
						continue
					}
					t.Errorf("%s: %q %s: %v", name, addr, m, err)
					continue
				}
				if strings.HasPrefix(string(value), "{") && !json.Valid(value) {
					t.Errorf("%s: %q %s is encoded as %s, which is not JSON", name, addr, m, value)
				}
				got, err := decode(c, string(value))
				if err != nil || !got.Equal(e) {
					t.Errorf("%s: %q %s is encoded as\n%s and decoded as %q %s, err %v", name, addr, m, value, got.Addr, got.Metadata, err)
				}
			}
		}
	}
}

func TestUnknownMembers(t *testing.T) {
	for _, metadata := range []string{`null`, `{"a":1}`, `{}`, `[1]`, `"x"`, `7`} {
		value := `{"Op":0,"Addr":"a:1","Metadata":` + metadata + `,"Extra":{"b":[1]},"Zone":"z"}`
		e, err := decode(Default(), value)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Default().Encode("another", e)
		if err != nil || !sameValue(string(again), value) {
			t.Errorf("%s\nis encoded again as\n%s, err %v", value, again, err)
		}
		plain, err := decodePlain("", "", []byte(value))
		if err != nil || !sameValue(string(plain.Metadata), string(entry.OmitNull([]byte(metadata)))) {
			t.Errorf("the old package's reader decodes %s with metadata %s, err %v", value, plain.Metadata, err)
		}
	}
}

// FuzzDecode checks that decoding never panics, and that an endpoint that was decoded
// stays the same when it is encoded and decoded again.
func FuzzDecode(f *testing.F) {
	for name := range codecs {
		for _, line := range golden(f, name) {
			f.Add([]byte(line[0]))
		}
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		for name, c := range codecs {
			e, err := decode(c, string(value))
			if err != nil {
				continue
			}
			changes, err := naming.Normalize(service, []naming.Change{{Endpoint: e}})
			if err != nil {
				t.Fatalf("%s: %q decodes to %+v, which is invalid: %v", name, value, e, err)
			}
			e = changes[0].Endpoint
			again, err := c.Encode(service, e)
			if err != nil {
				t.Fatalf("%s: %q decodes to %q %s, which cannot be encoded: %v", name, value, e.Addr, e.Metadata, err)
			}
			got, err := decode(c, string(again))
			if err != nil || !got.Equal(e) {
				t.Fatalf("%s: %q decodes to %q %s, which is encoded as %q and decodes to %q %s, err %v", name, value, e.Addr, e.Metadata, again, got.Addr, got.Metadata, err)
			}
		}
	})
}

// FuzzEncode checks that every endpoint makes the round trip in the default format,
// under every service name, and that its key belongs to no other service.
func FuzzEncode(f *testing.F) {
	for _, e := range [][4]string{
		{"greeter", "", "10.0.0.7:9000", "null"}, {"a/b", "x/y", "unix:/run/s", `{"a":1}`}, {"a/unix:", "sock", "unix:/sock", ""},
		{"a/", "x", "/x", ""}, {"%2F", "%2F", "%25", `"x"`}, {"a/b:", "", "b://c", ""}, {"svc", "nowhere", "", ""},
		{"0", "%", "%25", `"nx"`}, {"svc", "[fe80::1%eth0]:80", "[fe80::1%25eth0]:80", ""}, {"svc", "a/b", "a%2Fb", ""},
	} {
		f.Add(e[0], e[1], e[2], []byte(e[3]))
	}
	l := &layout{codec: Default()}
	f.Fuzz(func(t *testing.T, service, id, addr string, metadata []byte) {
		changes, err := naming.Normalize(service, []naming.Change{{Endpoint: naming.Endpoint{ID: id, Addr: addr, Metadata: metadata}}})
		if err != nil {
			if !errors.Is(err, naming.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		e := changes[0].Endpoint
		value, err := l.encode(service, e)
		if err != nil && e.ID == "" {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		key := l.key(service, e.ID)
		if owner, ok := l.owner(key, value); !ok || owner != service {
			t.Fatalf("%q = %s of %q is listed under %q", key, value, service, owner)
		}
		for i := range key {
			if key[i] != '/' || i == 0 {
				continue
			}
			got, _, mine, err := l.entry(key[:i], key[i+1:], value)
			if mine != (key[:i] == service) {
				t.Fatalf("%q = %s of %q also belongs to %q: %v", key, value, service, key[:i], mine)
			}
			if mine && (err != nil || !got.Equal(e)) {
				t.Fatalf("%q = %s decodes to %+v, want %+v, err %v", key, value, got, e, err)
			}
		}
	})
}
