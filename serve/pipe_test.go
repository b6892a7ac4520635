package serve_test

import (
	"context"
	"net"
	"sync"
	"syscall"
)

// pipes is a network of pipes within a bubble.
type pipes struct {
	mu        sync.Mutex
	listeners map[string]*pipeListener // by address; guarded by mu
	port      int                      // guarded by mu
}

type pipeListener struct {
	net     *pipes
	addr    *net.TCPAddr
	once    sync.Once
	closed  chan struct{}
	dialled chan net.Conn
}

// listen listens at a new address.
func (p *pipes) listen() net.Listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.port++
	l := &pipeListener{net: p, addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: p.port}, closed: make(chan struct{}), dialled: make(chan net.Conn)}
	if p.listeners == nil {
		p.listeners = make(map[string]*pipeListener)
	}
	p.listeners[l.addr.String()] = l
	return l
}

func (p *pipes) find(addr string) *pipeListener {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.listeners[addr]
}

// dial is a DialContext of [http.Transport].
func (p *pipes) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	l := p.find(addr)
	if l == nil {
		return nil, syscall.ECONNREFUSED
	}
	client, server := net.Pipe()
	select {
	case l.dialled <- server:
		return client, nil
	case <-l.closed:
		return nil, syscall.ECONNREFUSED
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.dialled:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return l.addr }
