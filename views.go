package naming

import (
	"context"
	"time"
)

// view returns the present View. mu is held.
func (s *shared) view() View {
	lists := s.set.viewLists(s.chain.tail)
	return View{Service: s.subject.service, Endpoints: lists.endpoints, Withheld: lists.withheld, Status: s.currentStatus()}
}

// ordered returns the set sorted by ID. The slice must not be modified. mu is held.
func (s *shared) ordered() []*entry { return s.set.ordered(s.chain.tail) }

// currentStatus returns the present Status. mu is held.
func (s *shared) currentStatus() Status {
	status := s.status
	status.Held = s.holder.held.endpoints()
	return status
}

// each calls prepare with mu held and then visit without a lock, once the set is known,
// and again after every step or after the newest of several. It returns nil when visit
// returns false.
func (s *shared) each(ctx context.Context, prepare func(), visit func() bool) error {
	for seen := -1; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		now := s.prepareSince(seen, prepare)
		if now.changed {
			seen = now.version
			if !visit() {
				return nil
			}
			continue
		}
		if now.closed {
			return ErrClientClosed
		}
		select {
		case <-now.more:
		case <-ctx.Done():
		}
	}
}

// moment is the result of prepareSince.
type moment struct {
	changed bool // prepare was called
	version int
	more    <-chan struct{} // closed at the next step; nil if changed, as a reader must not hold the chain for long
	closed  bool            // the Client was closed
}

// prepareSince calls prepare with mu held if the set is known and a step followed
// version seen. prepare must not call functions of the program.
func (s *shared) prepareSince(seen int, prepare func()) moment {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := moment{version: s.chain.version, closed: s.closed}
	if s.status.Synced && s.chain.version != seen && !s.closed {
		m.changed = true
		prepare()
	} else {
		m.more = s.chain.tail.ready
	}
	return m
}

// presence is one endpoint as a watch shows it.
type presence struct {
	// known says that the watch vouches for the rest: it has had a snapshot, and is
	// not stale.
	known bool
	// endpoint is the endpoint as the watch showed it last, withheld or not. It is nil
	// if the registry does not have it. It must not be modified.
	endpoint *Endpoint
	// withheld is why the endpoint must not be used, and nil if it may be used. It
	// must not be modified.
	withheld *Withheld
	// begun is when the present watch began, which is before its first read. A set
	// without the endpoint proves that the endpoint was deleted after a put only if
	// the put had ended by then, or if the watch has shown the put: the first snapshot
	// of a watch that began earlier may be older than the put.
	begun time.Time
}

// presence returns the endpoint id as the watch shows it.
func (s *shared) presence(id string) presence {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := presence{known: s.status.Synced && !s.status.Stale(), begun: s.begun}
	if e := s.set.entries[id]; e != nil {
		p.endpoint, p.withheld = e.Endpoint, e.withheld
	}
	return p
}
