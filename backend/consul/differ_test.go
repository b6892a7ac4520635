package consul

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul/internal/wire"
	"github.com/naming-go/naming/backend/consul/internal/wire/wiretest"
)

func newDiffer(opts *Options, service string) *differ {
	o := opts.withDefaults()
	return &differ{opts: &o, service: service}
}

// TestFieldC11WarningWeight: an entry whose worst check is warning has the weight for
// warnings.
func TestFieldC11WarningWeight(t *testing.T) {
	entry := `{"Service":{"ID":"x","Service":"s","Address":"h","Port":1,"Weights":{"Passing":100,"Warning":%d}},"Checks":[{"CheckID":"serfHealth","Status":"passing"},{"CheckID":"c","Status":"%s"}]}`
	for _, test := range []struct {
		warning int
		status  string
		want    float64
	}{{1, "passing", 100}, {1, "warning", 1}, {40, "warning", 40}} {
		d := newDiffer(&Options{IncludeWarning: true}, "s")
		d.batch([]*wire.Entry{wiretest.Parse(t, fmt.Sprintf(entry, test.warning, "critical"))})
		b := d.batch([]*wire.Entry{wiretest.Parse(t, fmt.Sprintf(entry, test.warning, test.status))})
		if len(b.Put) != 1 || b.Put[0].Info().Weight != test.want {
			t.Errorf("%s with %d: %+v, want weight %v", test.status, test.warning, b, test.want)
		}
	}
	// A change of the check alone is news.
	d := newDiffer(&Options{IncludeWarning: true}, "s")
	for n, status := range []string{"passing", "warning", "passing"} {
		b := d.batch([]*wire.Entry{wiretest.Parse(t, fmt.Sprintf(entry, 1, status))})
		if want := []float64{100, 1, 100}[n]; len(b.Put) != 1 || b.Put[0].Info().Weight != want {
			t.Errorf("then %s: %+v, want weight %v", status, b, want)
		}
	}
}

// TestFieldR13Errors: the answer of an agent is cut and escaped before it is part of an
// error. Its status code is still found.
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

// TestFieldW1Standing: what the checks of an entry say of using it.
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
		i := wiretest.Parse(t, `{"Service":{"ID":"x","Address":"h","Port":1,`+strings.TrimPrefix(test.meta+`,`, `,`)+`"Kind":""},"Checks":[`+test.checks+`]}`)
		if got := (&Options{IncludeWarning: test.warnings}).standing(i); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s %s: got %+v, want %+v", test.meta, test.checks, got, test.want)
		}
	}
}

// TestFieldW1Differ: an endpoint is in one list of a batch at a time. Each change of its
// standing is news once.
func TestFieldW1Differ(t *testing.T) {
	entry := func(checks string) []*wire.Entry {
		return []*wire.Entry{wiretest.Parse(t, `{"Service":{"ID":"x","Address":"h","Port":1},"Checks":[`+checks+`]}`)}
	}
	failed := func(output string) string {
		return `{"CheckID":"c","Name":"C","Status":"critical","Output":"` + output + `"}`
	}
	d := newDiffer(nil, "s")
	for _, step := range []struct {
		all  []*wire.Entry
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
		b := d.batch(step.all)
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

// TestURLChanges: another port for gRPC is news, without any other change.
func TestURLChanges(t *testing.T) {
	codec := &Codec{Format: &wire.Format{Decode: func(i *wire.Entry, e *naming.Endpoint) error {
		e.Addr = strings.TrimPrefix(i.Service.TaggedAddresses["grpc"], "grpc://")
		return nil
	}}}
	d := newDiffer(&Options{Codec: codec}, "greeter")
	for _, want := range []string{"h:9000", "h:9001"} {
		b := d.batch([]*wire.Entry{wiretest.Parse(t, `{"Service":{"ID":"x","Address":"h","Port":80,"TaggedAddresses":{"grpc":{"Address":"grpc://`+want+`"}}}}`)})
		if len(b.Put) != 1 || b.Put[0].Addr != want {
			t.Errorf("got %+v, want %s", b, want)
		}
	}
}
