package consul

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
)

// TestFieldI1DrainingMark: the mark is a key of Meta and no part of the metadata,
// which stay as the caller gave them. The earlier form is read as well.
func TestFieldI1DrainingMark(t *testing.T) {
	for name, codec := range map[string]*Codec{"none": nil, "kratos": Kratos(), "gomicro": GoMicro(), "grpcspring": GRPCSpring()} {
		for _, metadata := range []string{``, `{"zone":"a"}`, `[1]`, `{"draining":false}`} {
			e := naming.Endpoint{ID: "x", Addr: "h:1", Draining: true, Metadata: json.RawMessage(metadata)}
			r, err := encode(e, 1, codec)
			if err != nil {
				t.Fatal(err)
			}
			if r.Meta["naming-draining"] != "true" || strings.Contains(r.Meta["naming-json"], "true") {
				t.Errorf("%s: Meta is %q", name, r.Meta)
			}
			got, err := stored(t, r).endpoint(&Options{})
			if err != nil || !got.Equal(e) || !got.Info().Draining || got.NoDrain {
				t.Errorf("%s: got %+v, %v, want %+v", name, got, err, e)
			}
			e.Draining = false
			if r, err = encode(e, 1, codec); err != nil {
				t.Fatal(err)
			}
			if got, err := stored(t, r).endpoint(&Options{}); err != nil || got.Draining || got.NoDrain || !got.Equal(e) {
				t.Errorf("%s: without a mark: got %+v, %v", name, got, err)
			}
			if got, _ := stored(t, r).endpoint(&Options{NoDrainingMark: true}); !got.NoDrain {
				t.Errorf("%s: NoDrainingMark: got %+v, want NoDrain", name, got)
			}
		}
	}
	before := `{"Service":{"ID":"x","Address":"h","Port":1,"Meta":{"naming-id":"x","naming-form":"object","naming-json":"{\"draining\":true}"}}}`
	if e, err := parse(t, before).endpoint(&Options{}); err != nil || e.Draining || !e.Info().Draining {
		t.Errorf("the mark in the metadata: %+v, %v", e, err)
	}
	s := New(nil, &Options{NoDrainingMark: true}) // and asks nothing
	err := s.Apply(t.Context(), "svc", naming.Change{Endpoint: naming.Endpoint{Addr: "h:1", Draining: true}})
	if !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("a mark with NoDrainingMark: %v, want ErrInvalid", err)
	}
}

// TestFieldI2NoDrain: an entry of another writer has no way to say that it drains.
func TestFieldI2NoDrain(t *testing.T) {
	entry := `{"Service":{"ID":"x","Address":"h","Port":1,"Meta":{"naming-draining":"true"}}}`
	for _, c := range []*Codec{nil, Kratos(), GoMicro(), GRPCSpring()} {
		if e, err := parse(t, entry).endpoint(&Options{Codec: c}); err != nil || !e.NoDrain || e.Draining {
			t.Errorf("got %+v, %v, want NoDrain", e, err)
		}
	}
}

// TestFieldI3Weights: the frameworks have weights as strings, and here a weight is
// a number.
func TestFieldI3Weights(t *testing.T) {
	for name, c := range map[string]*Codec{"kratos": Kratos(), "gomicro": GoMicro()} {
		for _, metadata := range []string{`{"weight":30}`, `{"weight":0.5}`, `{"weight":70000}`} {
			e := naming.Endpoint{ID: "x", Addr: "h:1", Metadata: json.RawMessage(metadata)}
			r, err := encode(e, 1, c)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Trim(metadata[len(`{"weight":`):], "}")
			if got := r.Meta["weight"]; got != want {
				t.Errorf("%s: %s is %q in Meta", name, metadata, got)
			}
			i := stored(t, r)
			for _, reader := range []*Codec{nil, c} {
				if got, err := i.endpoint(&Options{Codec: reader}); err != nil || !got.Equal(e) {
					t.Errorf("%s: got %s, %v, want %s", name, got.Metadata, err, metadata)
				}
			}
			for key := range i.Service.Meta {
				if strings.HasPrefix(key, reserved) {
					delete(i.Service.Meta, key)
				}
			}
			if got, err := i.endpoint(&Options{Codec: c}); err != nil || fmt.Sprint(got.Info().Weight) != want {
				t.Errorf("%s: the framework's own is %s, %v, want weight %s", name, got.Metadata, err, want)
			}
		}
		// A string is the caller's, and stays one.
		e := naming.Endpoint{ID: "x", Addr: "h:1", Metadata: json.RawMessage(`{"weight":"30"}`)}
		r, err := encode(e, 1, c)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := stored(t, r).endpoint(&Options{Codec: c}); err != nil || !got.Equal(e) {
			t.Errorf("%s: got %s, %v, want %s", name, got.Metadata, err, e.Metadata)
		}
	}
}

