package child

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/naming-go/naming/bench/peer"
)

// Serve answers requests until their end.
func Serve(in io.Reader, out io.Writer, find func(name string) (peer.Peer, error)) error {
	c := &child{find: find, registered: make(map[string]func(context.Context) error)}
	requests := json.NewDecoder(bufio.NewReader(in))
	replies := json.NewEncoder(out)
	for {
		var req Request
		switch err := requests.Decode(&req); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		reply := c.do(&req)
		if err := replies.Encode(reply); err != nil {
			return err
		}
	}
}

type child struct {
	find    func(string) (peer.Peer, error)
	servers peer.Servers
	client  peer.Client

	consumers  int
	round      atomic.Pointer[round]
	conns      []*grpc.ClientConn
	registered map[string]func(context.Context) error
}

// round is the set that the consumers wait for between Arm and Wait.
type round struct {
	from    int // consumers added before do not count
	want    int
	addrs   map[string]bool // nil: not verified
	arrived atomic.Int64
	updates atomic.Int64
	wrong   atomic.Int64
	of      int
	done    chan struct{} // closed when all have arrived
	at      time.Time     // valid once done is closed
	usage   Usage         // when it began
}

// right reports whether a set is the wanted one.
func (r *round) right(n int, addr func(int) string) bool {
	if r.addrs == nil {
		return true
	}
	for i := range n {
		if !r.addrs[addr(i)] {
			return false
		}
	}
	return true // the number is right, and no two are equal
}

// consumer returns the function of a consumer. It does as little as possible with a set.
func (c *child) consumer() func(int, func(int) string) {
	var seen *round
	number := c.consumers
	c.consumers++
	return func(n int, addr func(int) string) {
		r := c.round.Load()
		if r == nil || number < r.from {
			return
		}
		r.updates.Add(1)
		if n != r.want || seen == r {
			return
		}
		if !r.right(n, addr) {
			r.wrong.Add(1)
			return
		}
		seen = r
		if r.arrived.Add(1) == int64(r.of) {
			r.at = time.Now()
			close(r.done)
		}
	}
}

func (c *child) do(req *Request) *Reply {
	reply := new(Reply)
	began := time.Now()
	err := c.serve(req, reply)
	if reply.Began == 0 {
		reply.Began = began.UnixNano()
	}
	if reply.At == 0 {
		reply.At = time.Now().UnixNano()
	}
	if err != nil {
		reply.Err = err.Error()
		reply.Unsupported = errors.Is(err, errors.ErrUnsupported)
	}
	return reply
}

