package cli

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/naming-go/naming/cmd/naming/internal/ui"
)

func (a *app) uiCommand() *cobra.Command {
	var f serverFlags
	writes := false
	cmd := &cobra.Command{
		Use: "ui", Short: "Show the registry in a browser", Args: cobra.NoArgs,
		Long: "Serve a page that shows the registry until Ctrl-C, and print its URL: services with their endpoints, a\n" +
			"timeline of changes, and the state of a migration. The page makes no request to another server.\n\n" +
			"The server listens on the loopback interface only, unless --listen says otherwise. It is read-only. With\n" +
			"--allow-writes the page also drains and resumes endpoints. On a migrate URL with phases=records it changes\n" +
			"the phases of services as well. The URL then has a token, which is new at each start. Everybody\n" +
			"with the URL can do all that.",
		Example: "  naming ui\n  naming ui --allow-writes --store 'migrate:?from=consul://10.0.0.1:8500&to=etcd://10.0.0.2:2379&phases=records'",
		RunE:    run(func(ctx context.Context, _ []string) error { return a.ui(ctx, f, writes) }),
	}
	f.add(cmd, "127.0.0.1:9781", "browsers")
	cmd.Flags().BoolVar(&writes, "allow-writes", false, "let the page drain and resume endpoints, and change the phases of a migration")
	return cmd
}

func (a *app) ui(ctx context.Context, f serverFlags, writes bool) error {
	f.writes = writes
	return a.serveHub(ctx, f, func(s *hubSession) (server, error) {
		opts := ui.Options{Registry: a.registryName()}
		if s.joined != nil {
			opts.Old, opts.New = s.sides[0].name, s.sides[1].name // openHub has checked the names
		}
		fragment := ""
		if writes {
			if err := a.allowWrites(ctx, s, &opts); err != nil {
				return server{}, err
			}
			fragment = "#token=" + opts.Token
		}
		page, err := ui.New(s.hub, opts)
		return server{page, "the page of %s:", fragment}, err
	})
}

// allowWrites completes the options of a page that changes the registry.
func (a *app) allowWrites(ctx context.Context, s *hubSession, opts *ui.Options) error {
	actions := &uiActions{app: a, client: s.client}
	opts.Actions, opts.Token = actions, rand.Text()
	if s.joined == nil {
		opts.NoSteps = "the registry is not a migrate URL, which names two registries"
		return nil
	}
	f, readOnly, err := a.resolvePair(pairFlags{})
	if err != nil {
		opts.NoSteps = message(err)
		return nil
	}
	if actions.pair, err = a.openPair(ctx, f, readOnly); err != nil {
		return fmt.Errorf("--allow-writes: %w", err)
	}
	next := s.close
	s.close = func() { actions.pair.close(); next() }
	return nil
}
