package steer

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

func synced(endpoints ...naming.Endpoint) naming.View {
	return naming.View{Service: "greeter", Endpoints: endpoints, Status: naming.Status{Synced: true}}
}

func at(addrs ...string) (list []naming.Endpoint) {
	for _, a := range addrs {
		list = append(list, naming.Endpoint{ID: a, Addr: a})
	}
	return list
}

// seen returns an Observation of a service in a state, with the endpoints of both registries.
func seen(s migrate.State, old, next naming.View) Observation {
	o := Observation{Service: "greeter", Own: true, Known: true, State: s, Old: Side{View: old, Record: s, HasRecord: true}, New: Side{View: next, Record: s, HasRecord: true}}
	o.Report = migrate.Compare("greeter", old, next)
	return o
}

func with(o Observation, change func(*Observation)) Observation {
	change(&o)
	return o
}

func copyOf(addr string) naming.Endpoint {
	return naming.Endpoint{ID: migrate.CopyID("old", addr), Addr: addr}
}

func phase(p migrate.Phase) migrate.State { return migrate.State{Phase: p} }

// gateCase is a step, and the names of the conditions that close its gate.
type gateCase struct {
	name   string
	judge  Judge
	o      Observation
	to     migrate.State
	closed string // names, with commas
}

func gateCases() []gateCase {
	one, two := synced(at("a:1")...), synced(at("a:1", "b:1")...)
	heavy := synced(naming.Endpoint{ID: "a:1", Addr: "a:1", Metadata: []byte(`{"weight":2}`)})
	bridged := synced(append(at("a:1"), copyOf("b:1"))...)
	loss := []migrate.Loss{{Service: "greeter", Endpoint: naming.Endpoint{ID: "a:1"}, Fields: []string{"weight"}}}
	hidden := synced(at("a:1")...)
	hidden.Withheld = []naming.Withheld{{Endpoint: copyOf("a:1")}}
	stale := one
	stale.StaleSince = stale.AsOf.AddDate(1, 0, 0)
	full := migrate.State{Phase: migrate.PreferNew, Share: 1}
	yes := Judge{Confirmed: []string{Readers}}
	return []gateCase{
		{"0 to 1", Judge{}, seen(phase(0), one, synced()), phase(1), ""},
		{"0 to 1, loss", Judge{}, with(seen(phase(0), one, synced()), func(o *Observation) { o.Losses = loss }), phase(1), "format"},
		{"0 to 1, accepted", Judge{Accept: migrate.Accept{"weight"}}, with(seen(phase(0), one, synced()), func(o *Observation) { o.Losses = loss }), phase(1), ""},
		{"0 to 1, format unknown", Judge{}, with(seen(phase(0), one, synced()), func(o *Observation) { o.LossErr = errors.New("unknown") }), phase(1), "format"},
		{"0 to 1, no endpoints", Judge{}, seen(phase(0), synced(), synced()), phase(1), "endpoints"},
		{"1 to 2", Judge{}, seen(phase(1), two, two), phase(2), ""},
		{"1 to 2, missing", Judge{}, seen(phase(1), two, one), phase(2), "registered"},
		{"1 to 2, different", Judge{}, seen(phase(1), one, heavy), phase(2), ""},
		{"2 to 3", Judge{}, seen(phase(2), one, one), phase(3), ""},
		{"2 to 3, missing", Judge{}, seen(phase(2), two, one), phase(3), "parity"},
		{"2 to 3, different", Judge{}, seen(phase(2), one, heavy), phase(3), "parity"},
		{"2 to 3, stale", Judge{}, seen(phase(2), one, stale), phase(3), "parity"},
		{"2 to 3, copies", Judge{}, seen(phase(2), two, bridged), phase(3), ""},
		{"2 to 3, extra", Judge{}, seen(phase(2), one, two), phase(3), ""},
		{"3 to 4", Judge{}, seen(phase(3), two, two), migrate.State{Phase: 4, Share: 0.1}, ""},
		{"3 to 4, copies", Judge{}, seen(phase(3), two, bridged), migrate.State{Phase: 4, Share: 0.1}, "natives"},
		{"share", Judge{}, seen(migrate.State{Phase: 4, Share: 0.1}, two, two), full, ""},
		{"share, missing", Judge{}, seen(migrate.State{Phase: 4, Share: 0.1}, two, one), full, "coverage"},
		{"4 to 5", Judge{}, seen(full, two, two), phase(5), ""},
		{"4 to 5, share", Judge{}, seen(migrate.State{Phase: 4, Share: 0.5}, two, two), phase(5), "share"},
		{"4 to 5, missing", Judge{}, seen(full, two, one), phase(5), "coverage"},
		{"5 to 6", yes, seen(phase(5), two, two), phase(6), ""},
		{"5 to 6, readers", Judge{}, seen(phase(5), two, two), phase(6), "readers"},
		{"5 to 6, copies", yes, seen(phase(5), two, bridged), phase(6), "natives"},
		{"6 to 7", yes, seen(phase(6), synced(), two), phase(7), ""},
		{"6 to 7, old has servers", yes, seen(phase(6), one, two), phase(7), "left"},
		{"6 to 7, copies", yes, seen(phase(6), synced(copyOf("a:1")), two), phase(7), "swept"},
		{"6 to 7, copies beside natives", yes, seen(phase(6), synced(), synced(append(at("a:1"), copyOf("a:1"))...)), phase(7), "swept"},
		{"records differ", Judge{}, with(seen(phase(2), one, one), func(o *Observation) { o.New.Record.Phase = 1 }), phase(3), "records"},
		{"record only in new", Judge{}, with(seen(phase(2), one, one), func(o *Observation) { o.Old.HasRecord = false }), phase(3), "records"},
		{"record malformed", Judge{}, with(seen(phase(2), one, one), func(o *Observation) { o.Old.Malformed = errors.New("bad") }), phase(3), "records"},
		{"read-only", Judge{}, with(seen(phase(2), one, one), func(o *Observation) { o.Old = Side{View: one, NoRecords: true} }), phase(3), ""},
		{"two phases", Judge{}, seen(phase(1), one, heavy), phase(3), "parity"},
		{"four phases", Judge{}, seen(phase(0), one, one), migrate.State{Phase: 4, Share: 1}, "apart"},
		{"unknown to 0", Judge{}, with(seen(phase(0), two, one), func(o *Observation) { o.Known = false }), phase(0), ""},
		{"unknown to 0, no endpoints", Judge{}, with(seen(phase(0), synced(), synced()), func(o *Observation) { o.Known = false }), phase(0), "endpoints"},
		{"6 to 7, withheld copies", yes, seen(phase(6), synced(), hidden), phase(7), "swept"},
		{"again", Judge{}, seen(phase(3), two, one), phase(3), ""},
		{"back", Judge{}, seen(phase(3), two, one), phase(2), ""},
	}
}

