// Package devetcd runs an etcd server in this process, for development. It has one member and
// no authentication.
package devetcd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/embed"
)

// startTimeout bounds the start. A large data directory takes seconds.
const startTimeout = time.Minute

// lockTimeout bounds the wait for the lock of the database. Another program that uses the
// database without the lock of the directory is an etcd of its own.
const lockTimeout = time.Second

// Server is a running etcd server.
type Server struct {
	etcd *embed.Etcd
	dir  string
	temp bool
	lock *fileutil.LockedFile // nil: a temporary directory
}

// Options configures Start.
type Options struct {
	// Listen is the address for clients: an IP address or localhost, and a port. The port 0
	// means a free port.
	Listen string
	// Dir is the data directory, which is created if necessary. Empty means a temporary
	// directory, which Close removes.
	Dir string
	// Logger gets what ends the process as an error. etcd ends the process when it cannot
	// write, as on a full disk. Nil means no log.
	Logger *slog.Logger
}

// ErrInUse and ErrDirInUse are returned by Start if another program has the address or the data
// directory.
var (
	ErrInUse    = errors.New("in use by another program")
	ErrDirInUse = errors.New("in use by another program")
)

// ErrListen is returned by Start for an address that nobody can listen on.
var ErrListen = errors.New("not an address to listen on")

// Start starts a server and waits until it can be used. One data directory belongs to one server
// at a time.
func Start(ctx context.Context, opts Options) (*Server, error) {
	s := &Server{dir: opts.Dir, temp: opts.Dir == ""}
	if err := checkListen(opts.Listen); err != nil {
		return nil, err
	}
	if err := s.makeDir(); err != nil {
		return nil, err
	}
	timer := time.NewTimer(startTimeout)
	defer timer.Stop()
	fatal := newFatal()
	cfg := s.config(opts, fatal)
	err := s.checkData(cfg.Dir)
	if err == nil {
		s.etcd, err = s.startEtcd(ctx, cfg, fatal, timer.C)
	}
	if err != nil {
		s.release()
		if errors.Is(err, syscall.EADDRINUSE) {
			err = fmt.Errorf("%s is %w", opts.Listen, ErrInUse)
		}
		return nil, err
	}
	fatal.started.Store(true)
	select {
	case <-s.etcd.Server.ReadyNotify():
		return s, nil
	case err = <-s.etcd.Err():
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = fmt.Errorf("etcd was not ready after %v", startTimeout)
	}
	s.Close()
	return nil, err
}

// startEtcd starts etcd in a goroutine of its own: etcd panics, or does not return, if its data
// are damaged.
func (s *Server) startEtcd(ctx context.Context, cfg *embed.Config, fatal *fatal, late <-chan time.Time) (*embed.Etcd, error) {
	type result struct {
		etcd *embed.Etcd
		err  error
	}
	started := make(chan result, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				started <- result{err: fmt.Errorf("the data directory %s cannot be used: etcd: %v", s.dir, p)}
			}
		}()
		etcd, err := embed.StartEtcd(cfg)
		started <- result{etcd, err}
	}()
	select {
	case r := <-started:
		return r.etcd, r.err
	case err := <-fatal.err:
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-late:
		return nil, fmt.Errorf("etcd was not ready after %v", startTimeout)
	}
}

// checkData returns an error if the database below dir is damaged. etcd prints a stack for it.
func (s *Server) checkData(dir string) error {
	file := filepath.Join(dir, "member", "snap", "db")
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if err != nil {
		return fmt.Errorf("the data directory %s cannot be used: %w", s.dir, err)
	}
	return db.Close()
}

// checkListen returns an error for an address that etcd refuses. The error of etcd does not say
// what to do.
func checkListen(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is %w: %w", addr, ErrListen, err)
	}
	if net.ParseIP(host) == nil && host != "localhost" {
		return fmt.Errorf("%q is %w: want an IP address, such as 127.0.0.1, or 0.0.0.0 for all interfaces", addr, ErrListen)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q is %w: the port is not a number from 0 to 65535", addr, ErrListen)
	}
	return nil
}

// makeDir makes the data directory, and locks it. etcd would wait for the end of another
// server on the directory, and nothing could interrupt the wait.
func (s *Server) makeDir() (err error) {
	if s.temp {
		s.dir, err = os.MkdirTemp("", "naming-dev-")
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	s.lock, err = fileutil.TryLockFile(filepath.Join(s.dir, "lock"), os.O_WRONLY|os.O_CREATE, 0o600)
	if errors.Is(err, fileutil.ErrLocked) {
		return fmt.Errorf("the data directory %s is %w", s.dir, ErrDirInUse)
	}
	return err
}

func (s *Server) config(opts Options, fatal *fatal) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = "dev", filepath.Join(s.dir, "etcd")
	client := url.URL{Scheme: "http", Host: opts.Listen}
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:0"} // no other member exists
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = "periodic", "10m"
	cfg.UnsafeNoFsync = s.temp
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(newLogger(opts.Logger, fatal))
	return cfg
}

// Addr returns the address for clients.
func (s *Server) Addr() string { return s.etcd.Clients[0].Addr().String() }

// Dir returns the data directory.
func (s *Server) Dir() string { return s.dir }

// Err returns a channel that gets an error if the server fails.
func (s *Server) Err() <-chan error { return s.etcd.Err() }

// Close stops the server and waits until it has stopped.
func (s *Server) Close() {
	s.etcd.Close()
	s.release()
}

// release removes a temporary directory, and unlocks another.
func (s *Server) release() {
	if s.temp {
		_ = os.RemoveAll(s.dir)
		return
	}
	_ = s.lock.Close()
}
