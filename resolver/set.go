package resolver

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/naming-go/naming"
)

// set keeps the endpoints of a service, and decides which of them are published. It has
// no lock: the publisher uses it with its own.
type set struct {
	usable members

	// Endpoints whose loss looks like a fault of the registry (naming.Hold).
	held        []naming.Endpoint // as in the last event
	heldMembers []*member         // one per address, sorted by ID

	// Endpoints that the registry says not to use, sorted by ID. The slice is never
	// modified.
	withheld []naming.Withheld
	failed   []grpcresolver.Endpoint // of those with a failed check, one per address, sorted by ID

	threshold float64 // Options.PanicThreshold
	panicking bool    // the share of usable endpoints is below the threshold

	stale bool // the set was stale at the last event

	// unvouched says that the registry did not vouch for the endpoints published last:
	// the set was stale, or all of them were held or draining. The next usable
	// endpoints take over from them.
	unvouched bool
	takeover  time.Time // the end of the takeover; zero: no takeover

	withdrawn bool // a published endpoint became withheld since publish
	edited    bool // the contents changed since resetEdited

	published []grpcresolver.Endpoint // never modified
}

// apply applies an event to the set. It costs O(changes) plus one copy of the list.
func (s *set) apply(e naming.Event) {
	s.applyWithheld(e.Batch)
	if e.Snapshot {
		s.usable.applySnapshot(e.Put)
		s.edited = true
	} else {
		s.usable.applyChanges(e.Batch)
		s.edited = s.edited || len(e.Put)+len(e.Deleted)+len(e.Withheld) > 0
	}
	s.applyHeld(e.Status.Held)
	s.stale = e.Status.Stale()
}

// resetEdited reports whether the contents changed since its last call.
func (s *set) resetEdited() bool {
	edited := s.edited
	s.edited = false
	return edited
}

// contents returns the lists that the set consists of.
func (s *set) contents() *contents {
	return &contents{s.usable.active, s.usable.draining, s.withheld}
}

// takeoverTime is how long held endpoints stay in the list beside the usable endpoints
// that take over from them. A shorter time leaves all calls to the first server that
// registers again. A longer time sends calls to servers that are gone. Servers register
// again within five seconds of a common loss, and gRPC reconnects within as much to a
// server that was away for that long:
// https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md
const takeoverTime = 10 * time.Second

// publish chooses the list to publish. It reports whether the list differs from the
// one before, and whether the difference is urgent because the registry says not to use
// a published endpoint.
func (s *set) publish(now time.Time) (changed, urgent bool) {
	urgent, s.withdrawn = s.withdrawn, false
	list := s.choose(now)
	if equalEndpoints(s.published, list) {
		return false, false
	}
	s.published = list
	return true, urgent
}

// choose returns the list to publish, and notes what the next call needs to know.
//
// The list has the active endpoints, or the draining ones if there are no others. A
// draining endpoint is about to leave. It does not keep held endpoints out of the list:
// all calls would go to it until the moment it stops.
func (s *set) choose(now time.Time) []grpcresolver.Endpoint {
	list := s.usable.active
	staying := len(list) > 0
	if !staying {
		list = s.usable.draining
	}
	begins := staying && s.unvouched && s.takeover.IsZero() // a takeover may begin
	s.unvouched = s.stale || !staying
	s.panicking = false
	if len(s.heldMembers)+len(s.failed) > 0 {
		list = s.addUnusable(list, staying, begins, now)
	}
	if len(s.held) == 0 || !now.Before(s.takeover) {
		s.takeover = time.Time{}
	}
	return list
}

