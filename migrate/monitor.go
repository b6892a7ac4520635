package migrate

import (
	"encoding/binary"
	"hash"
	"hash/fnv"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/naming-go/naming"
)

// compareEvery is how often a monitor compares at most. A comparison of large sets takes
// milliseconds, and a rolling restart changes a set many times in a second.
const compareEvery = time.Second

// monitor compares the endpoints of one service in both registries whenever they change,
// and reports a difference that lasts. It has no goroutine while nothing is to be done.
type monitor struct {
	// Set by newMonitor and never changed.
	service string
	after   time.Duration                       // how long a difference must last
	compare func(old, next naming.View) *Report // called without a lock
	notify  func(info ParityInfo)               // called without a lock, one call at a time
	state   struct {
		mu           sync.Mutex
		views        [2]naming.View
		comparable   bool       // both registries vouch for the views
		pending      bool       // the views were not compared yet
		comparedAt   time.Time  // of the last comparison
		last         *Report    // of the last comparison; nil: nothing was compared, or the end was reported
		is, reported divergence // of last, and that was reported last
		since        time.Time  // since when is is what it is
		unequal      time.Time  // since when the registries differ; zero: they do not
		ended        bool       // the phase compares nothing
		timer        *time.Timer
		busy         chan struct{} // not nil while tick runs, and closed when tick ends
		closed       bool
	}
}

// newMonitor returns a monitor, which must be closed.
func newMonitor(service string, after time.Duration, accept Accept, notify func(ParityInfo)) *monitor {
	m := &monitor{service: service, after: after, notify: notify}
	m.compare = func(old, next naming.View) *Report {
		return Comparison{Accept: accept}.Compare(service, old, next)
	}
	return m
}

// newMonitor returns the monitor of a service, which logs and calls the hook.
func (j *Joined) newMonitor(service string) *monitor {
	return newMonitor(service, j.opts.ParityAfter, j.opts.Accept, j.reportParity)
}

// reportParity logs a difference, or its end, and calls the hook.
func (j *Joined) reportParity(info ParityInfo) {
	service, r := slog.String("service", info.Service), info.Report
	switch {
	case !info.Since.IsZero():
		j.log.Warn("naming: registries differ", service, slog.Int("missing", len(r.Missing)), slog.Int("extra", len(r.Extra)),
			slog.Int("mismatch", len(r.Mismatch)), slog.String("fields", strings.Join(r.mismatchFields(), ",")))
	case r.Known:
		j.log.Info("naming: registries agree again", service)
	}
	if h := j.opts.Hooks; h != nil && h.Parity != nil {
		h.Parity(info)
	}
}

// update says what both registries have. comparable is false while one of them does not
// vouch for its endpoints: then nothing is compared, and nothing is reported as over.
// update does not block and calls nothing.
func (m *monitor) update(old, next naming.View, comparable bool) {
	s := &m.state
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = false
	s.comparable, s.pending = comparable, comparable
	s.views = [2]naming.View{}
	if comparable {
		s.views = [2]naming.View{old, next}
		m.arm()
		return
	}
	s.since = time.Time{}
	if s.reported == (divergence{}) {
		s.unequal = time.Time{}
	}
}

// end says that the phase no longer compares the registries. A difference that was reported
// is reported as over. end does not block and calls nothing.
func (m *monitor) end() {
	s := &m.state
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended, s.comparable, s.pending = true, false, false
	s.views = [2]naming.View{}
	m.arm()
}

// report returns the last comparison, or nil if nothing was compared.
func (m *monitor) report() *Report {
	m.state.mu.Lock()
	defer m.state.mu.Unlock()
	return m.state.last
}

// close ends the monitor, and reports a difference that was reported as over. It waits for
// a running call of notify. It may be called more than once.
func (m *monitor) close() {
	if busy := m.setClosed(); busy != nil {
		<-busy
	}
	if info, ok := m.over(); ok {
		m.notify(info)
	}
}

func (m *monitor) setClosed() (busy chan struct{}) {
	s := &m.state
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
	return s.busy
}

// over returns what is reported when the comparison has ended.
func (m *monitor) over() (info ParityInfo, ok bool) {
	s := &m.state
	s.mu.Lock()
	defer s.mu.Unlock()
	return m.overLocked()
}

