package migrate

import (
	"sync"
	"time"

	"github.com/naming-go/naming"
)

// Status is how far the migration of a service is in this program.
type Status struct {
	// Service is the name of the service.
	Service string
	// State is the state of the service, if Known is true.
	State State
	Known bool
	// SourceErr is why the Source cannot be read at present, or nil.
	SourceErr error
	// Reader is how this program reads the service. It is nil if the program does not
	// read it.
	Reader *ReaderStatus
	// Registrations are the endpoints of the service that this program announces, in the
	// order of their IDs.
	Registrations []RegistrationSides
}

// ReaderStatus is how a program reads a service.
type ReaderStatus struct {
	// Lead is the name of the registry whose data count.
	Lead string
	// Narrow says that the lead is used alone.
	Narrow bool
	// Endpoints is the number of endpoints that may be used.
	Endpoints int
	// Sides are the registries that are watched.
	Sides []naming.SideStatus
	// FallbackSince is since when the reader wants the lead alone and needs both
	// registries. It is the zero time if the reader has what it wants.
	FallbackSince time.Time
	// Why says why both are needed. It is safe to log.
	Why string
	// Uncovered are live addresses that the lead does not have, sorted, at most 100.
	Uncovered []string
	// Parity is the last comparison of the registries. It is nil if nothing was compared,
	// or while readers in the present phase do not watch both.
	Parity *Report
}

// Status returns how far the migration of a service is in this program. It makes no
// request.
func (j *Joined) Status(service string) Status {
	s := Status{Service: service, SourceErr: j.phases.Err()}
	s.State, s.Known = j.state(service)
	s.Reader = j.feeds.status(service)
	s.Registrations = j.registrations(service)
	return s
}

// feeds are the feeds of the services that a program reads.
type feeds struct {
	mu        sync.Mutex
	byService map[string]*feed // guarded by mu
}

func (s *feeds) add(f *feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byService == nil {
		s.byService = make(map[string]*feed)
	}
	s.byService[f.service] = f
}

// remove removes f, unless a newer feed of the service took its place.
func (s *feeds) remove(f *feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byService[f.service] == f {
		delete(s.byService, f.service)
	}
}

// status returns a copy of the status of the service's feed, or nil.
func (s *feeds) status(service string) *ReaderStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.byService[service]
	if f == nil {
		return nil
	}
	return f.currentStatus()
}

// storeStatus makes the status of the feed.
func (f *feed) storeStatus(c choice, out result) {
	r := &f.reader
	s := ReaderStatus{
		Lead: f.j.sides[c.lead].name, Narrow: r.memory.narrow && r.memory.to == c.lead,
		Endpoints: len(r.shown.usable), Sides: r.status.Sides, FallbackSince: r.wideSince,
	}
	if !r.wideSince.IsZero() {
		s.Why, s.Uncovered = f.fallbackReason(c), first(r.uncovered)
	}
	f.shared.mu.Lock()
	defer f.shared.mu.Unlock()
	f.shared.status = s
}

// currentStatus returns a copy of the status of the last Next.
func (f *feed) currentStatus() *ReaderStatus {
	f.shared.mu.Lock()
	defer f.shared.mu.Unlock()
	s := f.shared.status
	if f.shared.monitor != nil {
		s.Parity = f.shared.monitor.report()
	}
	return &s
}
