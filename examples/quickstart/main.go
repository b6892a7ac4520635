// Command quickstart shows gRPC calls that follow a registry: servers come and
// go, the registry fails, and no call does.
//
//	go run ./examples/quickstart
//
// The registry is package backend/memory. No other backend is compiled, so the
// first run starts soon. The programs ../server and ../client use etcd or Consul.
//
// The story is in story.go, the server's part in server.go, and the client's part
// in client.go. Package ../internal/demo makes the calls and counts them.
//
// The exit status is 0 if no call failed. It is 1 if a call failed or the story ended
// early, and 2 for arguments that can never work.
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
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/examples/internal/demo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (status int) {
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	flags.SetOutput(stderr)
	step := flags.Duration("step", time.Second, "how long the calls go on after each step")
	switch err := flags.Parse(args); {
	case err == flag.ErrHelp:
		return 0
	case err != nil:
		return 2 // the flag package has printed the reason
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "quickstart: unexpected argument %q: for etcd or Consul, run ./examples/server and ./examples/client with -store\n", flags.Arg(0))
		return 2
	}
	screen := demo.NewScreen(stdout)
	store := new(memory.Store)
	client := naming.New(store, &naming.Options{Logger: demo.NewLogger(screen, slog.LevelInfo)})
	defer client.Close()

	s := &story{store: store, client: client, screen: screen, step: *step, traffic: demo.NewTraffic()}
	err := s.run(ctx)
	fmt.Fprint(stdout, s.result())
	if err != nil {
		fmt.Fprintln(stderr, "quickstart:", err)
		return 1
	}
	if failed, _ := s.traffic.Failed(); failed > 0 {
		return 1
	}
	return 0
}
