// Package ui is a page that shows a Hub in a browser: services with their endpoints, a
// timeline, and the state of a migration. All parts of the page are in the program, and the
// page makes no request to another server.
package ui

import (
	"bufio"
	"cmp"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/httpd"
	"github.com/naming-go/naming/cmd/naming/internal/hub"
	"github.com/naming-go/naming/migrate"
)

//go:embed assets
var assets embed.FS

// policy allows what comes from this server only. No text can become a script.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

const (
	// maxPages is how many pages may be open.
	maxPages = 128
	// maxTimeline is how many changes a page gets at first.
	maxTimeline = 500
	// maxEndpoints is how many endpoints of a service a page gets, and maxDetail is about how
	// many bytes of them.
	maxEndpoints = 5000
	maxDetail    = 4 << 20
	// partSize is how many services are in an event.
	partSize = 1000
	// pause is the least time between two events. It bounds the work of a page.
	pause = 50 * time.Millisecond
	// statusEvery is how often a page without changes gets the status.
	statusEvery = 2 * time.Second
)

// Options are the options of New.
type Options struct {
	// Registry is the name of the registry, as the page shows it. It must be safe to print.
	Registry string
	// Old and New are the names of the registries of a migration. They must be safe to print.
	Old, New string
	// Actions are what the page may change. Nil means nothing.
	Actions Actions
	// Token is what a request for an action must have. It is required with Actions.
	Token string
	// NoSteps is why Actions.Step never works, and empty if it does. It must be safe to
	// print.
	NoSteps string
}

// Server serves the page. New makes one.
type Server struct {
	hub     *hub.Hub
	opts    Options
	pages   chan struct{} // has room for maxPages
	actions chan struct{} // has room for maxActions
	mux     *http.ServeMux
}

// New returns a Server of a Hub. It returns an error for Actions without a Token.
func New(h *hub.Hub, opts Options) (*Server, error) {
	if opts.Actions != nil && opts.Token == "" {
		return nil, errors.New("ui: actions need a token")
	}
	s := &Server{hub: h, opts: opts, pages: make(chan struct{}, maxPages), actions: make(chan struct{}, maxActions), mux: http.NewServeMux()}
	files, err := fs.Sub(assets, "assets")
	if err != nil {
		return nil, err
	}
	s.mux.Handle("GET /", http.FileServerFS(files))
	s.mux.HandleFunc("GET /events", s.events)
	s.mux.HandleFunc("GET /service", s.service)
	s.mux.HandleFunc("GET /info", s.info)
	s.mux.HandleFunc("POST /actions/{action}", s.action)
	return s, nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if path.Ext(r.URL.Path) == ".LICENSE" {
		h.Set("Content-Type", "text/plain; charset=utf-8")
	}
	s.mux.ServeHTTP(w, r)
}

// info answers with what the page shows that never changes.
func (s *Server) info(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, r, map[string]any{
		"registry": s.opts.Registry, "migrating": s.hub.Migrating(), "writes": s.opts.Actions != nil,
		"old": cmp.Or(s.opts.Old, "old"), "new": cmp.Or(s.opts.New, "new"),
		"steps": s.opts.Actions != nil && s.hub.Migrating() && s.opts.NoSteps == "", "noSteps": s.opts.NoSteps,
	})
}

// service answers with one service and its endpoints.
func (s *Server) service(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("name")
	if err := naming.CheckService(name); err != nil {
		failure(w, http.StatusBadRequest, err)
		return
	}
	snap := s.hub.Snapshot(name)
	if len(snap.Services) == 0 {
		failure(w, http.StatusNotFound, fmt.Errorf("the registry has no service %q", naming.SafeText(name)))
		return
	}
	d := detailOf(&snap.Services[0], maxEndpoints, maxDetail)
	d.Migration = migrationOf(s.hub.MigrationOf(name))
	writeJSON(w, r, d)
}

// snapshotEvent is the data of an event snapshot. The first of several replaces all that the
// page has. The last one has an ID and the timeline.
type snapshotEvent struct {
	First    bool         `json:"first"`
	Last     bool         `json:"last"`
	Rows     []row        `json:"rows"`
	Timeline []change     `json:"timeline,omitempty"`
	Bridges  []hub.Bridge `json:"bridges"`
	Status   status       `json:"status"`
}

