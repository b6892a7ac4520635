package scenarios

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/naming-go/naming/bench/child"
	"github.com/naming-go/naming/bench/peer"
	"github.com/naming-go/naming/bench/report"
)

// churn is S4: endpoints are replaced, one after the other, as in a rolling
// restart. Then one more is added, by which the right state is told.
func churn(r *Run, tb testing.TB, reg *registry) error {
	ctx := context.Background()
	// All of 127.0.0.0/8 is this machine: one server is as many as wanted.
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

	marker := at(1 << 17)
	after := make([]peer.Endpoint, size, size+1)
	copy(after, present)
	for i := range r.Churn / 2 {
		after[i%size] = at(size + i)
	}
	if _, err := c.Do(child.Request{Do: child.Arm, Want: size + 1, Addrs: addrs(append(after, marker))}); err != nil {
		return err
	}
	for i := range r.Churn / 2 {
		if err := reg.remove(ctx, s.Peer, service, present[i%size]); err != nil {
			return err
		}
		present[i%size] = at(size + i)
		if err := reg.add(ctx, s.Peer, service, present[i%size]); err != nil {
			return err
		}
	}
	last := time.Now().UnixNano()
	if err := reg.add(ctx, s.Peer, service, marker); err != nil {
		return err
	}
	var right error
	if !conns {
		reply, err := c.Do(child.Request{Do: child.Wait, Timeout: reg.patience})
		if err != nil {
			right = err
			if reply.Wrong > 0 {
				right = errors.New("the state is wrong")
			}
		} else {
			n.add("last write to right state", "ms", ms(time.Duration(reply.At-last)))
		}
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
