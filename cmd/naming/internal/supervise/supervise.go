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
	"github.com/naming-go/naming/backend/memory"
)

// The exit statuses of Run where no program ran. StatusInvalid is that of a wrong argument. The
// others are those of a shell (POSIX, Shell Command Language, 2.8.2).
const (
	StatusInvalid       = 2
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
	// Foreground gives the terminal to the program, if the input is a terminal: its keys, and
	// Ctrl-C at once. Otherwise the input of the program is empty if it would be a terminal.
	Foreground bool
	// Signals are the signals that this process gets.
	Signals <-chan os.Signal
	// Logger says what happens.
	Logger *slog.Logger
}

// Run starts a program and registers its endpoint while the program is healthy:
//
//   - When a check succeeds, the endpoint is registered.
//   - When Failures checks in a row fail, the endpoint is removed at once. It is
//     registered again when a check succeeds. The Logger gets the reason once, also if
//     the program was not healthy yet.
//   - When a signal has paused the program (SIGSTOP, SIGTSTP), the endpoint is removed at once.
//     It is registered again when the program goes on and a check succeeds.
//   - When a signal to stop comes, or ctx is done, the endpoint is drained and removed first.
//     Then the program gets the signal. A second signal to stop is passed on at once. A
//     program that has not ended after Grace is killed, with its process group.
//   - Other signals are passed on. SIGTSTP pauses the program and then this process.
//   - When the program ends, the endpoint is removed at once, without the draining mark: no
//     program can serve it. Processes that the program leaves in its process group get
//     SIGTERM. A program that goes to the background by a fork counts as ended.
//
// A registry that is down does not affect the program, but for the time that the removal of
// the endpoint may take: up to Register.DrainDelay and five seconds before a stop, and up to
// three seconds after the end of the program.
//
// On Linux the program is killed if this process is killed. As process 1 of a container, and
// as a subreaper, Run reaps orphans while the program runs. It then reaps all children of this
// process, so that nothing else may wait for one.
//
// The result is the exit status of the program, or 128 and the number of the signal that
// killed it. An error comes with a status of a program that did not start, and is
// [naming.ErrInvalid] for an endpoint that can never be registered.
func Run(ctx context.Context, c *naming.Client, opts Options) (status int, err error) {
	if err := rehearse(ctx, opts); err != nil {
		return StatusInvalid, err
	}
	t := newTerminal(opts.Foreground)
	p, status, err := start(opts.Command, t)
	if err != nil {
		return status, err
	}
	s := &supervisor{opts: opts, client: c, process: p, terminal: t, checks: make(chan error)}
	defer t.take(p.pid)
	return s.run(ctx), nil
}

// rehearse returns the error of an endpoint that no registry can have. Otherwise the first sign
// of a wrong option would be an error of each registration of a program that runs.
func rehearse(ctx context.Context, opts Options) error {
	c := naming.New(new(memory.Store), &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	defer c.Close()
	g, err := c.Register(ctx, opts.Service, opts.Endpoint, &opts.Register)
	if err != nil {
		return err
	}
	return g.Withdraw(ctx)
}

// supervisor is one call of Run. All fields are used by its goroutine only.
type supervisor struct {
	opts     Options
	client   *naming.Client
	process  *process
	terminal *terminal

	registration *naming.Registration // nil: the program is not healthy
	failed       int                  // checks in a row
	checks       chan error           // the result of the check that runs
	paused       bool                 // a signal has stopped the program
	stopping     os.Signal            // nil: the program may run on
	drained      chan struct{}        // not nil until the endpoint is removed in order; then closed
	withdrawn    chan struct{}        // not nil until the endpoint is removed at once; then closed
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
			s.finish()
			return s.process.status
		case paused := <-s.process.paused:
			s.pause(paused)
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
		case <-s.withdrawn:
			s.withdrawn = nil
		case <-s.killTimer:
			s.opts.Logger.Warn("the program did not stop in time and is killed", "grace", s.opts.Grace)
			s.process.kill()
		}
	}
}

// finish removes the endpoint of a program that has ended.
func (s *supervisor) finish() {
	s.withdraw()
	for _, removed := range []chan struct{}{s.drained, s.withdrawn} {
		if removed != nil {
			<-removed
		}
	}
}

// pause removes the endpoint of a program that a signal has stopped. A program that has the
// terminal is stopped from the terminal: then this process has to stop as well, or the shell
// would not get the terminal back.
func (s *supervisor) pause(paused bool) {
	if s.paused = paused; !paused {
		return
	}
	s.opts.Logger.Info("the program is paused: its endpoint is removed")
	s.withdraw()
	if s.terminal.owned() {
		s.terminal.take(s.process.pid)
		s.pauseBoth()
	}
}

