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

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/open"
	"github.com/naming-go/naming/cmd/naming/internal/httpd"
	"github.com/naming-go/naming/cmd/naming/internal/hub"
	"github.com/naming-go/naming/cmd/naming/internal/serve"
	"github.com/naming-go/naming/migrate"
	prometheusnaming "github.com/naming-go/naming/observe/prometheus"
)

func (a *app) serveCommand() *cobra.Command {
	listen := ""
	var hosts []string
	cmd := &cobra.Command{
		Use: "serve", Short: "Serve the registry over HTTP: targets for Prometheus, a JSON API, metrics", Args: cobra.NoArgs,
		Long: "Serve the services of a registry to other programs until Ctrl-C: targets for Prometheus, an API in JSON\n" +
			"with a watch, health and metrics. The server is read-only and answers from memory. It goes on with the\n" +
			"last answer of a registry that fails, and each answer has its age in the header.\n\n" +
			"The server listens on the loopback interface only, unless --listen says otherwise. It has no authentication.",
		Example: serveExample,
		RunE:    run(func(ctx context.Context, _ []string) error { return a.serve(ctx, listen, hosts) }),
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:9780", "the `ADDRESS` to listen on; port 0 is a free one")
	cmd.Flags().StringSliceVar(&hosts, "host", nil, "another `NAME` by which clients reach a server on the loopback interface; may be given more than once")
	return cmd
}

const serveExample = `  naming serve --listen 127.0.0.1:9780
  curl http://127.0.0.1:9780/v1/services
  curl -N http://127.0.0.1:9780/v1/watch?service=greeter

In the configuration of Prometheus:

  scrape_configs:
  - job_name: naming
    http_sd_configs:
    - url: http://127.0.0.1:9780/prometheus/targets
    relabel_configs:
    - {source_labels: [__meta_naming_service], target_label: service}
    - {source_labels: [__meta_naming_zone], target_label: zone}
    - {source_labels: [__meta_naming_state], regex: held, action: drop}`

func (a *app) serve(ctx context.Context, listen string, hosts []string) error {
	lis, err := a.listen(ctx, listen, hosts)
	if err != nil {
		return err
	}
	defer lis.Close()
	s, err := a.openHub(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	handler, err := serve.New(s.hub, s.metrics)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.Out, "serving %s at http://%s/\n", a.registryName(), lis.Addr())
	return s.run(ctx, func(ctx context.Context) error { return httpd.Serve(ctx, lis, checked(lis, hosts, handler)) })
}

// listen listens on an address. It warns if the address can be reached from other machines.
func (a *app) listen(ctx context.Context, addr string, hosts []string) (net.Listener, error) {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return nil, usage("--listen: %w", err)
	}
	lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, no("--listen: %w", err)
	}
	if !httpd.Loopback(lis.Addr()) {
		fmt.Fprintf(a.Err, "naming: everybody who reaches %s can read the registry\n", lis.Addr())
		if len(hosts) > 0 {
			lis.Close()
			return nil, usage("--host is for a server on the loopback interface")
		}
	}
	return lis, nil
}

// checked returns a handler that checks the name of the host on the loopback interface.
func checked(lis net.Listener, hosts []string, h http.Handler) http.Handler {
	if !httpd.Loopback(lis.Addr()) {
		return h
	}
	return httpd.CheckHost(h, hosts...)
}

// hubSession is a Hub on the registry that the flags name.
type hubSession struct {
	hub     *hub.Hub
	metrics *prometheus.Registry
	client  *naming.Client
	joined  *migrate.Joined // nil unless the registry is a migrate URL
	sides   []side          // nil unless the registry is a migrate URL
	close   func()
}

// side is one registry of a migrate URL.
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
	opts.OnJoin = func(j *migrate.Joined) { s.joined = j }
	var err error
	if s.client, s.close, err = a.client(ctx, opts); err != nil {
		return nil, err
	}
	if s.joined == nil {
		return s, nil
	}
	if err := a.openSides(ctx, s); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// openSides opens each registry of a migrate URL by itself, for the entries of Bridges.
func (a *app) openSides(ctx context.Context, s *hubSession) error {
	u, err := url.Parse(a.store)
	if err != nil {
		return err
	}
	q := u.Query()
	for _, p := range []struct{ url, name string }{{q.Get("from"), cmp.Or(q.Get("old-name"), "old")}, {q.Get("to"), cmp.Or(q.Get("new-name"), "new")}} {
		store, done, err := a.registryStore(ctx, p.url)
		if err != nil {
			return err
		}
		c := naming.New(store, &naming.Options{Logger: slog.New(slog.DiscardHandler)}) // The joined Client logs failures.
		s.sides = append(s.sides, side{p.name, c})
		next := s.close
		s.close = func() { c.Close(); done(); next() }
	}
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