// addUnusable returns a list of usable endpoints with others behind them. Endpoints
// that are held or failed a check are used while nothing else can be used, or too few
// others (Options.PanicThreshold).
//
// After a common loss or an outage, the first usable endpoint may be the first of many,
// and gRPC may not be connected to it yet. So held endpoints whose addresses are
// published stay in the list for takeoverTime. Other held endpoints stay out: no call
// went to their addresses before. A takeover in progress is not prolonged.
func (s *set) addUnusable(list []grpcresolver.Endpoint, staying, begins bool, now time.Time) []grpcresolver.Endpoint {
	failed, suspects := s.failedChecks(len(list) > 0), s.suspects(len(list) > 0)
	all := len(list) + len(failed) + len(suspects)
	s.panicking = all > 0 && float64(len(list))/float64(all) < s.threshold
	called := s.onlyPublished(suspects)
	if begins && len(called) > 0 {
		s.takeover = now.Add(takeoverTime)
	}
	if !s.panicking {
		failed = nil
		switch {
		case staying && now.Before(s.takeover):
			suspects = called
		case staying:
			suspects = nil
		}
	}
	if len(failed)+len(suspects) == 0 {
		return list
	}
	return slices.Concat(list, failed, suspects)
}

// onlyPublished returns the endpoints of a list whose addresses are published.
func (s *set) onlyPublished(list []grpcresolver.Endpoint) []grpcresolver.Endpoint {
	if len(list) == 0 {
		return nil
	}
	published := make(map[string]bool, len(s.published))
	for _, e := range s.published {
		published[memberOf(e).addr()] = true
	}
	return slices.DeleteFunc(slices.Clone(list), func(e grpcresolver.Endpoint) bool { return !published[memberOf(e).addr()] })
}

// takenOver reports whether a takeover has ended whose held endpoints are still published.
func (s *set) takenOver(now time.Time) bool { return !s.takeover.IsZero() && !now.Before(s.takeover) }

// applyWithheld applies what a batch says of endpoints that are not to be used.
func (s *set) applyWithheld(b naming.Batch) {
	if b.Snapshot {
		s.withheld = slices.Clone(b.Withheld)
	} else {
		kept, changed := s.keptWithheld(b)
		if !changed {
			return
		}
		s.withheld = append(kept, b.Withheld...)
	}
	slices.SortFunc(s.withheld, func(a, b naming.Withheld) int { return strings.Compare(a.Endpoint.ID, b.Endpoint.ID) })
	s.withdrawn = s.withdrawn || s.anyPublished(b.Withheld)
	s.failed = nil
	if s.threshold > 0 { // otherwise they are never used
		s.failed = failedMembers(s.withheld)
	}
}

// keptWithheld returns a copy of the withheld endpoints without those that changes are
// about. It reports false if the changes concern no withheld endpoint.
func (s *set) keptWithheld(b naming.Batch) (kept []naming.Withheld, changed bool) {
	if len(b.Withheld)+len(s.withheld) == 0 {
		return nil, false
	}
	gone := make(map[string]bool)
	for i := range b.Put {
		gone[b.Put[i].ID] = true
	}
	for _, id := range b.Deleted {
		gone[id] = true
	}
	for i := range b.Withheld {
		gone[b.Withheld[i].Endpoint.ID] = true
	}
	kept = make([]naming.Withheld, 0, len(s.withheld)+len(b.Withheld))
	for _, w := range s.withheld {
		if !gone[w.Endpoint.ID] {
			kept = append(kept, w)
		}
	}
	return kept, len(b.Withheld) > 0 || len(kept) < len(s.withheld)
}

// anyPublished reports whether an endpoint of the list is published.
func (s *set) anyPublished(list []naming.Withheld) bool {
	if len(list) == 0 || len(s.published) == 0 {
		return false
	}
	ids := make(map[string]bool, len(list))
	for i := range list {
		ids[list[i].Endpoint.ID] = true
	}
	return slices.ContainsFunc(s.published, func(e grpcresolver.Endpoint) bool { return ids[memberOf(e).endpoint.ID] })
}

// failedMembers returns the endpoints of a list with a failed check, one per address.
// An address with an endpoint in maintenance is left out.
func failedMembers(withheld []naming.Withheld) (failed []grpcresolver.Endpoint) {
	seen := make(map[string]bool)
	for i := range withheld {
		if w := &withheld[i]; w.Reason != naming.FailedCheck {
			seen[w.Endpoint.Addr] = true
		}
	}
	for i := range withheld {
		if w := &withheld[i]; w.Endpoint.Addr != "" && !seen[w.Endpoint.Addr] {
			seen[w.Endpoint.Addr] = true
			failed = append(failed, newMaker(1).newMember(&w.Endpoint).failed())
		}
	}
	return failed
}