// TestFieldC9Addresses: what has one plain meaning is understood, and the rest is
// malformed.
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
		for _, c := range []*Codec{nil, Kratos(), GoMicro(), GRPCSpring()} {
			for _, where := range []string{"service", "node"} {
				i := new(instance)
				i.Service.ID, i.Service.Port, i.Node.Address = "x", test.port, test.host
				if where == "service" {
					i.Service.Address, i.Node.Address = test.host, "192.0.2.1"
				}
				e, err := i.endpoint(&Options{Codec: c})
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
		i := parse(t, `{"Service":{"ID":"x","Address":"h","Port":80,"TaggedAddresses":{"grpc":{"Address":"`+url+`"}}}}`)
		if e, err := i.endpoint(&Options{Codec: Kratos()}); err == nil {
			t.Errorf("%s is %q, want malformed", url, e.Addr)
		}
	}
	// Neither does an entry that somebody has edited pass because it was ours.
	for _, s := range []string{`"Address":"h","Port":-1`, `"Address":"h","Port":65536`, `"Address":"","Port":80`, `"Address":"[::1]","Port":80`} {
		i := parse(t, `{"Node":{"Address":"192.0.2.1"},"Service":{"ID":"x",`+s+`,"Meta":{"naming-id":"x"}}}`)
		if e, err := i.endpoint(&Options{}); err == nil {
			t.Errorf("%s is %q, want malformed", s, e.Addr)
		}
	}
}

// TestFieldC11WarningWeight: an entry in the state warning has the weight for it.
func TestFieldC11WarningWeight(t *testing.T) {
	entry := `{"Service":{"ID":"x","Service":"s","Address":"h","Port":1,"Weights":{"Passing":100,"Warning":%d}},"Checks":[{"CheckID":"serfHealth","Status":"passing"},{"CheckID":"c","Status":"%s"}]}`
	for _, test := range []struct {
		warning int
		status  string
		want    float64
	}{{1, "passing", 100}, {1, "warning", 1}, {40, "warning", 40}} {
		v := &view{store: New(nil, &Options{IncludeWarning: true}), service: "s"}
		v.update([]*instance{parse(t, fmt.Sprintf(entry, test.warning, "critical"))})
		b := v.update([]*instance{parse(t, fmt.Sprintf(entry, test.warning, test.status))})
		if len(b.Put) != 1 || b.Put[0].Info().Weight != test.want {
			t.Errorf("%s with %d: %+v, want weight %v", test.status, test.warning, b, test.want)
		}
	}
	// A change of the state alone is news.
	v := &view{store: New(nil, &Options{IncludeWarning: true}), service: "s"}
	for n, status := range []string{"passing", "warning", "passing"} {
		b := v.update([]*instance{parse(t, fmt.Sprintf(entry, 1, status))})
		if want := []float64{100, 1, 100}[n]; len(b.Put) != 1 || b.Put[0].Info().Weight != want {
			t.Errorf("then %s: %+v, want weight %v", status, b, want)
		}
	}
}

// TestFieldC12PortName: of several ports the one is taken that the option names.
func TestFieldC12PortName(t *testing.T) {
	two := `{"Service":{"ID":"x","Address":"h","Port":8080,"Ports":[{"Name":"http","Port":8080,"Default":true},{"Name":"grpc","Port":9090}]}}`
	bare := `{"Service":{"ID":"x","Address":"h","Ports":[{"Name":"grpc","Port":9090},{"Name":"http","Port":8080,"Default":true}]}}`
	one := `{"Service":{"ID":"x","Address":"h","Port":8080}}`
	for _, test := range []struct{ entry, name, want string }{
		{two, "", "h:8080"}, {two, "grpc", "h:9090"}, {two, "other", "h:8080"},
		{bare, "", "h:8080"}, {bare, "grpc", "h:9090"}, {one, "grpc", "h:8080"},
	} {
		e, err := parse(t, test.entry).endpoint(&Options{PortName: test.name})
		if err != nil || e.Addr != test.want {
			t.Errorf("%q of %s is %q, %v, want %q", test.name, test.entry, e.Addr, err, test.want)
		}
	}
	if parse(t, two).digest() == parse(t, strings.Replace(two, "9090", "9091", 1)).digest() {
		t.Error("another port of a name is no change")
	}
}

// TestFieldC13GRPCSpring: see testdata/golden/grpcspring for more.
func TestFieldC13GRPCSpring(t *testing.T) {
	i := parse(t, `{"Service":{"ID":"x","Address":"10.0.0.1","Port":8080,"Meta":{"gRPC_port":"9090"}}}`)
	if e, err := i.endpoint(&Options{Codec: GRPCSpring()}); err != nil || e.Addr != "10.0.0.1:9090" {
		t.Errorf("got %+v, %v", e, err)
	}
	if e, err := i.endpoint(&Options{}); err != nil || e.Addr != "10.0.0.1:8080" {
		t.Errorf("without the codec: got %+v, %v", e, err)
	}
}

// TestFieldR13Errors: an agent's answer is cut and escaped before it is part of an
// error, and its code is still found.
func TestFieldR13Errors(t *testing.T) {
	body := strings.Repeat("\x1b[2J\n", 40_000)
	err := describe(t.Context(), fmt.Errorf("read: %w", api.StatusError{Code: http.StatusForbidden, Body: body}))
	if text := err.Error(); len(text) > 2*naming.MaxText || strings.ContainsAny(text, "\x1b\n") {
		t.Errorf("%d bytes: %.200q", len(text), text)
	}
	var status api.StatusError
	if !errors.As(err, &status) || !errors.Is(err, naming.ErrPermission) {
		t.Errorf("the cause is lost: %v", err)
	}
}

