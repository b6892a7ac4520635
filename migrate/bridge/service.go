package bridge

import (
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

// view is a registry's endpoints of one service, as its Follower shows them.
type view struct {
	endpoints map[string]naming.Endpoint // by ID
	withheld  map[string]naming.Withheld // by ID
	status    naming.Status
}

// apply applies an event.
func (v *view) apply(e naming.Event) {
	if e.Snapshot || v.endpoints == nil {
		v.endpoints = make(map[string]naming.Endpoint, len(e.Put))
		v.withheld = nil
	}
	for _, x := range e.Put {
		v.endpoints[x.ID] = x
		delete(v.withheld, x.ID)
	}
	for _, x := range e.Withheld {
		if v.withheld == nil {
			v.withheld = make(map[string]naming.Withheld)
		}
		v.withheld[x.Endpoint.ID] = x
		delete(v.endpoints, x.Endpoint.ID)
	}
	for _, id := range e.Deleted {
		delete(v.endpoints, id)
		delete(v.withheld, id)
	}
	v.status = e.Status
}

// fresh reports whether the registry vouches for the view.
func (v *view) fresh() bool { return v.status.Synced && !v.status.Stale() }

// get returns an endpoint, withheld or not.
func (v *view) get(id string) (naming.Endpoint, bool) {
	if e, ok := v.endpoints[id]; ok {
		return e, true
	}
	w, ok := v.withheld[id]
	return w.Endpoint, ok
}

// each calls f for all endpoints, withheld or not.
func (v *view) each(f func(naming.Endpoint)) {
	for _, e := range v.endpoints {
		f(e)
	}
	for _, w := range v.withheld {
		f(w.Endpoint)
	}
}

// record is a copy that this term has put, or has tried to put.
type record struct {
	native  naming.Endpoint // what the copy was made of
	lease   *sharedLease
	form    int       // the index in forms
	putAt   time.Time // when the last put began
	sure    bool      // the last put has succeeded
	seen    bool      // the target has shown the last put
	gone    bool      // the target has lost the copy since
	edited  bool      // the target has something else under the ID of the copy
	leaving bool      // the endpoint was draining when the source showed it last
	repairs int       // puts because the copy was gone or edited, in the last minute
	absent  time.Time // since when the source does not have the endpoint; zero: it has
}

// refusal is an endpoint that the target refused as invalid in every form.
type refusal struct {
	native naming.Endpoint
	until  time.Time
}

// service is the state of one service in a term. It belongs to the worker that reconciles
// the service.
type service struct {
	name           string
	source, target view
	began          time.Time

	// ledger are the copies that this term has put, by ID.
	ledger map[string]*record
	// inherited are the copies that the target had at first and that this term has not
	// put yet, by ID. Each is put once.
	inherited map[string]naming.Endpoint
	refused   map[string]refusal // by ID of the copy
	filled    bool               // the first set of the source was copied
	highest   uint64             // the highest epoch in a mark
}

func newService(name string) *service {
	return &service{
		name: name, began: time.Now(),
		ledger: make(map[string]*record), inherited: make(map[string]naming.Endpoint), refused: make(map[string]refusal),
	}
}

// idle reports whether the service has neither endpoints to copy nor copies.
func (s *service) idle() bool {
	return len(s.ledger)+len(s.inherited)+len(s.source.endpoints)+len(s.source.withheld) == 0
}

// applySource applies an event of the source.
func (s *service) applySource(c copier, e naming.Event) {
	s.source.apply(e)
	for _, x := range e.Put {
		if r := s.ledger[migrate.CopyID(c.origin, x.ID)]; r != nil {
			r.leaving = x.Info().Draining
		}
	}
}

// applyTarget applies an event of the target. The epoch is that of the Bridge.
func (s *service) applyTarget(c copier, epoch uint64, e naming.Event) {
	first := !s.target.status.Synced && e.Status.Synced
	s.target.apply(e)
	for _, x := range e.Put {
		s.noteCopy(c, epoch, x)
	}
	for _, w := range e.Withheld {
		s.noteCopy(c, epoch, w.Endpoint)
	}
	for _, id := range e.Deleted {
		delete(s.inherited, id)
		if r := s.ledger[id]; r != nil {
			r.gone = true
		}
	}
	if first {
		s.target.each(func(x naming.Endpoint) {
			if _, own := c.owns(x); own {
				s.inherited[x.ID] = x
			}
		})
	}
}

// maxEpoch bounds the epochs of marks, which another writer may have made up.
const maxEpoch = 1 << 53

// noteCopy notes the epoch of an own copy, and whether somebody has changed the copy. A
// Bridge of an earlier epoch may have done so with its last write before it noticed the
// election of another Bridge. The copy is then under that Bridge's lease, and would lapse. A Bridge of a
// later epoch never causes a repair, so that two Bridges never answer each other.
func (s *service) noteCopy(c copier, epoch uint64, e naming.Endpoint) {
	mark, own := c.owns(e)
	if !own {
		return
	}
	if mark.Epoch <= maxEpoch {
		s.highest = max(s.highest, mark.Epoch)
	}
	if _, ok := s.inherited[e.ID]; ok {
		s.inherited[e.ID] = e
	}
	if r := s.ledger[e.ID]; r != nil {
		r.gone = false
		r.edited = s.isEdited(c, epoch, mark, r, e)
		r.seen = r.seen || !r.edited
	}
}

// isEdited reports whether the target has something else than a copy's last put.
func (s *service) isEdited(c copier, epoch uint64, mark migrate.Mark, r *record, shown naming.Endpoint) bool {
	return mark.Epoch > 0 && mark.Epoch < epoch || !c.shows(s.name, r.native, r.form, shown)
}

// needs is which copies the target is to have.
type needs struct {
	*service
	// natives are the addresses that the target has by itself.
	natives map[string]bool
	// want are the natives of the copies that the target is to have, by ID of the copy.
	want map[string]naming.Endpoint
	// copied are the addresses of copies that are wanted and in the target.
	copied map[string]bool
}

// needs returns which copies the target is to have, according to both views.
func (s *service) needs(c copier) *needs {
	n := &needs{service: s, natives: s.nativeAddrs(), want: make(map[string]naming.Endpoint, len(s.source.endpoints)), copied: make(map[string]bool)}
	for id, e := range s.source.endpoints {
		if _, _, isCopy := migrate.ParseCopyID(id); isCopy || e.Addr == "" || n.natives[e.Addr] {
			continue
		}
		copyID := migrate.CopyID(c.origin, id)
		if there, ok := s.target.get(copyID); ok {
			if _, own := c.owns(there); !own {
				continue // another migration has copied the endpoint
			}
		}
		n.want[copyID] = e
		if r := s.ledger[copyID]; r != nil && r.sure && r.native.Addr == e.Addr {
			n.copied[e.Addr] = true
		}
	}
	return n
}

// nativeAddrs returns the addresses that the target has by itself. An endpoint that the
// target withholds counts: a copy would undo what an operator or a check of the target
// says.
func (s *service) nativeAddrs() map[string]bool {
	addrs := make(map[string]bool)
	s.target.each(func(e naming.Endpoint) {
		if _, _, isCopy := migrate.ParseCopyID(e.ID); !isCopy && e.Addr != "" {
			addrs[e.Addr] = true
		}
	})
	return addrs
}

// unwanted returns the copies of the ledger that the target is not to have.
func (n *needs) unwanted() (all []Delete) {
	for id, r := range n.ledger {
		if _, ok := n.want[id]; !ok {
			all = append(all, Delete{Service: n.name, ID: id, Addr: r.native.Addr, Counts: !n.explained(id, r)})
		}
	}
	return all
}

// explained reports whether a known reason explains that a copy is not wanted: its endpoint
// was draining, an operator withholds the endpoint, or the target has the address all the
// same.
func (n *needs) explained(id string, r *record) bool {
	if r.leaving || n.natives[r.native.Addr] || n.copied[r.native.Addr] {
		return true
	}
	_, nativeID, _ := migrate.ParseCopyID(id)
	if w, ok := n.source.withheld[nativeID]; ok && w.Reason != naming.FailedCheck {
		return true
	}
	e, ok := n.source.endpoints[nativeID]
	return ok && e.Addr == ""
}
