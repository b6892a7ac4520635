package migrate

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
)

// slowSource is a Source whose answers may be slow to arrive.
type slowSource struct {
	*phaseSource
	delay atomic.Int64 // a time.Duration: how old an answer is when the caller gets it
}

func (s *slowSource) State(service string) (State, bool) {
	state, known := s.phaseSource.State(service)
	if d := s.delay.Load(); d > 0 {
		time.Sleep(time.Duration(d))
	}
	return state, known
}

// phaseReports records the calls of PhaseChanged, each of which takes a millisecond.
type phaseReports struct {
	t    *testing.T
	mu   sync.Mutex
	busy atomic.Bool
	list []PhaseChangedInfo // guarded by mu
}

func (r *phaseReports) add(info PhaseChangedInfo) {
	if !r.busy.CompareAndSwap(false, true) {
		r.t.Error("two calls of PhaseChanged at the same time")
		return
	}
	defer r.busy.Store(false)
	time.Sleep(time.Millisecond)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, info)
}

// check expects each report to begin with the state of the report before, and the last to
// have the present state.
func (r *phaseReports) check(present State) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var last State
	for i, info := range r.list {
		if info.From != last || i > 0 && info.To.Seq <= last.Seq {
			r.t.Errorf("report %d is %+v, and the state before is %+v", i, info, last)
		}
		last = info.To
	}
	if last != present {
		r.t.Errorf("the last report has %+v, want %+v", last, present)
	}
}

// TestPhaseReportsInOrder has servers and a reader of one service learn of quick changes of
// the phase at different times.
func TestPhaseReportsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &slowSource{phaseSource: phaseIs(Old)}
		reports := &phaseReports{t: t}
		j, err := Join(newFormatStore(), newFormatStore(), source, &Options{
			Client: naming.Options{Logger: slog.New(slog.DiscardHandler)}, Hooks: &Hooks{PhaseChanged: reports.add},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		f, err := j.Follow(writerService, func() {})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for i := range 3 {
			e := naming.Endpoint{ID: fmt.Sprint(i), Addr: writerAddr}
			if _, err := j.Register(context.Background(), writerService, e, nil); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 100 {
			source.delay.Store(int64(i%3) * int64(2*time.Millisecond)) // an answer may overtake an older one
			source.set(Phase(i % phases))
			time.Sleep(time.Millisecond)
		}
		source.delay.Store(0)
		time.Sleep(time.Minute)
		state, _ := source.phaseSource.State(writerService)
		reports.check(state)
	})
}

// TestPhaseReportsAgain changes the phase while it is reported, by a server that closes and
// does not look again. The report of another server is not lost.
func TestPhaseReportsAgain(t *testing.T) {
	reports := &phaseReports{t: t}
	testWriter(t, phaseIs(Old), &Options{Hooks: &Hooks{PhaseChanged: reports.add}}, func(w *writer) {
		seen := &w.joined.seen
		seen.use(writerService)
		defer seen.release(writerService)
		go seen.report(w.joined, writerService)
		synctest.Wait() // the hook is running
		w.phases.setQuietly(Union)
		seen.report(w.joined, writerService)
		time.Sleep(time.Second)
		state, _ := w.phases.State(writerService)
		reports.check(state)
	})
}

// TestPhaseReportsForget uses many services one after the other. The memory does not grow.
func TestPhaseReportsForget(t *testing.T) {
	testWriter(t, phaseIs(Union), &Options{Client: naming.Options{IdleGrace: -1}}, func(w *writer) {
		for i := range 100 {
			service := fmt.Sprint("svc", i)
			f, err := w.joined.Follow(service, func() {})
			if err != nil {
				t.Fatal(err)
			}
			g, err := w.joined.Register(context.Background(), service, naming.Endpoint{Addr: writerAddr}, &naming.RegisterOptions{Wait: true, DrainDelay: -1})
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			if err := g.Close(); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		w.joined.seen.mu.Lock()
		defer w.joined.seen.mu.Unlock()
		if n := len(w.joined.seen.byService); n != 0 {
			t.Errorf("the states of %d services are kept, and no service is used", n)
		}
	})
}

// TestRemovalIsNotALoss closes while one registry is slow to mark the endpoint. The removal
// from the other registry, which counts, is not reported as a loss.
func TestRemovalIsNotALoss(t *testing.T) {
	for counting, p := range []Phase{Union, NewRead} {
		l := new(hookLog)
		testWriter(t, phaseIs(p), &Options{Client: naming.Options{Hooks: l.hooks("")}}, func(w *writer) {
			var unregistered atomic.Bool
			g := w.register(&naming.RegisterOptions{Wait: true, OnChange: func(st naming.RegistrationStatus) {
				unregistered.Store(!st.Registered)
			}})
			synctest.Wait()
			w.stores[sideIndex(counting).other()].slow(2 * time.Second)
			if err := g.Close(); err != nil {
				t.Error(err)
			}
			if got := l.take(); got != "[registered false withdrawn <nil>]" {
				t.Errorf("phase %v: the hooks %v were called", p, got)
			}
			if unregistered.Load() {
				t.Errorf("phase %v: OnChange was called for the removal", p)
			}
		})
	}
}
