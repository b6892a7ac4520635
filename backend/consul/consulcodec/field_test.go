package consulcodec

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/consul/internal/wire"
	"github.com/naming-go/naming/backend/consul/internal/wire/wiretest"
)

// TestFieldI1DrainingMark: the mark is a key of Meta. The metadata stays as the caller
// gave it. The earlier form of the mark is read as well.
func TestFieldI1DrainingMark(t *testing.T) {
	for name, codec := range map[string]*consul.Codec{"none": nil, "kratos": Kratos(), "gomicro": GoMicro(), "grpcspring": GRPCSpring()} {
		for _, metadata := range []string{``, `{"zone":"a"}`, `[1]`, `{"draining":false}`} {
			e := naming.Endpoint{ID: "x", Addr: "h:1", Draining: true, Metadata: json.RawMessage(metadata)}
			r, err := wiretest.Encode(t, e, 1, format(codec))
			if err != nil {
				t.Fatal(err)
			}
			if r.Meta["naming-draining"] != "true" || strings.Contains(r.Meta["naming-json"], "true") {
				t.Errorf("%s: Meta is %q", name, r.Meta)
			}
			got, err := wiretest.Stored(t, r).Endpoint(wire.Rules{})
			if err != nil || !got.Equal(e) || !got.Info().Draining || got.NoDrainingMark {
				t.Errorf("%s: got %+v, %v, want %+v", name, got, err, e)
			}
			e.Draining = false
			if r, err = wiretest.Encode(t, e, 1, format(codec)); err != nil {
				t.Fatal(err)
			}
			if got, err := wiretest.Stored(t, r).Endpoint(wire.Rules{}); err != nil || got.Draining || got.NoDrainingMark || !got.Equal(e) {
				t.Errorf("%s: without a mark: got %+v, %v", name, got, err)
			}
			if got, _ := wiretest.Stored(t, r).Endpoint(wire.Rules{NoDrainingMark: true}); !got.NoDrainingMark {
				t.Errorf("%s: NoDrainingMark: got %+v, want NoDrainingMark", name, got)
			}
		}
	}
	before := `{"Service":{"ID":"x","Address":"h","Port":1,"Meta":{"naming-id":"x","naming-form":"object","naming-json":"{\"draining\":true}"}}}`
	if e, err := wiretest.Parse(t, before).Endpoint(wire.Rules{}); err != nil || e.Draining || !e.Info().Draining {
		t.Errorf("the mark in the metadata: %+v, %v", e, err)
	}
	s := consul.New(nil, &consul.Options{NoDrainingMark: true}) // makes no request
	err := s.Apply(t.Context(), "svc", naming.Change{Endpoint: naming.Endpoint{Addr: "h:1", Draining: true}})
	if !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("a mark with NoDrainingMark: %v, want ErrInvalid", err)
	}
}

// TestFieldI2NoDrain: an entry of another writer has no mark for draining.
func TestFieldI2NoDrain(t *testing.T) {
	entry := `{"Service":{"ID":"x","Address":"h","Port":1,"Meta":{"naming-draining":"true"}}}`
	for _, c := range []*consul.Codec{nil, Kratos(), GoMicro(), GRPCSpring()} {
		if e, err := wiretest.Parse(t, entry).Endpoint(wire.Rules{Format: format(c)}); err != nil || !e.NoDrainingMark || e.Draining {
			t.Errorf("got %+v, %v, want NoDrainingMark", e, err)
		}
	}
}

// TestFieldI3Weights: the frameworks have weights as strings, and an endpoint has its
// weight as a number.
func TestFieldI3Weights(t *testing.T) {
	for name, c := range map[string]*consul.Codec{"kratos": Kratos(), "gomicro": GoMicro()} {
		for _, metadata := range []string{`{"weight":30}`, `{"weight":0.5}`, `{"weight":70000}`} {
			e := naming.Endpoint{ID: "x", Addr: "h:1", Metadata: json.RawMessage(metadata)}
			r, err := wiretest.Encode(t, e, 1, format(c))
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Trim(metadata[len(`{"weight":`):], "}")
			if got := r.Meta["weight"]; got != want {
				t.Errorf("%s: %s is %q in Meta", name, metadata, got)
			}
			i := wiretest.Stored(t, r)
			for _, reader := range []*consul.Codec{nil, c} {
				if got, err := i.Endpoint(wire.Rules{Format: format(reader)}); err != nil || !got.Equal(e) {
					t.Errorf("%s: got %s, %v, want %s", name, got.Metadata, err, metadata)
				}
			}
			for key := range i.Service.Meta {
				if strings.HasPrefix(key, "naming-") {
					delete(i.Service.Meta, key)
				}
			}
			if got, err := i.Endpoint(wire.Rules{Format: format(c)}); err != nil || fmt.Sprint(got.Info().Weight) != want {
				t.Errorf("%s: the framework's own is %s, %v, want weight %s", name, got.Metadata, err, want)
			}
		}
		// A string that the caller chose stays a string.
		e := naming.Endpoint{ID: "x", Addr: "h:1", Metadata: json.RawMessage(`{"weight":"30"}`)}
		r, err := wiretest.Encode(t, e, 1, format(c))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := wiretest.Stored(t, r).Endpoint(wire.Rules{Format: format(c)}); err != nil || !got.Equal(e) {
			t.Errorf("%s: got %s, %v, want %s", name, got.Metadata, err, e.Metadata)
		}
	}
}

