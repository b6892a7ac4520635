package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/examples/internal/demo"
	"github.com/naming-go/naming/migrate"
)

// step is one change of the phase.
type step struct {
	phase migrate.Phase
	share float64 // of the clients that prefer the new registry in PreferNew
	note  string
	reads string // which registries the clients read at the end of the step
}

// steps goes through all phases, goes back from NewRead, and ends where it began. Phases
// may be skipped, in both directions.
var steps = []step{
	{phase: migrate.Old, reads: "4 old"},
	{phase: migrate.DualWrite, reads: "4 old"},
	{phase: migrate.Shadow, reads: "4 old"},
	{phase: migrate.Union, reads: "4 both"},
	{phase: migrate.PreferNew, share: 0.25, note: " 25 %", reads: "3 both, 1 new"},
	{phase: migrate.PreferNew, share: 1, note: " 100 %", reads: "4 new"},
	{phase: migrate.NewRead, reads: "4 new"},
	{phase: migrate.Shadow, note: ", back", reads: "4 old"},
	{phase: migrate.NewRead, note: ", again", reads: "4 new"},
	{phase: migrate.NewWrite, reads: "4 new"},
	{phase: migrate.Done, reads: "4 new"},
	{phase: migrate.NewRead, note: ", back", reads: "4 new"},
	{phase: migrate.Union, note: ", back", reads: "4 both"},
	{phase: migrate.Old, note: ", back", reads: "4 old"},
}

// registered returns how many of n servers the old registry and the new one have.
func (s step) registered(n int) [2]int {
	switch {
	case s.phase == migrate.Old:
		return [2]int{n, 0}
	case s.phase >= migrate.NewWrite:
		return [2]int{0, n}
	}
	return [2]int{n, n}
}

// story is what happens to some servers, some clients, and their two registries.
type story struct {
	config   configuration // set once, by newStory
	screen   *demo.Screen
	pause    time.Duration
	accepted atomic.Int64 // connections that the servers accepted

	mu      sync.Mutex
	servers []*server // the servers that run; guarded by mu
	clients []*client // guarded by mu
	listed  [2]int    // how many endpoints each registry has; guarded by mu
	row     row       // what the present step has done before; guarded by mu
}

func newStory(screen *demo.Screen, logger *slog.Logger, pause time.Duration) *story {
	return &story{
		config: configuration{old: new(memory.Store), next: new(memory.Store), logger: logger},
		screen: screen, pause: pause,
	}
}

// run plays the story. It returns when everything has stopped.
func (s *story) run(ctx context.Context) error {
	background, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	for i, store := range []naming.Store{s.config.old, s.config.next} {
		running.Go(func() { s.watch(background, i, store) })
	}
	defer s.stopAll()
	if err := s.start(ctx); err != nil {
		return err
	}
	calls, stopCalls := context.WithCancel(context.Background())
	var calling sync.WaitGroup
	for _, c := range s.clientList() {
		calling.Go(func() { c.traffic.Run(calls, c.conn, 1) })
	}
	defer calling.Wait()
	defer stopCalls()

	s.screen.Line(header)
	drawn, stopDrawing := context.WithCancel(background)
	defer stopDrawing()
	running.Go(func() { s.screen.Show(drawn, s.table) })
	for _, next := range steps {
		if err := s.play(ctx, next); err != nil {
			return fmt.Errorf("phase %v: %w", next.phase, err)
		}
	}
	return nil
}

// start starts the servers, and then the clients.
func (s *story) start(ctx context.Context) error {
	if err := s.setPhase(ctx, steps[0]); err != nil {
		return err
	}
	for _, name := range []string{"alpha", "beta", "gamma"} {
		if err := s.startServer(ctx, name); err != nil {
			return err
		}
	}
	for i := range 4 {
		c, err := startClient(&s.config, fmt.Sprintf("reader-%d", i+1))
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.clients = append(s.clients, c)
		s.mu.Unlock()
		c.conn.Connect()
	}
	return until(ctx, "the clients are connected", func() bool { return s.accepted.Load() == 12 })
}

// play changes the phase, and then restarts all servers, while calls are made.
func (s *story) play(ctx context.Context, next step) error {
	s.begin(next)
	if err := s.setPhase(ctx, next); err != nil {
		return err
	}
	if err := s.settled(ctx, next); err != nil {
		return err
	}
	if err := sleep(ctx, s.pause/2); err != nil {
		return err
	}
	s.beginRestarts()
	for _, server := range s.serverList() {
		if err := s.restart(ctx, server); err != nil {
			return err
		}
	}
	if err := sleep(ctx, s.pause/2); err != nil {
		return err
	}
	if err := s.settled(ctx, next); err != nil {
		return err
	}
	s.screen.Line(s.present().String())
	return nil
}

// setPhase writes the phase to both registries. The programs watch that record.
func (s *story) setPhase(ctx context.Context, next step) error {
	state := migrate.State{Phase: next.phase, Share: next.share, By: "the story"}
	_, err := migrate.WriteRecord(ctx, s.config.old, s.config.next, service, state)
	return err
}

// settled waits until the registries have the servers that the phase says, the clients
// read what it says, and each client has called each server.
func (s *story) settled(ctx context.Context, now step) error {
	servers := s.serverList()
	want := now.registered(len(servers))
	what := fmt.Sprintf("the registries have %d and %d servers, the clients read %s, and each client has called each server", want[0], want[1], now.reads)
	return until(ctx, what, func() bool {
		is := s.present()
		return is.listed == want && is.reads == now.reads && s.allCalled(servers)
	})
}

// allCalled reports whether each client has called each server.
func (s *story) allCalled(servers []*server) bool {
	for _, c := range s.clientList() {
		calls := c.traffic.Count()
		if slices.ContainsFunc(servers, func(s *server) bool { return calls[s.addr] == 0 }) {
			return false
		}
	}
	return true
}

// restart stops a server in order, and starts it again at another address.
func (s *story) restart(ctx context.Context, old *server) error {
	if err := old.stop(); err != nil {
		return err
	}
	s.mu.Lock()
	s.servers = slices.DeleteFunc(s.servers, func(x *server) bool { return x == old })
	s.mu.Unlock()
	return s.startServer(ctx, old.name)
}

func (s *story) startServer(ctx context.Context, name string) error {
	started, err := startServer(ctx, &s.config, name, &s.accepted)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.servers = append(s.servers, started)
	return nil
}

// stopAll stops the servers and clients that still run.
func (s *story) stopAll() {
	for _, c := range s.clientList() {
		c.stop()
	}
	var stopping sync.WaitGroup
	for _, server := range s.serverList() {
		stopping.Go(func() { _ = server.stop() }) // nobody calls the server
	}
	stopping.Wait()
}

func (s *story) serverList() []*server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.servers)
}

func (s *story) clientList() []*client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.clients)
}

// watch counts the endpoints of one registry until ctx is done. It knows nothing of the
// migration.
func (s *story) watch(ctx context.Context, i int, store naming.Store) {
	c := naming.New(store, &naming.Options{Logger: s.config.logger, Hold: naming.Hold{Disabled: true}})
	defer c.Close()
	for view, err := range c.Watch(ctx, service) {
		if err != nil {
			return // ctx is done
		}
		s.mu.Lock()
		s.listed[i] = len(view.Endpoints)
		s.mu.Unlock()
	}
}

// until waits until done reports true. what says what is waited for.
func until(ctx context.Context, what string, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for !done() {
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("waiting until %s: %w", what, err)
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
