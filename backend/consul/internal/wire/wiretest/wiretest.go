// Package wiretest has what the tests of package wire and of the codecs share.
package wiretest

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul/internal/wire"
)

// Encode returns the registration of an endpoint with a number.
func Encode(tb testing.TB, e naming.Endpoint, number uint64, f *wire.Format) (*api.AgentServiceRegistration, error) {
	tb.Helper()
	r, err := wire.Encode(e, f)
	if err == nil {
		wire.SetNumber(r, number)
	}
	return r, err
}

// Parse returns the entry that Consul has in this form.
func Parse(tb testing.TB, entry string) *wire.Entry {
	tb.Helper()
	var i wire.Entry
	if err := json.Unmarshal([]byte(entry), &i); err != nil {
		tb.Fatalf("%v: %s", err, entry)
	}
	return &i
}

// Stored returns the entry that Consul has of a registration. It fails the test if
// Consul would refuse the registration.
func Stored(t testing.TB, r *api.AgentServiceRegistration) *wire.Entry {
	t.Helper()
	if len(r.Meta) > wire.MaxPairs {
		t.Errorf("%d pairs of Meta", len(r.Meta))
	}
	for key, value := range r.Meta {
		if len(key) > wire.MaxKey || len(value) > wire.MaxValue || !utf8.ValidString(value) || strings.ContainsFunc(key, func(r rune) bool {
			return r > 0x7f || !wire.LetterOrDigit(byte(r)) && r != '-' && r != '_'
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
	var i wire.Entry
	i.Node.Address = "192.0.2.1"
	if err := json.Unmarshal(b, &i.Service); err != nil {
		t.Fatal(err)
	}
	if i.Service.Weights.Passing == 0 {
		i.Service.Weights.Passing = 1
	}
	return &i
}

// Values are metadata of all kinds.
var Values = []string{
	``, `null`, `true`, `0`, `-0`, `1.0`, `1e400`, `12345678901234567890`, `""`, `"a"`, `"\u0000"`, `"é\u2028<>&"`, `[]`, `[1,"1"]`, `{}`,
	`{"":""}`, `{"a":null}`, `{"a":"b"}`, `{"a":1}`, `{"a":1.0}`, `{"naming-id":"x","naming-json":"y","consul-x":"z","Naming-Form":"w"}`,
	`{"weight":1}`, `{"weight":3}`, `{"weight":1.0}`, `{"weight":0}`, `{"weight":-1}`, `{"weight":65535}`, `{"weight":65536}`, `{"weight":"3"}`, `{"weight":1e0}`,
	`{"tags":[]}`, `{"tags":["x"]}`, `{"tags":["x","x",""]}`, `{"tags":[null]}`, `{"tags":["x",1]}`, `{"tags":"x"}`, `{"tags":null}`,
	`{"weight":3,"zone":"eu","version":"1","tags":["a","b"],"draining":true}`,
	`{"a":"1","a":2}`, `{"a":"\ud800"}`, ` { "a" : "b" } `,
}
