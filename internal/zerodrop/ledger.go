package zerodrop

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// ledger records calls on both sides, by their ids.
type ledger struct {
	mu      sync.Mutex
	ok      []uint64       // calls that succeeded; guarded by mu
	handled map[uint64]int // how often a server handled a call; guarded by mu
}

func (l *ledger) handle(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.handled == nil {
		l.handled = make(map[uint64]int)
	}
	l.handled[id]++
}

func (l *ledger) answered(ids []uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ok = append(l.ok, ids...)
}

// check compares the two sides.
func (l *ledger) check(r *Play) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := make(map[uint64]bool, len(l.ok))
	for _, id := range l.ok {
		if seen[id] {
			r.Invalid("call %d was made twice", id)
		}
		seen[id] = true
		if n := l.handled[id]; n != 1 {
			r.Broken("call %d succeeded and was handled %d times", id, n)
		}
	}
	for id, n := range l.handled {
		if n > 1 && !seen[id] {
			r.Broken("call %d failed and was handled %d times", id, n)
		}
	}
	if want := r.report.Calls - r.report.Failed; len(l.ok) != want {
		r.Invalid("%d calls succeeded, and %d were recorded", want, len(l.ok))
	}
}

// The service that is called. Its messages are those of the health service, which have a
// string for the id of the call.
const method = "/zerodrop.Zerodrop/Call"

type (
	request  = healthpb.HealthCheckRequest
	response = healthpb.HealthCheckResponse
)

func (l *ledger) serviceDesc() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "zerodrop.Zerodrop",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Call",
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				var req request
				if err := decode(&req); err != nil {
					return nil, err
				}
				id, err := strconv.ParseUint(req.Service, 10, 64)
				if err != nil {
					return nil, status.Error(codes.InvalidArgument, err.Error())
				}
				l.handle(id)
				return new(response), nil
			},
		}},
	}
}

// worker makes one call after the other.
type worker struct {
	run    *Play
	client *client
	id     uint64 // of the next call
}

func (w *worker) loop(stop <-chan struct{}) {
	var ok []uint64
	defer func() { w.run.ledger.answered(ok) }()
	var pace time.Duration
	if rate := w.run.opts.Rate; rate > 0 {
		pace = time.Second * time.Duration(len(w.run.clients)*perConn) / time.Duration(rate)
	}
	tick := time.NewTimer(0)
	defer tick.Stop()
	last := time.Now()
	for next := last; ; w.id++ {
		if wait := time.Until(next); wait > 0 {
			tick.Reset(wait)
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
		select {
		case <-stop:
			return
		default:
		}
		next = time.Now().Add(pace)
		err := w.call()
		now := time.Now()
		w.run.count(err)
		if err != nil {
			w.run.Broken("call %d of %s failed: %v", w.id, w.client.name, err)
			continue
		}
		ok = append(ok, w.id)
		w.run.phase.noteGap(now.Sub(last))
		last = now
	}
}

func (w *worker) call() error {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	var server peer.Peer
	err := w.client.conn.Invoke(ctx, method, &request{Service: strconv.FormatUint(w.id, 10)}, new(response),
		grpc.WaitForReady(false), grpc.Peer(&server))
	if err == nil && w.run.site.Balance > 0 {
		w.client.reach(server.Addr.String())
	}
	return err
}

// phase is the counters of one scenario.
type phase struct {
	name      string
	calls     atomic.Int64
	failed    atomic.Int64
	gap       atomic.Int64
	published atomic.Int64 // sets that clients got
	held      atomic.Int64 // endpoints that a client's Client held
	lost      atomic.Int64 // how often a server's registration was lost
	stale     atomic.Int64 // how often a client's Client became stale
	resynced  atomic.Int64 // how often it got a snapshot afterwards
}

func (p *phase) noteGap(d time.Duration) {
	for {
		was := p.gap.Load()
		if int64(d) <= was || p.gap.CompareAndSwap(was, int64(d)) {
			return
		}
	}
}

func (r *Play) count(err error) {
	r.phase.calls.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Calls++
	if err != nil {
		r.phase.failed.Add(1)
		r.report.Failed++
	}
}
