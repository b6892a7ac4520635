package migrate

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/naming-go/naming"
)

// feed is the [naming.Feed] of one service, or of the list of services. It watches the registries that the phase of
// the service reads, and publishes what package-level publish decides. It has no
// goroutine: wake has the joined Client call Next, which does the work.
type feed struct {
	// Set by newFeed and never changed.
	j       *Joined
	service string // empty: the list of services
	wake    func()
	stop    func() // ends the notifications of the Source

	// Owned by the caller of Next, and by Close after the last Next.
	reader reader
	timer  *time.Timer // calls wake at the next moment that matters

	shared struct {
		mu        sync.Mutex
		monitor   *monitor            // nil until the registries are first compared
		followers [2]*naming.Follower // nil: not watched
		status    ReaderStatus
		closed    bool
	}
}

// reader is the state of a feed between two calls of Next.
type reader struct {
	kept     [2]time.Time  // since when entries of each registry are kept; zero: no entry is
	due      time.Duration // until the next moment that matters; 0: no moment is known
	answered time.Time     // when the first registry answered; zero: none has
	state    State
	known    bool
	memory   memory
	views    [2]view
	raw      [2]naming.View
	shown    result // what was published last
	status   naming.Status

	wideSince  time.Time // since when the reader wants one registry alone and needs both; zero: it does not
	uncovered  []string  // why it needs both, as of the last set
	compared   bool      // the monitor compares the registries
	isFallback bool      // that was reported
}

// newFeed returns a feed, which must be closed.
func (j *Joined) newFeed(service string, wake func()) (*feed, error) {
	f := &feed{j: j, service: service, wake: wake}
	if !f.isList() {
		j.seen.use(service)
	}
	f.timer = time.AfterFunc(j.opts.FirstWait, wake)
	f.stop = j.phases.Notify(wake)
	j.feeds.add(f)
	return f, nil
}

// Next implements [naming.Feed].
func (f *feed) Next() (naming.Event, bool) {
	f.readPhase()
	c := f.choice()
	r := &f.reader
	r.due = 0
	if !r.memory.published {
		r.memory.narrow, r.memory.to = c.alone, c.lead // before the registries are watched
	}
	viewsChanged := f.readViews(c)
	r.memory.waited = r.memory.waited || f.hasWaited()
	was := r.memory
	var out result
	out, r.memory = was.step(c, &r.views)
	event, changed := f.diff(c, out, was.published)
	f.noteKept()
	f.follow(f.wanted(c)) // the reader may have left a registry
	f.compare(viewsChanged)
	f.report(c, out, &was)
	f.storeStatus(c, out)
	if r.due > 0 {
		f.timer.Reset(r.due)
	}
	return event, changed
}

// hasWaited reports whether the first set need not wait longer for the second registry.
func (f *feed) hasWaited() bool {
	r := &f.reader
	if !r.views[oldSide].synced && !r.views[newSide].synced {
		return false
	}
	if r.answered.IsZero() {
		r.answered = time.Now()
	}
	left := f.j.opts.FirstWait - time.Since(r.answered)
	if left > 0 && !r.memory.published {
		f.wakeAfter(left)
	}
	return left <= 0
}

// wakeAfter has wake called after d, or earlier. If d is not positive, the moment has come
// during this call of Next, and wake is called at once.
func (f *feed) wakeAfter(d time.Duration) {
	d = max(d, 1)
	if r := &f.reader; r.due == 0 || d < r.due {
		r.due = d
	}
}

// noteKept notes since when entries of each registry are kept, and has wake called when they
// have been kept for long enough.
func (f *feed) noteKept() {
	r := &f.reader
	for i, kept := range r.memory.kept {
		switch {
		case len(kept) == 0:
			r.kept[i] = time.Time{}
			continue
		case r.kept[i].IsZero():
			r.kept[i] = time.Now()
		}
		f.wakeAfter(f.j.opts.FirstWait - time.Since(r.kept[i]))
	}
}

