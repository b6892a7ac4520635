package cli

import (
	"context"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/supervise"
)

// runFlags are the flags of naming run.
type runFlags struct {
	endpointFlags
	addr, health, healthAddr, healthPath, healthService string
	every, grace                                        time.Duration
	failures                                            int
	foreground                                          bool
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use: "run SERVICE --addr ADDRESS [flags] -- COMMAND [ARG...]", DisableFlagsInUseLine: true, Short: "Run a program, registered while it is healthy",
		Args: cobra.MinimumNArgs(2),
		Long: "Run a program and register its address while it is healthy. A signal to stop first drains and removes\n" +
			"the address, and then reaches the program. The exit status is that of the program, or 128 and the\n" +
			"number of the signal that killed it. naming run may be process 1 of a container.\n" +
			"A terminal is not the input of the program, unless --foreground is given.",
		Example: "  naming run greeter --addr 10.0.0.7:8080 --health grpc -- ./server -port 8080",
		RunE:    run(func(ctx context.Context, args []string) error { return a.runProgram(ctx, &f, args) }),
	}
	f.endpointFlags.add(cmd)
	flags := cmd.Flags()
	flags.SetInterspersed(true)
	flags.StringVar(&f.addr, "addr", "", "the `ADDRESS` at which clients reach the program (required)")
	flags.StringVar(&f.health, "health", "tcp", "how to ask the program: grpc, tcp, http or none")
	flags.StringVar(&f.healthAddr, "health-addr", "", "the `ADDRESS` to ask (default --addr)")
	flags.StringVar(&f.healthPath, "health-path", "/healthz", "the path to ask with --health http")
	flags.StringVar(&f.healthService, "health-service", "", "the name to ask for with --health grpc (default the whole server)")
	flags.DurationVar(&f.every, "health-every", time.Second, "the time between two checks")
	flags.IntVar(&f.failures, "health-failures", 3, "how many checks in a row must fail")
	flags.DurationVar(&f.grace, "grace", 10*time.Second, "how long the program has to stop before it is killed")
	flags.BoolVar(&f.foreground, "foreground", false, "give the terminal to the program: its keys, and Ctrl-C at once")
	_ = cmd.MarkFlagRequired("addr")
	return cmd
}

func (a *app) runProgram(ctx context.Context, f *runFlags, args []string) error {
	check, err := f.check()
	if err != nil {
		return err
	}
	e, err := f.endpoint(f.addr)
	if err != nil {
		return err
	}
	if err := naming.CheckAddress(e.Addr); err != nil {
		return err
	}
	if err := naming.CheckService(args[0]); err != nil {
		return err
	}
	// From here on the program gets the signals, and not the context of Main.
	ctx = context.WithoutCancel(ctx)
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, supervise.Signals...)
	defer signal.Stop(signals)
	c, done, err := a.announcing(ctx)
	if err != nil {
		return err
	}
	defer done()
	status, err := supervise.Run(ctx, c, supervise.Options{
		Command: args[1:], Service: args[0], Endpoint: e, Register: *f.options(),
		Check: check, Every: f.every, Failures: f.failures, Grace: f.grace, Foreground: f.foreground,
		Signals: signals, Logger: a.logger(),
	})
	if status != 0 || err != nil {
		return &statusError{status, err}
	}
	return nil
}

// check returns the check that the flags say.
func (f *runFlags) check() (func(context.Context) error, error) {
	flag, addr := "--health-addr", f.healthAddr
	if addr == "" {
		flag, addr = "--addr", f.addr
	}
	if f.every <= 0 || f.failures <= 0 || f.grace <= 0 {
		return nil, usage("--health-every, --health-failures and --grace must be positive")
	}
	if f.health == "none" {
		return nil, nil
	}
	if err := supervise.CheckAddr(addr); err != nil {
		return nil, usage("%s: %w", flag, err)
	}
	switch f.health {
	case "tcp":
		return supervise.TCP(addr), nil
	case "http":
		if _, err := url.ParseRequestURI(f.healthPath); err != nil || !strings.HasPrefix(f.healthPath, "/") {
			return nil, usage("--health-path is %q: want a path that begins with a slash", f.healthPath)
		}
		return supervise.HTTP(addr, f.healthPath), nil
	case "grpc":
		return supervise.GRPC(addr, f.healthService), nil
	}
	return nil, usage("--health is %q: want grpc, tcp, http or none", f.health)
}
