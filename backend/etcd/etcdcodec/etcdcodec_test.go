package etcdcodec

import (
	"fmt"
	"strings"
	"testing"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/internal/entry"
)

// The golden values of each format, the round trips and the fuzz target are tests of
// package etcd, since a Store decides what becomes of a value that it reads.

var codecs = map[string]*etcd.Codec{
	"kratos": Kratos(), "kitex": Kitex(), "gomicro": GoMicro(), "gozero": GoZero(), "gokit": GoKit(),
}

const service, id = "greeter", "i-1"

// readEntry returns the endpoint that a Store reads from an entry with that value.
func readEntry(c *etcd.Codec, value string) (naming.Endpoint, error) {
	e, err := c.Decode(service, id, []byte(value))
	e.ID = id
	return e, err
}

func show(e naming.Endpoint) string {
	return fmt.Sprintf("%q at %q, draining %v, %s", e.ID, e.Addr, e.Draining, e.Metadata)
}

func sameValue(a, b string) bool {
	return a == b || naming.Endpoint{Metadata: []byte(a)}.Equal(naming.Endpoint{Metadata: []byte(b)})
}

// TestWritten pins what is written, byte by byte.
func TestWritten(t *testing.T) {
	for name, want := range map[string]string{
		"kratos":  `{"id":"i-1","name":"greeter","version":"v1","metadata":{"weight":"3","zone":"a"},"endpoints":["grpc://10.0.0.7:9000"],"draining":false}`,
		"kitex":   `{"network":"tcp","address":"10.0.0.7:9000","weight":3,"tags":{"version":"v1","zone":"a"},"draining":false}`,
		"gomicro": `{"name":"greeter","version":"v1","metadata":null,"endpoints":[],"nodes":[{"metadata":{"weight":"3","zone":"a"},"id":"i-1","address":"10.0.0.7:9000"}],"draining":false}`,
		"gozero":  "",
		"gokit":   "",
	} {
		e := naming.Endpoint{ID: id, Addr: "10.0.0.7:9000", Metadata: []byte(`{"version": "v1", "weight":3,"zone":"a"}`)}
		got, err := codecs[name].Encode(service, e)
		if want == "" {
			if err == nil {
				t.Errorf("%s: %s, want an error for metadata", name, got)
			}
			e.Metadata, want = nil, e.Addr
			got, err = codecs[name].Encode(service, e)
		}
		if err != nil || string(got) != want {
			t.Errorf("%s: %s, err %v, want\n%s", name, got, err, want)
		}
	}
}

// TestFieldI3Weights: a weight is a number here and text in the metadata of kratos
// and go-micro, in both directions.
func TestFieldI3Weights(t *testing.T) {
	values := map[string]string{
		"kratos":  `{"id":"i-1","name":"greeter","version":"","metadata":{"weight":%q,"zone":"a"},"endpoints":["grpc://a:1"]}`,
		"gomicro": `{"name":"greeter","version":"","metadata":null,"endpoints":[],"nodes":[{"metadata":{"weight":%q,"zone":"a"},"id":"i-1","address":"a:1"}]}`,
	}
	for name, value := range values {
		c := codecs[name]
		for text, want := range map[string]float64{
			"30": 30, "1": 1, "9007199254740993": 9007199254740993, "1.5": 1.5,
			"": 0, "0": 0, "-3": 0, "030": 0, " 30": 0, "+30": 0, "0x1e": 0, "heavy": 0, "Inf": 0, "NaN": 0, "1e999": 0, "null": 0, "true": 0, `"30"`: 0,
		} {
			theirs := fmt.Sprintf(value, text)
			e, err := readEntry(c, theirs)
			if err != nil || e.Info().Weight != want || e.Info().Zone != "a" {
				t.Errorf("%s: weight %q is read as %v, in %s, err %v", name, text, e.Info().Weight, e.Metadata, err)
				continue
			}
			if want == 0 && !strings.Contains(string(e.Metadata), string(entry.AppendString([]byte(`"weight":`), text))) {
				t.Errorf("%s: weight %q has become %s", name, text, e.Metadata)
			}
			e.NoDrainingMark = true
			again, err := c.Encode(service, e)
			if err != nil || text != "1.5" && !sameValue(string(again), theirs) {
				t.Errorf("%s: %s is, put again, %s, err %v", name, theirs, again, err)
			}
		}
		for number, text := range map[string]string{"30": "30", "1": "1", "30.0": "30", "3e1": "30", "1.5": "2", "0.2": "1"} {
			e := naming.Endpoint{ID: id, Addr: "a:1", Metadata: []byte(`{"weight":` + number + `,"tags":["x"],"zone":"a"}`)}
			ours, err := c.Encode(service, e)
			if err != nil {
				t.Fatal(err)
			}
			if name == "gomicro" {
				text = number
			}
			if !strings.Contains(string(ours), `"weight":"`+text+`"`) {
				t.Errorf("%s: weight %s is put as %s, want %q", name, number, ours, text)
			}
			if got, err := readEntry(c, string(ours)); err != nil || !got.Equal(e) || got.Info().Weight != e.Info().Weight {
				t.Errorf("%s: %s is put as %s and read as %s, err %v", name, e.Metadata, ours, got.Metadata, err)
			}
		}
		// A weight that the caller has as a string stays one.
		for _, metadata := range []string{`{"weight":"30"}`, `{"weight":"heavy"}`, `{"weight":0}`, `{"weight":-1}`, `{"weight":1e999}`, `{"weight":[3]}`} {
			e := naming.Endpoint{ID: id, Addr: "a:1", Metadata: []byte(metadata)}
			ours, err := c.Encode(service, e)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := readEntry(c, string(ours)); err != nil || !got.Equal(e) {
				t.Errorf("%s: %s is put as %s and read as %s, err %v", name, metadata, ours, got.Metadata, err)
			}
		}
	}
}

