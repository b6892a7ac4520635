package hub

import (
	"encoding/json"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/show"
	"github.com/naming-go/naming/migrate"
)

// Document is a service in JSON. The texts of endpoints are as the registry has them: a page
// that shows them must treat them as text.
type Document struct {
	Service string `json:"service"`
	// Known says that the registry has answered. If it is false, the numbers mean nothing.
	Known bool `json:"known"`
	// AsOf is when the registry last vouched for the endpoints. Stale says that the
	// registry does not vouch for the endpoints now. StaleSince and Error say since when
	// and why.
	AsOf       time.Time `json:"asOf,omitzero"`
	Stale      bool      `json:"stale"`
	StaleSince time.Time `json:"staleSince,omitzero"`
	Error      string    `json:"error,omitempty"`
	// The numbers of endpoints in each state.
	Serving  int `json:"serving"`
	Draining int `json:"draining"`
	Withheld int `json:"withheld"`
	Held     int `json:"held"`
	// Endpoints are sorted by ID. The field is absent from lists that have numbers only.
	Endpoints []show.Endpoint `json:"endpoints,omitempty"`
	// Migration is present if the Client is on two registries.
	Migration *MigrationDocument `json:"migration,omitempty"`
}

// Summary returns the document of a service without its endpoints.
func (s *Service) Summary() Document {
	d := Document{
		Service: s.Service, Known: s.Synced, AsOf: s.AsOf, Stale: s.Stale(), StaleSince: s.StaleSince, Error: safeError(s.Err),
		Withheld: len(s.Withheld), Held: len(s.Held),
	}
	for i := range s.Endpoints {
		if draining(&s.Endpoints[i]) {
			d.Draining++
		} else {
			d.Serving++
		}
	}
	return d
}

// draining is as in [show.EndpointOf]. It does not parse metadata that cannot have the member.
func draining(e *naming.Endpoint) bool {
	return e.Draining || mayDrain(e.Metadata) && e.Info().Draining
}

// mayDrain reports whether metadata may have the member "draining", also with escapes.
func mayDrain(metadata json.RawMessage) bool {
	for i := range metadata {
		if metadata[i] == '\\' || metadata[i] == 'd' && i+8 <= len(metadata) && string(metadata[i:i+8]) == "draining" {
			return true
		}
	}
	return false
}

// Document returns the document of a service with its endpoints.
func (s *Service) Document() Document {
	d := s.Summary()
	d.Endpoints = show.ServiceOf(s.View).Endpoints
	for i := range d.Endpoints {
		d.Endpoints[i] = valid(d.Endpoints[i])
	}
	return d
}

// valid replaces metadata that are not JSON, which would spoil the whole document, by a
// string.
func valid(e show.Endpoint) show.Endpoint {
	if len(e.Metadata) > 0 && !json.Valid(e.Metadata) {
		e.Metadata, _ = json.Marshal(naming.SafeText(string(e.Metadata)))
	}
	return e
}

// ChangeDocument is a change in JSON. It has the fields of naming watch, and a number.
type ChangeDocument struct {
	Seq     uint64    `json:"seq"`
	Time    time.Time `json:"time"`
	Service string    `json:"service"`
	// Event is the Kind of the change.
	Event    Kind           `json:"event"`
	Endpoint *show.Endpoint `json:"endpoint,omitempty"`
	// Endpoints is how many endpoints of the service may be used after the change.
	Endpoints int `json:"endpoints"`
	// All is the whole service, for the event synced.
	All *Document `json:"all,omitempty"`
	// Text says more about events of a migration. Error is why a service is stale.
	Text  string `json:"text,omitempty"`
	Error string `json:"error,omitempty"`
}

// Document returns the document of a change.
func (c *Change) Document() ChangeDocument {
	d := c.Summary()
	if c.View != nil {
		all := (&Service{View: *c.View}).Document()
		d.All = &all
	}
	return d
}

// Summary returns the document of a change without the whole service.
func (c *Change) Summary() ChangeDocument {
	d := ChangeDocument{Seq: c.Seq, Time: c.Time, Service: c.Service, Event: c.Kind, Endpoints: c.Usable, Text: c.Text}
	if c.Kind == Stale {
		d.Text, d.Error = "", c.Text
	}
	if c.Endpoint == nil {
		return d
	}
	e := show.EndpointOf(*c.Endpoint)
	switch {
	case c.Reason != nil:
		e = show.WithheldOf(*c.Reason)
	case c.Kind == Held:
		e = show.HeldOf(*c.Endpoint)
	}
	e = valid(e)
	d.Endpoint = &e
	return d
}

