// Package serve gives the state of a Hub to other programs, over HTTP: targets for
// Prometheus, an API in JSON with a watch, health and metrics. It is read-only.
//
// Each answer about services has these fields in its header:
//
//	Age           for how many seconds the registry has not vouched for the answer; 0 if it does
//	Naming-Stale  true or false
//	Naming-As-Of  when the registry vouched for all of the answer, if the answer is stale
//
// A registry that fails changes no answer but these fields. Before the registry has answered
// for the first time, the status is 503: an empty list would make its reader forget all that
// the reader knew.
package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/httpd"
	"github.com/naming-go/naming/cmd/naming/internal/hub"
	"github.com/naming-go/naming/cmd/naming/internal/show"
)

const (
	// maxNames is how many names a filter may have.
	maxNames = 1000
	// maxLarge is how many large answers are made at the same time.
	maxLarge = 4
	// maxWatches is how many watches may be open.
	maxWatches = 128
	// keepAlive is how often a watch without changes writes a comment.
	keepAlive = 15 * time.Second
)

// Server answers requests. New makes one.
type Server struct {
	hub     *hub.Hub
	large   chan struct{} // has room for maxLarge
	watches chan struct{} // has room for maxWatches
	mux     *http.ServeMux
}

// New returns a Server of a Hub. metrics are what /metrics shows, beside numbers of the Hub.
func New(h *hub.Hub, metrics *prometheus.Registry) (*Server, error) {
	s := &Server{hub: h, large: make(chan struct{}, maxLarge), watches: make(chan struct{}, maxWatches), mux: http.NewServeMux()}
	if err := metrics.Register(collector{h}); err != nil {
		return nil, err
	}
	s.mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{MaxRequestsInFlight: maxLarge}))
	s.mux.HandleFunc("GET /prometheus/targets", s.limited(s.targets))
	s.mux.HandleFunc("GET /v1/services", s.limited(s.services))
	s.mux.HandleFunc("GET /v1/services/{name...}", s.service)
	s.mux.HandleFunc("GET /v1/watch", s.watch)
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "alive\n") })
	s.mux.HandleFunc("GET /readyz", s.ready)
	s.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, index) })
	return s, nil
}

const index = `naming serve

/prometheus/targets   targets for http_sd_configs of Prometheus (?service=NAME, ?state=STATE)
/v1/services          all services in JSON (?service=NAME, ?endpoints=true)
/v1/services/NAME     one service, with its endpoints
/v1/watch             changes as server-sent events (?service=NAME)
/healthz              200 while the process works
/readyz               200 from the first complete answer of the registry on
/metrics              metrics of this process
`

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	s.mux.ServeHTTP(w, r)
}

// limited returns a handler of which few run at the same time. Others wait.
func (s *Server) limited(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case s.large <- struct{}{}:
			defer func() { <-s.large }()
			h(w, r)
		case <-r.Context().Done():
		}
	}
}

// query returns the parameters of a request. A parameter that is not among the known ones is
// an error: a filter with a wrong name would select everything.
func query(r *http.Request, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, errors.New("the query cannot be parsed")
	}
	for name, values := range q {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("unknown parameter %q: want %s", naming.SafeText(name), strings.Join(known, " or "))
		}
		if len(values) > maxNames {
			return nil, fmt.Errorf("the parameter %q occurs more than %d times", name, maxNames)
		}
	}
	for _, name := range q["service"] {
		if err := naming.CheckService(name); err != nil {
			return nil, err
		}
	}
	return q, nil
}

// truth returns the truth value of a parameter, which is false by default.
func truth(q url.Values, name string) (bool, error) {
	switch values := q[name]; {
	case len(values) == 0 || len(values) == 1 && values[0] == "false":
		return false, nil
	case len(values) == 1 && values[0] == "true":
		return true, nil
	}
	return false, fmt.Errorf("the parameter %q must be true or false", name)
}

// known returns the services that a request is about. If they cannot be given away, known
// answers the request and returns false.
func (s *Server) known(w http.ResponseWriter, names []string) (hub.Snapshot, bool) {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	if err := s.hub.Known(names...); err != nil {
		w.Header().Set("Retry-After", "1")
		failure(w, http.StatusServiceUnavailable, err)
		return hub.Snapshot{}, false
	}
	return s.hub.Snapshot(names...), true
}

