package serve

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	"github.com/naming-go/naming/cmd/naming/internal/httpd"
	"github.com/naming-go/naming/cmd/naming/internal/hub"
)

// snapshotPart is the data of an event snapshot. The first part replaces all that the reader
// has. A large snapshot has several parts, and only the last one has an ID.
type snapshotPart struct {
	First    bool           `json:"first"`
	Last     bool           `json:"last"`
	Services []hub.Document `json:"services"`
}

// partSize is how many services are in a part of a snapshot.
const partSize = 100

// watch answers with server-sent events. The first event is a snapshot, unless the request has
// a Last-Event-ID after which all changes are known. The events are
//
//	snapshot  a part of all services: see snapshotPart
//	change    a change: see [hub.ChangeDocument]
//
// A reader that is too slow gets a snapshot in place of the changes.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "service")
	if err != nil {
		failure(w, http.StatusBadRequest, err)
		return
	}
	select {
	case s.watches <- struct{}{}:
		defer func() { <-s.watches }()
	default:
		w.Header().Set("Retry-After", "10")
		failure(w, http.StatusServiceUnavailable, errors.New("too many watches are open"))
		return
	}
	sub := s.hub.Subscribe()
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		sub.Close()
		sub = s.hub.Resume(id)
	}
	defer sub.Close()
	stream := httpd.NewStream(w, r)
	if stream == nil {
		return
	}
	events := &watchEvents{server: s, services: q["service"]}
	_ = stream.Run(r.Context(), keepAlive, func(ctx context.Context, w *bufio.Writer) error {
		news, err := sub.Next(ctx)
		if err != nil {
			return err
		}
		return events.write(w, news)
	})
}

// watchEvents writes the events of one watch.
type watchEvents struct {
	server   *Server
	services []string // empty: all
}

// write writes News.
func (e *watchEvents) write(w *bufio.Writer, news hub.News) error {
	if news.Snapshot != nil {
		return e.snapshot(w, news.Snapshot)
	}
	for i := range news.Changes {
		c := &news.Changes[i]
		if !e.selects(c.Service) {
			continue
		}
		data, err := json.Marshal(c.Document())
		if err != nil {
			return err
		}
		if err := httpd.WriteEvent(w, "change", e.server.hub.IDOf(c), data); err != nil {
			return err
		}
	}
	return nil
}

// selects reports whether the watch is about a service. The list of services concerns all.
func (e *watchEvents) selects(service string) bool {
	return len(e.services) == 0 || service == "" || slices.Contains(e.services, service)
}

func (e *watchEvents) snapshot(w *bufio.Writer, snap *hub.Snapshot) error {
	part := snapshotPart{First: true, Services: []hub.Document{}}
	for i := range snap.Services {
		service := &snap.Services[i]
		if !e.selects(service.Service) {
			continue
		}
		if len(part.Services) == partSize {
			if err := e.part(w, "", &part); err != nil {
				return err
			}
			part = snapshotPart{Services: part.Services[:0]}
		}
		part.Services = append(part.Services, e.server.document(service, true))
	}
	part.Last = true
	return e.part(w, snap.ID, &part)
}

func (e *watchEvents) part(w *bufio.Writer, id string, part *snapshotPart) error {
	data, err := json.Marshal(part)
	if err != nil {
		return err
	}
	return httpd.WriteEvent(w, "snapshot", id, data)
}

var _ http.Handler = (*Server)(nil)