// failedChecks returns the endpoints with a failed check whose address has no
// usable endpoint. others says that there are usable ones.
func (s *set) failedChecks(others bool) []grpcresolver.Endpoint {
	var list []grpcresolver.Endpoint
	for _, e := range s.failed {
		if m := memberOf(e); s.usable.at(m.addr()) == nil && !(others && m.draining()) {
			list = append(list, e)
		}
	}
	return list
}

// applyHeld replaces the held endpoints. Of several with one address the first
// represents all, and draining ones are left out if there are others.
func (s *set) applyHeld(held []naming.Endpoint) {
	if len(s.held) == len(held) && (len(held) == 0 || &s.held[0] == &held[0]) || slices.EqualFunc(s.held, held, naming.Endpoint.Equal) {
		return
	}
	s.held = held
	s.heldMembers = nil
	var draining []*member
	seen := make(map[string]bool)
	for _, e := range held {
		if e.Addr == "" || seen[e.Addr] {
			continue
		}
		seen[e.Addr] = true
		if m := newMaker(1).newMember(&e); m.draining() {
			draining = append(draining, m)
		} else {
			s.heldMembers = append(s.heldMembers, m)
		}
	}
	if s.heldMembers == nil {
		s.heldMembers = draining
	}
}

// suspects returns the held endpoints that may be used: those of which neither
// the ID nor the address has another endpoint, usable or withheld. others says
// that there are usable ones.
func (s *set) suspects(others bool) []grpcresolver.Endpoint {
	if len(s.heldMembers) == 0 {
		return nil
	}
	withheld := make(map[string]bool, len(s.withheld))
	for _, w := range s.withheld {
		withheld[w.Endpoint.Addr] = true
	}
	var list []grpcresolver.Endpoint
	for _, m := range s.heldMembers {
		if s.usable.at(m.addr()) == nil && !withheld[m.addr()] && !s.isWithheld(m.endpoint.ID) && !(others && m.draining()) {
			list = append(list, m.grpc())
		}
	}
	return list
}

// isWithheld reports whether the registry says not to use the endpoint of this ID.
func (s *set) isWithheld(id string) bool {
	_, ok := slices.BinarySearchFunc(s.withheld, id, func(w naming.Withheld, id string) int { return strings.Compare(w.Endpoint.ID, id) })
	return ok
}

// maxDetail is how much of the registry's text about a withheld endpoint is in an
// error, in bytes.
const maxDetail = 200

// whyEmpty says why there are no endpoints to use.
func (s *set) whyEmpty() string {
	if len(s.withheld) == 0 {
		return "has no endpoints"
	}
	var counts []string
	for _, reason := range []naming.Reason{naming.Maintenance, naming.FailedCheck} {
		n, detail := s.countWithheld(reason)
		if n == 0 {
			continue
		}
		text := fmt.Sprintf("%d %v", n, reason)
		if detail != "" {
			text += fmt.Sprintf(" (%s)", strings.ToValidUTF8(detail[:min(len(detail), maxDetail)], ""))
		}
		counts = append(counts, text)
	}
	return fmt.Sprintf("has no endpoints to use: the registry withholds %d: %s", len(s.withheld), strings.Join(counts, ", "))
}

// countWithheld returns how many endpoints are withheld for a reason, and the first
// detail that the registry has about them. Unknown reasons count as maintenance.
func (s *set) countWithheld(reason naming.Reason) (n int, detail string) {
	for _, w := range s.withheld {
		if w.Reason == reason || reason == naming.Maintenance && w.Reason != naming.FailedCheck {
			n++
			detail = cmp.Or(detail, w.Detail)
		}
	}
	return n, detail
}
