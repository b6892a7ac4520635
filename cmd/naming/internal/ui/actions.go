package ui

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/steer"
	"github.com/naming-go/naming/migrate"
)

// Actions are what a page changes. The page shows the texts and the errors to the operator.
// All methods may be called concurrently.
type Actions interface {
	// Mark sets the draining mark of an endpoint, or removes the mark. It returns what
	// has happened, as a sentence that is safe to print.
	Mark(ctx context.Context, service, id string, draining bool) (string, error)
	// Step looks at a step of a migration, and makes the step if the Order says so. The
	// Step is not nil if the error is nil.
	Step(ctx context.Context, o Order) (*Step, error)
}

// Order is a step of a migration that an operator asks for.
type Order struct {
	// Record is the name of a service, or [steer.AllServices].
	Record string
	// Back says that the step goes back. A step back has no gate.
	Back bool
	// Wish is where the step goes. The zero Wish is one step.
	Wish steer.Wish
	// From is the position that the operator has seen, as text. A step ahead from another
	// position is refused. Empty means any.
	From string
	// Confirmed are the conditions of [steer.Human] that the operator has confirmed.
	Confirmed []string
	// Force overrides closed gates.
	Force bool
	// Write says that the step is made. Otherwise it is only looked at.
	Write bool
}

// Step is a step of a migration.
type Step struct {
	Record   string
	From, To steer.Position
	// Gates are the gates of all services that the step moves. A step back has none.
	Gates []steer.Gate
	// Warnings are what the operator should know. They are safe to print.
	Warnings []string
	// Written says that the step was made.
	Written bool
}

const (
	// actionTimeout bounds an action.
	actionTimeout = time.Minute
	// maxActions is how many actions run at the same time.
	maxActions = 4
)

// request is the body of an action.
type request struct {
	Service string `json:"service"`
	// ID is the endpoint, for drain and resume.
	ID string `json:"id"`
	// The other fields are those of an Order, for look and step. Without a phase the step
	// is the next one.
	Back      bool     `json:"back"`
	Phase     string   `json:"phase"`
	Share     float64  `json:"share"`
	From      string   `json:"from"`
	Confirmed []string `json:"confirmed"`
	Force     bool     `json:"force"`
}

// answer is the body of the answer to an action.
type answer struct {
	// Text says what has happened. Error is why nothing has happened.
	Text  string       `json:"text,omitempty"`
	Error string       `json:"error,omitempty"`
	Step  *stepMessage `json:"step,omitempty"`
}

var (
	errReadOnly = errors.New("the server is read-only: start it with --allow-writes")
	errOrigin   = errors.New("the request is not from this page")
	errToken    = errors.New("the token is missing or wrong: open the page with the URL that the command printed")
	errBusy     = errors.New("too many actions are running: try again")
)

// allowed returns an error for a request that may change nothing. A page of another site can
// neither send the token nor this type of content.
func (s *Server) allowed(r *http.Request) error {
	if s.opts.Actions == nil {
		return errReadOnly
	}
	origin, err := url.Parse(r.Header.Get("Origin"))
	if err != nil || origin.Host == "" || origin.Host != r.Host {
		return errOrigin
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return errOrigin
	}
	if subtle.ConstantTimeCompare([]byte(r.Header.Get("Naming-Token")), []byte(s.opts.Token)) != 1 {
		return errToken
	}
	return nil
}

// action answers a request to change something.
func (s *Server) action(w http.ResponseWriter, r *http.Request) {
	if err := s.allowed(r); err != nil {
		failure(w, http.StatusForbidden, err)
		return
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		failure(w, http.StatusUnsupportedMediaType, errors.New("the body must be JSON"))
		return
	}
	req, err := readRequest(r.Body)
	if err != nil {
		failure(w, http.StatusBadRequest, err)
		return
	}
	select {
	case s.actions <- struct{}{}:
		defer func() { <-s.actions }()
	default:
		failure(w, http.StatusServiceUnavailable, errBusy)
		return
	}
	// The body is complete, and its deadline must not end the answer.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	// A page that is closed must not leave a record in one of two registries.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), actionTimeout)
	defer cancel()
	a, err := s.act(ctx, r.PathValue("action"), req)
	switch {
	case errors.Is(err, naming.ErrInvalid):
		failure(w, http.StatusBadRequest, err)
	case err != nil:
		failure(w, http.StatusBadGateway, err)
	case a.Error != "":
		answerJSON(w, http.StatusConflict, a)
	default:
		answerJSON(w, http.StatusOK, a)
	}
}

