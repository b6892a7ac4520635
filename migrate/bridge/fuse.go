package bridge

import (
	"slices"
	"sync"
	"time"
)

// fuse counts the deletions of a term, per service and of all services.
type fuse struct {
	opts Fuse // never changes
	// changed has a token when the plan of stopped deletions changed. Its capacity is 1.
	changed chan struct{}

	mu       sync.Mutex
	services map[string]*account
	total    tally
	approved map[string]map[string]bool // by service and ID
}

// copyKey is the place of a copy.
type copyKey struct{ service, id string }

// account is what the fuse knows of a service.
type account struct {
	tally
	waiting []Delete // those that count and are not made, sorted by ID
	blown   bool     // as of the last verdict
}

// tally is a sum over copies: of one service, or of all.
type tally struct {
	size    int // copies of the target
	pending int // deletions that count and are not made
	past    []moment
}

// moment is how many copies were deleted, and appeared, at a time.
type moment struct {
	at             time.Time
	deleted, added int
}

// note adds what happened now.
func (t *tally) note(deleted, added int, window time.Duration) {
	if deleted == 0 && added == 0 {
		return
	}
	now := time.Now()
	t.forget(now.Add(-window))
	// The moments of a second are one, so that the list stays short.
	if n := len(t.past); n > 0 && now.Sub(t.past[n-1].at) < time.Second {
		t.past[n-1].deleted += deleted
		t.past[n-1].added += added
		return
	}
	t.past = append(t.past, moment{now, deleted, added})
}

func (t *tally) forget(before time.Time) {
	n := 0
	for n < len(t.past) && t.past[n].at.Before(before) {
		n++
	}
	t.past = slices.Delete(t.past, 0, n)
}

// exceeds reports whether the deletions that are pending are too many: at once, or
// together with the deletions of the window that no new copy makes up for.
func (t *tally) exceeds(opts Fuse) bool {
	t.forget(time.Now().Add(-opts.Window))
	deleted, added := 0, 0
	for _, m := range t.past {
		deleted += m.deleted
		added += m.added
	}
	shrunk := t.pending + max(deleted-added, 0)
	return t.pending > 0 && (t.pending > opts.limit(t.size) || shrunk > opts.limit(t.size+max(deleted-added, 0)))
}

func newFuse(opts Fuse) *fuse {
	return &fuse{opts: opts, changed: make(chan struct{}, 1), services: make(map[string]*account), approved: make(map[string]map[string]bool)}
}

func (f *fuse) account(service string) *account {
	a := f.services[service]
	if a == nil {
		a = new(account)
		f.services[service] = a
	}
	return a
}

// update notes how many copies of a service the target has, and which deletions are
// wanted that count. It returns those that were not approved.
func (f *fuse) update(service string, size int, wanted []Delete) (unapproved []Delete) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, kept := f.account(service), make(map[string]bool)
	for _, d := range wanted {
		if f.approved[service][d.ID] {
			kept[d.ID] = true
		} else {
			unapproved = append(unapproved, d)
		}
	}
	// The approval of a deletion that is done, or not wanted now, has ended.
	if f.approved[service] = kept; len(kept) == 0 {
		delete(f.approved, service)
	}
	slices.SortFunc(unapproved, compareDeletes)
	f.total.size += size - a.size
	f.total.pending += len(unapproved) - a.pending
	if a.blown && !slices.Equal(a.waiting, unapproved) {
		f.signal()
	}
	a.size, a.pending, a.waiting = size, len(unapproved), unapproved
	a.blown = a.blown && len(unapproved) > 0
	return unapproved
}

// admits reports whether the deletions of a service that update has noted may be made.
func (f *fuse) admits(service string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.account(service)
	blown := a.exceeds(f.opts) || f.total.exceeds(f.opts)
	if blown != a.blown {
		f.signal()
	}
	a.blown = blown
	return !blown
}

func (f *fuse) signal() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// note adds what was done: deletions that count, and copies of endpoints that appeared.
func (f *fuse) note(service string, deleted, added int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.account(service).note(deleted, added, f.opts.Window)
	f.total.note(deleted, added, f.opts.Window)
}

// forget removes a service that has no copies.
func (f *fuse) forget(service string) {
	f.update(service, 0, nil)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.services, service)
}

// plan returns the deletions that the fuse stops. Blown is false if it stops nothing.
func (f *fuse) plan() *Plan {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := new(Plan)
	for _, a := range f.services {
		if a.blown && len(a.waiting) > 0 {
			p.Blown = true
			p.Deletes = append(p.Deletes, a.waiting...)
		}
	}
	p.seal()
	return p
}

// approve lets the deletions through whose digest this is. It returns their services, or
// an error if the plan has another digest.
func (f *fuse) approve(digest string) (services []string, err error) {
	p := f.plan()
	if !p.Blown || p.Digest != digest {
		return nil, &DigestError{Got: digest, Want: p.Digest}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range p.Deletes {
		if f.approved[d.Service] == nil {
			f.approved[d.Service] = make(map[string]bool)
		}
		services = append(services, d.Service)
		f.approved[d.Service][d.ID] = true
	}
	return slices.Compact(services), nil // sorted, as the plan is
}

// blown returns the services whose deletions the fuse stops.
func (f *fuse) blown() (services []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, a := range f.services {
		if a.blown {
			services = append(services, name)
		}
	}
	return services
}

// exceeded reports whether any deletions that update has noted are too many.
func (f *fuse) exceeded() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.services {
		if a.exceeds(f.opts) {
			return true
		}
	}
	return f.total.exceeds(f.opts)
}

// size returns how many copies the target has.
func (f *fuse) size() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.total.size
}
