package migrate

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/naming-go/naming"
)

// endpoint returns an endpoint of a short text: "id@addr", then options after spaces:
// "drain", "nomark", or metadata.
func endpoint(s string) naming.Endpoint {
	fields := strings.Fields(s)
	var e naming.Endpoint
	e.ID, e.Addr, _ = strings.Cut(fields[0], "@")
	for _, f := range fields[1:] {
		switch f {
		case "drain":
			e.Draining = true
		case "nomark":
			e.NoDrainingMark = true
		default:
			e.Metadata = json.RawMessage(f)
		}
	}
	return e
}

// viewOf returns a fresh view of endpoints. A text that begins with "!" is withheld.
func viewOf(texts ...string) naming.View {
	v := naming.View{Service: "s", Status: naming.Status{Synced: true, AsOf: time.Unix(100, 0)}}
	for _, s := range texts {
		if s, withheld := strings.CutPrefix(s, "!"); withheld {
			v.Withheld = append(v.Withheld, naming.Withheld{Endpoint: endpoint(s), Reason: naming.Maintenance})
		} else {
			v.Endpoints = append(v.Endpoints, endpoint(s))
		}
	}
	return v
}

// brief returns the IDs and addresses of a report.
func brief(r *Report) string {
	var b strings.Builder
	list := func(name string, eps []naming.Endpoint) {
		for _, e := range eps {
			fmt.Fprintf(&b, "%s %s@%s; ", name, e.ID, e.Addr)
		}
	}
	list("missing", r.Missing)
	list("extra", r.Extra)
	for _, m := range r.Mismatch {
		fmt.Fprintf(&b, "%s@%s/%s %s; ", m.Old.ID, m.Old.Addr, m.New.ID, strings.Join(m.Fields, ","))
	}
	list("copy", r.Copies)
	list("old copy", r.OldCopies)
	return strings.TrimSuffix(b.String(), "; ")
}

type views = []string

