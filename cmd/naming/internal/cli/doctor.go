package cli

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/hashicorp/consul/api"
	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/open"
	"github.com/naming-go/naming/cmd/naming/internal/doctor"
	"github.com/naming-go/naming/cmd/naming/internal/show"
)

func (a *app) doctorCommand() *cobra.Command {
	var o doctor.Options
	cmd := &cobra.Command{
		Use: "doctor [URL]", Short: "Examine a registry, and say what to do about what is wrong", Args: cobra.MaximumNArgs(1),
		Long: "Examine a registry: whether it answers and how fast, its version and limits, which rights the\n" +
			"credentials lack, and which entries are malformed, withheld, orphaned or ghosts of dead programs.\n" +
			"One endpoint is registered under a random name and removed, unless --read-only is given.\n" +
			"The exit status is 1 if there is a problem, and 3 if the registry does not answer.",
		RunE: run(func(ctx context.Context, args []string) error { return a.doctor(ctx, a.registry(args), o) }),
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.ReadOnly, "read-only", false, "write nothing; the rights to register are not examined then")
	flags.BoolVar(&o.Dial, "dial", false, "connect to every endpoint by TCP, and report where nobody listens")
	flags.DurationVar(&o.Slow, "slow", 100*time.Millisecond, "the time of a read from which on the latency is a problem")
	flags.IntVar(&o.Samples, "samples", 20, "how many reads the latency is measured with")
	return cmd
}

// maxSamples bounds the reads, which are made one after the other.
const maxSamples = 10000

func (a *app) doctor(ctx context.Context, url string, o doctor.Options) error {
	if o.Samples <= 0 || o.Samples > maxSamples {
		return usage("--samples must be from 1 to %d", maxSamples)
	}
	if o.Slow <= 0 {
		return usage("--slow must be positive")
	}
	t, done, err := a.target(ctx, url)
	if err != nil {
		return err
	}
	defer done()
	o.Timeout = a.timeout
	problems := 0
	var failed error // the first error of the output
	err = doctor.Examine(ctx, t, o, func(f doctor.Finding) {
		if f.Level == doctor.Problem {
			problems++
		}
		if err := a.printOne(f, func() string { return findingLine(f) }); failed == nil {
			failed = err
		}
	})
	switch {
	case ctx.Err() != nil:
		return no("interrupted")
	case err != nil:
		return registryError(shortURL(url), err)
	case failed != nil:
		return failed
	case problems > 0:
		return &statusError{status: statusNo}
	}
	return nil
}

// target opens a registry for an examination.
func (a *app) target(ctx context.Context, url string) (doctor.Target, func(), error) {
	var t doctor.Target
	if err := oneRegistry(url); err != nil {
		return t, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	var malformed malformedList
	store, done, err := open.Store(ctx, url, &open.Options{
		Logger:      slog.New(slog.DiscardHandler),
		OnMalformed: malformed.add,
		OnEtcd:      func(c *clientv3.Client, o etcd.Options) { t.Etcd = &doctor.Etcd{Client: c, Options: o} },
		OnConsul:    func(c *api.Client, o consul.Options) { t.Consul = &doctor.Consul{Client: c, Options: o} },
	})
	if err != nil {
		return t, nil, a.openError(url, err)
	}
	t.Store = store
	t.Client = naming.New(store, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	t.Malformed = malformed.all
	return t, func() { t.Client.Close(); _ = done() }, nil
}

// maxMalformed bounds the malformed entries that are remembered.
const maxMalformed = 10000

// malformedList remembers malformed entries by their key. Its methods may be called
// concurrently.
type malformedList struct {
	mu    sync.Mutex
	byKey map[string]naming.MalformedError // guarded by mu
}

func (l *malformedList) add(m *naming.MalformedError) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byKey == nil {
		l.byKey = make(map[string]naming.MalformedError)
	}
	if len(l.byKey) < maxMalformed {
		l.byKey[m.Key] = *m
	}
}

// all returns the entries, sorted by key.
func (l *malformedList) all() []naming.MalformedError {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.SortedFunc(maps.Values(l.byKey), func(a, b naming.MalformedError) int { return strings.Compare(a.Key, b.Key) })
}

var findingColours = map[doctor.Level]lipgloss.Style{
	doctor.OK:      lipgloss.NewStyle().Foreground(lipgloss.Green),
	doctor.Note:    lipgloss.NewStyle().Foreground(lipgloss.Yellow),
	doctor.Problem: lipgloss.NewStyle().Foreground(lipgloss.Red).Bold(true),
}

func findingLine(f doctor.Finding) string {
	line := findingColours[f.Level].Render(fmt.Sprintf("%-7s", f.Level)) + "  " + fmt.Sprintf("%-9s", show.Text(f.Part)) + "  " + show.Text(f.What) + "\n"
	if f.Do != "" {
		line += strings.Repeat(" ", 20) + "-> " + show.Text(f.Do) + "\n"
	}
	return line
}
