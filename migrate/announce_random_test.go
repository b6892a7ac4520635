package migrate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
)

// TestWriterAtRandom changes the phase, the content and the health of the registries at
// random. After each quiet period exactly the registries that the phase writes have the
// endpoint, with the content that was accepted last.
func TestWriterAtRandom(t *testing.T) {
	runs := 60
	if testing.Short() {
		runs = 15
	}
	for range runs {
		seed := rand.Uint64()
		testWriter(t, phaseIs(Phase(seed%phases)), nil, func(w *writer) {
			r := &randomWriter{writer: w, rand: rand.New(rand.NewPCG(seed, 0)), want: `0`}
			defer func() {
				if w.t.Failed() {
					w.t.Logf("seed %d", seed)
				}
			}()
			r.watchRemovals()
			r.g = w.register(&naming.RegisterOptions{DrainDelay: -1})
			for range 8 {
				for range 1 + r.rand.IntN(12) {
					r.step()
					time.Sleep(time.Duration(r.rand.ExpFloat64() * float64(r.scale())))
				}
				r.quiet()
				if w.t.Failed() {
					break
				}
			}
			r.ends.Store(true)
			_ = r.g.Close()
			w.want("closed", false, false)
		})
	}
}

// randomWriter is a server to which anything may happen.
type randomWriter struct {
	*writer
	rand *rand.Rand
	g    *naming.Registration
	want string      // the metadata that were asked for last
	drop bool        // the mark that was asked for last
	ends atomic.Bool // the server stops
}

// scale is the mean time between two events: sometimes less than the delays of a writer,
// and sometimes more.
func (r *randomWriter) scale() time.Duration {
	return []time.Duration{0, time.Millisecond, 300 * time.Millisecond, 3 * time.Second, 30 * time.Second}[r.rand.IntN(5)]
}

// step makes one thing happen.
func (r *randomWriter) step() {
	i := sideIndex(r.rand.IntN(2))
	store := r.stores[i]
	switch r.rand.IntN(16) {
	case 0, 1, 2, 3, 4:
		r.phases.set(Phase(r.rand.IntN(phases)))
	case 5:
		r.update()
	case 6:
		r.drain()
	case 7:
		store.Wipe()
	case 8:
		store.ExpireAll()
	case 9:
		store.Down(errWriterDown)
	case 10:
		store.Silence()
	case 11:
		store.slow(time.Duration(r.rand.IntN(1000)) * time.Millisecond)
	case 12:
		r.again()
	default:
		store.Up()
		store.Speak()
		store.slow(0)
	}
}

// update asks for other metadata, and does not wait for long.
func (r *randomWriter) update() {
	r.want = fmt.Sprint(r.rand.IntN(1000))
	ctx, cancel := context.WithTimeout(context.Background(), r.scale())
	defer cancel()
	_ = r.g.Update(ctx, []byte(r.want))
}

func (r *randomWriter) drain() {
	r.drop = !r.drop
	ctx, cancel := context.WithTimeout(context.Background(), r.scale())
	defer cancel()
	if r.drop {
		_ = r.g.Drain(ctx)
	} else {
		_ = r.g.Resume(ctx)
	}
}

// again replaces the Registration by a newer one.
func (r *randomWriter) again() {
	e := naming.Endpoint{Addr: writerAddr, Metadata: []byte(r.want), Draining: r.drop}
	newer, err := r.joined.Register(context.Background(), writerService, e, &naming.RegisterOptions{DrainDelay: -1})
	if err != nil {
		r.t.Error(err)
		return
	}
	if r.rand.IntN(2) == 0 {
		time.Sleep(r.scale())
	}
	if err := r.g.Close(); err != nil {
		r.t.Errorf("Close of a replaced Registration returned %v", err)
	}
	r.g = newer
}

// quiet ends all faults, gives the server time, and checks both registries.
func (r *randomWriter) quiet() {
	for _, s := range r.stores {
		s.Up()
		s.Speak()
		s.slow(0)
	}
	if r.want == "0" {
		r.update()
	}
	time.Sleep(3 * time.Minute)
	synctest.Wait()
	st, _ := r.phases.State("")
	for i := range sideIndex(2) {
		got := r.entries(i)
		switch {
		case !st.Phase.writes(i):
			if len(got) != 0 {
				r.t.Errorf("phase %v: registry %d has %v", st.Phase, i, got)
			}
		case len(got) != 1 || string(got[0].Metadata) != r.want || got[0].Draining != r.drop:
			r.t.Errorf("phase %v: registry %d has %v, want metadata %v and draining %v", st.Phase, i, got, r.want, r.drop)
		}
	}
	if st := r.g.Status(); !st.Registered || st.Err != nil || st.FailedAttempts != 0 || st.Draining != r.drop {
		r.t.Errorf("status %+v", st)
	}
}