var compareCases = map[string]struct {
	old, next views
	want      string
	accept    string
}{
	"equal":                           {views{"a@1", "b@2"}, views{"a@1", "b@2"}, "", ""},
	"equal counts, other addresses":   {views{"a@1", "b@2"}, views{"a@1", "c@3"}, "missing b@2; extra c@3", ""},
	"more in the new one":             {views{"a@1"}, views{"b@2", "c@3"}, "missing a@1; extra b@2; extra c@3", ""},
	"another order":                   {views{"b@2", "a@1"}, views{"a@1", "b@2"}, "", ""},
	"spelling of metadata":            {views{`a@1 {"x":1,"y":2}`}, views{`a@1 {"y":2,"x":1}`}, "", ""},
	"draining is not missing":         {views{"a@1 drain", "b@2"}, views{"b@2"}, "", ""},
	"draining by metadata":            {views{`a@1 {"draining":true}`}, views{}, "", ""},
	"draining is not extra":           {views{}, views{"a@1 drain"}, "", ""},
	"withheld is not missing":         {views{"!a@1"}, views{}, "", ""},
	"withheld in one":                 {views{"a@1"}, views{"!a@1"}, "a@1/a withheld", ""},
	"draining in one":                 {views{"a@1 drain"}, views{"a@1"}, "a@1/a draining", ""},
	"draining without a mark":         {views{"a@1 drain"}, views{"a@1 nomark"}, "a@1/a draining-mark", ""},
	"draining without a mark, reword": {views{"a@1 nomark"}, views{"a@1 drain"}, "a@1/a draining-mark", "id"},
	"accepted mark":                   {views{"a@1 drain"}, views{"a@1 nomark"}, "", "draining-mark"},
	"weight":                          {views{`a@1 {"weight":1,"x":1}`}, views{`a@1 {"weight":2,"x":1}`}, "a@1/a weight", ""},
	"weight and more":                 {views{`a@1 {"weight":1,"x":1}`}, views{`a@1 {"weight":2,"x":2}`}, "a@1/a weight,metadata", "weight"},
	"all reserved":                    {views{`a@1 {"weight":1,"zone":"z","version":"v","tags":["t"]}`}, views{"a@1"}, "a@1/a weight,zone,version,tags", "weight,zone"},
	"accepted reserved":               {views{`a@1 {"weight":1,"zone":"z","version":"v","tags":["t"]}`}, views{"a@1"}, "", "weight,zone,version,tags"},
	"a weight that is none":           {views{`a@1 {"weight":"x"}`}, views{"a@1"}, "a@1/a metadata", ""},
	"not an object":                   {views{`a@1 "x"`}, views{`a@1 {"x":1}`}, "a@1/a metadata", ""},
	"spelling of a number":            {views{`a@1 {"x":1}`}, views{`a@1 {"x":1.0}`}, "a@1/a metadata", ""},
	"another ID":                      {views{"a@1"}, views{"b@1"}, "a@1/b id", ""},
	"another ID, accepted":            {views{"a@1"}, views{"b@1"}, "", "id"},
	"two at an address":               {views{"a@1", "b@1"}, views{"a@1", "b@1"}, "", ""},
	"one of two at an address":        {views{"a@1", "b@1"}, views{"a@1"}, "b@1/a id", ""},
	"two IDs each":                    {views{"a@1", "b@1"}, views{"b@1", "c@1"}, "a@1/c id", ""},
	"one ID, two addresses":           {views{"a@1"}, views{"a@2"}, "missing a@1; extra a@2", ""},
	"a restart":                       {views{"a@1 drain", "b@1"}, views{"b@1"}, "", ""},
	"a successor":                     {views{"b@1"}, views{"a@1 drain"}, "b@1/a id,draining", ""},
	"no address":                      {views{"a@", "b@"}, views{"a@", "c@"}, "missing b@; extra c@", ""},
	"a copy":                          {views{"a@1"}, views{"~old~a@1"}, "copy a@1", ""},
	"a copy with a mark":              {views{`a@1 {"x":1}`}, views{`~old~a@1 {"x":1,"naming-copy":{"origin":"old"}}`}, "copy a@1", ""},
	"a copy of old data":              {views{`a@1 {"x":1}`}, views{`~old~a@1 {"x":2}`}, "a@1/a metadata; copy a@1", ""},
	"a copy beside its native":        {views{"a@1"}, views{"~old~a@1", "a@1"}, "", ""},
	"a copy of an old address":        {views{"a@2"}, views{"~old~a@1", "a@2"}, "", ""},
	"a copy nobody needs":             {views{}, views{"~old~a@1"}, "extra a@1; copy a@1", ""},
	"a copy back":                     {views{"~new~a@1"}, views{"a@1"}, "old copy a@1", ""},
	"a copy that drains":              {views{}, views{"~old~a@1 drain"}, "copy a@1", ""},
}

func TestCompare(t *testing.T) {
	for name, test := range compareCases {
		t.Run(name, func(t *testing.T) {
			accept, err := ParseAccept(test.accept)
			if err != nil {
				t.Fatal(err)
			}
			r := Comparison{Accept: accept}.Compare("s", viewOf(test.old...), viewOf(test.next...))
			if got := brief(r); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if want := test.want == "" || strings.HasPrefix(test.want, "copy") || strings.HasPrefix(test.want, "old copy"); r.Equal() != want {
				t.Errorf("Equal() = %v", r.Equal())
			}
		})
	}
}

