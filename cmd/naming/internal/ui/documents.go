package ui

import (
	"cmp"
	"encoding/json"
	"strings"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/hub"
	"github.com/naming-go/naming/cmd/naming/internal/show"
)

// All texts in the documents of a page are safe to print, except names and IDs, which are keys.
// The page shows the texts and never the keys.

// row is a service in the list.
type row struct {
	Name     string `json:"name"`           // the key
	Text     string `json:"text,omitempty"` // the name as it is shown, if that differs
	Known    bool   `json:"known"`
	Serving  int    `json:"serving"`
	Draining int    `json:"draining"`
	Withheld int    `json:"withheld"`
	Held     int    `json:"held"`
	// StaleSince is when the service became stale, in milliseconds, or 0.
	StaleSince int64 `json:"staleSince,omitempty"`
	// The state of a migration.
	Phase    string `json:"phase,omitempty"`
	Narrow   bool   `json:"narrow,omitempty"`
	Fallback bool   `json:"fallback,omitempty"`
	Parity   string `json:"parity,omitempty"` // equal, or the numbers of differences
	Old      *int   `json:"old,omitempty"`    // how many endpoints each side has
	New      *int   `json:"new,omitempty"`
}

func (s *Server) row(service *hub.Service) row {
	d := service.Summary()
	r := row{
		Name: d.Service, Known: d.Known,
		Serving: d.Serving, Draining: d.Draining, Withheld: d.Withheld, Held: d.Held, StaleSince: millis(d.StaleSince),
	}
	if text := naming.SafeText(d.Service); text != d.Service {
		r.Text = text
	}
	if m := s.hub.MigrationOf(d.Service); m != nil {
		r.migration(m)
	}
	return r
}

func (r *row) migration(m *hub.MigrationDocument) {
	r.Phase, r.Narrow, r.Fallback = m.Phase, m.Narrow, !m.FallbackSince.IsZero()
	if !m.Known {
		r.Phase = "unknown"
	}
	if len(m.Sides) == 2 {
		r.Old, r.New = &m.Sides[0].Endpoints, &m.Sides[1].Endpoints
	}
	if m.Parity != nil && m.Parity.Known {
		r.Parity = parityText(m.Parity)
	}
}

