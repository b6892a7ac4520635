package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/open"
	"github.com/naming-go/naming/cmd/naming/internal/httpd"
	"github.com/naming-go/naming/cmd/naming/internal/hub"
	"github.com/naming-go/naming/migrate"
	prometheusnaming "github.com/naming-go/naming/observe/prometheus"
)

// serverFlags are the flags of a command that serves the registry over HTTP.
type serverFlags struct {
	address string
	hosts   []string
	writes  bool // clients may change the registry
}

// add adds the flags. who are the clients of the server.
func (f *serverFlags) add(cmd *cobra.Command, address, who string) {
	cmd.Flags().StringVar(&f.address, "listen", address, "the `ADDRESS` to listen on; port 0 is a free one")
	cmd.Flags().StringSliceVar(&f.hosts, "host", nil, "another `NAME` by which "+who+" reach a server on the loopback interface; may be given more than once")
}

// server is what a command serves.
type server struct {
	http.Handler
	what     string // the beginning of the line that names the URL, with %s for the registry
	fragment string // the end of the URL
}

// serveHub serves a Hub on the registry that the flags name, until ctx is done. It prints the
// URL of the server.
func (a *app) serveHub(ctx context.Context, f serverFlags, handler func(*hubSession) (server, error)) error {
	lis, err := a.listen(ctx, f)
	if err != nil {
		return err
	}
	defer lis.Close()
	s, err := a.openHub(ctx)
	if err != nil {
		return err
	}
	defer func() { s.close() }() // The handler may add to close.
	h, err := handler(s)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.Out, h.what+" http://%s/%s\n", a.registryName(), lis.Addr(), h.fragment)
	return s.run(ctx, func(ctx context.Context) error { return httpd.Serve(ctx, lis, f.checked(lis, h)) })
}

// listen listens on an address. It warns if the address can be reached from other machines.
func (a *app) listen(ctx context.Context, f serverFlags) (net.Listener, error) {
	if _, _, err := net.SplitHostPort(f.address); err != nil {
		return nil, usage("--listen: %w", err)
	}
	lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.address)
	if err != nil {
		return nil, no("--listen: %w", err)
	}
	if httpd.Loopback(lis.Addr()) {
		return lis, nil
	}
	fmt.Fprintf(a.Err, "naming: everybody who reaches %s can read the registry\n", lis.Addr())
	switch {
	case f.writes:
		fmt.Fprintln(a.Err, "naming: the connection is not encrypted: everybody on its way can read the token, and change the registry")
	case len(f.hosts) > 0:
		lis.Close()
		return nil, usage("--host is for a server on the loopback interface, or with --allow-writes")
	}
	return lis, nil
}

// checked returns a handler that checks the name of the host in a request, on the loopback
// interface and where clients may change the registry.
func (f *serverFlags) checked(lis net.Listener, h http.Handler) http.Handler {
	switch {
	case httpd.Loopback(lis.Addr()):
		return httpd.CheckHost(h, f.hosts...)
	case f.writes:
		return httpd.CheckHostOrIP(h, f.hosts...)
	}
	return h
}

// registryName is storeName for a sentence: a migrate URL becomes the names of both registries.
func (a *app) registryName() string { return strings.TrimPrefix(a.storeName(), "migrate: ") }

// hubSession is a Hub on the registry that the flags name.
type hubSession struct {
	hub     *hub.Hub
	metrics *prometheus.Registry
	client  *naming.Client
	joined  *migrate.Joined // nil unless the registry is a migrate URL
	sides   []side          // see openSides
	close   func()
}

// side is a registry with entries of Bridges. The name is empty without a migrate URL.
type side struct {
	name   string
	client *naming.Client
}

