// Package httpd runs an HTTP server for the machine of its user: with bounds for slow and for
// many clients, and a check of the name under which a browser reached the server.
package httpd

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/netutil"
)

const (
	// maxConns is how many connections are served. Others wait.
	maxConns = 512
	// maxHeader bounds the header of a request, in bytes.
	maxHeader = 16 << 10
	// readTimeout bounds the time in which a request arrives.
	readTimeout = 10 * time.Second
	// WriteTimeout bounds the time in which the client reads a part of an answer.
	WriteTimeout = 10 * time.Second
	idleTimeout  = 2 * time.Minute
	// stopTimeout bounds the answers that a stop waits for.
	stopTimeout = 5 * time.Second
)

// Serve serves a handler until ctx is done, and closes the listener. Then the contexts of all
// requests are done, and Serve returns when the answers are complete. The error is nil after
// ctx is done.
func Serve(ctx context.Context, lis net.Listener, h http.Handler) error {
	s := &http.Server{
		Handler: Limit(h), BaseContext: func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
	}
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(netutil.LimitListener(lis, maxConns)) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if s.Shutdown(stop) != nil {
		s.Close()
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Limit returns a handler whose answers must be read in pieces within WriteTimeout each, and
// whose requests have no body of more than 64 KiB.
func Limit(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		d := &deadlineWriter{ResponseWriter: w, control: http.NewResponseController(w)}
		d.extend()
		if r.ContentLength != 0 {
			// A deadline of the whole request would end the context of a long answer.
			_ = d.control.SetReadDeadline(time.Now().Add(readTimeout))
		}
		h.ServeHTTP(d, r)
	})
}

// deadlineWriter gives the client time for each piece of an answer.
type deadlineWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	until   time.Time
}

// extend moves the deadline. It spares system calls while the deadline is far.
func (w *deadlineWriter) extend() {
	now := time.Now()
	if w.until.Sub(now) < WriteTimeout/2 {
		w.until = now.Add(WriteTimeout)
		_ = w.control.SetWriteDeadline(w.until) // A recorder of a test has no deadline.
	}
}

func (w *deadlineWriter) Write(p []byte) (int, error) {
	w.extend()
	return w.ResponseWriter.Write(p)
}

// Flush implements http.Flusher.
func (w *deadlineWriter) Flush() {
	w.extend()
	_ = w.control.Flush()
}

// Unwrap is for http.ResponseController.
func (w *deadlineWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Loopback reports whether an address to listen on can be reached from this machine only.
func Loopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// CheckHost returns a handler that refuses requests for other hosts than this machine and the
// names. A page of another site can make its own name point to this machine, and its scripts
// could then read the answers: the name in the request shows that.
func CheckHost(h http.Handler, names ...string) http.Handler {
	return checkHost(h, names, net.IP.IsLoopback)
}

// CheckHostOrIP is CheckHost for a server that other machines reach. It accepts each IP
// address as well, which no other site can have.
func CheckHostOrIP(h http.Handler, names ...string) http.Handler {
	return checkHost(h, names, func(ip net.IP) bool { return ip != nil })
}

func checkHost(h http.Handler, names []string, accept func(net.IP) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := hostOf(r.Host)
		if !strings.EqualFold(host, "localhost") && !accept(net.ParseIP(host)) && !slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(host, name) }) {
			http.Error(w, "this server does not answer requests for this host: see --host", http.StatusMisdirectedRequest)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// hostOf returns the host of a host with or without a port.
func hostOf(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
	}
	return host
}

// Compress returns a writer for the body of an answer, which compresses if the client can read
// that. Call it before the header is written, and the function after the last write.
func Compress(w http.ResponseWriter, r *http.Request) (body io.Writer, done func() error) {
	w.Header().Add("Vary", "Accept-Encoding")
	if !acceptsGzip(r) || r.Method == http.MethodHead {
		return w, func() error { return nil }
	}
	w.Header().Set("Content-Encoding", "gzip")
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		panic(err) // The level is a constant.
	}
	return z, z.Close
}

func acceptsGzip(r *http.Request) bool {
	for _, part := range strings.Split(r.Header.Get("Accept-Encoding"), ",") {
		name, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.EqualFold(name, "gzip") {
			q := strings.TrimRight(strings.ReplaceAll(params, " ", ""), "0")
			return q != "q=" && q != "q=0." && q != "q=."
		}
	}
	return false
}
