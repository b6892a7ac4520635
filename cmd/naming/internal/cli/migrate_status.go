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
	var scope scopeFlags
	var judge judgeFlags
	cmd := &cobra.Command{
		Use: "status", Short: "Show how far each service is, in both registries", Args: cobra.NoArgs,
		Long: "Show the phase of each service, the records of both registries and whether they agree, the endpoints\n" +
			"of both registries and how they differ, the bridges that work, and whether the next gate is open.\n" +
			"JOINED counts the servers that both registries have by themselves. What a program reads can only be\n" +
			"seen in its own metrics. The exit status is 3 if a registry cannot be read.",
		RunE: run(func(ctx context.Context, _ []string) error { return a.migrateStatus(ctx, *pair, &scope, &judge) }),
	}
	scope.add(cmd, false)
	judge.add(cmd)
	return cmd
}

func (a *app) migrateStatus(ctx context.Context, f pairFlags, scope *scopeFlags, jf *judgeFlags) error {
	if err := scope.check(false); err != nil {
		return err
	}
	j, err := jf.judge()
	if err != nil {
		return err
	}
	p, err := a.pair(ctx, f)
	if err != nil {
		return err
	}
	defer p.close()
	w := a.observe(ctx, p, j, scope.services)
	doc := j.StatusOf(w)
	if err := a.print(doc, func() string { return statusText(doc) }); err != nil {
		return err
	}
	return worldError(p, w)
}

func statusText(s *steer.Status) string {
	var b strings.Builder
	fmt.Fprintf(&b, "all services: %s\n", s.All)
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
		return fmt.Sprintf("%d (%d copies)", s.Endpoints, s.Copies)
	}
	return strconv.Itoa(s.Endpoints)
}
