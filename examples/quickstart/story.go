package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/examples/internal/demo"
)

// story is what happens to some servers, their registry and their client.
type story struct {
	store   *memory.Store
	client  *naming.Client
	screen  *demo.Screen
	step    time.Duration
	traffic *demo.Traffic

	mu      sync.Mutex
	servers []*server   // every server that was started, in this order; guarded by mu
	view    naming.View // the newest view of the registry; guarded by mu
}

// run plays the story. It returns when everything has stopped.
func (s *story) run(ctx context.Context) error {
	background, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { s.watch(background) })
	running.Go(func() { s.screen.Show(background, s.table) })

	// Three servers run before the first call.
	defer s.stopAll()
	for _, name := range []string{"alpha", "beta", "gamma"} {
		if err := s.start(name)(ctx); err != nil {
			return err
		}
	}
	// The registry has the servers now. The client may learn of them later.
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
	calling.Go(func() { s.traffic.Run(calls, conn, 4) })
	defer calling.Wait()
	defer stopCalls()

	if err := s.steps(ctx); err != nil {
		return err
	}
	s.screen.Line("* the calls end, and the servers leave")
	stopCalls()
	calling.Wait()
	s.stopAll()
	return nil
}

// steps makes the steps of the story, while calls are made.
func (s *story) steps(ctx context.Context) error {
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"alpha, beta and gamma serve", func(context.Context) error { return nil }},
		{"alpha leaves", s.leave("alpha")},
		{"delta joins", s.start("delta")},
		{"beta restarts, at another address", s.restart("beta")},
		{"the registry goes down and loses all it had", s.lose},
		{"the registry is back, empty", s.find},
	} {
		s.screen.Line("* " + step.name)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		if err := s.pause(ctx); err != nil {
			return err
		}
		s.screen.Line(s.summary())
	}
	return nil
}

// start returns a step in which a server starts.
func (s *story) start(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		started, err := startServer(ctx, s.client, name)
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.servers = append(s.servers, started)
		return nil
	}
}

// leave returns a step in which a server leaves.
func (s *story) leave(name string) func(context.Context) error {
	return func(context.Context) error {
		for _, server := range s.started() {
			if server.name == name {
				return server.stop()
			}
		}
		return nil
	}
}

// restart returns a step in which a server leaves, and starts again.
func (s *story) restart(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := s.leave(name)(ctx); err != nil {
			return err
		}
		return s.start(name)(ctx)
	}
}

// lose takes the registry away, and what it stored.
func (s *story) lose(context.Context) error {
	s.store.Down(errors.New("connection refused"))
	s.store.Wipe()
	return nil
}

// find gives the registry back. The servers register again by themselves.
func (s *story) find(ctx context.Context) error {
	s.store.Up()
	s.screen.Line("  (the servers register again; the set counts as stale until its new watch has lasted a while)")
	return s.ready(3)(ctx)
}

// ready returns a step that waits until the registry confirms n servers or more.
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

// stopAll stops the servers that still run.
func (s *story) stopAll() {
	var stopping sync.WaitGroup
	for _, server := range s.started() {
		stopping.Go(func() { _ = server.stop() }) // a second stop has no effect
	}
	stopping.Wait()
}

// started returns every server that was started.
func (s *story) started() []*server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.servers)
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