func TestCompareStatus(t *testing.T) {
	old, next := viewOf("a@1", "!b@2", "c@3 drain"), viewOf("a@1")
	next.AsOf, next.StaleSince = time.Unix(50, 0), time.Unix(60, 0)
	r := Compare("s", old, next)
	want := &Report{Service: "s", Known: true, OldCount: 2, NewCount: 1, OldAsOf: old.AsOf, NewAsOf: next.AsOf, NewStale: true}
	if !reflect.DeepEqual(r, want) || !r.Equal() {
		t.Errorf("got %+v\nwant %+v", r, want)
	}
	next = naming.View{}
	if r := Compare("s", old, next); r.Known || r.Equal() || len(r.Missing) > 0 || r.String() != "not compared" {
		t.Errorf("a registry that has not answered was compared: %+v", r)
	}
}

func TestReportString(t *testing.T) {
	r := Compare("s", viewOf("a@1", "b@2", `c@3 {"weight":1}`), viewOf("d@4", "x@2", "c@3", "~old~e@5"))
	const want = "1 missing, 2 extra, 2 with other data (id, weight), 1 only as copies; 3 endpoints in the old registry, 4 in the new"
	if got := r.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestParseAccept(t *testing.T) {
	a, err := ParseAccept(" weight, id ,,weight")
	if err != nil || a.String() != "weight,id" {
		t.Errorf("got %q, %v", a, err)
	}
	if _, err := ParseAccept("weight,wieght"); err == nil || !strings.Contains(err.Error(), "draining-mark") {
		t.Errorf("a name that does not exist: %v", err)
	}
	for _, test := range []struct {
		fields []string
		want   bool
	}{{nil, false}, {[]string{"id"}, true}, {[]string{"id", "weight"}, true}, {[]string{"id", "zone"}, false}} {
		if got := a.Covers(test.fields); got != test.want {
			t.Errorf("Covers(%v) = %v", test.fields, got)
		}
	}
}

// randomView returns a view with few IDs, addresses and metadata, so that they meet.
func randomView(r *rand.Rand) naming.View {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	v := naming.View{Status: naming.Status{Synced: true}}
	for range r.IntN(7) {
		e := naming.Endpoint{
			ID:       pick("", "", "~old~", "~new~", "~") + pick("a", "b", "c", "~"),
			Addr:     pick("1", "2", "3", ""),
			Metadata: json.RawMessage(pick("", "null", "1", `{"weight":1}`, `{"weight":2,"x":1}`, `{"naming-copy":{"origin":"old"},"weight":1}`, `{"draining":true}`, `{`)),
			Draining: r.IntN(5) == 0, NoDrainingMark: r.IntN(5) == 0,
		}
		if r.IntN(5) == 0 {
			v.Withheld = append(v.Withheld, naming.Withheld{Endpoint: e})
		} else {
			v.Endpoints = append(v.Endpoints, e)
		}
	}
	return v
}

func shuffled(r *rand.Rand, v naming.View) naming.View {
	v.Endpoints, v.Withheld = slices.Clone(v.Endpoints), slices.Clone(v.Withheld)
	r.Shuffle(len(v.Endpoints), func(i, j int) { v.Endpoints[i], v.Endpoints[j] = v.Endpoints[j], v.Endpoints[i] })
	r.Shuffle(len(v.Withheld), func(i, j int) { v.Withheld[i], v.Withheld[j] = v.Withheld[j], v.Withheld[i] })
	return v
}

// checkCompare returns what is wrong with the comparisons of two views.
func checkCompare(r *rand.Rand, a, b naming.View) error {
	there, back := Compare("s", a, b), Compare("s", b, a)
	for _, v := range []naming.View{a, b} {
		if r := Compare("s", v, v); !r.Equal() {
			return fmt.Errorf("a view differs from itself: %s", brief(r))
		}
		if r := Compare("s", v, shuffled(r, v)); !r.Equal() {
			return fmt.Errorf("a view differs from itself in another order: %s", brief(r))
		}
	}
	if again := Compare("s", shuffled(r, a), shuffled(r, b)); !reflect.DeepEqual(again, there) {
		return fmt.Errorf("in another order: %s\ngot %s", brief(there), brief(again))
	}
	if !reflect.DeepEqual(there.Missing, back.Extra) || !reflect.DeepEqual(there.Extra, back.Missing) || len(there.Mismatch) != len(back.Mismatch) ||
		!reflect.DeepEqual(there.Copies, back.OldCopies) {
		return fmt.Errorf("there: %s\nback: %s", brief(there), brief(back))
	}
	mirrored := func(m, o Mismatch) bool {
		return reflect.DeepEqual(m.Old, o.New) && reflect.DeepEqual(m.New, o.Old) && slices.Equal(m.Fields, o.Fields)
	}
	for _, m := range there.Mismatch {
		if len(m.Fields) == 0 || m.Old.Addr != m.New.Addr || !slices.ContainsFunc(back.Mismatch, func(o Mismatch) bool { return mirrored(m, o) }) {
			return fmt.Errorf("mismatch %+v is not in %s", m, brief(back))
		}
	}
	return checkMissing(there, a, b)
}

// checkMissing compares the lists with what a naive search finds.
func checkMissing(r *Report, a, b naming.View) error {
	addresses := func(v naming.View) map[string]bool {
		all := make(map[string]bool)
		for _, e := range v.Endpoints {
			all[e.Addr] = true
		}
		for _, w := range v.Withheld {
			all[w.Endpoint.Addr] = true
		}
		return all
	}
	in := addresses(b)
	for _, e := range r.Missing {
		if e.Addr != "" && in[e.Addr] && !slices.ContainsFunc(b.Endpoints, func(e naming.Endpoint) bool { return strings.HasPrefix(e.ID, "~") }) &&
			!slices.ContainsFunc(b.Withheld, func(w naming.Withheld) bool { return strings.HasPrefix(w.Endpoint.ID, "~") }) {
			return fmt.Errorf("%s@%s is there, and was reported as missing", e.ID, e.Addr)
		}
	}
	for _, e := range a.Endpoints {
		if strings.HasPrefix(e.ID, "~") || e.Addr == "" || e.Info().Draining || in[e.Addr] {
			continue
		}
		if !slices.ContainsFunc(r.Missing, func(m naming.Endpoint) bool { return m.Addr == e.Addr }) {
			return fmt.Errorf("%s@%s is missing, and was not reported", e.ID, e.Addr)
		}
	}
	return nil
}

func TestCompareProperties(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range 20_000 {
		a, b := randomView(r), randomView(r)
		if err := checkCompare(r, a, b); err != nil {
			t.Fatalf("seed %d, round %d: %v\nold %+v\nnew %+v", seed, i, err, a, b)
		}
	}
}

func FuzzCompare(f *testing.F) {
	f.Add(`a@1 {"weight":1}|~old~b@2 drain`, `!a@1|b@2`)
	f.Fuzz(func(t *testing.T, old, next string) {
		view := func(s string) naming.View {
			return viewOf(slices.DeleteFunc(strings.Split(s, "|"), func(s string) bool { return len(strings.Fields(strings.TrimPrefix(s, "!"))) == 0 })...)
		}
		if err := checkCompare(rand.New(rand.NewPCG(1, 1)), view(old), view(next)); err != nil {
			t.Fatal(err)
		}
	})
}

// BenchmarkCompare compares 5,000 endpoints, of which one differs.
func BenchmarkCompare(b *testing.B) {
	var texts []string
	for i := range 5000 {
		texts = append(texts, fmt.Sprintf(`id-%05d@10.0.%d.%d:80 {"weight":%d,"zone":"a"}`, i, i/250, i%250, i))
	}
	old, next := viewOf(texts...), viewOf(texts[1:]...)
	b.Run("equal", func(b *testing.B) {
		for b.Loop() {
			Compare("s", old, old)
		}
	})
	b.Run("one missing", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if r := Compare("s", old, next); len(r.Missing) != 1 {
				b.Fatal(r)
			}
		}
	})
}
