package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/naming-go/naming/cmd/naming/internal/show"
	"github.com/naming-go/naming/cmd/naming/internal/steer"
)

func (a *app) migrateStatusCommand(pair *pairFlags) *cobra.Command {
	var f lookFlags
	cmd := &cobra.Command{
		Use: "status", Short: "Show how far each service is, in both registries", Args: cobra.NoArgs,
		Long: "Show the phase of each service, the records of both registries and whether they agree, the endpoints\n" +
			"of both registries and how they differ, the bridges that work, and whether the next gate is open.\n" +
			"JOINED counts the servers that both registries have by themselves. What a program reads can only be\n" +
			"seen in its own metrics. The exit status is 3 if a registry, or a part of it, cannot be read.",
		RunE: run(func(ctx context.Context, _ []string) error {
			return a.look(ctx, *pair, &f, func(j steer.Judge, w *steer.World) error {
				doc := j.StatusOf(w)
				return a.print(doc, func() string { return statusText(doc) })
			})
		}),
	}
	f.add(cmd)
	return cmd
}

// lookFlags are the flags of a command that looks at services once.
type lookFlags struct {
	scopeFlags
	judgeFlags
}

func (f *lookFlags) add(cmd *cobra.Command) {
	f.scopeFlags.add(cmd, false)
	f.judgeFlags.add(cmd)
}

// look reads both registries once and has show print what was seen. It returns an error if a
// registry could not be read, after show.
func (a *app) look(ctx context.Context, pf pairFlags, f *lookFlags, show func(steer.Judge, *steer.World) error) error {
	if err := f.check(false); err != nil {
		return err
	}
	j, err := f.judge()
	if err != nil {
		return err
	}
	p, err := a.pair(ctx, pf)
	if err != nil {
		return err
	}
	defer p.close()
	w := a.observe(ctx, p, j, f.services)
	if ctx.Err() != nil {
		return no("interrupted")
	}
	if err := show(j, w); err != nil {
		return err
	}
	return worldError(p, w)
}

func statusText(s *steer.Status) string {
	var b strings.Builder
	fmt.Fprintf(&b, "all services: %s\n", s.All)
	for _, r := range []struct{ registry, err string }{{"old", s.OldRecordsError}, {"new", s.NewRecordsError}} {
		if r.err != "" {
			fmt.Fprintf(&b, "the records of the %s registry cannot be read: %s\n", r.registry, r.err)
		}
	}
	if s.BridgesError != "" {
		fmt.Fprintf(&b, "the bridges of a registry cannot be read: %s\n", s.BridgesError)
	}
	for _, name := range s.Disagreement {
		fmt.Fprintf(&b, "the registries disagree about the record of %s\n", name)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Malformed)) {
		fmt.Fprintf(&b, "the record %s cannot be used: %s\n", name, s.Malformed[name])
	}
	rows := make([][]string, len(s.Services))
	for i := range s.Services {
		rows[i] = statusRow(&s.Services[i])
	}
	b.WriteString("\n" + columns([]string{"SERVICE", "PHASE", "RECORD", "OLD", "NEW", "JOINED", "MISSING", "EXTRA", "DIFFERENT", "NEXT"}, rows))
	if len(s.Bridges) > 0 {
		rows = nil
		for _, x := range s.Bridges {
			fuse := "whole"
			if x.Digest != "" {
				fuse = fmt.Sprintf("blown: %d deletions wait for 'naming migrate approve %s'", x.Deletes, x.Digest)
			}
			rows = append(rows, []string{x.Name, x.Source + " -> " + x.Target, show.Text(x.By), strconv.FormatUint(x.Epoch, 10), fuse})
		}
		b.WriteString("\n" + columns([]string{"BRIDGE", "DIRECTION", "BY", "EPOCH", "FUSE"}, rows))
	}
	return b.String()
}

func statusRow(s *steer.ServiceStatus) []string {
	record := s.Record
	if s.RecordsDiffer {
		record = "old " + positionText(s.Old.Record) + ", new " + positionText(s.New.Record)
	}
	next := "the end"
	if s.Next != nil {
		next = s.Next.To.String() + ": open"
		if closed := s.Next.Closed(); len(closed) > 0 {
			names := make([]string, len(closed))
			for i, c := range closed {
				names[i] = c.Name
			}
			next = s.Next.To.String() + ": closed by " + strings.Join(names, ", ")
		}
	}
	counts := []string{"?", "?", "?", "?"}
	if s.Compared {
		counts = []string{strconv.Itoa(s.Joined), strconv.Itoa(s.Missing), strconv.Itoa(s.Extra), strconv.Itoa(s.Mismatch)}
	}
	row := []string{show.Text(s.Service), s.Position.String(), record, sideText(s.Old), sideText(s.New)}
	return append(append(row, counts...), next)
}

func positionText(p *steer.Position) string {
	if p == nil {
		return "none"
	}
	return p.String()
}

// sideText returns how many endpoints a registry has, and how many of them are copies.
func sideText(s steer.SideStatus) string {
	switch {
	case s.Error != "":
		return "not read"
	case s.Copies > 0:
		return fmt.Sprintf("%d (%s)", s.Endpoints, show.Count(s.Copies, "copy"))
	}
	return strconv.Itoa(s.Endpoints)
}
