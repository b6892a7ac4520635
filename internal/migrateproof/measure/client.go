package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/migrate"
)

// sort is a sort of Client.
type sort struct {
	name   string
	joined bool
}

var sorts = []sort{{"plain", false}, {"joined", true}}

// newClient returns a Client on the first store, or on both.
func (s sort) newClient(stores []*memory.Store) *naming.Client {
	opts := naming.Options{Logger: slog.New(slog.DiscardHandler), IdleGrace: -1}
	if !s.joined {
		return naming.New(stores[0], &opts)
	}
	j, err := migrate.Join(stores[0], stores[1], migrate.Fixed(migrate.State{Phase: migrate.Union}), &migrate.Options{Client: opts})
	if err != nil {
		panic(err) // the arguments are constant
	}
	return j.Client
}

// stores returns the registries that a sort reads.
func (s sort) stores() []*memory.Store {
	list := []*memory.Store{new(memory.Store)}
	if s.joined {
		list = append(list, new(memory.Store))
	}
	return list
}

// put puts an endpoint into all stores.
func put(stores []*memory.Store, service string, e naming.Endpoint) {
	for _, s := range stores {
		if err := s.Apply(context.Background(), service, naming.Change{Endpoint: e}); err != nil {
			panic(err) // the store is up
		}
	}
}

// measureFresh returns a table of the time from the end of an outage until readers have
// what changed meanwhile. The readers retry as gRPC does whose connections break.
func measureFresh() string {
	const clients, outage = 50, 10 * time.Second
	var rows []row
	for _, s := range sorts {
		stores := s.stores()
		put(stores, "svc", naming.Endpoint{Addr: "10.0.0.1:1"})
		var list []*naming.Client
		var followers []*naming.Follower
		for range clients {
			c := s.newClient(stores)
			f, err := c.Follow("svc", func() {})
			if err != nil {
				panic(err) // the service's name is valid
			}
			list, followers = append(list, c), append(followers, f)
		}
		time.Sleep(time.Second)
		for _, store := range stores {
			store.Down(errors.New("down"))
		}
		time.Sleep(outage)
		for _, store := range stores {
			store.Up()
		}
		put(stores, "svc", naming.Endpoint{Addr: "10.0.0.2:1"})
		took := awaitChange(followers)
		slices.Sort(took)
		rows = append(rows, row{s.name, []float64{mean(took).Seconds(), took[len(took)-1].Seconds()}})
		for _, c := range list {
			c.Close()
		}
	}
	return table(fmt.Sprintf("seconds until fresh after %v, %d readers", outage, clients), []string{"mean", "worst"}, rows)
}

// awaitChange returns how long each follower takes until it has two endpoints.
func awaitChange(followers []*naming.Follower) (took []time.Duration) {
	start := time.Now()
	waiting := slices.Clone(followers)
	for len(waiting) > 0 {
		waiting = slices.DeleteFunc(waiting, func(f *naming.Follower) bool {
			if v, _, _ := f.Current(); len(v.Endpoints) == 2 {
				took = append(took, time.Since(start))
				return true
			}
			f.Retry()
			return false
		})
		time.Sleep(time.Millisecond)
	}
	return took
}

func mean(list []time.Duration) (sum time.Duration) {
	for _, d := range list {
		sum += d
	}
	return sum / time.Duration(len(list))
}

// row is a line of a table: the figures of one sort.
type row struct {
	name    string
	figures []float64
}

// table returns a table, and the ratios of the second row to the first.
func table(title string, columns []string, rows []row) string {
	text := fmt.Sprintf("%s\n%-10s", title, "")
	for _, c := range columns {
		text += fmt.Sprintf("%16s", c)
	}
	ratio := row{name: "ratio"}
	for i := range columns {
		ratio.figures = append(ratio.figures, rows[1].figures[i]/rows[0].figures[i])
	}
	for _, r := range append(rows, ratio) {
		text += fmt.Sprintf("\n%-10s", r.name)
		for _, f := range r.figures {
			text += fmt.Sprintf("%16.2f", f)
		}
	}
	return text + "\n\n"
}
