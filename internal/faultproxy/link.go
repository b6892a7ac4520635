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

// link is a connection of a client, and the connection to the target that belongs to it.
type link struct {
	proxy *Proxy       // never changes
	left  atomic.Int64 // bytes until the link is reset; see faults.after

	// The context is done when the link has ended.
	ctx    context.Context
	cancel context.CancelFunc

	mu    sync.Mutex
	conns []net.Conn // guarded by mu: closed at the end
	over  bool       // guarded by mu
}

func newLink(p *Proxy, client net.Conn) *link {
	l := &link{proxy: p, conns: []net.Conn{client}}
	l.left.Store(healthy.after)
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// serve forwards in both directions until both have ended.
func (l *link) serve(client net.Conn) {
	// In a black hole no connection is made to the target.
	if _, ok := l.wait(func(f faults) (time.Duration, bool) {
		return 0, f.held[upstream] && f.held[downstream]
	}); !ok {
		return
	}
	// Not with the context of the link: when the link ends, a connection that is being
	// made must be reset and not closed.
	target, err := (&net.Dialer{}).DialContext(l.proxy.ctx, "tcp", l.proxy.target)
	if err != nil {
		l.reset()
		return
	}
	l.forward(client, target)
}

// forward is serve after the connection to the target was made.
func (l *link) forward(client, target net.Conn) {
	if !l.own(target) {
		abort(target)
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { l.pump(upstream, target, client) })
	wg.Go(func() { l.pump(downstream, client, target) })
	wg.Wait()
	l.end(func(c net.Conn) { c.Close() })
}

// own adds a connection to those that are closed with the link. It reports false if the
// link has ended.
func (l *link) own(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	l.conns = append(l.conns, c)
	return true
}

// reset ends both connections as a crash does.
func (l *link) reset() { l.end(abort) }

// end closes both connections with how, once.
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

// abort closes a connection with a reset.
func abort(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.Close()
}

// wait returns the faults when f returns neither a wait nor held. It reports false if the
// link has ended. f returns how long to wait, or that only a change of the faults ends
// the wait.
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

// chunk is the result of one read.
type chunk struct {
	data []byte
	err  error
	came time.Time
}

// pump forwards in one direction until the direction has ended. It reads ahead, so that a
// delay does not limit the throughput.
func (l *link) pump(dir direction, dst, src net.Conn) {
	const ahead = 1024
	queue := make(chan chunk, ahead)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { l.read(src, queue) })
	var next time.Time // when the throttle allows the next bytes
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
				// Small pieces: the bytes must not come in bursts.
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
			// The other direction may continue.
			closeWrite(dst)
			return
		default:
			l.reset()
			return
		}
	}
}

// read puts everything that it reads from src into the queue.
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

// write writes the beginning of data, and reports whether the link continues.
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

// count writes data and adds its length to total. It adds first: the receiver of the data
// must find it counted.
func count(total *atomic.Int64, dst net.Conn, data []byte) (int, error) {
	total.Add(int64(len(data)))
	n, err := dst.Write(data)
	total.Add(int64(n - len(data)))
	return n, err
}

// closeWrite ends one direction of a connection.
func closeWrite(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
		return
	}
	c.Close()
}