// TestFieldW1Standing is about what checks say of using an entry.
func TestFieldW1Standing(t *testing.T) {
	const ours = `"Meta":{"naming-id":"x"}`
	const pass, fail = `{"CheckID":"x","Status":"passing"}`, `{"CheckID":"x","Status":"critical"}`
	const serf = `{"CheckID":"serfHealth","Name":"Serf Health Status","Status":"critical","Output":"Agent not live"}`
	const node = `{"CheckID":"_node_maintenance","Status":"critical","Notes":"disk\u001b\n"}`
	const service = `{"CheckID":"_service_maintenance:x","Status":"critical","Notes":"later"}`
	for _, test := range []struct {
		meta, checks string
		warnings     bool
		want         standing
	}{
		{ours, pass, false, standing{}},
		{ours, ``, false, standing{}},
		{ours, fail, false, standing{gone: true}},
		{``, fail, false, standing{reason: naming.FailedCheck, detail: "x"}},
		{ours, pass + `,` + serf, false, standing{gone: true}},
		{ours, serf, false, standing{reason: naming.FailedCheck, detail: "Serf Health Status: Agent not live"}},
		{``, serf, false, standing{reason: naming.FailedCheck, detail: "Serf Health Status: Agent not live"}},
		{ours, pass + `,` + node, false, standing{reason: naming.Maintenance, detail: `disk\x1b\n`}},
		{ours, pass + `,` + service + `,` + node, false, standing{reason: naming.Maintenance, detail: `disk\x1b\n`}},
		{``, `{"CheckID":"a","Status":"critical"},` + service, false, standing{reason: naming.Maintenance, detail: "later"}},
		{ours, fail + `,` + service, false, standing{gone: true}},
		{``, `{"CheckID":"b","Name":"B","Status":"warning","Output":" hot\n"}`, false, standing{reason: naming.FailedCheck, detail: "B: hot"}},
		{``, `{"CheckID":"b","Name":"B","Status":"warning","Output":"hot"}`, true, standing{}},
		{``, `{"CheckID":"b","Status":"warning"},{"CheckID":"c","Status":"critical"}`, true, standing{reason: naming.FailedCheck, detail: "c"}},
		{``, `{"CheckID":"b","Status":"warning"},{"CheckID":"c","Status":"critical"}`, false, standing{reason: naming.FailedCheck, detail: "c"}},
		{``, `{"CheckID":"d","Status":"critical"},{"CheckID":"c","Status":"critical"}`, false, standing{reason: naming.FailedCheck, detail: "c"}},
		{``, `{"CheckID":"b","Status":"who knows"}`, true, standing{reason: naming.FailedCheck, detail: "b"}},
	} {
		i := parse(t, `{"Service":{"ID":"x","Address":"h","Port":1,`+strings.TrimPrefix(test.meta+`,`, `,`)+`"Kind":""},"Checks":[`+test.checks+`]}`)
		if got := New(nil, &Options{IncludeWarning: test.warnings}).standing(i); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s %s: got %+v, want %+v", test.meta, test.checks, got, test.want)
		}
	}
}

// TestFieldW1View: an endpoint is in one list of a batch at a time, and each change
// of its standing is news once.
func TestFieldW1View(t *testing.T) {
	entry := func(checks string) []*instance {
		return []*instance{parse(t, `{"Service":{"ID":"x","Address":"h","Port":1},"Checks":[`+checks+`]}`)}
	}
	failed := func(output string) string {
		return `{"CheckID":"c","Name":"C","Status":"critical","Output":"` + output + `"}`
	}
	v := &view{store: New(nil, nil), service: "s"}
	for _, step := range []struct {
		all  []*instance
		want string
	}{
		{entry(failed("a")), "snapshot put 0 withheld 1 failed check C: a deleted 0"},
		{entry(failed("a")), "put 0 withheld 0 deleted 0"},
		{entry(failed("b")), "put 0 withheld 1 failed check C: b deleted 0"},
		{entry(``), "put 1 withheld 0 deleted 0"},
		{entry(`{"CheckID":"_node_maintenance","Status":"critical","Notes":"n"}`), "put 0 withheld 1 maintenance n deleted 0"},
		{nil, "put 0 withheld 0 deleted 1"},
		{entry(``), "put 1 withheld 0 deleted 0"},
	} {
		b := v.update(step.all)
		got := ""
		if b.Snapshot {
			got = "snapshot "
		}
		got += fmt.Sprintf("put %d withheld %d", len(b.Put), len(b.Withheld))
		for _, w := range b.Withheld {
			got += " " + w.Reason.String() + " " + w.Detail
		}
		got += fmt.Sprintf(" deleted %d", len(b.Deleted))
		if got != step.want {
			t.Errorf("got  %s\nwant %s", got, step.want)
		}
	}
}
