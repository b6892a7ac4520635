package naming

import (
	"context"
	"time"
)

// inspectMark finds out whether somebody else has set or removed the draining mark of the
// entry. e is the entry as the watch shows it, which may be older than the last put. So
// inspectMark reads the entry from the registry: a read that began after the put has ended
// shows the put, or what somebody wrote later. It reads only when the mark differs from that
// of the last put, and once for each state that the watch shows.
func (k *keeper) inspectMark(ctx context.Context, e *Endpoint) {
	if e == nil || e == k.inspected || e.Draining == k.last.endpoint.Draining {
		return
	}
	call, cancel := context.WithTimeout(ctx, callTimeout(k.g.opts.TTL))
	defer cancel()
	b, err := k.g.client.readSnapshot(call, k.g.service)
	if err != nil {
		k.confirm.Reset(jitter(confirmAfter)) // then the keeper inspects the entry again
		return
	}
	k.inspected = e
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
	case e.Draining && k.mayHaveUndone():
		k.followMark(true, false)
	}
}

// mayHaveUndone reports whether the last put may have undone a mark that the watch shows and
// the registry does not have. The put must be recent: an older put came before the mark. The
// entry, and the last put with the mark, must be older than the time that a watch takes to show
// a put: otherwise the mark may be that of a predecessor's entry, or an own one.
func (k *keeper) mayHaveUndone() bool {
	return time.Since(k.owned) >= confirmAfter && time.Since(k.marked) >= confirmAfter && time.Since(k.last.ended) < confirmAfter
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
	if stored && !pending {
		i.applied = i.version
		i.accepted = &want
	}
	return true
}
