package tui

import (
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/live"
)

func TestChurn(t *testing.T) {
	var c churn
	c.add(begin, 3)
	c.add(begin.Add(30*time.Second), 2)
	for _, want := range []struct {
		after time.Duration
		sum   int
	}{{30 * time.Second, 5}, {50 * time.Second, 5}, {61 * time.Second, 2}, {91 * time.Second, 0}, {time.Hour, 0}} {
		if got := c.sum(begin.Add(want.after)); got != want.sum {
			t.Errorf("after %v: %d, want %d", want.after, got, want.sum)
		}
	}
	c.add(begin.Add(48*time.Hour), 1)
	if got := c.sum(begin.Add(48 * time.Hour)); got != 1 {
		t.Errorf("after two days: %d", got)
	}
}

// What was in the registry at the beginning is not a change. A service that comes later is.
func TestFirst(t *testing.T) {
	b := NewBoard()
	b.List(naming.View{Endpoints: []naming.Endpoint{{ID: "old"}}, Status: naming.Status{Synced: true}})
	if r := b.row("old"); r == nil || r.Status.Synced {
		t.Errorf("a service of the list that is not read yet is %+v", r)
	}
	for _, name := range []string{"old", "new"} {
		v := naming.View{Service: name, Endpoints: []naming.Endpoint{endpoint("10.0.0.1:80", "")}, Status: naming.Status{Synced: true}}
		b.apply(live.Update{View: v, First: true, Changes: live.Diff(naming.View{}, v)}, begin)
	}
	if r := b.row("old"); r.Churn(begin) != 0 || !r.Changed.IsZero() {
		t.Errorf("old: churn %d, changed %v", r.Churn(begin), r.Changed)
	}
	if r := b.row("new"); r.Churn(begin) != 1 || r.Changed != begin {
		t.Errorf("new: churn %d, changed %v", r.Churn(begin), r.Changed)
	}
}

// An endpoint that is held is in the table until it comes back or its time is up.
func TestHeld(t *testing.T) {
	e := endpoint("10.0.0.1:80", "")
	held := func(v *naming.View) { v.Endpoints, v.Held = nil, []naming.Endpoint{e} }
	b := newBench(t, Options{Endpoints: true})
	b.put("a", set(e))
	b.after(time.Second)
	b.put("a", held)
	b.want("1 held", "10.0.0.1:80  held")
	b.after(time.Hour)
	b.want("10.0.0.1:80  held", "60m")
	b.put("a", func(v *naming.View) { v.Endpoints, v.Held = []naming.Endpoint{e}, nil })
	b.want("10.0.0.1:80  serving, added")
	b.put("a", held)
	b.put("a", func(v *naming.View) { v.Held = nil })
	b.wantNot("10.0.0.1:80")
	b.want("no endpoints")
}