// unreadCases are the cases in which a registry was not read.
func unreadCases() []gateCase {
	one, two := synced(at("a:1")...), synced(at("a:1", "b:1")...)
	down := with(seen(phase(migrate.Union), one, naming.View{}), func(o *Observation) { o.New = Side{Err: errors.New("down"), RecordErr: errors.New("down")} })
	wiped := with(seen(phase(0), one, synced()), func(o *Observation) {
		o.Known, o.Old.HasRecord, o.New = false, false, Side{Err: errors.New("down"), RecordErr: errors.New("down")}
		o.Report = new(migrate.Report)
	})
	unreadable := with(seen(phase(2), one, one), func(o *Observation) { o.New.RecordErr = errors.New("permission denied") })
	return []gateCase{
		{"3 to 4, down", Judge{}, down, migrate.State{Phase: 4}, "answers,records,parity,natives"},
		{"2 to 3, records not read", Judge{}, unreadable, phase(3), "answers,records"},
		{"unknown to 0, down", Judge{}, wiped, phase(0), "answers,records"},
		{"6 to 7, down", Judge{Confirmed: []string{Readers}}, with(seen(phase(6), synced(), two), func(o *Observation) { o.Report, o.New.Err = new(migrate.Report), errors.New("down") }), phase(7), "answers,left,swept"},
	}
}

// TestGate: each gate is open when what it needs holds, and is closed by exactly the
// condition that does not hold.
func TestGate(t *testing.T) {
	for _, c := range append(gateCases(), unreadCases()...) {
		g := c.judge.Gate(c.o, c.to)
		var closed []string
		for _, x := range g.Closed() {
			closed = append(closed, x.Name)
			if x.Why == "" || x.Opens == "" {
				t.Errorf("%s: condition %s has no reason, or does not say what opens it: %+v", c.name, x.Name, x)
			}
		}
		if got := strings.Join(closed, ","); got != c.closed || g.Open != (c.closed == "") {
			t.Errorf("%s: open %v, closed by %q, want %q", c.name, g.Open, got, c.closed)
		}
	}
}

