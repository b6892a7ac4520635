package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/naming-go/naming/cmd/naming/internal/devetcd"
)

// devPrefix is the beginning of the keys, as in the examples of the library.
const devPrefix = "/naming/"

func (a *app) devCommand() *cobra.Command {
	var opts devetcd.Options
	temporary := false
	cmd := &cobra.Command{
		Use: "dev", Short: "Run a registry for development", Args: cobra.NoArgs,
		Long: "Run an etcd server in this process until Ctrl-C, and print the URL to use. Nothing has to be installed.\n" +
			"The server listens on the loopback interface only, unless --listen says otherwise. It has no authentication.",
		RunE: run(func(ctx context.Context, _ []string) error {
			if opts.Dir == "" && !temporary {
				dir, err := os.UserCacheDir()
				if err != nil {
					return usage("no directory for the data: %w: use --data-dir or --temporary", err)
				}
				opts.Dir = filepath.Join(dir, "naming", "dev")
			}
			return a.dev(ctx, opts)
		}),
	}
	cmd.Flags().StringVar(&opts.Listen, "listen", "127.0.0.1:2379", "the `ADDRESS` to listen on; port 0 is a free one")
	cmd.Flags().StringVar(&opts.Dir, "data-dir", "", "the `DIRECTORY` of the data (default naming/dev in the user's cache directory)")
	cmd.Flags().BoolVar(&temporary, "temporary", false, "keep the data in a temporary directory, and remove it at the end")
	cmd.MarkFlagsMutuallyExclusive("data-dir", "temporary")
	return cmd
}

func (a *app) dev(ctx context.Context, opts devetcd.Options) error {
	opts.Logger = a.logger()
	if opts.Dir != "" {
		if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
			return no("--data-dir: %w", err)
		}
	}
	s, err := devetcd.Start(ctx, opts)
	switch {
	case errors.Is(err, devetcd.ErrListen):
		return usage("--listen: %w", err)
	case errors.Is(err, devetcd.ErrDirInUse):
		return no("%w: use the registry that runs there, or --temporary, or another --data-dir", err)
	case errors.Is(err, devetcd.ErrInUse):
		return no("%w: stop the other program, or use --listen 127.0.0.1:0 for a free port, and --temporary for data of its own", err)
	case err != nil:
		return no("%w", err)
	}
	defer s.Close()
	fmt.Fprint(a.Out, devText(s))
	if host, _, _ := net.SplitHostPort(s.Addr()); !net.ParseIP(host).IsLoopback() {
		fmt.Fprintf(a.Err, "naming: everybody who reaches %s can read and change the registry\n", s.Addr())
	}
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.Err, "stopping")
		return nil
	case err := <-s.Err():
		return no("etcd failed: %w", err)
	}
}

func devText(s *devetcd.Server) string {
	addr := s.Addr()
	if host, port, _ := net.SplitHostPort(addr); net.ParseIP(host).IsUnspecified() {
		addr = net.JoinHostPort("127.0.0.1", port) // a client cannot dial all interfaces
	}
	return strings.NewReplacer("URL", "etcd://"+addr+"?prefix="+devPrefix, "DIR", s.Dir()).Replace(
		`registry ready: URL
data in DIR

In other terminals:

  export NAMING_STORE='URL'
  naming run greeter --addr 127.0.0.1:8080 -- ./your-server
  naming watch

Ctrl-C stops it.
`)
}
