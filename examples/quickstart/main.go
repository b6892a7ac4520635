// Command quickstart shows gRPC calls that follow a registry: servers come and
// go, the registry fails, and no call does.
//
//	go run ./examples/quickstart
//	go run ./examples/quickstart -store 'etcd://localhost:2379?prefix=/naming/'
//
// The story is in story.go, what a server has to do in server.go, and what a
// client has to do in client.go. The exit status is 0 if no call failed, 1 if one
// did or the story could not be told to its end, and 2 for arguments that cannot
// work.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/open"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (status int) {
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	flags.SetOutput(stderr)
	url := flags.String("store", "memory:", "the registry, as a `URL`: memory:, or one of package backend/open")
	step := flags.Duration("step", 1500*time.Millisecond, "how long the calls go on after each step")
	switch err := flags.Parse(args); {
	case err == flag.ErrHelp:
		return 0
	case err != nil:
		return 2 // the flag package has said why
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "quickstart: unexpected argument %q: name the registry with -store\n", flags.Arg(0))
		return 2
	}
	store, done, err := open.Store(ctx, *url, nil)
	if err != nil {
		fmt.Fprintln(stderr, "quickstart:", err)
		return 2
	}
	defer done()

	screen := newScreen(stdout)
	// What an operator would read, without the time.
	logger := slog.New(slog.NewTextHandler(screen, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
	client := naming.New(store, &naming.Options{Logger: logger})
	defer client.Close()

	s := &story{store: store, client: client, screen: screen, step: *step, traffic: newTraffic()}
	err = s.tell(ctx)
	fmt.Fprint(stdout, s.result())
	if err != nil {
		fmt.Fprintln(stderr, "quickstart:", err)
		return 1
	}
	if failed, _ := s.traffic.failed(); failed > 0 {
		return 1
	}
	return 0
}
