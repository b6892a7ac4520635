package cli

import (
	"context"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/steer"
	"github.com/naming-go/naming/cmd/naming/internal/ui"
)

// uiActions does for a page what drain, resume, migrate advance and migrate back do. Its
// methods may be called concurrently.
type uiActions struct {
	app    *app
	client *naming.Client
	pair   *pair // nil if the phases cannot be changed
}

const (
	// uiVerify is how long a page looks whether a mark stays.
	uiVerify = 3 * time.Second
	// uiSettle is how long a gate may be closed by servers that restart.
	uiSettle = 3 * time.Second
)

var _ ui.Actions = (*uiActions)(nil)

// Mark implements ui.Actions.
func (u *uiActions) Mark(ctx context.Context, service, id string, draining bool) (string, error) {
	m := &marking{app: u.app, client: u.client, service: service, ids: map[string]bool{id: true}, draining: draining, verify: uiVerify}
	if err := m.markAll(ctx); err != nil {
		return "", err
	}
	r, err := m.observe(ctx)
	if err != nil {
		return "", err
	}
	if err := m.verdict(r); err != nil {
		return "", err
	}
	switch {
	case len(r.Gone) > 0:
		return "", no("the endpoint has left the registry")
	case !draining:
		return "The endpoint is resumed: the mark stayed away for " + uiVerify.String() + ".", nil
	case r.Others == 0:
		return "The endpoint drains: the mark stayed for " + uiVerify.String() + ". The service has no other endpoint that serves.", nil
	}
	return "The endpoint drains: the mark stayed for " + uiVerify.String() + ".", nil
}

// Step implements ui.Actions.
func (u *uiActions) Step(ctx context.Context, o ui.Order) (*ui.Step, error) {
	flags := &stepFlags{by: u.app.operator(), force: o.Force, judgeFlags: judgeFlags{confirm: o.Confirmed}}
	flags.services = []string{o.Record}
	var doc *ui.Step
	var r stepResult
	var err error
	if o.Back {
		doc, r, err = u.back(ctx, o, flags)
	} else {
		doc, r, err = u.ahead(ctx, o, flags)
	}
	if err != nil {
		return nil, err
	}
	doc.Record, doc.From, doc.To, doc.Written, doc.Warnings = r.Record, r.From, r.To, r.Written, r.Warnings
	for i, w := range doc.Warnings {
		doc.Warnings[i] = naming.SafeText(w)
	}
	return doc, unwritten([]stepResult{r})
}

// back goes one step back, or looks at the step.
func (u *uiActions) back(ctx context.Context, o ui.Order, flags *stepFlags) (*ui.Step, stepResult, error) {
	results, err := u.app.backResults(ctx, u.pair, o.Wish, flags)
	if err != nil {
		return nil, stepResult{}, err
	}
	if o.Write {
		u.app.writeEach(ctx, u.pair, flags.by, results)
	}
	return new(ui.Step), results[0], nil
}

// ahead goes one step on if the gates are open, or looks at the gates.
func (u *uiActions) ahead(ctx context.Context, o ui.Order, flags *stepFlags) (*ui.Step, stepResult, error) {
	judge, err := flags.judge()
	if err != nil {
		return nil, stepResult{}, err
	}
	s := &step{app: u.app, pair: u.pair, judge: judge, wish: o.Wish, flags: flags}
	var gates []steer.Gate
	if o.Write {
		flags.settle = uiSettle
		gates, _, err = s.soaked(ctx)
	} else {
		gates, err = s.look(ctx)
	}
	if err != nil {
		return nil, stepResult{}, err
	}
	if len(s.targets) == 0 {
		return nil, stepResult{}, no("nothing is left to do")
	}
	if from := steer.PositionOf(s.targets[0].State, s.targets[0].Known).String(); o.From != "" && o.From != from {
		return nil, stepResult{}, no("the phase is %s now, and was %s when you looked: nothing was written", from, naming.SafeText(o.From))
	}
	results := s.results()
	if o.Write && (o.Force || allOpen(gates)) {
		if err := s.unmoved(ctx); err != nil {
			return nil, stepResult{}, err
		}
		u.app.writeEach(ctx, u.pair, flags.by, results)
	}
	return &ui.Step{Gates: gates}, results[0], nil
}
