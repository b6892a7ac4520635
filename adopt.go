package naming

import (
	"context"
	"time"
)

// maxInspectRest bounds the rest between two inspections of one state.
const maxInspectRest = time.Minute

// inspection is what inspectMark has inspected last.
type inspection struct {
	entry *Endpoint // as the watch showed it
	at    time.Time
	rest  time.Duration // until the entry is inspected again
}

// inspect records an inspection of e, and reports whether e was inspected before.
func (i *inspection) inspect(e *Endpoint) (again bool) {
	again = e == i.entry
	rest := confirmAfter
	if again {
		rest = min(2*i.rest, maxInspectRest)
	}
	*i = inspection{entry: e, at: time.Now(), rest: rest}
	return again
}

// excuse has e wait as an entry that was inspected just now.
func (i *inspection) excuse(e *Endpoint) {
	*i = inspection{entry: e, at: time.Now(), rest: confirmAfter}
}

// due returns how long it takes until e is to be inspected.
func (i *inspection) due(e *Endpoint) time.Duration {
	if e != i.entry {
		return 0
	}
	return i.rest - time.Since(i.at)
}

// inspectMark finds out whether somebody else has set or removed the draining mark of the
// entry. e is the entry as the watch shows it, which may be older than the last put. So
// inspectMark reads the entry from the registry: a read that began after the put has ended
// shows the put, or what somebody wrote later. It reads only when the mark differs from that
// of the last put. While the watch shows the same, it reads again from time to time: the
// registry may have that state again, and the watch left out the states in between.
func (k *keeper) inspectMark(ctx context.Context, e *Endpoint) {
	passed := k.cursor.passedMark(k.g.id)
	if e == nil {
		return
	}
	if e.Draining == k.last.endpoint.Draining {
		if passed != nil && !e.Draining && k.hasUndone(passed, e) {
			k.followMark(true, false)
		}
		return
	}
	if rest := k.inspected.due(e); rest > 0 {
		k.confirm.Reset(min(rest, confirmAfter)) // confirmPut may wait for the timer as well
		return
	}
	again := k.inspected.inspect(e)
	k.confirm.Reset(jitter(confirmAfter))
	call, cancel := context.WithTimeout(ctx, callTimeout(k.g.opts.TTL))
	defer cancel()
	b, err := k.g.client.readSnapshot(call, k.g.service)
	if err != nil {
		return // the keeper inspects the entry again
	}
	found := b.find(k.g.id)
	switch {
	case found == nil || found.Addr != k.g.addr || k.isUnleased(found):
		// The watch is about to show that the entry is lost.
	case !k.g.claim.isOwner(k.g):
		// The mark may be that of a newer Registration.
	case found.Draining != k.last.endpoint.Draining:
		k.last.endpoint.Draining = found.Draining
		if found.Draining {
			k.marked = time.Now()
		}
		k.followMark(found.Draining, true)
	case e.Draining && !again && k.hasUndone(e, found):
		k.followMark(true, false)
	}
}

// hasUndone reports whether the last put has undone a mark that the watch has shown. marked is
// the entry with the mark, and now the entry as it is. The put has changed more than the mark:
// otherwise it may be that somebody removed the mark. The put must be recent: an older put came
// before the mark. The entry, and the last put with the mark, must be older than the time that
// a watch takes to show a put: otherwise the mark may be that of a predecessor's entry, or an
// own one.
func (k *keeper) hasUndone(marked, now *Endpoint) bool {
	return time.Since(k.owned) >= confirmAfter && time.Since(k.marked) >= confirmAfter && time.Since(k.last.ended) < confirmAfter &&
		!sameButMark(*marked, *now)
}

// sameButMark reports whether a and b are equal apart from the draining mark.
func sameButMark(a, b Endpoint) bool {
	a.Draining = b.Draining
	return a.Equal(b)
}

// followMark adopts the draining mark that somebody else has set, or ceases to keep it, and
// reports that. stored says that the registry has the mark so. A mark that is not stored is
// put.
func (k *keeper) followMark(draining, stored bool) {
	g := k.g
	changed := g.intent.followMark(draining, stored)
	if _, _, applied := g.intent.wanted(); !applied {
		g.poke()
	}
	if !changed {
		return
	}
	text := "naming: somebody else marked the endpoint as draining, the mark is kept"
	if !draining {
		text = "naming: somebody else removed the draining mark of the endpoint"
	}
	g.client.log.Info(text, g.serviceAttr(), g.endpointAttr())
	k.callOnChange()
}

// followMark changes the wanted content after somebody else has set or removed the draining
// mark, and reports whether the change was made. stored says that the registry has the mark
// so. What the program itself said of the mark counts more: a mark that the program has set
// is put again.
func (i *intent) followMark(draining, stored bool) (changed bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	want, pending := i.want, i.applied != i.version
	switch {
	case want.Draining == draining:
		return false
	case !draining && !i.status.MarkedByOther:
		i.version++
		return false
	}
	want.Draining = draining
	i.setWant(want)
	i.status.MarkedByOther = draining
	if stored && i.accepted != nil {
		accepted := *i.accepted
		accepted.Draining = draining
		i.accepted = &accepted
	}
	if stored && !pending {
		i.applied = i.version
	}
	return true
}
