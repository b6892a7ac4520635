package ui

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

// Actions are what a page changes. An error is shown to the operator.
type Actions interface {
	// Drain marks an endpoint as draining. Resume removes the mark.
	Drain(ctx context.Context, service, id string) error
	Resume(ctx context.Context, service, id string) error
	// SetPhase changes the phase of a service.
	SetPhase(ctx context.Context, service string, s migrate.State) error
}

// actionTimeout bounds an action.
const actionTimeout = 30 * time.Second

// request is the body of an action.
type request struct {
	Service string  `json:"service"`
	ID      string  `json:"id"`
	Phase   string  `json:"phase"`
	Share   float64 `json:"share"`
}

var (
	errReadOnly = errors.New("the server is read-only: start it with --allow-writes")
	errOrigin   = errors.New("the request is not from this page")
	errToken    = errors.New("the token is missing or wrong: open the page with the URL that the command printed")
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
	var req request
	body := json.NewDecoder(r.Body)
	body.DisallowUnknownFields()
	if err := body.Decode(&req); err != nil {
		failure(w, http.StatusBadRequest, fmt.Errorf("the body is wrong: %w", err))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), actionTimeout)
	defer cancel()
	err := s.act(ctx, r.PathValue("action"), &req)
	switch {
	case errors.Is(err, naming.ErrInvalid):
		failure(w, http.StatusBadRequest, err)
	case err != nil:
		failure(w, http.StatusBadGateway, err)
	default:
		writeJSON(w, r, struct{}{})
	}
}

// act does what a request asks for.
func (s *Server) act(ctx context.Context, action string, req *request) error {
	if err := naming.CheckService(req.Service); err != nil {
		return err
	}
	switch action {
	case "drain":
		return s.opts.Actions.Drain(ctx, req.Service, req.ID)
	case "resume":
		return s.opts.Actions.Resume(ctx, req.Service, req.ID)
	case "phase":
		phase, err := migrate.ParsePhase(req.Phase)
		if err != nil {
			return err
		}
		state := migrate.State{Phase: phase, Share: req.Share}
		if err := state.Valid(); err != nil {
			return err
		}
		return s.opts.Actions.SetPhase(ctx, req.Service, state)
	}
	return fmt.Errorf("%w: unknown action %q", naming.ErrInvalid, naming.SafeText(action))
}