// TestFieldI3OwnMembers: where a format has a member of its own for something that
// is in its map of strings as well, neither is lost.
func TestFieldI3OwnMembers(t *testing.T) {
	for name, value := range map[string]string{
		"kratos":  `{"id":"i-1","name":"greeter","version":"v1","metadata":{"version":"old"},"endpoints":["grpc://a:1"]}`,
		"kitex":   `{"network":"tcp4","address":"a:1","weight":10,"tags":{"weight":"5"}}`,
		"gomicro": `{"name":"greeter","version":"v1","metadata":null,"endpoints":[],"nodes":[{"metadata":{"version":"old"},"id":"i-1","address":"a:1"}]}`,
	} {
		e, err := readEntry(codecs[name], value)
		if err != nil {
			t.Fatal(err)
		}
		again, err := codecs[name].Encode(service, e)
		if err != nil || !sameValue(string(again), value) {
			t.Errorf("%s: %s\nis, put again, %s, err %v", name, value, again, err)
		}
	}
}

// TestFieldI5Scheme: the scheme of an endpoint's URL says whether it has TLS.
func TestFieldI5Scheme(t *testing.T) {
	plain, secure, web := Kratos(), KratosScheme("grpcs"), KratosScheme("http", "https")
	for _, tt := range []struct{ endpoints, plain, secure, web string }{
		{`["grpc://a:1"]`, "a:1", "", ""},
		{`["grpcs://a:1"]`, "a:1", "a:1", ""},
		{`["http://h:1","grpcs://a:1","grpc://b:2"]`, "b:2", "a:1", "h:1"},
		{`["grpc://a:1?isSecure=true","grpc://b:2?isSecure=false"]`, "b:2", "a:1", ""},
		{`["http://h:1?isSecure=true","grpc://b:2"]`, "b:2", "", "h:1"},
		{`["GRPCS://a:1"]`, "a:1", "a:1", ""},
		{`["http://h:1/path?q=1"]`, "", "", "h:1"},
		{`["grpc://[::1]:9000","grpcs://[::1]:9443"]`, "[::1]:9000", "[::1]:9443", ""},
		{`["grpc://unix:/run/a.sock"]`, "unix:/run/a.sock", "", ""},
		{`["a:1"]`, "", "", ""},
		{`["://a:1"]`, "", "", ""},
		{`["grpc://"]`, "", "", ""},
		{`[]`, "", "", ""},
		{`null`, "", "", ""},
	} {
		value := `{"id":"i-1","name":"greeter","version":"","metadata":null,"endpoints":` + tt.endpoints + `}`
		for i, want := range []string{tt.plain, tt.secure, tt.web} {
			c := []*etcd.Codec{plain, secure, web}[i]
			e, err := readEntry(c, value)
			if e.Addr != want && err == nil || (err != nil) != (want == "") {
				t.Errorf("%s, codec %d: %q, err %v, want %q", tt.endpoints, i, e.Addr, err, want)
			}
			if err != nil {
				continue
			}
			again, err := c.Encode(service, e)
			if err != nil || !sameValue(string(again), value) {
				t.Errorf("%s, codec %d: put again, %s, err %v", tt.endpoints, i, again, err)
			}
		}
	}
	for scheme, c := range map[string]*etcd.Codec{"grpc": plain, "grpcs": secure, "http": web} {
		value, err := c.Encode(service, naming.Endpoint{ID: id, Addr: "a:1"})
		if want := `"endpoints":["` + scheme + `://a:1"]`; err != nil || !strings.Contains(string(value), want) {
			t.Errorf("%s, err %v, want %s", value, err, want)
		}
		if e, err := readEntry(c, string(value)); err != nil || e.Addr != "a:1" || e.Metadata != nil {
			t.Errorf("%s is %s, err %v", value, show(e), err)
		}
	}
}
