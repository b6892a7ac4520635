// Package devetcd runs an etcd server in this process, for development. It has one member and
// no authentication.
package devetcd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// startTimeout bounds the start. A large data directory takes seconds.
const startTimeout = time.Minute

// Server is a running etcd server.
type Server struct {
	etcd *embed.Etcd
	dir  string
	temp bool
}

// Options configures Start.
type Options struct {
	// Listen is the address for clients. The port 0 means a free port.
	Listen string
	// Dir is the data directory, which is created if necessary. Empty means a temporary
	// directory, which Close removes.
	Dir string
}

// ErrInUse is returned by Start if another program has the address or the data directory.
var ErrInUse = errors.New("in use by another program")

// Start starts a server and waits until it can be used.
func Start(ctx context.Context, opts Options) (*Server, error) {
	s := &Server{dir: opts.Dir, temp: opts.Dir == ""}
	cfg, err := s.config(opts)
	if err != nil {
		return nil, err
	}
	if s.etcd, err = embed.StartEtcd(cfg); err != nil {
		s.remove()
		if errors.Is(err, syscall.EADDRINUSE) {
			err = fmt.Errorf("%s is %w", opts.Listen, ErrInUse)
		}
		return nil, err
	}
	timer := time.NewTimer(startTimeout)
	defer timer.Stop()
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

func (s *Server) config(opts Options) (*embed.Config, error) {
	if _, _, err := net.SplitHostPort(opts.Listen); err != nil {
		return nil, fmt.Errorf("the address to listen on: %w", err)
	}
	if s.temp {
		dir, err := os.MkdirTemp("", "naming-dev-")
		if err != nil {
			return nil, err
		}
		s.dir = dir
	} else if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = "dev", filepath.Join(s.dir, "etcd")
	client := url.URL{Scheme: "http", Host: opts.Listen}
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:0"} // no other member exists
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = "periodic", "10m"
	cfg.UnsafeNoFsync = s.temp
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	return cfg, nil
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
	s.remove()
}

func (s *Server) remove() {
	if s.temp && s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}