// readRequest reads the body of an action.
func readRequest(r io.Reader) (*request, error) {
	req, body := new(request), json.NewDecoder(r)
	body.DisallowUnknownFields()
	if err := body.Decode(req); err != nil {
		return nil, fmt.Errorf("the body is wrong: %w", err)
	}
	if _, err := body.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("the body is wrong: it has more than one value")
	}
	return req, nil
}

// act does what a request asks for.
func (s *Server) act(ctx context.Context, action string, req *request) (*answer, error) {
	if err := naming.CheckService(req.Service); err != nil {
		return nil, err
	}
	switch action {
	case "drain", "resume":
		text, err := s.opts.Actions.Mark(ctx, req.Service, req.ID, action == "drain")
		return &answer{Text: text}, err
	case "look", "step":
		return s.step(ctx, req, action == "step")
	}
	return nil, fmt.Errorf("%w: unknown action %q", naming.ErrInvalid, naming.SafeText(action))
}

// step looks at a step of a migration, or makes it.
func (s *Server) step(ctx context.Context, req *request, write bool) (*answer, error) {
	if s.opts.NoSteps != "" {
		return nil, fmt.Errorf("%w: %s", naming.ErrInvalid, s.opts.NoSteps)
	}
	o := Order{Record: req.Service, Back: req.Back, From: req.From, Confirmed: req.Confirmed, Force: req.Force, Write: write}
	if req.Phase != "" {
		phase, err := migrate.ParsePhase(req.Phase)
		if err != nil {
			return nil, err
		}
		o.Wish = steer.Wish{Phase: phase, HasPhase: true, Share: req.Share, HasShare: phase == migrate.PreferNew}
	}
	if err := o.Wish.Valid(); err != nil {
		return nil, fmt.Errorf("%w: %w", naming.ErrInvalid, err)
	}
	step, err := s.opts.Actions.Step(ctx, o)
	if err != nil {
		return nil, err
	}
	a := &answer{Step: messageOf(step)}
	switch {
	case step.Written:
		a.Text = fmt.Sprintf("%s: %s to %s.", a.Step.Record, a.Step.From, a.Step.To)
	case write:
		a.Error = a.Step.refusal()
	}
	return a, nil
}

// stepMessage is a Step as the page shows it. All texts are safe to print.
type stepMessage struct {
	Record string  `json:"record"`
	From   string  `json:"from"`
	To     string  `json:"to"`
	Phase  string  `json:"phase"` // of To
	Share  float64 `json:"share"` // of To
	// Gates are the closed gates and then the open ones, at most maxGates. Closed and Open
	// are the numbers of all gates.
	Gates    []gateMessage `json:"gates"`
	Closed   int           `json:"closed"`
	Open     int           `json:"open"`
	Warnings []string      `json:"warnings,omitempty"`
	Written  bool          `json:"written"`
}

// gateMessage is the gate of one service.
type gateMessage struct {
	Service    string            `json:"service"`
	Open       bool              `json:"open"`
	Conditions []steer.Condition `json:"conditions"`
}

// maxGates is how many gates a page gets.
const maxGates = 20

func messageOf(s *Step) *stepMessage {
	m := &stepMessage{
		Record: naming.SafeText(s.Record), From: s.From.String(), To: s.To.String(), Phase: s.To.Phase, Share: s.To.Share,
		Gates: []gateMessage{}, Warnings: s.Warnings, Written: s.Written,
	}
	if s.Record == steer.AllServices {
		m.Record = "all services"
	}
	for _, open := range []bool{false, true} {
		for i := range s.Gates {
			g := &s.Gates[i]
			if g.Open != open {
				continue
			}
			if len(m.Gates) < maxGates {
				m.Gates = append(m.Gates, gateMessage{naming.SafeText(g.Service), open, g.Conditions})
			}
			if open {
				m.Open++
			} else {
				m.Closed++
			}
		}
	}
	return m
}

// refusal returns why a step was not made.
func (m *stepMessage) refusal() string {
	for _, g := range m.Gates {
		for _, c := range g.Conditions {
			if !c.Holds {
				return fmt.Sprintf("the gate of %s is closed, and nothing was written: %s", g.Service, c.Why)
			}
		}
	}
	return "nothing was written"
}