func parityText(p *hub.ParityDocument) string {
	if p.Equal {
		return "equal"
	}
	b, _ := json.Marshal([]int{p.Missing, p.Extra, p.Different})
	return string(b)
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// status is how far the registry vouches for the page.
type status struct {
	Services int    `json:"services"`
	Waiting  int    `json:"waiting"`
	Stale    int    `json:"stale"`
	Fresh    bool   `json:"fresh"`
	AsOf     int64  `json:"asOf,omitempty"` // of what is stale, in milliseconds
	Error    string `json:"error,omitempty"`
	Now      int64  `json:"now"` // the time of the server, in milliseconds
}

func statusOf(s *hub.Status) status {
	d := status{Services: s.Services, Waiting: s.Waiting, Stale: s.Stale, Fresh: s.Fresh(), AsOf: millis(s.AsOf), Now: time.Now().UnixMilli()}
	if s.Err != nil {
		d.Error = naming.SafeError(s.Err).Error()
	}
	return d
}

// change is an entry of the timeline.
type change struct {
	Seq     uint64 `json:"seq"`
	Time    int64  `json:"time"` // in milliseconds
	Name    string `json:"name"` // the key of the service; empty for the list
	Service string `json:"service"`
	Event   string `json:"event"`
	Text    string `json:"text"`
}

func changeOf(c *hub.Change) change {
	d := change{Seq: c.Seq, Time: c.Time.UnixMilli(), Name: c.Service, Service: naming.SafeText(c.Service), Event: string(c.Kind), Text: c.Text}
	if c.Service == "" {
		d.Service = "all services"
	}
	if c.Endpoint != nil {
		d.Text = show.Text(cmp.Or(c.Endpoint.Addr, c.Endpoint.ID))
	}
	if c.Reason != nil {
		d.Text += " " + show.WithheldOf(*c.Reason).Why()
	}
	return d
}

// detail is a service and its endpoints.
type detail struct {
	row
	AsOf      int64      `json:"asOf,omitempty"`
	Error     string     `json:"error,omitempty"`
	Endpoints []endpoint `json:"endpoints"`
	// More is how many endpoints are left out.
	More      int        `json:"more,omitempty"`
	Migration *migration `json:"migration,omitempty"`
}

// migration is the state of a migration as the page shows it.
type migration struct {
	*hub.MigrationDocument
	// OnlyOld and OnlyNew are addresses that one registry does not have, safe to print.
	OnlyOld []string `json:"onlyOld,omitempty"`
	OnlyNew []string `json:"onlyNew,omitempty"`
}

// migrationOf returns nil for nil. It changes d.
func migrationOf(d *hub.MigrationDocument) *migration {
	if d == nil {
		return nil
	}
	m := &migration{MigrationDocument: d}
	if p := d.Parity; p != nil {
		m.OnlyOld, m.OnlyNew = addresses(p.OnlyOld), addresses(p.OnlyNew)
		p.OnlyOld, p.OnlyNew = nil, nil
	}
	return m
}

func addresses(list []show.Endpoint) []string {
	var texts []string
	for _, e := range list {
		texts = append(texts, show.Text(e.Addr))
	}
	return texts
}

// endpoint is an endpoint as the page shows it.
type endpoint struct {
	ID       string  `json:"id"` // the key
	Text     string  `json:"text"`
	Addr     string  `json:"addr"`
	State    string  `json:"state"`
	Marked   bool    `json:"marked,omitempty"` // see show.Endpoint.Marked
	Why      string  `json:"why"`
	Weight   float64 `json:"weight,omitempty"`
	Zone     string  `json:"zone,omitempty"`
	Version  string  `json:"version,omitempty"`
	Tags     string  `json:"tags,omitempty"`
	Metadata string  `json:"metadata,omitempty"`
	Unleased bool    `json:"unleased,omitempty"`
}

// detailOf returns the document of a service, with as many endpoints as the bounds allow.
func detailOf(service *hub.Service, limit, size int) detail {
	doc := service.Document()
	d := detail{AsOf: millis(doc.AsOf), Error: doc.Error, Endpoints: []endpoint{}}
	d.row = row{
		Name: doc.Service, Text: naming.SafeText(doc.Service), Known: doc.Known,
		Serving: doc.Serving, Draining: doc.Draining, Withheld: doc.Withheld, Held: doc.Held, StaleSince: millis(doc.StaleSince),
	}
	for i := range doc.Endpoints[:min(len(doc.Endpoints), limit)] {
		e := endpointOf(&doc.Endpoints[i])
		if size -= e.size(); size < 0 {
			break
		}
		d.Endpoints = append(d.Endpoints, e)
	}
	d.More = len(doc.Endpoints) - len(d.Endpoints)
	return d
}

func endpointOf(e *show.Endpoint) endpoint {
	return endpoint{
		ID: e.ID, Text: naming.SafeText(e.ID), Addr: naming.SafeText(e.Addr), State: e.State, Marked: e.Marked(), Why: e.Why(), Weight: e.Weight,
		Zone: naming.SafeText(e.Zone), Version: naming.SafeText(e.Version), Tags: naming.SafeText(strings.Join(e.Tags, ", ")),
		Metadata: naming.SafeText(string(e.Metadata)), Unleased: e.Unleased,
	}
}

// size returns about how many bytes the endpoint has in JSON.
func (e *endpoint) size() int {
	return 200 + len(e.ID) + len(e.Text) + len(e.Addr) + len(e.Why) + len(e.Zone) + len(e.Version) + len(e.Tags) + len(e.Metadata)
}
