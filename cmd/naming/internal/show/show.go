// Package show has the form in which the command shows services and endpoints: the documents
// of JSON and YAML, and texts that are safe to print.
package show

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/naming-go/naming"
)

// The states of an endpoint.
const (
	Serving  = "serving"
	Draining = "draining"
	Withheld = "withheld" // the registry says not to use the endpoint
	Held     = "held"     // the endpoint vanished in a way that looks like a fault of the registry
)

// Service is a service and its endpoints.
type Service struct {
	Service string `json:"service"`
	// AsOf is when the registry last vouched for the endpoints.
	AsOf time.Time `json:"asOf,omitzero"`
	// Stale says that the registry does not vouch for them now. Error is why.
	Stale     bool       `json:"stale"`
	Error     string     `json:"error,omitempty"`
	Endpoints []Endpoint `json:"endpoints"`
}

// Endpoint is an endpoint and its state.
type Endpoint struct {
	ID       string          `json:"id"`
	Addr     string          `json:"addr"`
	State    string          `json:"state"`
	Reason   string          `json:"reason,omitempty"` // why the endpoint is withheld
	Detail   string          `json:"detail,omitempty"` // the registry's own text
	Weight   float64         `json:"weight,omitempty"`
	Zone     string          `json:"zone,omitempty"`
	Version  string          `json:"version,omitempty"`
	Tags     []string        `json:"tags,omitempty"`
	Metadata json.RawMessage `json:"metadata,omitempty"`
	Unleased bool            `json:"unleased,omitempty"` // only a deletion removes the entry
}

// ServiceOf returns the document of a View. The endpoints are sorted by ID.
func ServiceOf(v naming.View) Service {
	s := Service{Service: v.Service, AsOf: v.AsOf, Stale: v.Stale(), Endpoints: []Endpoint{}}
	if v.Err != nil {
		s.Error = naming.SafeError(v.Err).Error()
	}
	for _, e := range v.Endpoints {
		s.Endpoints = append(s.Endpoints, EndpointOf(e))
	}
	for _, w := range v.Withheld {
		s.Endpoints = append(s.Endpoints, WithheldOf(w))
	}
	for _, e := range v.Held {
		s.Endpoints = append(s.Endpoints, HeldOf(e))
	}
	slices.SortStableFunc(s.Endpoints, func(a, b Endpoint) int { return strings.Compare(a.ID, b.ID) })
	return s
}

// EndpointOf returns the document of an endpoint that may be used.
func EndpointOf(e naming.Endpoint) Endpoint {
	info := e.Info()
	s := Endpoint{
		ID: e.ID, Addr: e.Addr, State: Serving, Metadata: e.Metadata, Unleased: e.Unleased,
		Weight: info.Weight, Zone: info.Zone, Version: info.Version, Tags: info.Tags,
	}
	if e.Draining || info.Draining {
		s.State = Draining
	}
	return s
}

// WithheldOf returns the document of an endpoint that the registry says not to use.
func WithheldOf(w naming.Withheld) Endpoint {
	s := EndpointOf(w.Endpoint)
	s.State, s.Reason, s.Detail = Withheld, w.Reason.String(), w.Detail
	return s
}

// HeldOf returns the document of an endpoint that is held.
func HeldOf(e naming.Endpoint) Endpoint {
	s := EndpointOf(e)
	s.State = Held
	return s
}

// Marked reports whether the endpoint is out of the traffic by a mark or by maintenance.
func (e Endpoint) Marked() bool {
	return e.State == Draining || e.State == Withheld && e.Reason == naming.Maintenance.String()
}

// Why returns the state in words, and is safe to print.
func (e Endpoint) Why() string {
	if e.State != Withheld {
		return e.State
	}
	why := e.State + ": " + e.Reason
	if e.Detail != "" {
		why += " (" + naming.SafeText(e.Detail) + ")"
	}
	return why
}

// WeightText returns the weight, or a dash for none.
func (e Endpoint) WeightText() string {
	if e.Weight == 0 {
		return "-"
	}
	return strconv.FormatFloat(e.Weight, 'g', -1, 64)
}

// Text returns a text from a registry that is safe to print, or a dash for none.
func Text(s string) string {
	if s == "" {
		return "-"
	}
	return naming.SafeText(s)
}

// Count returns a number with a noun of the field, such as "1 entry" or "2 entries".
func Count(n int, noun string) string {
	stem, y := strings.CutSuffix(noun, "y")
	switch {
	case n == 1:
		return "1 " + noun
	case y && !strings.HasSuffix(stem, "e"):
		return strconv.Itoa(n) + " " + stem + "ies"
	case strings.HasSuffix(noun, "s"):
		return strconv.Itoa(n) + " " + noun + "es"
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
