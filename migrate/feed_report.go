package migrate

import (
	"log/slog"
	"strings"
	"time"

	"github.com/naming-go/naming"
)

// mostUncovered is how many uncovered addresses are reported.
const mostUncovered = 100

// report logs and calls hooks about what changed. was is the memory of before.
func (f *feed) report(c choice, out result, was *memory) {
	if f.isList() {
		return
	}
	if is := &f.reader.memory; is.alone() != was.alone() || is.alone() && is.to != was.to {
		f.reportNarrow(c, is.narrow)
	}
	f.trackFallback(c, out)
}

// compare gives the monitor what both registries have, in the phases in which readers
// watch both. changed says that a registry has news.
func (f *feed) compare(changed bool) {
	if f.isList() {
		return
	}
	r, m := &f.reader, f.currentMonitor()
	followers := f.followers()
	compared := r.known && r.state.Phase >= Shadow && r.state.Phase <= NewRead && followers[oldSide] != nil && followers[newSide] != nil
	switch {
	case compared && (changed || m == nil || !r.compared):
		if m == nil {
			m = f.startMonitor()
		}
		m.update(r.raw[oldSide], r.raw[newSide], r.views[oldSide].fresh && r.views[newSide].fresh)
	case !compared && r.compared:
		m.end()
	}
	r.compared = compared
}

func (f *feed) startMonitor() *monitor {
	m := f.j.newMonitor(f.service)
	f.shared.mu.Lock()
	defer f.shared.mu.Unlock()
	f.shared.monitor = m
	return m
}

func (f *feed) currentMonitor() *monitor {
	f.shared.mu.Lock()
	defer f.shared.mu.Unlock()
	return f.shared.monitor
}

func (f *feed) reportNarrow(c choice, narrow bool) {
	name := f.j.sides[c.lead].name
	f.j.log.Debug("naming: reader of two registries", f.attr(), slog.String("prefers", name), slog.Bool("alone", narrow))
	if h := f.j.opts.Hooks; h != nil && h.Narrowed != nil {
		h.Narrowed(NarrowedInfo{Service: f.service, Narrow: narrow, Registry: name})
	}
}

func (f *feed) attr() slog.Attr { return slog.String("service", f.service) }

// trackFallback notes since when the reader wants one registry alone and needs both, and
// reports when that has lasted for FallbackAfter.
func (f *feed) trackFallback(c choice, out result) {
	r := &f.reader
	if !r.memory.published || !c.narrow || r.memory.narrow && r.memory.to == c.lead {
		f.endFallback()
		return
	}
	if r.wideSince.IsZero() {
		r.wideSince = time.Now()
	}
	r.uncovered = out.uncovered
	if r.isFallback {
		return
	}
	if left := f.j.opts.FallbackAfter - time.Since(r.wideSince); left > 0 {
		f.wakeAfter(left)
		return
	}
	r.isFallback = true
	info := FallbackInfo{Service: f.service, Since: r.wideSince, Why: f.fallbackReason(c), Uncovered: first(out.uncovered)}
	f.j.log.Warn("naming: one registry does not cover the other, both are used", f.attr(),
		slog.String("prefers", f.j.sides[c.lead].name), slog.String("why", info.Why))
	f.callFallback(info)
}

// fallbackReason returns why the reader cannot use the lead alone.
func (f *feed) fallbackReason(c choice) string {
	r := &f.reader
	lead, other := c.lead, c.lead.other()
	switch {
	case !r.views[lead].synced:
		return "registry " + f.j.sides[lead].name + " has not answered"
	case !r.views[lead].fresh:
		return "registry " + f.j.sides[lead].name + " is stale"
	case !r.views[other].synced:
		return "registry " + f.j.sides[other].name + " has not answered"
	case len(r.uncovered) > 0:
		return naming.SafeText("only registry " + f.j.sides[other].name + " has " + strings.Join(first(r.uncovered)[:min(len(r.uncovered), 5)], ", "))
	}
	return "the set of registry " + f.j.sides[lead].name + " was not published yet"
}

func first(list []string) []string { return list[:min(len(list), mostUncovered)] }

// endFallback ends a fallback.
func (f *feed) endFallback() {
	r := &f.reader
	r.wideSince, r.uncovered = time.Time{}, nil
	if !r.isFallback {
		return
	}
	r.isFallback = false
	f.j.log.Info("naming: one registry covers the other again", f.attr())
	f.callFallback(FallbackInfo{Service: f.service})
}

func (f *feed) callFallback(info FallbackInfo) {
	if h := f.j.opts.Hooks; h != nil && h.Fallback != nil {
		h.Fallback(info)
	}
}
