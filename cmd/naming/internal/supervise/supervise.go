// Package supervise runs a program and keeps it registered while it is healthy.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"time"

	"github.com/naming-go/naming"
)

// The exit statuses of Run where no program ran, as those of a shell (POSIX, Shell Command
// Language, 2.8.2).
const (
	StatusNotExecutable = 126
	StatusNotFound      = 127
	statusSignal        = 128 // and the number of the signal that killed the program
)

// Options says what to run and how to register it.
type Options struct {
	// Command is the program and its arguments.
	Command []string
	// Service and Endpoint are what is registered.
	Service  string
	Endpoint naming.Endpoint
	Register naming.RegisterOptions
	// Check asks the program whether it is healthy, and returns why not. Nil means that a
	// program that runs is healthy.
	Check func(context.Context) error
	// Every is the time between two checks, and the bound of one check.
	Every time.Duration
	// Failures is how many checks in a row must fail before a healthy program counts as
	// unhealthy.
	Failures int
	// Grace is how long the program has after the signal to stop. It is killed then.
	Grace time.Duration
	// Signals are the signals that this process gets.
	Signals <-chan os.Signal
	// Logger says what happens.
	Logger *slog.Logger
}

// Run starts a program and registers its endpoint while the program is healthy:
//
//   - When a check succeeds, the endpoint is registered.
//   - When Failures checks in a row fail, the endpoint is removed at once. It is
//     registered again when a check succeeds.
//   - When a signal to stop comes, or ctx is done, the endpoint is drained and removed first.
//     Then the program gets the signal. A second signal to stop is passed on at once.
//   - Other signals are passed on.
//   - When the program ends, the endpoint is removed at once, without the draining mark: no
//     program can serve it.
//
// A registry that is down does not affect the program. The result is the exit status of the
// program, or 128 and the number of the signal that killed it.
func Run(ctx context.Context, c *naming.Client, opts Options) (status int, err error) {
	p, status, err := start(opts.Command)
	if err != nil {
		return status, err
	}
	s := &supervisor{opts: opts, client: c, process: p, checks: make(chan error)}
	return s.run(ctx), nil
}

// supervisor is one call of Run. All fields are used by its goroutine only.
type supervisor struct {
	opts    Options
	client  *naming.Client
	process *process

	registration *naming.Registration // nil: the program is not healthy
	failed       int                  // checks in a row
	checks       chan error           // the result of the check that runs
	stopping     os.Signal            // nil: the program may run on
	drained      chan struct{}        // closed when the endpoint is removed in order
	killTimer    <-chan time.Time
}

func (s *supervisor) run(ctx context.Context) int {
	checkCtx, endChecks := context.WithCancel(context.Background())
	checked := make(chan struct{})
	go func() {
		defer close(checked)
		s.check(checkCtx)
	}()
	defer func() { endChecks(); <-checked }()
	for done := ctx.Done(); ; {
		select {
		case <-s.process.done:
			s.withdraw()
			return s.process.status
		case err := <-s.checks:
			s.observe(err)
		case sig := <-s.opts.Signals:
			s.signal(sig)
		case <-done:
			done = nil
			s.signal(stopSignal)
		case <-s.drained:
			s.drained = nil
			s.stopProgram(s.stopping)
		case <-s.killTimer:
			s.opts.Logger.Warn("the program did not stop in time and is killed", "grace", s.opts.Grace)
			s.process.kill()
		}
	}
}

// check asks the program again and again, and sends the answers to s.checks.
func (s *supervisor) check(ctx context.Context) {
	ticker := time.NewTicker(s.opts.Every)
	defer ticker.Stop()
	for {
		var err error
		if s.opts.Check != nil {
			one, cancel := context.WithTimeout(ctx, s.opts.Every)
			err = s.opts.Check(one)
			cancel()
		}
		select {
		case s.checks <- err:
		case <-ctx.Done():
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// observe registers or removes the endpoint after a check.
func (s *supervisor) observe(err error) {
	if s.stopping != nil {
		return
	}
	if err != nil {
		s.failed++
		if s.registration != nil && s.failed >= s.opts.Failures {
			s.opts.Logger.Warn("the program is not healthy: its endpoint is removed", "error", naming.SafeError(err))
			s.withdraw()
		}
		return
	}
	s.failed = 0
	if s.registration != nil {
		return
	}
	g, err := s.client.Register(context.Background(), s.opts.Service, s.opts.Endpoint, &s.opts.Register)
	if err != nil {
		s.opts.Logger.Error("the endpoint cannot be registered", "error", naming.SafeError(err))
		return
	}
	s.registration = g
}

// withdraw removes the endpoint at once.
func (s *supervisor) withdraw() {
	g := s.registration
	if g == nil {
		return
	}
	s.registration = nil
	ctx, cancel := context.WithTimeout(context.Background(), withdrawTimeout)
	defer cancel()
	if err := g.Withdraw(ctx); err != nil {
		s.opts.Logger.Warn("the endpoint stays listed until its lease ends", "error", naming.SafeError(err))
	}
}

// withdrawTimeout bounds the removal of an endpoint that nobody serves.
const withdrawTimeout = 3 * time.Second

// signal passes a signal on, or begins to stop.
func (s *supervisor) signal(sig os.Signal) {
	switch {
	case !isStop(sig):
		s.process.signal(sig)
	case s.stopping != nil:
		s.stopProgram(sig) // a second time: at once
	default:
		s.stopping = sig
		s.drain()
	}
}

// drain closes the registration in the background: clients go elsewhere before the program
// stops.
func (s *supervisor) drain() {
	s.drained = make(chan struct{})
	g, drained := s.registration, s.drained
	if g == nil {
		close(drained)
		return
	}
	go func() {
		defer close(drained)
		if err := g.Close(); err != nil {
			s.opts.Logger.Warn("the endpoint stays listed until its lease ends", "error", naming.SafeError(err))
		}
	}()
}

func (s *supervisor) stopProgram(sig os.Signal) {
	s.process.signal(sig)
	if s.killTimer == nil {
		s.killTimer = time.After(s.opts.Grace)
	}
}

// start starts a program. An error comes with an exit status.
func start(command []string) (*process, int, error) {
	path, err := exec.LookPath(command[0])
	switch {
	case err == nil:
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist):
		return nil, StatusNotFound, fmt.Errorf("no program %q", command[0])
	default:
		return nil, StatusNotExecutable, err
	}
	p, err := startProcess(path, command)
	if err != nil {
		return nil, StatusNotExecutable, err
	}
	return p, 0, nil
}
