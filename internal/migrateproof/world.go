package migrateproof

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/internal/zerodrop"
	"github.com/naming-go/naming/migrate"
)

// world is one scenario in progress: its programs, and the phases they are in.
type world struct {
	*zerodrop.Play

	// Set once, by the scenario, before the first program starts.
	pair   *Pair
	full   bool
	kindOf func(server bool, n int) kind // nil: all programs are joined
	apart  bool                          // each program has a phase source of its own
	hold   bool                          // the hold is on
	unsure func(n int) bool              // says that program n does not know the phase when it starts; nil: all know it

	churning   atomic.Bool  // servers are restarted
	leaveDelay atomic.Int64 // 0: that of the pair
	onSet      func() error // for tests: called by step after the phase was set
	processes  processes    // owned by the scenario
	elections  atomic.Int64 // bridges that took over
	phases     pairOfPhases // owned by the scenario: of all servers, and of all readers
	narrowed   atomic.Int64 // how often a reader left a registry or came back
	failing    atomic.Int64 // how often a registry did not answer in a fault

	bridges bridges // has a lock of its own, and its fields never change: guarded by bridges.mu

	mu       sync.Mutex
	state    migrate.State     // guarded by mu: of programs that start
	shared   *migrate.Settable // guarded by mu: of all programs, unless each has its own
	servers  []*program        // guarded by mu: by their numbers
	readers  []*program        // guarded by mu
	bridging [2]bool           // guarded by mu: a bridge keeps copies of the other registry in this registry
}

// site returns the site of the world.
func (w *world) site() zerodrop.Site {
	site := w.pair.site()
	site.Server = func(n int, opts *naming.Options) (*naming.Client, error) { return w.start(true, n, opts) }
	site.Reader = func(n int, opts *naming.Options) (*naming.Client, error) { return w.start(false, n, opts) }
	site.Listed = w.listed
	return site
}

// start returns the Client of a program that starts.
func (w *world) start(server bool, n int, opts *naming.Options) (*naming.Client, error) {
	p := &program{server: server}
	if w.kindOf != nil {
		p.kind = w.kindOf(server, n)
	}
	p.source = w.newSource(server, n)
	opts.Hold = naming.Hold{Disabled: !w.hold}
	opts.IdleGrace = -1
	pair := *w.pair
	if d := w.leaveDelay.Load(); d > 0 {
		pair.LeaveDelay = time.Duration(d)
	}
	c, err := p.newClient(&pair, opts, &migrate.Hooks{Narrowed: func(migrate.NarrowedInfo) { w.narrowed.Add(1) }})
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !server {
		w.readers = append(w.readers, p)
		return c, nil
	}
	for len(w.servers) <= n {
		w.servers = append(w.servers, nil)
	}
	w.servers[n] = p
	return c, nil
}

// newSource returns the phase source of a program that starts.
func (w *world) newSource(server bool, n int) *migrate.Settable {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.apart && w.shared != nil {
		return w.shared
	}
	d := new(migrate.Settable)
	if w.unsure == nil || !w.unsure(n) {
		setPhase(d, w.state)
	}
	if !w.apart {
		w.shared = d
	}
	return d
}

// running returns the programs of the servers that run.
func (w *world) running() (programs []*program) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.Servers() {
		programs = append(programs, w.servers[s.Number()])
	}
	return programs
}

// programOf returns the program of a server.
func (w *world) programOf(s *zerodrop.Server) *program {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.servers[s.Number()]
}

// programs returns all programs that run.
func (w *world) programs() []*program {
	list := w.running()
	w.mu.Lock()
	defer w.mu.Unlock()
	return append(list, w.readers...)
}

// present returns the state of programs that start.
func (w *world) present() migrate.State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// setNext sets the state of programs that start.
func (w *world) setNext(s migrate.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = s
}

// set sets the phase of all programs.
func (w *world) set(s migrate.State) {
	w.setNext(s)
	for _, p := range w.programs() {
		if now, known := p.source.State(anyService); !known || now.Phase != s.Phase || now.Share != s.Share {
			setPhase(p.source, s)
		}
	}
}

// trickle sets the phase of all programs, one after the other.
func (w *world) trickle(s migrate.State, pause time.Duration) {
	w.setNext(s)
	list := w.programs()
	w.Rand().Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	for _, p := range list {
		setPhase(p.source, s)
		w.Pause(pause)
	}
	w.set(s) // of programs that started meanwhile
}

// setPhase sets the phase of all services in a source.
func setPhase(source *migrate.Settable, s migrate.State) {
	s.Seq = 0 // one more than the present one
	if err := source.Set(anyService, s); err != nil {
		panic(err) // the state is not valid
	}
}

