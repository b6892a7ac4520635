package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
)

// story is what happens to some servers, their registry and their client.
type story struct {
	store   naming.Store
	client  *naming.Client
	screen  *screen
	step    time.Duration
	traffic *traffic

	mu      sync.Mutex
	servers []*server   // all that there ever were
	view    naming.View // what the registry says
}

// tell tells the story, and returns when everything has stopped.
func (s *story) tell(ctx context.Context) error {
	background, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { s.watch(background) })
	running.Go(func() { s.screen.show(background, s.table) })

	// The first three are there before the first call.
	defer s.stopAll()
	for _, name := range []string{"alpha", "beta", "gamma"} {
		if err := s.start(ctx, name); err != nil {
			return err
		}
	}
	// The registry has them; now the client knows it, too.
	if err := s.ready(3)(ctx); err != nil {
		return err
	}
	conn, err := dial(s.client)
	if err != nil {
		return err
	}
	defer conn.Close()
	calls, stopCalls := context.WithCancel(context.Background())
	var calling sync.WaitGroup
	calling.Go(func() { s.traffic.run(calls, conn) })
	defer calling.Wait()
	defer stopCalls()

	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"alpha, beta and gamma serve", func(context.Context) error { return nil }},
		{"alpha leaves", s.leave("alpha")},
		{"delta joins", func(ctx context.Context) error { return s.start(ctx, "delta") }},
		{"the registry goes down and loses all it had", s.lose},
		{"the registry is back, empty", s.find},
	} {
		s.screen.line("* " + step.name)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		if err := s.pause(ctx); err != nil {
			return err
		}
		s.screen.line(s.summary())
	}
	s.screen.line("* the calls end, and the servers leave")
	stopCalls()
	calling.Wait()
	s.stopAll()
	return nil
}

// start adds a server.
func (s *story) start(ctx context.Context, name string) error {
	started, err := startServer(ctx, s.client, name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.servers = append(s.servers, started)
	return nil
}

// leave returns a step in which a server leaves.
func (s *story) leave(name string) func(context.Context) error {
	return func(context.Context) error {
		for _, server := range s.servers {
			if server.name == name {
				return server.stop()
			}
		}
		return nil
	}
}

// lose takes the registry away, if that is in our hands.
func (s *story) lose(context.Context) error {
	m, ok := s.store.(*memory.Store)
	if !ok {
		s.screen.line("(left out: this registry is not ours to stop; stop it yourself, if you like)")
		return nil
	}
	m.Down(errors.New("connection refused"))
	m.Wipe()
	return nil
}

// find gives the registry back. The servers announce themselves again.
func (s *story) find(ctx context.Context) error {
	if m, ok := s.store.(*memory.Store); ok {
		m.Up()
	}
	return s.ready(3)(ctx)
}

// ready returns a step that waits until the registry vouches for n servers or
// more.
func (s *story) ready(n int) func(context.Context) error {
	return func(ctx context.Context) error {
		for view, err := range s.client.Watch(ctx, service) {
			if err != nil {
				return err
			}
			if !view.Stale() && len(view.Endpoints) >= n && len(view.Held) == 0 {
				break
			}
		}
		return nil
	}
}

// pause lets the calls go on for a while.
func (s *story) pause(ctx context.Context) error {
	select {
	case <-time.After(s.step):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stopAll stops the servers that are left.
func (s *story) stopAll() {
	var stopping sync.WaitGroup
	for _, server := range s.servers {
		stopping.Go(func() { _ = server.stop() }) // a second time does no harm
	}
	stopping.Wait()
}

// watch keeps the view up to date.
func (s *story) watch(ctx context.Context) {
	for view, err := range s.client.Watch(ctx, service) {
		if err != nil {
			return // ctx is done
		}
		s.mu.Lock()
		s.view = view
		s.mu.Unlock()
	}
}

// summary is the table in one line.
func (s *story) summary() string {
	var b strings.Builder
	for _, row := range s.rows() {
		fmt.Fprintf(&b, "  %s %d", row.server, row.calls)
	}
	failed, _ := s.traffic.failed()
	return fmt.Sprintf("  calls:%s, failed: %d; the registry is %s", b.String(), failed, s.registryState())
}

// table is how everything stands, for the screen.
func (s *story) table() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "server\taddress\tin the registry\tcalls")
	for _, row := range s.rows() {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\n", row.server, row.addr, row.entry, row.calls)
	}
	_ = w.Flush() // to memory
	failed, _ := s.traffic.failed()
	fmt.Fprintf(&b, "failed calls: %d; the registry is %s\n", failed, s.registryState())
	return b.String()
}

// result is how everything ended.
func (s *story) result() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "\nserver\taddress\tcalls")
	for _, row := range s.rows() {
		fmt.Fprintf(w, "%s\t%s\t%d\n", row.server, row.addr, row.calls)
	}
	_ = w.Flush() // to memory
	failed, err := s.traffic.failed()
	if err != nil {
		fmt.Fprintf(&b, "the first call that failed: %v\n", err)
	}
	fmt.Fprintf(&b, "failed calls: %d\n", failed)
	return b.String()
}

type row struct {
	server, addr, entry string
	calls               int
}

// rows are what the registry says of each server, and how often it was called.
func (s *story) rows() []row {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries := make(map[string]string)
	for _, e := range s.view.Held {
		entries[e.Addr] = "held"
	}
	for _, e := range s.view.Endpoints {
		entries[e.Addr] = "listed"
		if e.Info().Draining {
			entries[e.Addr] = "draining"
		}
	}
	calls := s.traffic.count()
	var rows []row
	for _, server := range s.servers {
		entry := entries[server.addr]
		if entry == "" {
			entry = "-"
		}
		rows = append(rows, row{server.name, server.addr, entry, calls[server.addr]})
		delete(calls, server.addr)
	}
	// Servers of somebody else, in a registry that is not ours alone.
	for _, addr := range slices.Sorted(maps.Keys(calls)) {
		rows = append(rows, row{"?", addr, entries[addr], calls[addr]})
	}
	return rows
}

func (s *story) registryState() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view.Stale() {
		return fmt.Sprintf("not there: %v", s.view.Err)
	}
	return "there"
}
