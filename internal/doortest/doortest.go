// Package doortest compares a framework on its own registry with the same framework on this
// library. Both run the framework's real servers and real clients beside each other on one
// real etcd, which suffers the same faults for both. Package doortest counts the calls that
// fail, and the servers that a new client finds after a fault.
package doortest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/naming-go/naming/internal/servertest"
)

// Door is one way to announce and to find the servers of a framework.
type Door struct {
	// Name names the framework and the registry, such as "kratos 2.9.2, its etcd registry".
	Name string

	// Serve starts a server of the framework at addr, which announces itself as an
	// endpoint of a service in the etcd at the endpoints. Serve returns when the server
	// accepts. stop ends the server in the framework's orderly way, and returns when the
	// server has ended.
	Serve func(tb testing.TB, etcd []string, service, addr string) (stop func())

	// Dial returns a client of the framework, with the framework's own balancing. call
	// makes one call without retries, and returns the address of the server that
	// answered. call is called concurrently.
	Dial func(tb testing.TB, etcd []string, service string) (call func(ctx context.Context) (addr string, err error), close func())
}

// Etcd is the registry and its faults. Down takes etcd away, and Up brings it back with its
// data. Empty brings it back without data.
type Etcd struct {
	Endpoints []string
	Down      func(tb testing.TB)
	Up        func(tb testing.TB)
	Empty     func(tb testing.TB)
}

// Options are the options of [Compare].
type Options struct {
	// Outage is how long etcd is down. It should be longer than the leases of both
	// doors. 0 means eight seconds.
	Outage time.Duration
	// Rounds is how often all servers are replaced, one after the other, in the scenario
	// of restarts. 0 means one.
	Rounds int
	// Recovery is how long a framework on its own registry has to announce its servers
	// again after a fault. 0 means 20 seconds. This library has [servertest.Patience].
	Recovery time.Duration
}

// Result is what one door showed in one scenario.
type Result struct {
	Calls, Failed int
	FirstErr      string
	// Found is the number of servers, of those that run, that a new client reached after
	// the fault.
	Found int
}

// Row is one scenario.
type Row struct {
	Scenario     string
	Theirs, Ours Result
}

const (
	fleetSize = 3
	callers   = 4
	callEvery = 5 * time.Millisecond
	callLimit = 5 * time.Second
)

// A scenario is played by both doors at the same time. fault is called once for both.
type scenario struct {
	name  string
	fault func(tb testing.TB, e *Etcd, outage time.Duration) // nil: none
}

var scenarios = []scenario{
	{name: "restarts"},
	{name: "outage", fault: func(tb testing.TB, e *Etcd, outage time.Duration) {
		e.Down(tb)
		wait(outage)
		e.Up(tb)
	}},
	{name: "wipe", fault: func(tb testing.TB, e *Etcd, _ time.Duration) {
		e.Down(tb)
		e.Empty(tb)
	}},
}

// settling is the time between a fault and what follows. A Client rests for up to 30 seconds
// between two attempts to reach a registry that is down, and cannot follow servers that all
// move before the next attempt. An etcd that returns starts the time of every lease again, so
// that entries which nobody renews are listed until then.
const settling = 31 * time.Second

// wait lets calls be made for d.
func wait(d time.Duration) { <-time.After(d) }

// Compare plays restarts, an outage and a wipe of etcd with both doors at the same time. In
// each scenario all servers are replaced in the end, one after the other. Each scenario
// has servers, clients and services of its own, so that what one scenario broke does not
// count in the next. A failed call of ours, and a server of ours that a new client does not
// find, fails the test. What theirs did is in the rows.
func Compare(t *testing.T, e Etcd, theirs, ours Door, opts Options) []Row {
	t.Helper()
	if opts.Outage == 0 {
		opts.Outage = 8 * time.Second
	}
	if opts.Rounds == 0 {
		opts.Rounds = 1
	}
	if opts.Recovery == 0 {
		opts.Recovery = 20 * time.Second
	}
	var rows []Row
	for _, s := range scenarios {
		row := Row{Scenario: s.name}
		t.Run(s.name, func(t *testing.T) { row.Theirs, row.Ours = play(t, &e, s, theirs, ours, opts) })
		for door, r := range map[string]Result{theirs.Name: row.Theirs, ours.Name: row.Ours} {
			t.Logf("%s: %s: %d calls, %d failed (%s), a new client found %d of %d servers", s.name, door, r.Calls, r.Failed, r.FirstErr, r.Found, fleetSize)
		}
		if err := row.err(); err != nil {
			t.Error(err)
		}
		rows = append(rows, row)
	}
	return rows
}

// err returns an error if ours lost something, or if the scenario shows nothing.
func (r Row) err() error {
	switch {
	case r.Theirs.Calls == 0 || r.Ours.Calls == 0:
		return fmt.Errorf("%s: a side made no calls", r.Scenario)
	case r.Ours.Failed > 0 || r.Ours.Found < fleetSize:
		return fmt.Errorf("%s: ours: %v (%s)", r.Scenario, r.Ours, r.Ours.FirstErr)
	}
	return nil
}

