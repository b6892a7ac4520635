package bridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
	"github.com/naming-go/naming/migrate/bridge"
)

// Plan says what a Bridge would do, and writes nothing.
func TestPlan(t *testing.T) {
	inWorld(t, func(w *world) {
		w.three("web")
		_, stop := w.start(w.old, w.next, options())
		settle(time.Second)
		stop()
		w.delete(w.old, "web", "1", "2")
		w.put(w.old, "web", endpoint("4"), naming.Endpoint{ID: "3", Addr: "moved:1"})
		own := endpoint("5")
		w.put(w.next, "web", own)
		w.put(w.old, "web", own)
		tap := newTap(w.T, &limited{Store: w.next, refuse: "6"})
		w.put(w.old, "db", endpoint("6"))
		b, err := bridge.New(w.old, tapped{tap, &limited{refuse: "6"}}, options())
		if err != nil {
			w.Fatal(err)
		}
		p, err := b.Plan(w.Context())
		if err != nil {
			w.Fatal(err)
		}
		got := ""
		for _, x := range p.Puts {
			got += fmt.Sprint(" +", x.Service, x.Endpoint.ID, x.Endpoint.Addr)
		}
		for _, x := range p.Deletes {
			got += fmt.Sprint(" -", x.Service, x.ID, x.Addr, x.Counts)
		}
		for _, x := range p.Losses {
			got += fmt.Sprint(" !", x.Service, x.Endpoint.ID, x.Err != nil)
		}
		want := " +web~old~3moved:1 +web~old~410.0.0.4:80 -web~old~110.0.0.1:80true -web~old~210.0.0.2:80true !db6true"
		if got != want || !p.Blown || len(p.Digest) != 16 {
			w.Errorf("the plan is\n%q, blown %v, digest %q, want\n%q", got, p.Blown, p.Digest, want)
		}
		if n := tap.count("Apply") + tap.count("Grant"); n != 0 {
			w.Errorf("%d writes", n)
		}
		w.old.Down(errors.New("down"))
		if p, err := b.Plan(w.Context()); err == nil {
			w.Errorf("without the source: %+v", p)
		}
	})
}

// The digest depends on the deletions that count, and not on their order.
func TestDigest(t *testing.T) {
	inWorld(t, func(w *world) {
		digests := make(map[string]bool)
		for range 5 {
			w.next.Wipe()
			for _, service := range []string{"a", "b"} {
				for _, id := range []string{"1", "2", "3"} {
					e := endpoint(id)
					e.ID = migrate.CopyID("old", id)
					w.put(w.next, service, e)
				}
			}
			b, err := bridge.New(w.old, w.next, options())
			if err != nil {
				w.Fatal(err)
			}
			p, err := b.Plan(w.Context())
			if err != nil || !p.Blown || len(p.Deletes) != 6 {
				w.Fatalf("%+v, %v", p, err)
			}
			digests[p.Digest] = true
		}
		if len(digests) != 1 {
			w.Errorf("digests %v", digests)
		}
	})
}

// Sweep removes the copies whose endpoints the target has by itself, and needs an approval
// for the others.
func TestSweep(t *testing.T) {
	inWorld(t, func(w *world) {
		w.three("web")
		w.three("db")
		foreign := naming.Endpoint{ID: migrate.CopyID("old", "9"), Addr: "h:9"}
		foreign.Metadata, _ = migrate.AddMark(json.RawMessage(`{}`), migrate.Mark{Origin: "old", Bridge: "other", Epoch: 1})
		w.put(w.next, "web", foreign)
		b, stop := w.start(w.old, newTap(w.T, w.next), options())
		settle(time.Second)
		if _, err := b.Sweep(w.Context(), ""); !errors.Is(err, naming.ErrInvalid) {
			w.Errorf("Sweep of a Bridge that runs: %v", err)
		}
		other, err := bridge.New(w.old, newTap(w.T, w.next), options())
		if err != nil {
			w.Fatal(err)
		}
		short, cancel := context.WithTimeout(w.Context(), time.Minute)
		defer cancel()
		if _, err := other.Sweep(short, ""); !errors.Is(err, context.DeadlineExceeded) {
			w.Errorf("Sweep while a Bridge runs: %v", err)
		}
		stop()
		w.put(w.next, "web", endpoint("1"), endpoint("2"), endpoint("3"))
		p, err := b.Sweep(w.Context(), "")
		if err != nil || !p.Blown || len(p.Deletes) != 3 || p.Deletes[0].Service != "db" {
			w.Fatalf("Sweep = %+v, %v", p, err)
		}
		w.want(w.next, "web", "1 2 3 ~old~9")
		w.want(w.next, "db", "~old~1 ~old~2 ~old~3")
		if again, err := b.Sweep(w.Context(), "0"); err != nil || !again.Blown || again.Digest != p.Digest {
			w.Errorf("Sweep with another digest = %+v, %v", again, err)
		}
		w.want(w.next, "db", "~old~1 ~old~2 ~old~3")
		if again, err := b.Sweep(w.Context(), p.Digest); err != nil || again.Blown || len(again.Deletes) != 0 {
			w.Errorf("Sweep with the digest = %+v, %v", again, err)
		}
		w.want(w.next, "db", "")
		w.want(w.next, bridge.Service, "")
	})
}