// age writes the age of an answer to its header.
func age(w http.ResponseWriter, s *hub.Status) {
	h := w.Header()
	h.Set("Age", strconv.Itoa(int(s.Age(time.Now())/time.Second)))
	h.Set("Naming-Stale", strconv.FormatBool(!s.Fresh()))
	if !s.AsOf.IsZero() {
		h.Set("Naming-As-Of", s.AsOf.UTC().Format(time.RFC3339Nano))
	}
	h.Set("Cache-Control", "no-cache")
}

// unchanged sets the entity tag of an answer. If the client has the answer, unchanged answers
// the request and returns true.
func unchanged(w http.ResponseWriter, r *http.Request, run string, version uint64) bool {
	// The tag is weak because the answer may be compressed.
	tag := fmt.Sprintf(`W/"%s.%d"`, run, version)
	w.Header().Set("ETag", tag)
	for _, have := range strings.Split(r.Header.Get("If-None-Match"), ",") {
		if have = strings.TrimSpace(have); have == tag || have == "*" {
			w.WriteHeader(http.StatusNotModified)
			return true
		}
	}
	return false
}

// servicesDocument is the answer of /v1/services.
type servicesDocument struct {
	ID       string         `json:"id"` // where a watch goes on: see Last-Event-ID
	Stale    bool           `json:"stale"`
	AsOf     time.Time      `json:"asOf,omitzero"` // if stale
	Error    string         `json:"error,omitempty"`
	Services []hub.Document `json:"services"`
}

func (s *Server) services(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "service", "endpoints")
	if err != nil {
		failure(w, http.StatusBadRequest, err)
		return
	}
	endpoints, err := truth(q, "endpoints")
	if err != nil {
		failure(w, http.StatusBadRequest, err)
		return
	}
	snap, ok := s.known(w, q["service"])
	if !ok {
		return
	}
	doc := servicesDocument{ID: snap.ID, Stale: !snap.Status.Fresh(), AsOf: snap.Status.AsOf, Services: []hub.Document{}}
	if snap.Status.Err != nil {
		doc.Error = naming.SafeError(snap.Status.Err).Error()
	}
	age(w, &snap.Status)
	if !s.hub.Migrating() && unchanged(w, r, snap.Run, snap.Version) {
		return
	}
	for i := range snap.Services {
		doc.Services = append(doc.Services, s.document(&snap.Services[i], endpoints))
	}
	writeJSON(w, r, doc)
}

// document returns the document of a service.
func (s *Server) document(service *hub.Service, endpoints bool) hub.Document {
	d := service.Summary()
	if endpoints {
		d = service.Document()
	}
	d.Migration = s.hub.MigrationOf(service.Service)
	return d
}

func (s *Server) service(w http.ResponseWriter, r *http.Request) {
	if _, err := query(r); err != nil {
		failure(w, http.StatusBadRequest, err)
		return
	}
	name := r.PathValue("name")
	if err := naming.CheckService(name); err != nil {
		failure(w, http.StatusBadRequest, err)
		return
	}
	snap, ok := s.known(w, []string{name})
	if !ok {
		return
	}
	age(w, &snap.Status)
	if len(snap.Services) == 0 {
		failure(w, http.StatusNotFound, fmt.Errorf("the registry has no service %q", naming.SafeText(name)))
		return
	}
	if !s.hub.Migrating() && unchanged(w, r, snap.Run, snap.Services[0].Version) {
		return
	}
	writeJSON(w, r, s.document(&snap.Services[0], true))
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	if err := s.hub.Known(); err != nil {
		text(w, http.StatusServiceUnavailable, fmt.Sprintf("not ready: %v\n", err))
		return
	}
	snap := s.hub.Snapshot()
	age(w, &snap.Status)
	if snap.Status.Fresh() {
		text(w, http.StatusOK, fmt.Sprintf("ready: %s, fresh\n", show.Count(snap.Status.Services, "service")))
		return
	}
	text(w, http.StatusOK, fmt.Sprintf("ready: %s, %d stale, age %s: %s\n", show.Count(snap.Status.Services, "service"), snap.Status.Stale,
		snap.Status.Age(time.Now()).Round(time.Second), naming.SafeText(fmt.Sprint(snap.Status.Err))))
}

func text(w http.ResponseWriter, status int, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, s)
}

// failure answers with an error as JSON.
func failure(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": naming.SafeError(err).Error()})
}

// writeJSON answers with a document. An error of the connection ends the answer.
func writeJSON(w http.ResponseWriter, r *http.Request, doc any) {
	w.Header().Set("Content-Type", "application/json")
	body, done := httpd.Compress(w, r)
	_ = json.NewEncoder(body).Encode(doc)
	_ = done()
}