// in returns the state of a phase in which all clients prefer the new registry.
func in(p migrate.Phase) migrate.State { return migrate.State{Phase: p, Share: 1} }

// listed is the Listed of the site.
func (w *world) listed(ctx context.Context, service string, _ []string) error {
	var want [2][]string
	servers, programs := w.Servers(), w.running()
	if len(servers) != len(programs) {
		return fmt.Errorf("servers come and go")
	}
	bridging := w.bridgesRun()
	covered := true // the new registry has all servers
	for i, p := range programs {
		covered = covered && (p.writes(newSide) || bridging[newSide])
		for s := oldSide; s <= newSide; s++ {
			if p.writes(s) || bridging[s] && p.writes(s.other()) {
				want[s] = append(want[s], servers[i].Addr())
			}
		}
	}
	if err := w.pair.listed(ctx, service, want); err != nil {
		return err
	}
	w.mu.Lock()
	readers := slices.Clone(w.readers)
	w.mu.Unlock()
	for _, p := range readers {
		if err := p.settled(service, covered); err != nil {
			return err
		}
	}
	return nil
}

// bridgesRun says to which registries a bridge copies.
func (w *world) bridgesRun() [2]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bridging
}

// step changes the phase of all programs while nothing else happens. It checks that the
// change makes no connection and publishes no set.
func (w *world) step(s migrate.State) error {
	if err := w.Settle(); err != nil {
		return err
	}
	accepts, published, lost := w.Accepts(), w.Published(), w.Lost()
	from := w.present()
	w.set(s)
	if w.onSet != nil {
		if err := w.onSet(); err != nil {
			return err
		}
	}
	if err := w.Settle(); err != nil {
		return fmt.Errorf("%v to %v: %w", from.Phase, s.Phase, err)
	}
	w.Pause(50 * time.Millisecond) // what the change caused may come late
	if w.Lost() != lost {
		return nil
	}
	if n := w.Accepts() - accepts; n != 0 {
		w.Broken("%v to %v: %d new connections, want 0", from.Phase, s.Phase, n)
	}
	if n := w.Published() - published; n != 0 {
		w.Broken("%v to %v: %d sets published, want 0", from.Phase, s.Phase, n)
	}
	return nil
}

// goTo changes the phase of all programs and settles.
func (w *world) goTo(p migrate.Phase) error {
	w.set(in(p))
	if err := w.Settle(); err != nil {
		return fmt.Errorf("in %v: %w", p, err)
	}
	return nil
}

// restart restarts the n oldest servers, one after the other, at their own address or at
// another. In a fault, no server waits for its registration.
func (w *world) restart(n int, fault bool, random *rand.Rand) error {
	for _, s := range w.Servers()[:n] {
		addr := s.Addr()
		if random.IntN(2) == 0 {
			addr = ""
		}
		if err := s.Stop(); err != nil && !fault {
			return err
		}
		_, err := w.Start(addr, !fault)
		if errors.Is(err, syscall.EADDRINUSE) {
			_, err = w.Start("", !fault) // another program has taken the port meanwhile
		}
		if err != nil {
			return err
		}
		if fault {
			if err := w.SettleClients(); err != nil {
				return err
			}
		}
	}
	return nil
}

// noteFailing counts a fault in which a registry does not answer within d.
func (w *world) noteFailing(s side, d time.Duration) {
	ctx, cancel := context.WithTimeout(w.Context(), d)
	defer cancel()
	if _, err := zerodrop.Listed(ctx, w.pair.backend(s).Clients, w.Service()); err != nil && w.Context().Err() == nil {
		w.failing.Add(1)
	}
}

// churn restarts one server after the other until stop is called.
func (w *world) churn() (stop func() error) {
	done, ended := make(chan struct{}), make(chan error, 1)
	random := rand.New(rand.NewPCG(w.Rand().Uint64(), 0))
	w.churning.Store(true)
	go func() {
		defer w.churning.Store(false)
		for {
			select {
			case <-done:
				ended <- nil
				return
			default:
			}
			if err := w.restart(1, false, random); err != nil {
				ended <- err
				return
			}
		}
	}()
	return func() error {
		close(done)
		return <-ended
	}
}

// underChurn calls f while servers are restarted.
func (w *world) underChurn(f func()) error {
	stop := w.churn()
	f()
	return stop()
}

// awaitRestart waits until another server has started.
func (w *world) awaitRestart() {
	started := w.Started()
	for w.Started() == started && w.Context().Err() == nil && w.churning.Load() {
		w.Pause(time.Millisecond)
	}
}

// dwell lets programs work in a phase for a random time, or not at all.
func (w *world) dwell() {
	w.Pause(time.Duration(w.Rand().IntN(4)) * w.pair.LeaveDelay / 2)
}
