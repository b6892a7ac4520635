package faultproxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// link is a connection of a client and the one to the target that belongs to it.
type link struct {
	proxy *Proxy
	left  atomic.Int64 // bytes until it is reset, see faults.after

	// The context is over when the link is.
	ctx    context.Context
	cancel context.CancelFunc

	mu    sync.Mutex
	conns []net.Conn // to be closed at the end
	over  bool
}

func newLink(p *Proxy, client net.Conn) *link {
	l := &link{proxy: p, conns: []net.Conn{client}}
	l.left.Store(healthy.after)
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// serve forwards in both directions until both have ended.
func (l *link) serve(client net.Conn) {
	// In a black hole not even the target hears of a connection.
	if _, ok := l.wait(func(f faults) (time.Duration, bool) {
		return 0, f.held[upstream] && f.held[downstream]
	}); !ok {
		return
	}
	// Not the context of the link: when that ends, a connection that is just
	// being made has to be reset and not closed.
	target, err := (&net.Dialer{}).DialContext(l.proxy.ctx, "tcp", l.proxy.target)
	if err != nil {
		l.reset()
		return
	}
	l.forward(client, target)
}

// forward is serve with a connection to the target.
func (l *link) forward(client, target net.Conn) {
	l.mu.Lock()
	if l.over {
		abort(target)
		l.mu.Unlock()
		return
	}
	l.conns = append(l.conns, target)
	l.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { l.pump(upstream, target, client) })
	wg.Go(func() { l.pump(downstream, client, target) })
	wg.Wait()
	l.end(func(c net.Conn) { c.Close() })
}

// reset ends both connections as a crash does.
func (l *link) reset() { l.end(abort) }

func (l *link) end(how func(net.Conn)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	l.over = true
	l.cancel()
	for _, c := range l.conns {
		how(c)
	}
}

// abort closes a connection so that the peer gets a reset.
func abort(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.Close()
}

// wait returns once f does not hold up the caller, and reports false if the
// link ends before. f returns how long to wait, or that only a change of the
// faults helps.
func (l *link) wait(f func(faults) (d time.Duration, held bool)) (faults, bool) {
	for {
		now, changed := l.proxy.now()
		d, held := f(now)
		if !held && d <= 0 {
			return now, l.ctx.Err() == nil
		}
		var due <-chan time.Time
		if !held {
			due = time.After(d)
		}
		select {
		case <-due:
		case <-changed:
		case <-l.ctx.Done():
			return now, false
		}
	}
}

// chunk is what one read returned.
type chunk struct {
	data []byte
	err  error
	came time.Time
}

// pump forwards in one direction until that has ended. It reads ahead, so that
// a delay delays and does not limit the throughput.
func (l *link) pump(dir direction, dst, src net.Conn) {
	const ahead = 1024
	queue := make(chan chunk, ahead)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { l.read(src, queue) })
	var next time.Time // when the throttle lets the next bytes pass
	for {
		var c chunk
		select {
		case c = <-queue:
		case <-l.ctx.Done():
			return
		}
		for {
			f, ok := l.wait(func(f faults) (time.Duration, bool) {
				wait := time.Until(c.came.Add(f.delay))
				if f.rate > 0 {
					wait = max(wait, time.Until(next))
				}
				return wait, f.held[dir]
			})
			if !ok {
				return
			}
			if len(c.data) == 0 {
				break
			}
			n := len(c.data)
			if f.rate > 0 {
				// Small pieces, so that it is slow and not in bursts.
				n = min(n, max(f.rate/20, 1))
				next = time.Now().Add(time.Duration(n) * time.Second / time.Duration(f.rate))
			}
			if n, ok = l.write(dir, dst, c.data[:n]); !ok {
				l.reset()
				return
			}
			c.data = c.data[n:]
		}
		switch {
		case c.err == nil:
		case errors.Is(c.err, io.EOF):
			// The other direction may have more to say.
			closeWrite(dst)
			return
		default:
			l.reset()
			return
		}
	}
}

// read puts what comes from src into the queue.
func (l *link) read(src net.Conn, queue chan<- chunk) {
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		select {
		case queue <- chunk{bytes.Clone(buf[:n]), err, time.Now()}:
		case <-l.ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// write writes some of data, and reports whether the link is to go on.
func (l *link) write(dir direction, dst net.Conn, data []byte) (int, bool) {
	if dir == upstream {
		n, err := count(&l.proxy.up, dst, data)
		return n, err == nil
	}
	left := l.left.Load()
	if left == 0 {
		return 0, false
	}
	if left > 0 && int64(len(data)) > left {
		data = data[:left]
	}
	n, err := count(&l.proxy.down, dst, data)
	if left > 0 && l.left.CompareAndSwap(left, left-int64(n)) && left == int64(n) {
		return n, false
	}
	return n, err == nil
}

// count writes data and counts it; first, so that whoever has received it finds
// it counted.
func count(total *atomic.Int64, dst net.Conn, data []byte) (int, error) {
	total.Add(int64(len(data)))
	n, err := dst.Write(data)
	total.Add(int64(n - len(data)))
	return n, err
}

func closeWrite(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
		return
	}
	c.Close()
}