// watchRemovals checks rule 1 whenever the server removes its endpoint from a registry.
func (r *randomWriter) watchRemovals() {
	for i, s := range r.stores {
		s.removes = func() { r.checkRemoval(sideIndex(i)) }
	}
}

// mayNotKnow is how long a server may not know that its endpoint was lost: for its time to
// live, and for the timeout of a call. A removal is tried again in that time.
const mayNotKnow = 40 * time.Second

// checkRemoval expects that the server may leave registry i: the phase has not written
// the registry for the delay, and the other registry got the endpoint before that.
func (r *randomWriter) checkRemoval(i sideIndex) {
	if r.ends.Load() {
		return
	}
	now := time.Now()
	if since := r.phases.unwritten(i); since.IsZero() || now.Sub(since) < writerDelay {
		r.t.Errorf("at %v registry %d is left, and the phase has not written it since %v only", now, i, since)
	}
	put, lost := r.stores[i.other()].presence()
	if now.Sub(lost) < mayNotKnow {
		return
	}
	if put.IsZero() || now.Sub(put) < writerDelay {
		r.t.Errorf("at %v registry %d is left, and the other one has the endpoint since %v only", now, i, put)
	}
}

// TestReadersFindWriter changes the phase at random by up to three steps. At every moment
// a reader of each phase that was set within the delay finds the endpoint.
func TestReadersFindWriter(t *testing.T) {
	runs := 60
	if testing.Short() {
		runs = 15
	}
	for range runs {
		seed := rand.Uint64()
		testWriter(t, phaseIs(Phase(seed%phases)), nil, func(w *writer) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			g := w.register(nil)
			time.Sleep(time.Second)
			o := newReaderOracle(w)
			for range 100 {
				st, _ := w.phases.State("")
				p := int(st.Phase) + rnd.IntN(7) - 3
				o.setPhase(Phase(min(max(p, 0), phases-1)))
				w.stores[rnd.IntN(2)].slow(time.Duration(rnd.IntN(300)) * time.Millisecond)
				if rnd.IntN(5) == 0 {
					go func() { _ = g.Update(context.Background(), []byte(`1`)) }()
				}
				// A registration in a slow registry takes two calls.
				time.Sleep(time.Second + time.Duration(rnd.ExpFloat64()*float64(2*time.Second)))
			}
			o.stop()
			if w.t.Failed() {
				w.t.Logf("seed %d", seed)
			}
		})
	}
}

// readerOracle checks at every change whether readers find the endpoint.
type readerOracle struct {
	w      *writer
	cancel context.CancelFunc

	mu     sync.Mutex
	there  [2]bool             // guarded by mu
	phases map[Phase]time.Time // until when readers may be in a phase; guarded by mu
	failed bool                // guarded by mu
}

func newReaderOracle(w *writer) *readerOracle {
	ctx, cancel := context.WithCancel(context.Background())
	o := &readerOracle{w: w, cancel: cancel, phases: make(map[Phase]time.Time)}
	for i := range o.there {
		o.there[i] = len(w.entries(sideIndex(i))) == 1
		go func() {
			for b, err := range w.stores[i].Watch(ctx, writerService) {
				if err != nil {
					return
				}
				if there := len(b.Put) > 0; b.Snapshot || there || len(b.Deleted) > 0 {
					o.set(sideIndex(i), there)
				}
			}
		}()
	}
	synctest.Wait()
	return o
}

// setPhase changes the phase. Readers may stay in the former one for the delay.
func (o *readerOracle) setPhase(p Phase) {
	st, _ := o.w.phases.State("")
	o.mu.Lock()
	o.phases[st.Phase] = time.Now().Add(writerDelay)
	o.phases[p] = time.Now().Add(100 * 365 * 24 * time.Hour)
	if p == st.Phase {
		o.mu.Unlock()
		return
	}
	o.mu.Unlock()
	o.w.phases.set(p)
	// A reader that is ahead of the server begins when the registration has had time.
	time.Sleep(700 * time.Millisecond)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.check()
}

func (o *readerOracle) set(i sideIndex, there bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.there[i] = there
	o.check()
}

// check expects that readers of each phase find the endpoint. mu is held.
func (o *readerOracle) check() {
	for p, until := range o.phases {
		finds := o.there[oldSide] || o.there[newSide]
		switch {
		case !time.Now().Before(until):
			continue
		case p <= Shadow:
			finds = o.there[oldSide]
		case p >= NewWrite:
			finds = o.there[newSide]
		}
		if !finds && !o.failed {
			o.failed = true
			o.w.t.Errorf("a reader in phase %v finds nothing; the endpoint is in %v", p, o.there)
		}
	}
}

func (o *readerOracle) stop() {
	o.cancel()
	synctest.Wait()
}