// MigrationDocument is how far the migration of a service is in this process.
type MigrationDocument struct {
	// Known says that the phase is known.
	Known bool    `json:"known"`
	Phase string  `json:"phase,omitempty"`
	Share float64 `json:"share,omitempty"`
	Seq   uint64  `json:"seq,omitempty"`
	By    string  `json:"by,omitempty"`
	// SourceError is why the phases cannot be read now.
	SourceError string `json:"sourceError,omitempty"`
	// Lead is the registry whose data count. Narrow says that it is used alone.
	Lead   string         `json:"lead,omitempty"`
	Narrow bool           `json:"narrow"`
	Sides  []SideDocument `json:"sides"`
	// FallbackSince is since when both registries are needed in a phase that uses one.
	// Why says why. Uncovered are addresses that the lead does not have.
	FallbackSince time.Time       `json:"fallbackSince,omitzero"`
	Why           string          `json:"why,omitempty"`
	Uncovered     []string        `json:"uncovered,omitempty"`
	Parity        *ParityDocument `json:"parity,omitempty"`
}

// SideDocument is one of two registries.
type SideDocument struct {
	Name      string    `json:"name"`
	Used      bool      `json:"used"`
	Known     bool      `json:"known"`
	Endpoints int       `json:"endpoints"` // how many may be used
	AsOf      time.Time `json:"asOf,omitzero"`
	Stale     bool      `json:"stale"`
	Error     string    `json:"error,omitempty"`
}

// ParityDocument is the difference between both registries. Its lists have at most 100
// elements.
type ParityDocument struct {
	Known     bool            `json:"known"`
	Equal     bool            `json:"equal"`
	Missing   int             `json:"missing"`
	Extra     int             `json:"extra"`
	Different int             `json:"different"`
	Copies    int             `json:"copies"`
	OnlyOld   []show.Endpoint `json:"onlyOld,omitempty"`
	OnlyNew   []show.Endpoint `json:"onlyNew,omitempty"`
}

const maxParity = 100

// MigrationOf returns the document of the migration of a service, or nil if the Client is on
// one registry.
func (h *Hub) MigrationOf(service string) *MigrationDocument {
	s, ok := h.Migration(service)
	if !ok {
		return nil
	}
	d := &MigrationDocument{Known: s.Known, SourceError: safeError(s.SourceErr), Sides: []SideDocument{}}
	if s.Known {
		d.Phase, d.Share, d.Seq, d.By = s.State.Phase.String(), s.State.Share, s.State.Seq, naming.SafeText(s.State.By)
	}
	if r := s.Reader; r != nil {
		d.Lead, d.Narrow, d.FallbackSince, d.Why = r.Lead, r.Narrow, r.FallbackSince, r.Why
		for _, addr := range r.Uncovered {
			d.Uncovered = append(d.Uncovered, naming.SafeText(addr))
		}
		d.Sides, d.Parity = sides(r.Sides), parityOf(r.Parity)
	}
	return d
}

func sides(list []naming.SideStatus) []SideDocument {
	docs := make([]SideDocument, len(list))
	for i, s := range list {
		docs[i] = SideDocument{s.Name, s.Used, s.Synced, s.Endpoints, s.AsOf, !s.StaleSince.IsZero(), safeError(s.Err)}
	}
	return docs
}

func parityOf(r *migrate.Report) *ParityDocument {
	if r == nil {
		return nil
	}
	return &ParityDocument{
		Known: r.Known, Equal: r.Equal(), Missing: len(r.Missing), Extra: len(r.Extra), Different: len(r.Mismatch), Copies: len(r.Copies),
		OnlyOld: firstOf(r.Missing), OnlyNew: firstOf(r.Extra),
	}
}

func firstOf(list []naming.Endpoint) []show.Endpoint {
	var docs []show.Endpoint
	for _, e := range list[:min(len(list), maxParity)] {
		docs = append(docs, valid(show.EndpointOf(e)))
	}
	return docs
}
