package doortest

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/resolver"
)

var quiet = &naming.Options{Logger: slog.New(slog.DiscardHandler)}

// city is a framework without a network: its servers are names in a map.
type city struct {
	mu   sync.Mutex
	open map[string]bool // guarded by mu
}

func (c *city) set(addr string, open bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[addr] = open
}

func (c *city) answers(addr string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open[addr]
}

// door announces servers in a store with announce, and calls them in turn.
func (c *city) door(store *memory.Store, announce func(tb testing.TB, cl *naming.Client, service, addr string) (withdraw func())) Door {
	return Door{
		Name: "a door",
		Serve: func(tb testing.TB, _ []string, service, addr string) func() {
			cl := naming.New(store, quiet)
			c.set(addr, true)
			withdraw := announce(tb, cl, service, addr)
			return func() {
				withdraw()
				c.set(addr, false)
				cl.Close()
			}
		},
		Dial: func(tb testing.TB, _ []string, service string) (func(context.Context) (string, error), func()) {
			cl := naming.New(store, quiet)
			ctx, cancel := context.WithCancel(context.Background())
			var mu sync.Mutex
			var set []naming.Endpoint // guarded by mu
			next := 0                 // guarded by mu
			go func() {
				for s := range resolver.NewBuilder(cl, nil).Watch(ctx, service) {
					mu.Lock()
					set = s.Endpoints
					mu.Unlock()
				}
			}()
			return func(context.Context) (string, error) {
				mu.Lock()
				defer mu.Unlock()
				if len(set) == 0 {
					return "", errors.New("no servers")
				}
				next++
				addr := set[next%len(set)].Addr
				if !c.answers(addr) {
					return addr, errors.New("refused")
				}
				return addr, nil
			}, func() { cancel(); cl.Close() }
		},
	}
}

// keep announces a server as this library does.
func keep(tb testing.TB, cl *naming.Client, service, addr string) func() {
	g, err := cl.Register(context.Background(), service, naming.Endpoint{Addr: addr}, nil)
	if err != nil {
		tb.Error(err)
		return func() {}
	}
	return func() { _ = g.Close() }
}

// once announces a server, never again, and leaves it in the registry when it stops.
func once(store naming.Store) func(testing.TB, *naming.Client, string, string) func() {
	return func(tb testing.TB, _ *naming.Client, service, addr string) func() {
		e := naming.Endpoint{ID: addr, Addr: addr}
		if err := store.Apply(context.Background(), service, naming.Change{Endpoint: e}); err != nil {
			tb.Error(err)
		}
		return func() {}
	}
}

// rows plays all scenarios in a bubble: theirs announces its servers once, and
// ours is this library.
func rows(t *testing.T) (rows []Row) {
	synctest.Test(t, func(t *testing.T) {
		store := new(memory.Store)
		c := &city{open: make(map[string]bool)}
		e := &Etcd{
			Down: func(testing.TB) { store.Down(errors.New("down")) },
			Up:   func(testing.TB) { store.Up() },
			Empty: func(testing.TB) {
				store.Wipe()
				store.Up()
			},
		}
		for _, s := range scenarios {
			theirs, ours := play(t, e, s, c.door(store, once(store)), c.door(store, keep), Options{Outage: 20 * time.Second, Rounds: 1, Recovery: 20 * time.Second})
			rows = append(rows, Row{s.name, theirs, ours})
		}
		time.Sleep(2 * time.Hour) // watches end
	})
	return rows
}

// A registration that is lost must differ from one that returns, in the result of each
// scenario.
func TestCompareSeesLosses(t *testing.T) {
	for _, r := range rows(t) {
		if err := r.err(); err != nil {
			t.Error(err)
		}
		lost := r.Theirs.Found < fleetSize
		if want := r.Scenario == "wipe"; lost != want {
			t.Errorf("%s: theirs: %v", r.Scenario, r.Theirs)
		}
		if r.Theirs.Failed == 0 {
			t.Errorf("%s: theirs: %v, although its servers stop unannounced", r.Scenario, r.Theirs)
		}
		turned := Row{r.Scenario, r.Ours, r.Theirs}
		if turned.err() == nil {
			t.Errorf("%s: a loss of ours is not an error: %v", r.Scenario, r.Theirs)
		}
	}
	if (Row{Ours: Result{Calls: 1, Found: fleetSize}}).err() == nil {
		t.Error("a scenario without calls is not an error")
	}
}

func TestSection(t *testing.T) {
	page := "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n"
	before, table, after, err := section(page, "x")
	if err != nil || table != "old\n" || before+table+after != page {
		t.Errorf("%q %q %q %v", before, table, after, err)
	}
	if _, _, _, err := section(page, "y"); err == nil {
		t.Error("a section that is missing is not an error")
	}
	r := Result{Calls: 7, Failed: 2, Found: 1}
	if got := Table("a", "b", []Row{{"s", r, Result{Found: 3}}}); !strings.Contains(got, "| s | 2 of 7 calls failed, 1 of 3 servers found afterwards | 0 failed |\n") {
		t.Error(got)
	}
}
