package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

// configuration is what each program knows before it starts.
type configuration struct {
	old, next naming.Store
	logger    *slog.Logger
}

// program is what a server and a client have in common: a Client on two registries, and
// where it reads the phase of the migration.
type program struct {
	joined *migrate.Joined
	phases migrate.Source
}

// join returns the Client of a program, which closes it. A program that uses one
// registry has naming.New(store, nil) in this place, and is otherwise the same.
func (c *configuration) join(name string) (*program, error) {
	phases, err := migrate.Records(c.old, c.next, &migrate.RecordsOptions{Logger: c.logger})
	if err != nil {
		return nil, err
	}
	joined, err := migrate.Join(c.old, c.next, phases, &migrate.Options{
		Client: naming.Options{Logger: c.logger},
		// The same clients prefer the new registry in each run of this story.
		ClientID: name,
		// Registries in memory need no longer. The default is five seconds.
		LeaveDelay: 300 * time.Millisecond,
	})
	if err != nil {
		phases.Close()
		return nil, err
	}
	return &program{joined: joined, phases: phases}, nil
}

// awaitPhase waits until the program knows the phase.
func (p *program) awaitPhase(ctx context.Context) error {
	return until(ctx, "the phase is known", func() bool {
		_, known := p.phases.State(service)
		return known
	})
}

func (p *program) close() {
	p.joined.Close()
	p.phases.Close()
}
