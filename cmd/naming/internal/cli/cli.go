// Package cli is the command naming without its main function. It reads arguments, asks the
// packages that do the work, and prints what they say.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/naming-go/naming"
)

// Env is what a command gets from its process.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	// Terminal says that Out is a terminal, so that a live table can be drawn.
	Terminal bool
}

// OS returns the Env of this process.
func OS() Env {
	return Env{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv,
		Terminal: term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("TERM") != "dumb",
	}
}

// app is one run of the command.
type app struct {
	Env

	// The flags of all commands.
	store   string
	format  format
	timeout time.Duration
	verbose int
	flags   *pflag.FlagSet // these flags
}

// Main runs the command and returns its exit status. SIGINT and SIGTERM end ctx. A reader of
// the output that ends does not end the process: the command has to remove first what it has
// put into the registry.
func Main(ctx context.Context, env Env, args ...string) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	a := &app{Env: env}
	root := a.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	var ran *ranError
	switch {
	case err == nil:
		return statusOK
	case !errors.As(err, &ran):
		// The error is of cobra: an unknown command or flag, or a wrong number of arguments.
		fmt.Fprintf(env.Err, "naming: %s\nRun '%s --help' for usage.\n", naming.SafeText(err.Error()), cmd.CommandPath())
		return statusUsage
	}
	status := statusOf(ran.err)
	if errors.Is(ran.err, errNoReader) {
		return status // as a command that SIGPIPE kills, which prints nothing either
	}
	if s := (*statusError)(nil); !errors.As(ran.err, &s) || s.err != nil {
		fmt.Fprintf(env.Err, "naming: %s\n", message(ran.err))
	}
	return status
}

// message returns the text of an error, which is safe to print. Errors of package naming begin
// with its name, which is that of the command.
func message(err error) string {
	return strings.TrimPrefix(naming.SafeError(err).Error(), "naming: ")
}

// ranError is an error of a command whose arguments cobra has accepted.
type ranError struct{ err error }

func (e *ranError) Error() string { return e.err.Error() }

// run makes a function of cobra of a command.
func run(f func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := f(cmd.Context(), args); err != nil {
			return &ranError{err}
		}
		return nil
	}
}

// Commands returns the command naming with all commands below, for programs that read what
// commands exist.
func Commands() *cobra.Command {
	a := &app{Env: Env{Out: io.Discard, Err: io.Discard, Getenv: func(string) string { return "" }}}
	return a.root()
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "naming",
		Short: "Look at registries, register programs, and move services between registries",
		Long: strings.TrimSpace(`
naming looks at registries, registers programs in them, and moves services from one
registry to another. A registry is a URL:

  etcd://127.0.0.1:2379?prefix=/naming/
  consul://127.0.0.1:8500
  migrate:?from=consul://127.0.0.1:8500&to=etcd://127.0.0.1:2379&phases=records
  memory:

A migrate URL names two registries. The URL memory: is an empty registry in this process, which
no other process sees. The documentation of package backend/open has all parameters of URLs.

Name the registry with --store or in the environment variable NAMING_STORE. Passwords and
tokens come from files or from the environment, never from a URL or a flag.

The exit status is 0 if what was asked holds, 1 if it does not, 2 for arguments that can
never work, and 3 if a registry cannot be reached or refuses.`),
		SilenceUsage: true, SilenceErrors: true,
		Version: version(debug.ReadBuildInfo()),
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if a.timeout <= 0 {
				return errors.New("--timeout must be positive")
			}
			return nil
		},
	}
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetVersionTemplate("naming {{.Version}}\n")
	root.Flags().Bool("version", false, "print the version of this program")
	flags := root.PersistentFlags()
	a.flags = flags
	flags.StringVarP(&a.store, "store", "s", a.Getenv("NAMING_STORE"), "the registry, as a `URL` (default $NAMING_STORE)")
	flags.Lookup("store").DefValue = "" // the environment is not part of the help
	flags.VarP(&a.format, "output", "o", "the `FORMAT`: table, json or yaml")
	flags.DurationVar(&a.timeout, "timeout", 10*time.Second, "how long to wait for the registry")
	flags.CountVarP(&a.verbose, "verbose", "v", "log what happens; twice: each attempt")
	root.AddCommand(
		a.lsCommand(), a.getCommand(), a.watchCommand(), a.topCommand(), a.resolveCommand(),
		a.registerCommand(), a.deregisterCommand(), a.drainCommand(), a.resumeCommand(),
		a.runCommand(), a.devCommand(),
		a.diffCommand(), a.copyCommand(), a.migrateCommand(),
		a.checkCommand(), a.doctorCommand(), a.benchCommand(),
		a.uiCommand(), a.serveCommand(), a.manCommand(),
	)
	completeFlags(root)
	refuseUnknownTopics(root)
	return root
}

// refuseUnknownTopics makes unknown arguments of cobra's own commands errors. Cobra prints a
// help text for them, and the exit status 0.
func refuseUnknownTopics(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Args = func(_ *cobra.Command, args []string) error {
				_, rest, err := root.Find(args)
				if err == nil && len(rest) > 0 {
					err = fmt.Errorf("unknown command %q", rest[0])
				}
				return err
			}
		case "completion":
			cmd.Args = cobra.NoArgs
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
}

// logger returns the Logger of stores and clients.
func (a *app) logger() *slog.Logger {
	level := slog.LevelWarn
	switch {
	case a.verbose > 1:
		level = slog.LevelDebug
	case a.verbose == 1:
		level = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(a.Err, &slog.HandlerOptions{Level: level}))
}