// changesEvent is the data of an event changes.
type changesEvent struct {
	Changes []change `json:"changes"`
	// Rows are the services that changed, as they are now. Gone are those that left.
	Rows []row    `json:"rows"`
	Gone []string `json:"gone,omitempty"`
	// Bridges is null if no Bridge has changed.
	Bridges []hub.Bridge `json:"bridges"`
	Status  status       `json:"status"`
}

// events answers with the server-sent events of a page.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	select {
	case s.pages <- struct{}{}:
		defer func() { <-s.pages }()
	default:
		failure(w, http.StatusServiceUnavailable, errors.New("too many pages are open"))
		return
	}
	sub := s.hub.Subscribe()
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		sub.Close()
		sub = s.hub.Resume(id)
	}
	defer sub.Close()
	last := time.Time{}
	stream := httpd.NewStream(w, r)
	if stream == nil || stream.Write(s.writeStatus) != nil {
		return
	}
	_ = stream.Run(r.Context(), statusEvery, func(ctx context.Context, w *bufio.Writer) error {
		if err := sleep(ctx, pause-time.Since(last)); err != nil {
			return err
		}
		news, err := sub.Next(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return s.writeStatus(w)
		}
		if err != nil {
			return err
		}
		last = time.Now()
		if news.Snapshot != nil {
			return s.writeSnapshot(w, news.Snapshot)
		}
		return s.writeChanges(w, news.Changes)
	})
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Server) writeSnapshot(w *bufio.Writer, snap *hub.Snapshot) error {
	e := snapshotEvent{First: true, Rows: []row{}, Status: statusOf(&snap.Status)}
	for i := range snap.Services {
		if len(e.Rows) == partSize {
			if err := writeEvent(w, "snapshot", "", &e); err != nil {
				return err
			}
			e.First, e.Rows = false, e.Rows[:0]
		}
		e.Rows = append(e.Rows, s.row(&snap.Services[i]))
	}
	e.Last, e.Bridges = true, s.hub.Bridges()
	for _, c := range s.hub.Timeline(maxTimeline) {
		if c.Seq <= snap.Seq {
			e.Timeline = append(e.Timeline, changeOf(&c))
		}
	}
	return writeEvent(w, "snapshot", snap.ID, &e)
}

func (s *Server) writeChanges(w *bufio.Writer, changes []hub.Change) error {
	e := changesEvent{Changes: make([]change, len(changes)), Rows: []row{}}
	names := make(map[string]bool)
	for i := range changes {
		e.Changes[i] = changeOf(&changes[i])
		names[changes[i].Service] = true
	}
	delete(names, "") // the list of services
	now := s.hub.Status()
	e.Status = statusOf(&now)
	if names[migrate.BridgeService] {
		e.Bridges = s.hub.Bridges()
	}
	if len(names) > 0 {
		snap := s.hub.Snapshot(slices.Sorted(maps.Keys(names))...)
		for i := range snap.Services {
			e.Rows = append(e.Rows, s.row(&snap.Services[i]))
			delete(names, snap.Services[i].Service)
		}
	}
	e.Gone = slices.Sorted(maps.Keys(names))
	return writeEvent(w, "changes", s.hub.IDOf(&changes[len(changes)-1]), &e)
}

func (s *Server) writeStatus(w *bufio.Writer) error {
	now := s.hub.Status()
	return writeEvent(w, "status", "", statusOf(&now))
}

func writeEvent(w *bufio.Writer, event, id string, doc any) error {
	data, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	return httpd.WriteEvent(w, event, id, data)
}

func writeJSON(w http.ResponseWriter, r *http.Request, doc any) {
	w.Header().Set("Content-Type", "application/json")
	body, done := httpd.Compress(w, r)
	_ = json.NewEncoder(body).Encode(doc)
	_ = done()
}

// failure answers with an error as JSON.
func failure(w http.ResponseWriter, status int, err error) {
	answerJSON(w, status, &answer{Error: strings.TrimPrefix(naming.SafeError(err).Error(), "naming: ")})
}

// answerJSON answers with a small document.
func answerJSON(w http.ResponseWriter, status int, doc any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(doc)
}