// isLate reports whether the answer of registry i was awaited for long enough.
func (f *feed) isLate(i sideIndex) bool {
	since := f.reader.kept[i.other()]
	return !since.IsZero() && time.Since(since) >= f.j.opts.FirstWait
}

// readPhase reads the state of the service.
func (f *feed) readPhase() {
	if f.isList() {
		return
	}
	r := &f.reader
	r.state, r.known = f.j.state(f.service)
	f.j.seen.report(f.j, f.service)
}

func (f *feed) isList() bool { return f.service == "" }

func (f *feed) choice() choice {
	if f.isList() {
		return f.j.listChoice()
	}
	return choose(f.reader.state, f.reader.known, f.j.inShare(f.service, f.reader.state.Share))
}

// state returns the state of a service. A Source may be of another author: a state that is
// not valid is not known.
func (j *Joined) state(service string) (State, bool) {
	s, known := j.phases.State(service)
	if !known || s.Valid() != nil {
		return State{}, false
	}
	return s, true
}

// inShare reports whether this client is in a share of the clients of a service.
func (j *Joined) inShare(service string, share float64) bool {
	h := fnv.New64a()
	_, _ = h.Write([]byte(j.opts.ClientID))
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(service))
	// The low bits of FNV-1a are better than the high ones.
	const buckets = 1 << 20
	return float64(mix(h.Sum64())%buckets)/buckets < share
}

// mix spreads the bits of a hash evenly (the finalizer of MurmurHash3).
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// wanted returns the registries to watch.
func (f *feed) wanted(c choice) [2]bool {
	r := &f.reader
	return r.memory.wanted(c, r.known && r.state.Phase == Shadow)
}

// follow watches the registries that are wanted, and no others.
func (f *feed) follow(watch [2]bool) {
	for i, want := range watch {
		old := f.followers()[i]
		switch {
		case want && old == nil:
			fol, err := f.open(f.j.sides[i].client)
			if err != nil {
				continue // the Client was closed
			}
			if !f.setFollower(sideIndex(i), fol) {
				fol.Close()
				continue
			}
			f.wake() // the set may be known already
		case !want && old != nil:
			f.setFollower(sideIndex(i), nil)
			old.Close()
			f.reader.views[i], f.reader.raw[i] = view{}, naming.View{}
			f.reader.memory = f.reader.memory.forget(sideIndex(i))
		}
	}
}

func (f *feed) open(c *naming.Client) (*naming.Follower, error) {
	if f.isList() {
		return c.FollowServices(f.wake)
	}
	return c.Follow(f.service, f.wake)
}

func (f *feed) followers() [2]*naming.Follower {
	f.shared.mu.Lock()
	defer f.shared.mu.Unlock()
	return f.shared.followers
}

// setFollower reports false if the feed was closed.
func (f *feed) setFollower(i sideIndex, fol *naming.Follower) bool {
	f.shared.mu.Lock()
	defer f.shared.mu.Unlock()
	if f.shared.closed {
		return false
	}
	f.shared.followers[i] = fol
	return true
}

// readViews reads what the watched registries have, and reports whether it changed.
func (f *feed) readViews(c choice) (changed bool) {
	f.follow(f.wanted(c))
	var moved [2]bool
	for i, fol := range f.followers() {
		if fol == nil {
			continue
		}
		is, was := &f.reader.views[i], &f.reader.raw[i]
		is.late = f.isLate(sideIndex(i))
		v, live, news := fol.Current()
		if !news {
			continue
		}
		changed = true
		moved[i] = v.Synced
		if !is.synced || !sameList(was.Endpoints, v.Endpoints) || !sameList(was.Withheld, v.Withheld) {
			f.setLists(is, &v)
		}
		is.synced, is.fresh, is.failed = v.Synced, live, v.Stale()
		*was = v
	}
	f.hurry(moved)
	return changed
}

