package bridge

import (
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

const (
	// adoptAfter is how long copies of a predecessor wait for the source, until they
	// are put again as they are.
	adoptAfter = 10 * time.Second
	// unseenAfter is how long the target may take to show a copy. A copy that was
	// removed in that time may never be shown.
	unseenAfter = 30 * time.Second
	// repairEvery bounds how often a copy is put again because somebody changes it.
	repairEvery = time.Minute
	// refusedFor is how long an endpoint waits that the target refused as invalid.
	refusedFor = 10 * time.Minute
)

// work is what a service needs now.
type work struct {
	puts    []putWork
	deletes []Delete
	next    time.Time // when to look again; zero: when something changes
}

// putWork is a copy to put.
type putWork struct {
	id     string
	native naming.Endpoint
	appear bool // the endpoint appeared after the first set was copied
}

// lookAgain notes that something is to be done at a time.
func (w *work) lookAgain(at time.Time) {
	if w.next.IsZero() || at.Before(w.next) {
		w.next = at
	}
}

// decision is one look at a service.
type decision struct {
	*needs
	work
	term *term
	now  time.Time
}

// decide returns what a service needs now. It makes no request.
func (t *term) decide(s *service) work {
	if !s.target.status.Synced {
		return work{}
	}
	d := &decision{needs: s.needs(t.copier), term: t, now: time.Now()}
	for id := range d.want {
		if r := d.ledger[id]; r != nil {
			r.absent = time.Time{}
		}
	}
	d.decideDeletes()
	d.keepOthers()
	d.adopt()
	d.decidePuts()
	return d.work
}

// decideDeletes sets the deletions that may be made: of copies that are not wanted, while
// both registries vouch for what they show, and as far as the fuse admits them.
func (d *decision) decideDeletes() {
	may := d.source.fresh() && d.target.fresh()
	held := heldIDs(d.source.status)
	var counted []Delete
	mature := make(map[string]bool)
	for _, del := range d.unwanted() {
		r := d.ledger[del.ID]
		_, nativeID, _ := migrate.ParseCopyID(del.ID)
		switch {
		case !may || held[nativeID]:
			r.absent = time.Time{}
		case !del.Counts:
			d.deletes = append(d.deletes, del)
		default:
			if r.absent.IsZero() {
				r.absent = d.now
			}
			mature[del.ID] = d.due(r.absent.Add(d.term.opts.DeleteDelay))
			counted = append(counted, del)
		}
	}
	d.deletes = append(d.deletes, d.term.admitted(d.service, counted, mature)...)
}

// keepOthers adds the copies that are not to be deleted to those that are wanted, so that
// they stay leased.
func (d *decision) keepOthers() {
	going := make(map[string]bool, len(d.deletes))
	for _, del := range d.deletes {
		going[del.ID] = true
	}
	for id, r := range d.ledger {
		if _, ok := d.want[id]; !ok && !going[id] {
			d.want[id] = r.native
		}
	}
}

// admitted returns the deletions that the fuse lets through, of those that count.
func (t *term) admitted(s *service, counted []Delete, mature map[string]bool) (out []Delete) {
	unapproved := t.fuse.update(s.name, len(s.ledger)+len(s.inherited), counted)
	waits := make(map[string]bool, len(unapproved))
	ripe := false
	for _, del := range unapproved {
		waits[del.ID] = true
		ripe = ripe || mature[del.ID]
	}
	admits := ripe && t.fuse.admits(s.name)
	for _, del := range counted {
		if !waits[del.ID] || admits && mature[del.ID] {
			out = append(out, del)
		}
	}
	return out
}

// heldIDs returns the IDs of the endpoints that a Client holds.
func heldIDs(status naming.Status) map[string]bool {
	held := make(map[string]bool, len(status.Held))
	for _, e := range status.Held {
		held[e.ID] = true
	}
	return held
}

// adopt adds the copies of a predecessor to those that are wanted. Also a copy that is to
// be deleted is put first, because a deletion is bound to an own lease. While the source
// has not answered, they wait a little, so that most are put once.
func (d *decision) adopt() {
	if len(d.inherited) == 0 {
		return
	}
	if at := d.began.Add(adoptAfter); !d.source.status.Synced && at.After(d.now) {
		d.lookAgain(at)
		return
	}
	for id, e := range d.inherited {
		if _, ok := d.want[id]; !ok {
			d.want[id], _ = migrate.Native(e)
		}
	}
}

// decidePuts sets the copies that are to be put.
func (d *decision) decidePuts() {
	for id, native := range d.want {
		if d.needsPut(id, native) {
			_, was := d.inherited[id]
			d.puts = append(d.puts, putWork{id: id, native: native, appear: d.filled && !was && d.ledger[id] == nil})
		}
	}
	if len(d.puts) == 0 && d.source.status.Synced {
		d.filled = true
	}
}

// needsPut reports whether a copy is to be put now.
func (d *decision) needsPut(id string, native naming.Endpoint) bool {
	if no, ok := d.refused[id]; ok && no.native.Equal(native) && d.now.Before(no.until) {
		d.lookAgain(no.until)
		return false
	}
	r := d.ledger[id]
	if r == nil {
		_, was := d.inherited[id]
		return was || d.source.status.Synced
	}
	if r.gone && !d.due(r.putAt.Add(repairDelay(r.repairs))) {
		return false
	}
	if !r.sure || r.gone || d.term.pool.isLost(r.lease) || !native.Equal(r.native) {
		return true
	}
	if !r.seen {
		if !d.due(r.putAt.Add(unseenAfter)) {
			return false
		}
		// A put that changed nothing is never shown, and neither is one that somebody
		// undid at once.
		shown, there := d.target.get(id)
		if !there {
			return true
		}
		r.seen = true
		mark, _ := d.term.copier.owns(shown)
		r.edited = d.isEdited(d.term.copier, d.term.lead.epoch.Load(), mark, r, shown)
	}
	return r.edited && d.due(r.putAt.Add(repairEvery))
}

// repairDelay returns how long after a put the copy is put again that somebody removed.
// Two programs that undo each other's work thus do so once in a minute.
func repairDelay(repairs int) time.Duration {
	if repairs == 0 {
		return 0
	}
	return min(time.Second<<min(repairs-1, 16), repairEvery)
}

// due reports whether a time has come, and notes to look again if not.
func (d *decision) due(at time.Time) bool {
	if d.now.Before(at) {
		d.lookAgain(at)
		return false
	}
	return true
}
