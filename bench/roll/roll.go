// Package roll measures real calls: gRPC clients call gRPC servers, while all servers are
// restarted one after the other.
package roll

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/naming-go/naming/bench/actor"
	"github.com/naming-go/naming/bench/peer"
)

// Options are the options of [Run]. Zero fields have the defaults given.
type Options struct {
	// Servers is the number of servers, 200 by default. Clients is the number of
	// ClientConns, 100 by default. Each is connected to every server.
	Servers, Clients int
	// Processes is the number of processes of the servers, and of the clients. The
	// default is two, because a process may open a limited number of files.
	Processes int
	// Rate is the number of calls per second, 500 by default.
	Rate int
	// Quiet is how long calls are made while nothing happens, once before the restarts
	// and once after them. The default is 30 seconds.
	Quiet time.Duration
	// Batch is the number of servers that restart at a time, 4 by default.
	Batch int
	// Patience bounds the time until all clients are connected to all servers. The
	// default is three minutes.
	Patience time.Duration
	// Logf, if not nil, logs the progress.
	Logf func(format string, args ...any)
}

func (o Options) withDefaults() Options {
	for _, d := range []struct {
		field *int
		value int
	}{{&o.Servers, 200}, {&o.Clients, 100}, {&o.Processes, 2}, {&o.Rate, 500}, {&o.Batch, 4}} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if o.Quiet <= 0 {
		o.Quiet = 30 * time.Second
	}
	if o.Patience <= 0 {
		o.Patience = 3 * time.Minute
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	return o
}

// Phase is the result of the calls of a phase.
type Phase struct {
	Calls  int `json:"calls"`
	Failed int `json:"failed"`
	// P50 and P99 are percentiles of the time from when a call was due to its end.
	P50 time.Duration `json:"p50_ns"`
	P99 time.Duration `json:"p99_ns"`
	// Err is one of the errors of failed calls.
	Err string `json:"error,omitempty"`
}

// Result is the result of a run.
type Result struct {
	Peer    string `json:"peer"`
	Backend string `json:"backend"`
	Quiet   Phase  `json:"quiet"`
	Churn   Phase  `json:"churn"`
	// Ratio is the p99 of the churn divided by that of the quiet time.
	Ratio float64 `json:"ratio"`
	// CPU is the processor time of the clients during the churn.
	CPU time.Duration `json:"cpu_ns"`
	// Disorder is the number of servers that could not be withdrawn and stopped in
	// order. Why is one of the reasons.
	Disorder int    `json:"disorder"`
	Why      string `json:"why,omitempty"`
	// Took is the time until all servers were restarted, and every client was
	// connected to all of them.
	Took time.Duration `json:"took_ns"`
}

// Run starts servers and clients of a peer, and compares the calls while nothing happens
// with those while all servers restart. The error is errors.ErrUnsupported if the peer has
// no resolver for gRPC or no registrar. The program or test that calls Run has to call
// [actor.Main] with [Roles].
//
// A server restarts as a careful user would restart it. It is withdrawn, serves on for a
// second and stops gracefully. Then another server starts at another port.
func Run(ctx context.Context, p peer.Peer, servers peer.Servers, opts Options) (*Result, error) {
	r := &run{Options: opts.withDefaults(), ctx: ctx}
	defer r.close()
	if err := r.open(message{Do: "open", Peer: p.Name, Servers: servers}); err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := r.askClients("dial", r.Clients); err != nil {
		return nil, err
	}
	if err := r.connected(); err != nil {
		return nil, err
	}
	r.Logf("%s: %d clients are connected to %d servers after %v", p.Name, r.Clients, r.Servers, time.Since(begin).Round(time.Millisecond))
	res := &Result{Peer: p.Name, Backend: p.Backend}
	if err := r.askClients("call", r.Rate); err != nil {
		return nil, err
	}
	if err := r.phases(res); err != nil {
		return nil, err
	}
	res.Ratio = float64(res.Churn.P99) / float64(res.Quiet.P99)
	r.Logf("%s: quiet p50 %v p99 %v of %d calls, %d failed; churn p50 %v p99 %v of %d calls, %d failed; p99 x %.2f; %v for all servers, %v of processor time of the clients, %d not in order %s%s%s", p.Name,
		res.Quiet.P50, res.Quiet.P99, res.Quiet.Calls, res.Quiet.Failed, res.Churn.P50, res.Churn.P99, res.Churn.Calls, res.Churn.Failed,
		res.Ratio, res.Took.Round(time.Millisecond), res.CPU.Round(time.Millisecond), res.Disorder, res.Why, res.Quiet.Err, res.Churn.Err)
	return res, nil
}

// open starts the processes, and the servers in them.
func (r *run) open(open message) error {
	for i := range r.Processes {
		for _, role := range []string{serversRole, clientsRole} {
			m, err := start(role)
			if err != nil {
				return err
			}
			r.all = append(r.all, m)
			if role == serversRole {
				r.servers = append(r.servers, m)
			} else {
				r.clients = append(r.clients, m)
			}
			if _, err := m.ask(r.ctx, open); err != nil {
				return err
			}
		}
		if _, err := r.servers[i].ask(r.ctx, message{Do: "start", N: share(r.Servers, r.Processes, i)}); err != nil {
			return err
		}
	}
	return nil
}

// askClients asks each client process to do its share of n.
func (r *run) askClients(do string, n int) error {
	for i, c := range r.clients {
		if _, err := c.ask(r.ctx, message{Do: do, N: share(n, r.Processes, i)}); err != nil {
			return err
		}
	}
	return nil
}

// phases goes through the phases of a run while calls are made. The time before the
// first phase counts for nothing, because the first calls use new connections.
func (r *run) phases(res *Result) error {
	var before time.Duration // processor time until the churn
	err := firstOf(
		func() error { return r.pass(r.Quiet / 6) },
		func() error { return r.phase(quiet, nil) },
		func() error { return r.pass(r.Quiet) },
		func() error { return r.phase(churn, &before) },
		func() error {
			begin := time.Now()
			err := r.roll(res)
			res.Took = time.Since(begin)
			return err
		},
		func() error { return r.phase(other, &res.CPU) },
		func() error { return r.pass(r.Quiet / 6) },
		func() error { return r.phase(quiet, nil) },
		func() error { return r.pass(r.Quiet) },
		func() error { return r.phase(other, nil) },
		func() (err error) { res.Quiet, err = r.report(quiet); return err },
		func() (err error) { res.Churn, err = r.report(churn); return err },
	)
	res.CPU -= before
	return err
}

func firstOf(steps ...func() error) error {
	for _, s := range steps {
		if err := s(); err != nil {
			return err
		}
	}
	return nil
}

// share returns the i-th part of n, which is divided into parts.
func share(n, parts, i int) int { return n*(i+1)/parts - n*i/parts }

type run struct {
	Options
	ctx                   context.Context
	all, servers, clients []*member
}

func (r *run) close() {
	for _, m := range r.all {
		m.Close()
	}
}

func (r *run) pass(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

// connected waits until every server has a connection of every client.
func (r *run) connected() error {
	ctx, cancel := context.WithTimeout(r.ctx, r.Patience)
	defer cancel()
	for last := 0; ; {
		open := 0
		for _, s := range r.servers {
			reply, err := s.ask(ctx, message{Do: "count"})
			if err != nil && ctx.Err() == nil {
				return err
			}
			open += reply.N
		}
		if open == r.Servers*r.Clients {
			return nil
		}
		if ctx.Err() == nil {
			last = open
		}
		if err := r.pass(50 * time.Millisecond); err != nil || ctx.Err() != nil {
			return fmt.Errorf("%d connections, want those of %d clients to %d servers", last, r.Clients, r.Servers)
		}
	}
}

// phase begins a phase. If cpu is not nil, phase adds to it the processor time that the
// clients have used so far.
func (r *run) phase(name string, cpu *time.Duration) error {
	for _, c := range r.clients {
		reply, err := c.ask(r.ctx, message{Do: "phase", Phase: name})
		if err != nil {
			return err
		}
		if cpu != nil {
			*cpu += reply.CPU
		}
	}
	return nil
}

// roll restarts every server, a batch at a time. It waits until the clients are connected
// to all servers.
func (r *run) roll(res *Result) error {
	for from := 0; from < r.Servers; from += r.Batch {
		var restarts errgroup.Group
		replies := make([]message, min(r.Batch, r.Servers-from))
		for i := range replies {
			// The batch is spread over the processes.
			n := from + i
			restarts.Go(func() (err error) {
				replies[i], err = r.servers[n%r.Processes].ask(r.ctx, message{Do: "restart", N: n / r.Processes})
				return err
			})
		}
		if err := restarts.Wait(); err != nil {
			return err
		}
		for _, reply := range replies {
			if reply.Note != "" {
				res.Disorder++
				res.Why = reply.Note
			}
		}
	}
	return r.connected()
}

func (r *run) report(name string) (Phase, error) {
	var p Phase
	var all []time.Duration
	for _, c := range r.clients {
		reply, err := c.ask(r.ctx, message{Do: "report", Phase: name})
		if err != nil {
			return p, err
		}
		all = append(all, reply.Latencies...)
		p.Failed += reply.N
		if p.Err == "" {
			p.Err = reply.Note
		}
	}
	slices.Sort(all)
	p.Calls = len(all) + p.Failed
	if len(all) == 0 {
		return p, fmt.Errorf("no call succeeded: %s", p.Err)
	}
	p.P50, p.P99 = all[len(all)/2], all[len(all)*99/100]
	return p, nil
}

// message is a request to a process, or its reply.
type message struct {
	ID      int          `json:",omitempty"`
	Do      string       `json:",omitempty"`
	N       int          `json:",omitempty"`
	Peer    string       `json:",omitempty"`
	Servers peer.Servers `json:",omitzero"`
	Phase   string       `json:",omitempty"`

	CPU         time.Duration   `json:",omitempty"`
	Latencies   []time.Duration `json:",omitempty"`
	Note        string          `json:",omitempty"` // an error after which the run goes on
	Err         string          `json:",omitempty"`
	Unsupported bool            `json:",omitempty"`
}

// member is a process with servers or clients in it.
type member struct {
	*actor.Process // set once, by start

	mu      sync.Mutex
	last    int                  // the ID of the last request; guarded by mu
	waiting map[int]chan message // by the ID of the request; guarded by mu
}

func start(role string) (*member, error) {
	m := &member{waiting: make(map[int]chan message)}
	var err error
	m.Process, err = actor.Start(role, func(raw json.RawMessage) {
		var reply message
		if err := json.Unmarshal(raw, &reply); err != nil {
			panic(err) // the bench wrote the reply itself
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.waiting[reply.ID] <- reply
		delete(m.waiting, reply.ID)
	})
	return m, err
}

// ask sends a request, and returns the reply.
func (m *member) ask(ctx context.Context, req message) (message, error) {
	answer := make(chan message, 1)
	m.mu.Lock()
	m.last++
	req.ID = m.last
	m.waiting[req.ID] = answer
	m.mu.Unlock()
	if err := m.Send(req); err != nil {
		return message{}, errors.Join(err, m.Err())
	}
	select {
	case reply := <-answer:
		switch {
		case reply.Unsupported:
			return reply, fmt.Errorf("%w: %s", errors.ErrUnsupported, reply.Err)
		case reply.Err != "":
			return reply, fmt.Errorf("%s: %s", req.Do, reply.Err)
		}
		return reply, nil
	case <-m.Done():
		return message{}, fmt.Errorf("%s: the process ended: %w", req.Do, m.Err())
	case <-ctx.Done():
		return message{}, ctx.Err()
	}
}