// play plays one scenario with both doors.
func play(t *testing.T, e *Etcd, s scenario, theirs, ours Door, opts Options) (Result, Result) {
	sides := []*side{
		{TB: t, door: theirs, etcd: e, service: "theirs-" + s.name, recovery: opts.Recovery},
		{TB: t, door: ours, etcd: e, service: "ours-" + s.name, recovery: servertest.Patience},
	}
	defer both(sides, (*side).end)
	both(sides, (*side).begin)
	if t.Failed() {
		t.FailNow()
	}
	rounds := opts.Rounds
	if s.fault != nil {
		rounds = 1
		s.fault(t, e, opts.Outage)
		wait(settling)
		both(sides, (*side).look)
	}
	for range rounds {
		both(sides, (*side).replaceAll)
	}
	both(sides, (*side).stopCalls)
	if s.fault == nil {
		both(sides, (*side).look)
	}
	return sides[0].result, sides[1].result
}

// both calls f for both sides, at the same time.
func both(sides []*side, f func(*side)) {
	var wg sync.WaitGroup
	for _, s := range sides {
		wg.Go(func() { f(s) })
	}
	wg.Wait()
}

// side is a door in one scenario. Only one goroutine at a time calls its methods.
type side struct {
	testing.TB
	door     Door
	etcd     *Etcd
	service  string
	recovery time.Duration

	servers []running
	stop    chan struct{} // nil: no calls are made
	calls   sync.WaitGroup
	hangUp  func()
	result  Result
	tally   tally
}

// running is a server of a side.
type running struct {
	addr string
	stop func()
}

// tally counts calls.
type tally struct {
	calls, failed atomic.Int64
	first         atomic.Pointer[string]
}

// begin starts the servers, and makes calls as soon as a client has reached all of them.
func (s *side) begin() {
	for range fleetSize {
		s.serve()
	}
	call, hangUp := s.door.Dial(s, s.etcd.Endpoints, s.service)
	s.hangUp = hangUp
	if n := s.reach(call, servertest.Patience); n < fleetSize {
		s.Errorf("%s: the first client reached %d of %d servers", s.door.Name, n, fleetSize)
		return
	}
	stop := make(chan struct{})
	s.stop = stop
	for range callers {
		s.calls.Go(func() { s.keepCalling(call, stop) })
	}
}

// serve starts one more server.
func (s *side) serve() {
	addr := servertest.Addr(servertest.Ports(s, 1)[0])
	s.servers = append(s.servers, running{addr, s.door.Serve(s, s.etcd.Endpoints, s.service, addr)})
}

// keepCalling makes calls until stop is closed.
func (s *side) keepCalling(call func(context.Context) (string, error), stop <-chan struct{}) {
	tick := time.NewTicker(callEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		_, err := limited(call)
		s.tally.calls.Add(1)
		if err != nil {
			s.tally.failed.Add(1)
			text := err.Error()
			s.tally.first.CompareAndSwap(nil, &text)
		}
	}
}

// limited makes one call in the time that a call may take.
func limited(call func(context.Context) (string, error)) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	return call(ctx)
}

// look counts the running servers that a new client finds.
func (s *side) look() {
	call, hangUp := s.door.Dial(s, s.etcd.Endpoints, s.service)
	defer hangUp()
	s.result.Found = s.reach(call, s.recovery)
}

// reach makes calls until they have reached all running servers, for at most d. It returns
// the number of servers that they have reached.
func (s *side) reach(call func(context.Context) (string, error), d time.Duration) int {
	var addrs []string
	for _, r := range s.servers {
		addrs = append(addrs, r.addr)
	}
	tick := time.NewTicker(4 * callEvery)
	defer tick.Stop()
	reached := make(map[string]bool)
	for end := time.Now().Add(d); len(reached) < len(addrs) && time.Now().Before(end); <-tick.C {
		if addr, err := limited(call); err == nil && slices.Contains(addrs, addr) {
			reached[addr] = true
		}
	}
	return len(reached)
}

// replaceAll replaces the servers one after the other, at their own addresses and at others
// in turn. Each server is replaced when a call can have reached the one before.
func (s *side) replaceAll() {
	for i, r := range slices.Clone(s.servers) {
		r.stop()
		s.servers = s.servers[1:]
		if i%2 == 0 {
			s.servers = append(s.servers, running{r.addr, s.door.Serve(s, s.etcd.Endpoints, s.service, r.addr)})
		} else {
			s.serve()
		}
		wait(500 * time.Millisecond) // both doors have the same time to reach their clients
	}
}

// stopCalls ends the calls and counts them.
func (s *side) stopCalls() {
	if s.stop == nil {
		return
	}
	close(s.stop)
	s.stop = nil
	s.calls.Wait()
	s.result.Calls, s.result.Failed = int(s.tally.calls.Load()), int(s.tally.failed.Load())
	if text := s.tally.first.Load(); text != nil {
		s.result.FirstErr = *text
	}
}

// end ends what the side has started.
func (s *side) end() {
	s.stopCalls()
	if s.hangUp != nil {
		s.hangUp()
	}
	var wg sync.WaitGroup
	for _, r := range s.servers {
		wg.Go(r.stop)
	}
	wg.Wait()
}

// Table returns the rows as a Markdown table.
func Table(theirs, ours string, rows []Row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| | %s | %s |\n|-|-|-|\n", theirs, ours)
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", r.Scenario, r.Theirs, r.Ours)
	}
	return b.String()
}

// String returns the text of a result in a table.
func (r Result) String() string {
	text := fmt.Sprintf("%d of %d calls failed", r.Failed, r.Calls)
	if r.Failed == 0 {
		text = "0 failed"
	}
	if r.Found < fleetSize {
		text += fmt.Sprintf(", %d of %d servers found afterwards", r.Found, fleetSize)
	}
	return text
}
