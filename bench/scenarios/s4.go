package scenarios

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/naming-go/naming/bench/child"
	"github.com/naming-go/naming/bench/peer"
	"github.com/naming-go/naming/bench/report"
)

// churn is S4: endpoints are replaced, one after the other, as in a rolling restart.
// Then one more endpoint is added, which marks the right state.
func churn(r *Run, tb testing.TB, reg *registry) error {
	ctx := context.Background()
	// All of 127.0.0.0/8 is this machine. One server stands for any number of them.
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	go func() { _ = server.Serve(l) }()
	defer server.Stop()
	port := l.Addr().(*net.TCPAddr).Port
	real := func(i int) peer.Endpoint {
		addr := fmt.Sprintf("127.%d.%d.%d:%d", 1+i>>16, i>>8&255, i&255, port)
		return peer.Endpoint{ID: addr, Addr: addr}
	}
	for repeat := range r.Repeats {
		for _, conns := range []bool{false, true} {
			for _, s := range r.rotated(reg) {
				name, size, at := fmt.Sprintf("%s changes of %s", report.Number(r.Churn), report.Number(r.ChurnOf)), r.ChurnOf, endpoint
				if conns {
					name, size, at = fmt.Sprintf("%s changes of %s, 4 ClientConns with round_robin", report.Number(r.Churn), report.Number(r.ConnsOf)), r.ConnsOf, real
				}
				n := r.note(reg, name, repeat, s)
				if err := churnOne(ctx, r, reg, n, size, at, conns); err != nil {
					n.fail("CPU", "ms", err)
				}
			}
		}
		r.Logf("S4 %s: repeat %d of %d", reg.backend, repeat+1, r.Repeats)
	}
	return nil
}

// churnOne measures one subject in a service of size endpoints: one consumer, or four
// ClientConns.
func churnOne(ctx context.Context, r *Run, reg *registry, n note, size int, at func(int) peer.Endpoint, conns bool) error {
	s := n.subject
	service := fmt.Sprintf("svc-%s-%d-%v", s.Label, n.repeat, conns)
	present := make([]peer.Endpoint, size)
	for i := range present {
		present[i] = at(i)
	}
	if err := reg.fill(ctx, s.Peer, service, present); err != nil {
		return err
	}
	c, err := reg.open(s)
	if err != nil {
		return err
	}
	defer c.Kill()
	if conns {
		if _, err := c.Do(child.Request{Do: child.Dial, Services: []string{service}, Each: 4, Timeout: reg.patience}); err != nil {
			return err
		}
	} else if _, _, err := reg.ready(c, []string{service}, 1, 1, size); err != nil {
		return err
	}
	before, err := c.Do(child.Request{Do: child.Quiet, Timeout: reg.patience})
	if err != nil {
		return err
	}
	last, err := replace(ctx, reg, s.Peer, c, service, present, at, r.Churn/2)
	if err != nil {
		return err
	}
	var right error
	if !conns {
		right = awaitRight(reg, n, c, last)
	}
	quiet, err := c.Do(child.Request{Do: child.Quiet, Timeout: reg.patience})
	if err != nil {
		return errors.Join(right, err)
	}
	if !conns {
		n.add("UpdateStates", "", float64(quiet.Updates))
	}
	n.add("CPU", "ms", ms(quiet.Usage.CPU-before.Usage.CPU))
	n.add("busy afterwards", "ms", max(ms(time.Duration(quiet.At-last)), 0))
	return right
}

// replace replaces n endpoints of a service, one after the other, and adds one. It
// arms c for the set after that, and returns when the last write began.
func replace(ctx context.Context, reg *registry, p peer.Peer, c *child.Child, service string, present []peer.Endpoint, at func(int) peer.Endpoint, n int) (last int64, _ error) {
	size, marker := len(present), at(1<<17)
	after := slices.Clone(present)
	for i := range n {
		after[i%size] = at(size + i)
	}
	if _, err := c.Do(child.Request{Do: child.Arm, Want: size + 1, Addrs: addrs(append(after, marker))}); err != nil {
		return 0, err
	}
	for i := range n {
		if err := reg.remove(ctx, p, service, present[i%size]); err != nil {
			return 0, err
		}
		present[i%size] = at(size + i)
		if err := reg.add(ctx, p, service, present[i%size]); err != nil {
			return 0, err
		}
	}
	return time.Now().UnixNano(), reg.add(ctx, p, service, marker)
}

// awaitRight waits until the consumer of c has the right set, and adds the time since
// the last write.
func awaitRight(reg *registry, n note, c *child.Child, last int64) error {
	reply, err := c.Do(child.Request{Do: child.Wait, Timeout: reg.patience})
	if err != nil {
		if reply.Wrong > 0 {
			return errors.New("the state is wrong")
		}
		return err
	}
	n.add("last write to right state", "ms", ms(time.Duration(reply.At-last)))
	return nil
}