// TestAdvice: what opens a gate can be done. A phase that is not known is not the name of one.
func TestAdvice(t *testing.T) {
	unknown := with(seen(phase(0), synced(at("a:1")...), synced()), func(o *Observation) {
		o.Known, o.Old.HasRecord, o.New.HasRecord = false, false, false
		o.Old.Malformed = errors.New("bad")
	})
	for name, c := range map[string]struct {
		o       Observation
		opens   string
		without string
	}{
		"malformed": {unknown, "--to PHASE --service greeter", "unknown"},
		"old down":  {with(unknown, func(o *Observation) { o.Old = Side{Err: errors.New("down")} }), "go on with --force", "go back"},
		"new down":  {with(unknown, func(o *Observation) { o.New = Side{Err: errors.New("down")} }), "go back to union", "--force"},
	} {
		var opens strings.Builder
		g := Judge{}.Gate(c.o, phase(0))
		for _, x := range g.Closed() {
			opens.WriteString(x.Opens + "\n")
		}
		if s := opens.String(); !strings.Contains(s, c.opens) || strings.Contains(s, c.without) {
			t.Errorf("%s: %s", name, s)
		}
	}
}

// TestPassing: a second look at a gate can help only if all that closes it may pass.
func TestPassing(t *testing.T) {
	one, two := synced(at("a:1")...), synced(at("a:1", "b:1")...)
	for _, c := range []struct {
		o    Observation
		to   migrate.State
		want bool
	}{
		{seen(phase(2), two, one), phase(3), true},
		{seen(phase(2), one, one), phase(3), false}, // it is open
		{seen(migrate.State{Phase: 4, Share: 0.5}, two, one), phase(5), false},
		{seen(phase(5), one, one), phase(6), false},
	} {
		if g := (Judge{}).Gate(c.o, c.to); g.Passing() != c.want {
			t.Errorf("%v to %v: passing %v, want %v; closed by %v", g.From, g.To, g.Passing(), c.want, g.Closed())
		}
	}
}

// TestHostileText: nothing of a registry reaches a condition raw.
func TestHostileText(t *testing.T) {
	hostile := "\x1b[2J\u202e"
	o := seen(phase(2), synced(naming.Endpoint{ID: "x", Addr: "a" + hostile + ":1"}), synced())
	o.Service = "greeter" + hostile
	o.Old.Malformed = errors.New(hostile)
	for _, c := range (Judge{}).Gate(o, phase(3)).Conditions {
		if strings.ContainsAny(c.Why+c.Opens, "\x1b\u202e") {
			t.Errorf("condition %s has raw text: %q, %q", c.Name, c.Why, c.Opens)
		}
	}
}

// TestWord: a name that a registry has chosen stays one word of a command that an operator
// pastes.
func TestWord(t *testing.T) {
	for name, want := range map[string]string{
		"a/b.c-d_1": "a/b.c-d_1", "-x": "'-x'", "": "''", "*": "'*'", "a; rm -rf x": "'a; rm -rf x'", "a'$(x)": `'a'\''$(x)'`,
	} {
		if got := Word(name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

func TestJoined(t *testing.T) {
	if n := (&Observation{Report: &migrate.Report{}}).Joined(); n != 0 {
		t.Errorf("nothing was read: %d joined", n)
	}
	o := seen(phase(2), synced(at("a:1", "b:1", "c:1")...), synced(append(at("a:1"), copyOf("b:1"))...))
	if n := o.Joined(); n != 1 {
		t.Errorf("%d joined, want 1: one is a copy, and one is missing", n)
	}
}

func TestSeats(t *testing.T) {
	entry := func(id, metadata string) naming.Endpoint {
		return naming.Endpoint{ID: id, Metadata: []byte(metadata)}
	}
	got := Seats(naming.View{Endpoints: []naming.Endpoint{
		entry("m~old~new", `{"holder":"x","by":"host/1\u001b","epoch":3,"digest":"abc","deletes":7}`),
		entry("m~old~new~approval", `{"digest":"abc"}`),
		entry("a~new~old", `{"holder":"y","epoch":1}`),
		entry("bad", `{}`), entry("x~y~z", `[]`), entry("x~\x1b~z", `{}`), entry("x~y~big", `{"by":"`+strings.Repeat("x", maxSeat)+`"}`),
	}})
	if len(got) != 2 || got[0].Name != "a" || got[1].Digest != "abc" || got[1].Deletes != 7 || got[1].Epoch != 3 || got[1].Source != "old" || strings.Contains(got[1].By, "\x1b") {
		t.Errorf("seats: %+v", got)
	}
	if slices.ContainsFunc(got, func(s Seat) bool { return s.Name == "x" }) {
		t.Error("an entry of another form counts")
	}
}
