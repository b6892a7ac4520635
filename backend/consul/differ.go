package consul

import (
	"cmp"
	"slices"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul/internal/wire"
)

// differ remembers what a watch has shown, and returns what differs. A program may have
// thousands of watches, so a differ has no maps, and keeps nothing of an entry but what
// it needs to notice a change.
type differ struct {
	opts    *Options
	service string
	seen    []record // nil if nothing was shown yet
}

// record is what a differ keeps of an entry: what the entry says, and whether it was
// shown or reported.
type record struct {
	digest          wire.Digest
	endpoint        naming.Endpoint
	err             error
	reason          naming.Reason // why it was shown as withheld; 0: it was shown as usable
	detail          string
	shown, reported bool
}

// batch returns the changes since the last call, or everything in the first call. An
// endpoint is what the entry says that counts among its entries.
func (d *differ) batch(all []*wire.Entry) naming.Batch {
	b := naming.Batch{Snapshot: d.seen == nil}
	if b.Snapshot {
		b.Put = make([]naming.Endpoint, 0, len(all))
	}
	seen, counting := d.decode(all)
	shown := d.shown()
	notes := maintenanceNotes(all, seen)
	for id, n := range counting {
		i, r := all[n], &seen[n]
		st := d.opts.standing(i)
		if note, ok := notes[id]; ok && st.reason != naming.Maintenance {
			st.reason, st.detail = naming.Maintenance, note
		}
		switch {
		case st.gone || !d.opts.tagged(i):
		case r.err != nil:
			d.report(i, r)
		default:
			r.shown, r.reason, r.detail = true, st.reason, st.detail
			r.addTo(&b, shown[id])
			delete(shown, id)
		}
	}
	for id := range shown {
		b.Deleted = append(b.Deleted, id)
	}
	d.seen = seen
	slices.SortFunc(b.Put, func(a, b naming.Endpoint) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(b.Withheld, func(a, b naming.Withheld) int { return cmp.Compare(a.Endpoint.ID, b.Endpoint.ID) })
	slices.Sort(b.Deleted)
	return b
}

// decode returns the records of entries, and by endpoint ID the index of the entry that
// counts. Of an entry that has not changed, it copies the record.
func (d *differ) decode(all []*wire.Entry) (seen []record, counting map[string]int) {
	known := make(map[wire.Digest]*record, len(d.seen))
	for n := range d.seen {
		known[d.seen[n].digest] = &d.seen[n]
	}
	seen = make([]record, len(all))
	counting = make(map[string]int, len(all))
	rules := d.opts.rules()
	for n, i := range all {
		r := &seen[n]
		r.digest = i.Digest()
		if old := known[r.digest]; old != nil {
			r.endpoint, r.err, r.reported = old.endpoint, old.err, old.reported
		} else {
			r.endpoint, r.err = i.Endpoint(rules)
		}
		if o, ok := counting[r.endpoint.ID]; !ok || d.opts.compare(all[o], i) < 0 {
			counting[r.endpoint.ID] = n
		}
	}
	return seen, counting
}

// shown returns by endpoint ID what was shown last.
func (d *differ) shown() map[string]*record {
	shown := make(map[string]*record, len(d.seen))
	for n := range d.seen {
		if r := &d.seen[n]; r.shown {
			shown[r.endpoint.ID] = r
		}
	}
	return shown
}

// report reports a malformed entry once.
func (d *differ) report(i *wire.Entry, r *record) {
	if r.reported {
		return
	}
	r.reported = true
	d.opts.OnMalformed(&naming.MalformedError{Service: d.service, Key: i.Key(), Err: r.err})
}

// addTo adds what a record shows to a batch, unless the same was shown last. old may be
// nil.
func (r *record) addTo(b *naming.Batch, old *record) {
	if old != nil && old.endpoint.Equal(r.endpoint) && old.reason == r.reason && old.detail == r.detail {
		return
	}
	if r.reason == 0 {
		b.Put = append(b.Put, r.endpoint)
	} else {
		b.Withheld = append(b.Withheld, naming.Withheld{Endpoint: r.endpoint, Reason: r.reason, Detail: r.detail})
	}
}

// maintenanceNotes returns the notes of operators, by the IDs of the endpoints that are
// in maintenance mode. It is nil if no endpoint is. What an operator said of one
// registration of an endpoint holds for the endpoint. The reason is that a new lease has
// a registration of its own, and Apply gives it the note only after it has found the old
// registration.
func maintenanceNotes(all []*wire.Entry, seen []record) (notes map[string]string) {
	for n := range all {
		note, ok := wire.MaintenanceOf(all[n : n+1])
		if !ok {
			continue
		}
		if notes == nil {
			notes = make(map[string]string)
		}
		id := seen[n].endpoint.ID
		note = naming.SafeText(note)
		// The least note, so that the order of the answer does not matter.
		if old, ok := notes[id]; !ok || note < old {
			notes[id] = note
		}
	}
	return notes
}
