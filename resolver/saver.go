package resolver

import (
	"cmp"
	"crypto/sha256"
	"log/slog"
	"slices"
	"sync"
	"time"

	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/naming-go/naming"
)

// saveEvery is the least time between two writes for one service. A longer time loses
// more of the last changes when a program ends. A shorter time writes more often: at most
// 256 MiB per saveEvery for the largest set.
const saveEvery = 10 * time.Second

// touchesPerAge is how often the file of an unchanged set is touched within
// Options.CacheMaxAge:
//
//	time between two touches = max(CacheMaxAge / touchesPerAge, 1 s)
//
// A higher number touches the disk more often. A lower number lets the file of a program
// that ends be too old sooner, by CacheMaxAge / touchesPerAge at most.
const touchesPerAge = 8

// saver saves the set of one service: the first set at once, and then at most every
// saveEvery. It has a goroutine only while it writes. The files stay when the saver is
// closed.
//
// Goroutines: a step of the publisher calls update. The timer calls run. The goroutine
// that closes the last ClientConn calls close.
//
// Locks: the lock of the publisher may be held when plan is locked. No other lock is
// taken while plan is locked, and nothing is written or logged.
type saver struct {
	cache   *cache // constant
	service string // constant
	plan    savePlan
}

// savePlan is what the mutex of a saver guards.
type savePlan struct {
	sync.Mutex
	closed bool
	busy   bool              // a run writes or touches the file
	latest *contents         // what has to be saved; nil: nothing
	saved  *contents         // what was saved last
	sum    [sha256.Size]byte // of the file; zero: not known

	unsaved bool        // there was a change that is not in latest
	fresh   bool        // the registry vouches for the last set
	timer   *time.Timer // nil, or calls run
	last    time.Time   // the end of the last run
	failed  bool        // the last run failed
	partial bool        // the last run left endpoints out
}

// contents are the sorted lists that a set consists of. They are never modified.
type contents struct {
	active, draining []grpcresolver.Endpoint
	withheld         []naming.Withheld
}

func (c *contents) empty() bool { return len(c.active)+len(c.draining)+len(c.withheld) == 0 }

// update is called with every set of the registry. fresh says that the registry vouches
// for the set, and changed that the set differs from the one before.
func (s *saver) update(fresh, changed bool, c *contents) {
	p := &s.plan
	p.Lock()
	defer p.Unlock()
	p.fresh = fresh && !c.empty()
	p.unsaved = p.unsaved || changed
	if p.fresh && p.unsaved {
		p.unsaved = false
		p.latest = c
		s.schedule()
	}
}

// schedule sets the timer for the next run. s.plan is locked.
func (s *saver) schedule() {
	p := &s.plan
	if p.closed || p.busy {
		return
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	// An unchanged set has to stay young enough to be used.
	wait := max(s.cache.maxAge/touchesPerAge, time.Second)
	if p.latest != nil {
		wait = 0
		if !p.last.IsZero() {
			wait = max(0, time.Until(p.last.Add(saveEvery)))
		}
	}
	p.timer = time.AfterFunc(wait, s.run)
}

// run saves what has to be saved, or else touches the file.
func (s *saver) run() {
	latest, sum, fresh, ok := s.begin()
	if !ok {
		return
	}
	var err error
	var left []error
	if latest != nil {
		sum, left, err = s.save(latest, sum)
	} else if fresh {
		err = s.cache.touch(s.service)
	}
	failed, partial := s.end(latest, sum, left, err)
	log := s.cache.log
	if failed {
		log.Warn("naming: endpoints could not be saved", slog.String("service", s.service), slog.Any("err", naming.SafeError(err)))
	}
	if partial {
		log.Warn("naming: endpoints were left out of what was saved", slog.String("service", s.service),
			slog.Int("left out", len(left)), slog.Any("err", naming.SafeError(left[0])))
	}
}

// begin returns what a run has to do. It reports false if that is nothing.
func (s *saver) begin() (latest *contents, sum [sha256.Size]byte, fresh, ok bool) {
	p := &s.plan
	p.Lock()
	defer p.Unlock()
	if p.closed || p.busy {
		return nil, sum, false, false
	}
	p.busy = true
	p.timer = nil
	latest, p.latest = p.latest, nil
	return latest, p.sum, p.fresh, true
}

// end notes what a run did, and schedules the next one. It reports whether this run is
// the first in a row that failed, or the first that left endpoints out.
func (s *saver) end(latest *contents, sum [sha256.Size]byte, left []error, err error) (failed, partial bool) {
	p := &s.plan
	p.Lock()
	defer p.Unlock()
	p.busy = false
	p.last = time.Now()
	p.sum = sum
	if latest != nil {
		p.saved = latest
		partial = len(left) > 0 && !p.partial
		p.partial = len(left) > 0
	}
	if err != nil {
		p.sum = [sha256.Size]byte{}
		if p.latest == nil {
			p.latest = p.saved // for the next attempt
		}
		failed = !p.failed
	}
	p.failed = err != nil
	s.schedule()
	return failed, partial
}

// save writes c to the service's file and returns the file's checksum, and the
// errors of the endpoints that were left out. If the checksum equals sum, only
// the file's time is updated.
func (s *saver) save(c *contents, sum [sha256.Size]byte) ([sha256.Size]byte, []error, error) {
	set := savedSet{withheld: c.withheld}
	for _, list := range [][]grpcresolver.Endpoint{c.active, c.draining} {
		for _, e := range list {
			set.endpoints = append(set.endpoints, *memberOf(e).endpoint)
		}
	}
	slices.SortFunc(set.endpoints, func(a, b naming.Endpoint) int { return cmp.Compare(a.ID, b.ID) })
	data, left, err := encodeCache(s.service, set)
	if err != nil {
		return sum, left, err
	}
	if sum == ([sha256.Size]byte{}) {
		sum, _ = s.cache.sum(s.service) // what cannot be read is replaced
	}
	if sha256.Sum256(data) == sum && s.cache.touch(s.service) == nil {
		return sum, left, nil
	}
	return sha256.Sum256(data), left, s.cache.save(s.service, data)
}

// close keeps further runs from beginning. It does not wait for a write in progress: a
// disk that hangs must not hold up a ClientConn.
func (s *saver) close() {
	p := &s.plan
	p.Lock()
	defer p.Unlock()
	p.closed = true
	if p.timer != nil {
		p.timer.Stop()
	}
}