// TestFieldC9Addresses: an address with one plain meaning is read, and any other address
// is malformed.
func TestFieldC9Addresses(t *testing.T) {
	for _, test := range []struct {
		host string
		port int
		want string // empty: malformed
	}{
		{"10.0.0.1", 80, "10.0.0.1:80"},
		{"host.example", 80, "host.example:80"},
		{"[2001:db8::1]", 8080, "[2001:db8::1]:8080"},
		{"2001:db8::1", 8080, "[2001:db8::1]:8080"},
		{"[fe80::1%eth0]", 80, "[fe80::1%eth0]:80"},
		{"[[2001:db8::1]]", 80, ""},
		{"[10.0.0.1]", 80, ""},
		{"[host]", 80, ""},
		{"[2001:db8::1", 80, ""},
		{"http://10.0.0.1", 80, ""},
		{"10.0.0.1/path", 80, ""},
		{"user@10.0.0.1", 80, ""},
		{"10.0.0.1:8080", 80, ""},
		{"10.0.0.1", -1, ""},
		{"10.0.0.1", 65536, ""},
		{"10.0.0.1", 65535, "10.0.0.1:65535"},
		{"10.0.0.1", 0, ""},
		{"10.0.0.1:8080", 0, "10.0.0.1:8080"},
		{" ", 80, ""},
		{"\t", 80, ""},
		{"\u00a0", 80, ""},
		{" 10.0.0.1", 80, ""},
		{"10.0.0.1\n", 80, ""},
		{"h\x1b[2J", 80, ""},
		{"h\u202e", 80, ""},
		{"0.0.0.0", 80, ""},
		{"[::]", 80, ""},
		{strings.Repeat("h", naming.MaxAddr), 80, ""},
	} {
		for _, c := range []*consul.Codec{nil, Kratos(), GoMicro(), GRPCSpring()} {
			for _, where := range []string{"service", "node"} {
				i := new(wire.Entry)
				i.Service.ID, i.Service.Port, i.Node.Address = "x", test.port, test.host
				if where == "service" {
					i.Service.Address, i.Node.Address = test.host, "192.0.2.1"
				}
				e, err := i.Endpoint(wire.Rules{Format: format(c)})
				switch {
				case test.want == "" && err == nil:
					t.Errorf("%q port %d of a %s is %q, want malformed", test.host, test.port, where, e.Addr)
				case test.want != "" && (err != nil || e.Addr != test.want):
					t.Errorf("%q port %d of a %s is %q, %v, want %q", test.host, test.port, where, e.Addr, err, test.want)
				}
			}
		}
	}
	// With a codec that takes the address from elsewhere.
	for _, url := range []string{"grpc://[::]:80", "grpc://0.0.0.0:80", "grpc://h:0", "grpc://h:70000"} {
		i := wiretest.Parse(t, `{"Service":{"ID":"x","Address":"h","Port":80,"TaggedAddresses":{"grpc":{"Address":"`+url+`"}}}}`)
		if e, err := i.Endpoint(wire.Rules{Format: Kratos().Format}); err == nil {
			t.Errorf("%s is %q, want malformed", url, e.Addr)
		}
	}
	// An entry of a Store that somebody has edited is checked as well.
	for _, s := range []string{`"Address":"h","Port":-1`, `"Address":"h","Port":65536`, `"Address":"","Port":80`, `"Address":"[::1]","Port":80`} {
		i := wiretest.Parse(t, `{"Node":{"Address":"192.0.2.1"},"Service":{"ID":"x",`+s+`,"Meta":{"naming-id":"x"}}}`)
		if e, err := i.Endpoint(wire.Rules{}); err == nil {
			t.Errorf("%s is %q, want malformed", s, e.Addr)
		}
	}
}

// TestFieldC13GRPCSpring: see testdata/golden/grpcspring for more.
func TestFieldC13GRPCSpring(t *testing.T) {
	i := wiretest.Parse(t, `{"Service":{"ID":"x","Address":"10.0.0.1","Port":8080,"Meta":{"gRPC_port":"9090"}}}`)
	if e, err := i.Endpoint(wire.Rules{Format: GRPCSpring().Format}); err != nil || e.Addr != "10.0.0.1:9090" {
		t.Errorf("got %+v, %v", e, err)
	}
	if e, err := i.Endpoint(wire.Rules{}); err != nil || e.Addr != "10.0.0.1:8080" {
		t.Errorf("without the codec: got %+v, %v", e, err)
	}
}