// overLocked is over. state.mu is held.
func (m *monitor) overLocked() (info ParityInfo, ok bool) {
	s := &m.state
	ok = s.reported != (divergence{})
	s.last, s.is, s.reported = nil, divergence{}, divergence{}
	s.since, s.unequal = time.Time{}, time.Time{}
	return ParityInfo{Service: m.service, Report: &Report{Service: m.service}}, ok
}

// arm sets the timer to the moment at which there is something to do. state.mu is held.
func (m *monitor) arm() {
	s := &m.state
	if s.closed || s.busy != nil {
		return // tick calls arm when it ends
	}
	var at time.Time
	switch {
	case s.pending:
		at = s.comparedAt.Add(compareEvery)
	case s.ended && s.last != nil:
	case s.comparable && s.is != s.reported && !s.since.IsZero():
		at = s.since.Add(m.after)
	default:
		return
	}
	d := max(time.Until(at), 0)
	if s.timer == nil {
		s.timer = time.AfterFunc(d, m.tick)
	} else {
		s.timer.Reset(d)
	}
}

// tick compares, and reports. It runs in the goroutine of the timer, once at a time.
func (m *monitor) tick() {
	views, due, ok := m.begin()
	if !ok {
		return
	}
	var r *Report
	if due {
		r = m.compare(views[oldSide], views[newSide])
	}
	if info, ok := m.decide(r); ok {
		m.notify(info)
	}
	m.finish()
}

// begin returns the views, and whether they are to be compared now. ok is false if there is
// nothing to do.
func (m *monitor) begin() (views [2]naming.View, due, ok bool) {
	s := &m.state
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.busy != nil {
		return views, false, false
	}
	s.busy = make(chan struct{})
	if now := time.Now(); s.pending && now.Sub(s.comparedAt) >= compareEvery {
		s.pending, s.comparedAt = false, now
		return s.views, true, true
	}
	return views, false, true
}

// decide stores a comparison, if r is not nil, and returns what is to be reported.
func (m *monitor) decide(r *Report) (info ParityInfo, ok bool) {
	s := &m.state
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return m.overLocked()
	}
	if !s.comparable || r == nil && s.pending {
		return info, false
	}
	now := time.Now()
	if r != nil {
		is := divergenceOf(r)
		if s.last = r; is != s.is || s.since.IsZero() {
			s.is, s.since = is, now
		}
		if is == (divergence{}) {
			s.unequal = time.Time{}
		} else if s.unequal.IsZero() {
			s.unequal = now
		}
	}
	if s.is == s.reported || s.is != (divergence{}) && now.Sub(s.since) < m.after {
		return info, false
	}
	s.reported = s.is
	return ParityInfo{Service: m.service, Report: s.last, Since: s.unequal}, true
}

// finish ends a tick.
func (m *monitor) finish() {
	s := &m.state
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.busy)
	s.busy = nil
	m.arm()
}

// divergence says which endpoints differ, and in which fields. The zero value means none.
// Data that change all the time are the same difference.
type divergence [16]byte

func divergenceOf(r *Report) (d divergence) {
	if r.Equal() {
		return d
	}
	h := fnv.New128a()
	for _, list := range [][]naming.Endpoint{r.Missing, r.Extra} {
		hashTexts(h, len(list), func(i int) []string { return []string{list[i].ID, list[i].Addr} })
	}
	hashTexts(h, len(r.Mismatch), func(i int) []string {
		m := &r.Mismatch[i]
		return append([]string{m.Old.ID, m.New.ID, m.Old.Addr}, m.Fields...)
	})
	return divergence(h.Sum(nil))
}

// hashTexts hashes a list of lists, so that two different ones are never the same bytes.
func hashTexts(h hash.Hash, n int, texts func(i int) []string) {
	number := func(n int) { _, _ = h.Write(binary.AppendUvarint(nil, uint64(n))) }
	number(n)
	for i := range n {
		list := texts(i)
		number(len(list))
		for _, s := range list {
			number(len(s))
			_, _ = h.Write([]byte(s))
		}
	}
}