// openHub opens the registry for a Hub, with metrics.
func (a *app) openHub(ctx context.Context) (*hubSession, error) {
	s := &hubSession{hub: hub.New(hub.Options{}), metrics: prometheus.NewRegistry()}
	var opts open.ClientOptions
	if err := s.observe(a.store, &opts); err != nil {
		return nil, err
	}
	if a.verbose == 0 {
		opts.Store.Logger = slog.New(newCalm(a.logger().Handler()))
	}
	opts.OnJoin = func(j *migrate.Joined) { s.joined = j }
	var err error
	if s.client, s.close, err = a.client(ctx, opts); err != nil {
		return nil, err
	}
	if err := a.openSides(ctx, s); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// openSides opens the registries in which Bridges have their entries, unless the Client lists
// these entries: each registry of a migrate URL by itself, and a registry whose URL has another
// format than Bridges use.
func (a *app) openSides(ctx context.Context, s *hubSession) error {
	if s.joined == nil {
		if records := recordsURL(a.store); records != a.store {
			return a.openRecords(ctx, s, "", records)
		}
		return nil
	}
	u, err := url.Parse(a.store)
	if err != nil {
		return err
	}
	q := u.Query()
	return errors.Join(
		a.openRecords(ctx, s, cmp.Or(q.Get("old-name"), "old"), recordsURL(q.Get("from"))),
		a.openRecords(ctx, s, cmp.Or(q.Get("new-name"), "new"), recordsURL(q.Get("to"))),
	)
}

// openRecords opens a side.
func (a *app) openRecords(ctx context.Context, s *hubSession, name, url string) error {
	store, done, err := a.registryStore(ctx, url)
	if err != nil {
		return err
	}
	c := naming.New(store, &naming.Options{Logger: slog.New(slog.DiscardHandler)}) // The Client of the Hub logs failures.
	s.sides = append(s.sides, side{name, c})
	next := s.close
	s.close = func() { c.Close(); done(); next() }
	return nil
}

// observe adds metrics and hooks to the options of a Client. The metrics have no label
// service, so that a registry with many services does not fill the memory.
func (s *hubSession) observe(store string, opts *open.ClientOptions) error {
	s.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	labels := &prometheusnaming.Options{DropService: true}
	u, err := url.Parse(store)
	if err != nil || u.Scheme != "migrate" {
		m, err := prometheusnaming.New(labels)
		if err != nil {
			return err
		}
		opts.Client.Hooks = m.Hooks()
		return s.metrics.Register(m)
	}
	q := u.Query()
	m, err := prometheusnaming.NewMigration(cmp.Or(q.Get("old-name"), "old"), cmp.Or(q.Get("new-name"), "new"), labels)
	if err != nil {
		return usage("%w", err)
	}
	opts.Client.Hooks = m.Joined.Hooks()
	opts.Migrate.OldHooks, opts.Migrate.NewHooks = m.Old.Hooks(), m.New.Hooks()
	opts.Migrate.Hooks = joinMigrateHooks(m.Hooks(), s.hub.MigrateHooks())
	return s.metrics.Register(m)
}

// joinMigrateHooks returns hooks that call both.
func joinMigrateHooks(a, b *migrate.Hooks) *migrate.Hooks {
	return &migrate.Hooks{
		PhaseChanged: func(i migrate.PhaseChangedInfo) { a.PhaseChanged(i); b.PhaseChanged(i) },
		Narrowed:     func(i migrate.NarrowedInfo) { a.Narrowed(i); b.Narrowed(i) },
		Fallback:     func(i migrate.FallbackInfo) { a.Fallback(i); b.Fallback(i) },
		Parity:       func(i migrate.ParityInfo) { a.Parity(i); b.Parity(i) },
	}
}

// run runs the Hub and a server until ctx is done or one of them fails.
func (s *hubSession) run(ctx context.Context, server func(context.Context) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.hub.Run(ctx, s.client, s.joined) })
	for _, side := range s.sides {
		g.Go(func() error { return s.hub.RunBridges(ctx, side.name, side.client) })
	}
	g.Go(func() error { return server(ctx) })
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil // Ctrl-C is how a server ends.
}
