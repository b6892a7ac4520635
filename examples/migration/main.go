// Command migration shows how a service moves from one registry to another while calls
// are made, and no call fails.
//
//	go run ./examples/migration
//
// Three servers and four clients know both registries. The phase of the migration goes
// from 0 to 7, back, and at last to 0 again. In every phase all servers restart, one
// after the other. A line for each phase says where the servers are registered, which
// registry the clients read, and how many connections the clients had to make: because
// of the phase, and because of the restarts.
//
// The registries are two of package backend/memory. The servers and clients share
// nothing but them, as if each was a program of its own.
//
// A program joins the migration in join.go. The server is in server.go, the client in
// client.go, and the story in story.go. Package ../internal/demo makes the calls and
// counts them.
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

	"github.com/naming-go/naming/examples/internal/demo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (status int) {
	flags := flag.NewFlagSet("migration", flag.ContinueOnError)
	flags.SetOutput(stderr)
	step := flags.Duration("step", 200*time.Millisecond, "how long the calls go on in each phase, besides the restarts")
	switch err := flags.Parse(args); {
	case err == flag.ErrHelp:
		return 0
	case err != nil:
		return 2 // the flag package has printed the reason
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "migration: unexpected argument %q: for etcd or Consul, run ./examples/server and ./examples/client with -store\n", flags.Arg(0))
		return 2
	}
	screen := demo.NewScreen(stdout)
	s := newStory(screen, demo.NewLogger(screen, slog.LevelWarn), *step)
	err := s.run(ctx)
	fmt.Fprint(stdout, s.result())
	if err != nil {
		fmt.Fprintln(stderr, "migration:", err)
		return 1
	}
	if _, failed, _ := s.total(); failed > 0 {
		return 1
	}
	return 0
}