// hurry retries the watch of a registry that failed if the other registry has news. Servers
// may be leaving the other registry because they are in this one, which the reader should
// then know soon.
func (f *feed) hurry(moved [2]bool) {
	for i, fol := range f.followers() {
		other := sideIndex(i).other()
		if fol != nil && f.reader.views[i].failed && moved[other] && f.reader.views[other].fresh {
			fol.Retry()
		}
	}
}

// setLists sets the entries of a view to those of a registry.
func (f *feed) setLists(is *view, v *naming.View) {
	if f.isList() {
		is.setLists(asNames(v.Endpoints), nil)
	} else {
		is.setLists(asNatives(v.Endpoints, v.Withheld))
	}
}

// sameList reports whether two lists are one. A Follower returns the same list as long as the
// endpoints are the same.
func sameList[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// diff returns the event that takes a receiver from what was shown last to out.
func (f *feed) diff(c choice, out result, published bool) (e naming.Event, changed bool) {
	r := &f.reader
	e.Status = f.status(c, out, published)
	changed = !sameStatus(e.Status, r.status)
	r.status = e.Status
	if !out.publish {
		return e, changed
	}
	if !published {
		e.Snapshot, e.Put, e.Withheld = true, out.usable, out.withheld
	} else {
		d := difference{event: &e}
		d.compare(r.shown, out)
	}
	r.shown = result{publish: true, usable: out.usable, withheld: out.withheld}
	return e, changed || e.Snapshot || len(e.Put)+len(e.Deleted)+len(e.Withheld) > 0
}

// difference finds the changes between two results.
type difference struct{ event *naming.Event }

// compare adds the changes to the event. The lists are sorted.
func (d difference) compare(was, is result) {
	e := d.event
	if !sameList(was.usable, is.usable) {
		d.compareUsable(was.usable, is.usable)
	}
	d.compareWithheld(was.withheld, is.withheld)
	if len(was.withheld)+len(is.withheld) > 0 {
		// An endpoint that went from one list to the other is in Put or Withheld.
		here := make(map[string]struct{}, len(e.Put)+len(e.Withheld))
		for i := range e.Put {
			here[e.Put[i].ID] = struct{}{}
		}
		for i := range e.Withheld {
			here[e.Withheld[i].Endpoint.ID] = struct{}{}
		}
		e.Deleted = slices.DeleteFunc(e.Deleted, func(id string) bool { return has(here, id) })
	}
}

func (d difference) compareUsable(was, is []naming.Endpoint) {
	e := d.event
	for i, j := 0, 0; i < len(was) || j < len(is); {
		if i < len(was) && j < len(is) && sameEndpoint(&was[i], &is[j]) {
			i, j = i+1, j+1
			continue
		}
		switch c := compareAt(was, is, i, j); {
		case c < 0:
			e.Deleted = append(e.Deleted, was[i].ID)
			i++
		case c > 0:
			e.Put = append(e.Put, is[j])
			j++
		default:
			e.Put = append(e.Put, is[j])
			i, j = i+1, j+1
		}
	}
}

func (d difference) compareWithheld(was, is []naming.Withheld) {
	e := d.event
	for _, n := range is {
		i, found := slices.BinarySearchFunc(was, n.Endpoint.ID, compareWithheldID)
		if !found || was[i].Reason != n.Reason || was[i].Detail != n.Detail || !sameEndpoint(&was[i].Endpoint, &n.Endpoint) {
			e.Withheld = append(e.Withheld, n)
		}
	}
	for _, w := range was {
		if _, found := slices.BinarySearchFunc(is, w.Endpoint.ID, compareWithheldID); !found {
			e.Deleted = append(e.Deleted, w.Endpoint.ID)
		}
	}
}

func compareWithheldID(w naming.Withheld, id string) int { return strings.Compare(w.Endpoint.ID, id) }

// sameEndpoint reports whether two endpoints are the same for a reader. Metadata that are
// equal with other bytes are decoded. So most pairs are compared without [naming.Endpoint.Equal].
func sameEndpoint(a, b *naming.Endpoint) bool {
	return a.NoDrainingMark == b.NoDrainingMark && a.Unleased == b.Unleased && (sameBytes(a, b) || a.Equal(*b))
}

// status returns the status of the joined set.
func (f *feed) status(c choice, out result, published bool) naming.Status {
	r := &f.reader
	lead, other := &r.raw[c.lead], &r.raw[c.lead.other()]
	s := naming.Status{Synced: published || out.publish, Sides: f.sideStatus(c, out)}
	by := lead // vouches for the set
	if !vouches(lead) && !out.narrow && (vouches(other) || lead.AsOf.Before(other.AsOf)) {
		by = other
	}
	s.AsOf = by.AsOf
	fresh := vouches(by) && s.Synced && (out.publish || published && out.narrow)
	if fresh {
		return s
	}
	waiting := !s.Synced && !out.narrow && !r.memory.waited && (r.views[c.lead].pending() || r.views[c.lead.other()].pending())
	why, from := lead.Err, c.lead
	if why == nil && !out.narrow {
		why, from = other.Err, c.lead.other()
	}
	if waiting || why == nil {
		return s // an error would fail calls that the next answer lets succeed
	}
	s.Err = naming.SafeError(fmt.Errorf("registry %q: %w", f.j.sides[from].name, why))
	s.StaleSince = lead.StaleSince
	if !out.narrow && other.StaleSince.After(s.StaleSince) {
		s.StaleSince = other.StaleSince // as long as one was fresh, the set was
	}
	return s
}

// vouches reports whether a registry vouches for its endpoints. A registry whose endpoints
// are live may have to prove itself first.
func vouches(v *naming.View) bool { return v.Synced && !v.Stale() }

// sideStatus returns the status of each registry.
func (f *feed) sideStatus(c choice, out result) []naming.SideStatus {
	list := make([]naming.SideStatus, 0, 2)
	for i, fol := range f.followers() {
		if fol == nil {
			continue
		}
		v := &f.reader.raw[i]
		list = append(list, naming.SideStatus{
			Name: f.j.sides[i].name, Used: !out.narrow || sideIndex(i) == c.lead, Endpoints: len(v.Endpoints),
			Synced: v.Synced, AsOf: v.AsOf, StaleSince: v.StaleSince, Err: v.Err,
		})
	}
	return list
}

// sameStatus reports whether a reader sees no difference between two statuses. As for a
// Client on one registry, AsOf alone makes none.
func sameStatus(a, b naming.Status) bool {
	return a.Synced == b.Synced && a.StaleSince.Equal(b.StaleSince) && errText(a.Err) == errText(b.Err) &&
		slices.EqualFunc(a.Sides, b.Sides, func(a, b naming.SideStatus) bool {
			return a.Name == b.Name && a.Used == b.Used && a.Synced == b.Synced && a.StaleSince.Equal(b.StaleSince) && errText(a.Err) == errText(b.Err)
		})
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Retry implements [naming.Feed].
func (f *feed) Retry() {
	for _, fol := range f.followers() {
		if fol != nil {
			fol.Retry()
		}
	}
}

// Close implements [naming.Feed].
func (f *feed) Close() {
	followers, first := f.setClosed()
	for _, fol := range followers {
		if fol != nil {
			fol.Close()
		}
	}
	if first && !f.isList() {
		f.j.seen.release(f.service)
	}
	f.stop()
	f.timer.Stop()
	f.j.feeds.remove(f)
	f.endFallback()
	if m := f.currentMonitor(); m != nil {
		m.close()
	}
}

// setClosed returns the Followers to close. first says that the feed was not closed before.
func (f *feed) setClosed() (followers [2]*naming.Follower, first bool) {
	f.shared.mu.Lock()
	defer f.shared.mu.Unlock()
	first, f.shared.closed = !f.shared.closed, true
	followers, f.shared.followers = f.shared.followers, [2]*naming.Follower{}
	return followers, first
}
