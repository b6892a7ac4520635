package cli

import (
	"context"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/naming-go/naming/cmd/naming/internal/httpd"
	"github.com/naming-go/naming/cmd/naming/internal/ui"
)

func (a *app) uiCommand() *cobra.Command {
	listen := ""
	var hosts []string
	cmd := &cobra.Command{
		Use: "ui", Short: "Show the registry in a browser", Args: cobra.NoArgs,
		Long: "Serve a page that shows the registry until Ctrl-C, and print its URL: services with their endpoints, a\n" +
			"timeline of changes, and the state of a migration. The page makes no request to another server.\n\n" +
			"The server listens on the loopback interface only, unless --listen says otherwise. It is read-only.",
		RunE: run(func(ctx context.Context, _ []string) error { return a.ui(ctx, listen, hosts) }),
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:9781", "the `ADDRESS` to listen on; port 0 is a free one")
	cmd.Flags().StringSliceVar(&hosts, "host", nil, "another `NAME` by which browsers reach a server on the loopback interface; may be given more than once")
	return cmd
}

func (a *app) ui(ctx context.Context, listen string, hosts []string) error {
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
	page, err := ui.New(s.hub, ui.Options{Registry: a.registryName()})
	if err != nil {
		return err
	}
	fmt.Fprintf(a.Out, "the page of %s: http://%s/\n", a.registryName(), lis.Addr())
	return s.run(ctx, func(ctx context.Context) error { return httpd.Serve(ctx, lis, checked(lis, hosts, page)) })
}

// registryName is storeName, with both registries of a migrate URL.
func (a *app) registryName() string {
	u, err := url.Parse(a.store)
	if err != nil || u.Scheme != "migrate" {
		return a.storeName()
	}
	q := u.Query()
	return shortURL(q.Get("from")) + " to " + shortURL(q.Get("to"))
}
