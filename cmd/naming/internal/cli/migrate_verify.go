package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/show"
	"github.com/naming-go/naming/cmd/naming/internal/steer"
)

// servicePlan is the document of a service in naming migrate plan.
type servicePlan struct {
	Service string `json:"service"`
	steer.Position
	// Steps are the steps to the end. Only the first has a gate that was looked at.
	Steps []steer.Position `json:"steps"`
	// Next is the gate of the first step. It is nil at the end.
	Next *steer.Gate `json:"next,omitempty"`
	// Losses are what the new format would lose.
	Losses []planLoss `json:"losses"`
}

// planLoss is what the format of a registry loses of an endpoint.
type planLoss struct {
	Service  string        `json:"service"`
	Endpoint show.Endpoint `json:"endpoint"`
	Fields   []string      `json:"fields,omitempty"`
	Refused  string        `json:"refused,omitempty"` // why the format refuses the endpoint
	Accepted bool          `json:"accepted"`
}

func (a *app) migratePlanCommand(pair *pairFlags) *cobra.Command {
	var f lookFlags
	cmd := &cobra.Command{
		Use: "plan", Short: "Show the steps to the end, and what the new format loses", Args: cobra.NoArgs,
		Long: "Show the steps that each service has to go, the gate of the next step with what would open it, and\n" +
			"what the format of the new registry would lose. Nothing is written.\n" +
			"The exit status is 1 if a loss is not accepted.",
		RunE: run(func(ctx context.Context, _ []string) error { return a.migratePlan(ctx, *pair, &f) }),
	}
	f.add(cmd)
	return cmd
}

func (a *app) migratePlan(ctx context.Context, pf pairFlags, f *lookFlags) error {
	lost := 0
	err := a.look(ctx, pf, f, func(j steer.Judge, w *steer.World) error {
		docs := make([]servicePlan, len(w.Services))
		for i, o := range w.Services {
			docs[i] = planOf(j, o)
			lost += len(steer.Unaccepted(o.Losses, j.Accept))
		}
		return a.print(docs, func() string { return planText(docs) })
	})
	if err == nil && lost > 0 {
		return no("%d losses are not accepted: change what the servers announce, or use --accept", lost)
	}
	return err
}

func planOf(j steer.Judge, o steer.Observation) servicePlan {
	doc := servicePlan{Service: o.Service, Position: steer.PositionOf(o.State, o.Known), Steps: []steer.Position{}, Losses: []planLoss{}}
	state, known := o.State, o.Known
	for {
		to, ok := steer.Next(state, known)
		if !ok {
			break
		}
		if doc.Next == nil {
			g := j.Gate(o, to)
			doc.Next = &g
		}
		doc.Steps = append(doc.Steps, steer.PositionOf(to, true))
		state, known = to, true
	}
	for _, l := range o.Losses {
		p := planLoss{Service: o.Service, Endpoint: show.EndpointOf(l.Endpoint), Fields: l.Fields, Accepted: l.Accepted(j.Accept)}
		if l.Err != nil {
			p.Refused = naming.SafeError(l.Err).Error()
		}
		doc.Losses = append(doc.Losses, p)
	}
	return doc
}

func planText(docs []servicePlan) string {
	var b strings.Builder
	for _, d := range docs {
		if d.Next == nil {
			fmt.Fprintf(&b, "%s: %s: the end\n", show.Text(d.Service), d.Position)
			continue
		}
		b.WriteString(gateText(*d.Next))
		rest := make([]string, len(d.Steps)-1)
		for i, s := range d.Steps[1:] {
			rest[i] = s.String()
		}
		if len(rest) > 0 {
			fmt.Fprintf(&b, "  then: %s\n", strings.Join(rest, ", "))
		}
		for _, l := range d.Losses {
			b.WriteString("  " + l.text() + "\n")
		}
	}
	if len(docs) == 0 {
		return "No service was found.\n"
	}
	return b.String()
}

// text returns the loss as a line.
func (l *planLoss) text() string {
	what := "loses " + strings.Join(l.Fields, ", ")
	if l.Refused != "" {
		what = "is refused: " + l.Refused
	}
	if l.Accepted {
		what += " (accepted)"
	}
	return fmt.Sprintf("! %s  %s %s", show.Text(l.Service), describe(l.Endpoint), what)
}

// verification is the document of naming migrate verify.
type verification struct {
	Open bool `json:"open"` // all gates are open
	// Seconds is how long all gates were open without a lasting interruption.
	Seconds float64      `json:"seconds"`
	Gates   []steer.Gate `json:"gates"`
}

func (a *app) migrateVerifyCommand(pair *pairFlags) *cobra.Command {
	var s stepFlags
	cmd := &cobra.Command{
		Use: "verify", Short: "Say whether services may go on", Args: cobra.NoArgs,
		Long: "Look whether the gate of the next step is open, for all services or for some. With --soak, look again\n" +
			"and again for that time. A change of the phase ends the time. The exit status is 0 only if all gates\n" +
			"were open, 1 if one is closed, and 3 if a registry cannot be read. Without a service, nothing holds, and\n" +
			"the exit status is 1.",
		RunE: run(func(ctx context.Context, _ []string) error { return a.migrateVerify(ctx, *pair, cmdFlags{&s, false}) }),
	}
	s.add(cmd, false)
	return cmd
}

func (a *app) migrateVerify(ctx context.Context, f pairFlags, flags cmdFlags) error {
	step, err := a.newStep(ctx, f, flags)
	if err != nil {
		return err
	}
	defer step.pair.close()
	step.lenient = true
	gates, held, err := step.soaked(ctx)
	switch {
	case errors.Is(err, context.Canceled):
		return no("interrupted")
	case err != nil:
		return err
	}
	doc := verification{Open: len(gates) > 0 && allOpen(gates), Seconds: held.Round(time.Millisecond).Seconds(), Gates: gates}
	if err := a.print(doc, func() string { return gatesText(gates) }); err != nil {
		return err
	}
	if err := worldError(step.pair, step.world); err != nil {
		return err
	}
	if !doc.Open {
		return &statusError{status: statusNo}
	}
	return nil
}

func allOpen(gates []steer.Gate) bool {
	for i := range gates {
		if !gates[i].Open {
			return false
		}
	}
	return true
}
