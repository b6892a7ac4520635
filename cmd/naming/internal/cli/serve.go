package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/naming-go/naming/cmd/naming/internal/serve"
)

func (a *app) serveCommand() *cobra.Command {
	var f serverFlags
	cmd := &cobra.Command{
		Use: "serve", Short: "Serve the registry over HTTP: targets for Prometheus, a JSON API, metrics", Args: cobra.NoArgs,
		Long: "Serve the services of a registry to other programs until Ctrl-C: targets for Prometheus, an API in JSON\n" +
			"with a watch, health and metrics. The server is read-only and answers from memory. It goes on with the\n" +
			"last answer of a registry that fails, and each answer has its age in the header.\n\n" +
			"The server listens on the loopback interface only, unless --listen says otherwise. It has no authentication.\n\n" +
			prometheusExample,
		Example: "  naming serve --listen 127.0.0.1:9780",
		RunE:    run(func(ctx context.Context, _ []string) error { return a.serve(ctx, f) }),
	}
	f.add(cmd, "127.0.0.1:9780", "clients")
	return cmd
}

const prometheusExample = `In the configuration of Prometheus:

  scrape_configs:
  - job_name: naming
    http_sd_configs:
    - url: http://127.0.0.1:9780/prometheus/targets
    relabel_configs:
    - {source_labels: [__meta_naming_service], target_label: service}
    - {source_labels: [__meta_naming_zone], target_label: zone}
    - {source_labels: [__meta_naming_state], regex: held, action: drop}

A program reads http://127.0.0.1:9780/v1/services, or the changes of
http://127.0.0.1:9780/v1/watch?service=greeter as server-sent events.`

func (a *app) serve(ctx context.Context, f serverFlags) error {
	return a.serveHub(ctx, f, func(s *hubSession) (server, error) {
		handler, err := serve.New(s.hub, s.metrics)
		return server{handler, "serving %s at", ""}, err
	})
}