func (c *child) serve(req *Request, reply *Reply) error {
	timeout := req.Timeout
	if timeout <= 0 {
		timeout = time.Minute
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if c.client == nil && req.Do != Open {
		return errors.New("the peer is not open")
	}
	switch req.Do {
	case Open:
		p, err := c.find(req.Peer)
		if err != nil {
			return err
		}
		c.servers = req.Servers
		c.client, err = p.Open(ctx, req.Servers)
		return err
	case Resolve:
		return c.resolve(ctx, req)
	case Arm:
		c.arm(req)
		return nil
	case Wait:
		return c.wait(ctx, reply)
	case Measure:
		reply.Usage = measure(c.servers)
		return nil
	case Quiet:
		return c.quiet(ctx, reply)
	case Dial:
		return c.dial(ctx, req)
	case Register:
		stop, err := c.client.Register(ctx, req.Services[0], req.Endpoint)
		if err == nil {
			c.registered[req.Endpoint.ID] = stop
		}
		return err
	case Deregister:
		stop := c.registered[req.Endpoint.ID]
		if stop == nil {
			return fmt.Errorf("%q is not registered", req.Endpoint.ID)
		}
		delete(c.registered, req.Endpoint.ID)
		return stop(ctx)
	}
	return fmt.Errorf("there is no verb %q", req.Do)
}

// arm begins a round.
func (c *child) arm(req *Request) {
	r := &round{from: req.From, want: req.Want, of: c.consumers - req.From, done: make(chan struct{})}
	if req.Services != nil {
		r.from, r.of = c.consumers, len(req.Services)*req.Each
	}
	if req.Addrs != nil {
		r.addrs = make(map[string]bool, len(req.Addrs))
		for _, a := range req.Addrs {
			r.addrs[a] = true
		}
	}
	r.usage = usage()
	c.round.Store(r)
}

// resolve adds consumers. When ctx is done, it leaves the consumers that the peer has not
// returned.
func (c *child) resolve(ctx context.Context, req *Request) error {
	type job struct {
		service string
		update  func(int, func(int) string)
	}
	jobs := make(chan job)
	var failed atomic.Pointer[error]
	var returned atomic.Int64
	var wg sync.WaitGroup
	for range max(req.Workers, 1) {
		wg.Go(func() {
			for j := range jobs {
				if _, err := c.client.Resolve(j.service, j.update); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
				returned.Add(1)
			}
		})
	}
	all := make(chan struct{})
	go func() {
		wg.Wait()
		close(all)
	}()
	late := func() error {
		return fmt.Errorf("%d of %d consumers were made in time", returned.Load(), len(req.Services)*req.Each)
	}
	for _, s := range req.Services {
		for range req.Each {
			select {
			case jobs <- job{s, c.consumer()}:
			case <-ctx.Done():
				return late()
			}
		}
	}
	close(jobs)
	select {
	case <-all:
	case <-ctx.Done():
		return late()
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// settleTime is the time between an arrival and the measurement of its cost. A part of the
// cost comes a little later.
const settleTime = 20 * time.Millisecond

func (c *child) wait(ctx context.Context, reply *Reply) error {
	r := c.round.Load()
	if r == nil {
		return errors.New("wait without arm")
	}
	var err error
	select {
	case <-r.done:
		reply.At = r.at.UnixNano()
		time.Sleep(settleTime)
	case <-ctx.Done():
		err = fmt.Errorf("%d of %d consumers had %d endpoints in time", r.arrived.Load(), r.of, r.want)
	}
	u := usage()
	reply.Usage = Usage{
		Mallocs:   u.Mallocs - r.usage.Mallocs,
		Allocated: u.Allocated - r.usage.Allocated,
		CPU:       u.CPU - r.usage.CPU,
	}
	reply.Have, reply.Of = int(r.arrived.Load()), r.of
	reply.Updates, reply.Wrong = r.updates.Load(), r.wrong.Load()
	return err
}

// quiet waits until the process used no more than 2 % of a processor for half a
// second.
func (c *child) quiet(ctx context.Context, reply *Reply) error {
	const tick, ticks = 100 * time.Millisecond, 5
	t := time.NewTicker(tick)
	defer t.Stop()
	last, at, still := ProcessorTime(), time.Now(), 0
	for still < ticks {
		select {
		case <-t.C:
		case <-ctx.Done():
			return errors.New("the process does not become quiet")
		}
		now := ProcessorTime()
		if now-last > tick/50 {
			still, at = 0, time.Now()
		} else {
			still++
		}
		last = now
	}
	reply.At = at.UnixNano()
	reply.Usage.CPU = last
	if r := c.round.Load(); r != nil {
		reply.Updates, reply.Wrong = r.updates.Load(), r.wrong.Load()
	}
	return nil
}

func (c *child) dial(ctx context.Context, req *Request) error {
	target, opts, err := c.client.Dial(req.Services[0])
	if err != nil {
		return err
	}
	opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))
	for range req.Each {
		cc, err := grpc.NewClient(target, opts...)
		if err != nil {
			return err
		}
		c.conns = append(c.conns, cc)
		cc.Connect()
	}
	for _, cc := range c.conns {
		for s := cc.GetState(); s != connectivity.Ready; s = cc.GetState() {
			if !cc.WaitForStateChange(ctx, s) {
				return fmt.Errorf("the state of a ClientConn is %v", s)
			}
		}
	}
	return nil
}

// usage returns what can be measured without stopping the peer for long.
func usage() Usage {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return Usage{Mallocs: m.Mallocs, Allocated: m.TotalAlloc, CPU: ProcessorTime()}
}

func measure(s peer.Servers) Usage {
	// The second collection frees what finalizers and pools kept.
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u := usage()
	u.Memory = m.HeapAlloc + m.StackInuse
	u.Goroutines = runtime.NumGoroutine()
	u.Conns = connections(s)
	return u
}