// pauseBoth stops this process until somebody has it go on. That is a signal, which reaches
// the program by way of signal. pauseBoth may return before this process stops: the kernel
// stops the threads one after the other.
func (s *supervisor) pauseBoth() {
	if s.withdrawn != nil {
		<-s.withdrawn // a process that is stopped withdraws nothing
		s.withdrawn = nil
	}
	pauseSelf()
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
	if s.stopping != nil || s.paused {
		return
	}
	if err != nil {
		if s.failed++; s.failed == s.opts.Failures {
			s.opts.Logger.Warn("the program is not healthy: its endpoint is not registered", "error", naming.SafeError(err))
			s.withdraw()
		}
		return
	}
	s.failed = 0
	if s.registration != nil || s.withdrawn != nil {
		return
	}
	g, err := s.client.Register(context.Background(), s.opts.Service, s.opts.Endpoint, &s.opts.Register)
	if err != nil {
		s.opts.Logger.Error("the endpoint cannot be registered", "error", naming.SafeError(err))
		return
	}
	s.registration = g
}

// The bounds of calls of the registry.
const (
	withdrawTimeout = 3 * time.Second // an endpoint that nobody serves
	drainTimeout    = 5 * time.Second // an endpoint that somebody serves; besides the time for clients
)

// withdraw removes the endpoint at once, in the background: a registry that is down must not
// delay signals.
func (s *supervisor) withdraw() {
	g := s.registration
	if g == nil {
		return
	}
	withdrawn := make(chan struct{})
	s.registration, s.withdrawn = nil, withdrawn
	go func() {
		defer close(withdrawn)
		remove(g, withdrawTimeout)
	}()
}

// remove removes an endpoint at once, and reports whether it is removed. The Client logs an
// endpoint that stays until its lease ends.
func remove(g *naming.Registration, timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return g.Withdraw(ctx) == nil
}

// signal passes a signal on, or begins to stop.
func (s *supervisor) signal(sig os.Signal) {
	switch {
	case isSuspend(sig):
		s.process.signal(sig)
		if !s.terminal.owned() { // otherwise pause follows
			s.withdraw()
			s.pauseBoth()
		}
	case sig == contSignal:
		s.terminal.give(s.process.pid) // first: a program that reads would be stopped again
		s.process.signal(sig)
	case !isStop(sig):
		s.process.signal(sig)
	case s.stopping != nil:
		s.stopProgram(sig) // a second time: at once
	default:
		s.stopping = sig
		s.drain()
	}
}

// drain removes the endpoint in the background, in the order that drops no call: clients go
// elsewhere before the program stops.
func (s *supervisor) drain() {
	drained, g := make(chan struct{}), s.registration
	s.drained, s.registration = drained, nil
	if g == nil {
		close(drained)
		return
	}
	go func() {
		defer close(drained)
		s.drainAndRemove(g)
	}()
}

// drainAndRemove is [naming.Registration.Close], which does not wait for clients once the
// program has ended.
func (s *supervisor) drainAndRemove(g *naming.Registration) {
	delay := s.opts.Register.DrainDelay
	if delay == 0 {
		delay = defaultDrainDelay
	}
	listed := g.Status().Registered
	marked := delay > 0 && listed && mark(g)
	if marked {
		s.linger(delay)
	}
	if remove(g, drainTimeout/2) && listed && !marked {
		s.linger(delay) // clients did not see a mark
	}
}

// defaultDrainDelay is the default of [naming.RegisterOptions].
const defaultDrainDelay = time.Second

// mark marks an endpoint as draining, and reports whether the mark is in the registry.
func mark(g *naming.Registration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout/2)
	defer cancel()
	return g.Drain(ctx) == nil
}

// linger waits for clients while the program serves.
func (s *supervisor) linger(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.process.done:
	}
}

// stopProgram passes a signal to stop on. A program that is paused gets the signal when it goes
// on, so it has to go on.
func (s *supervisor) stopProgram(sig os.Signal) {
	s.process.signal(sig)
	if s.paused {
		s.process.signal(contSignal)
	}
	if s.killTimer == nil {
		s.killTimer = time.After(s.opts.Grace)
	}
}

// start starts a program. An error comes with an exit status.
func start(command []string, t *terminal) (*process, int, error) {
	path, err := exec.LookPath(command[0])
	switch {
	case err == nil:
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist):
		return nil, StatusNotFound, fmt.Errorf("no program %q", command[0])
	default:
		return nil, StatusNotExecutable, err
	}
	p, err := startProcess(path, command, t)
	if err != nil {
		return nil, StatusNotExecutable, err
	}
	return p, 0, nil
}
