package naming_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
)

// quiet are options for tests that make the registry fail on purpose.
var quiet = &naming.Options{Logger: slog.New(slog.DiscardHandler)}

// TestHistories runs readers of every kind over random histories of a registry that fails
// in every way. It asserts the promises of package naming: the states of an endpoint that
// a reader gets are a subsequence of the true states, no state comes twice, and the last
// state is the true one.
func TestHistories(t *testing.T) {
	seeds := 300
	if s := os.Getenv("NAMING_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) { history(t, seed) })
		return
	}
	start := rand.Uint64N(1 << 32)
	for i := range seeds {
		seed := start + uint64(i)
		synctest.Test(t, func(t *testing.T) { history(t, seed) })
		if t.Failed() {
			t.Fatalf("to run this history again: NAMING_SEED=%d", seed)
		}
	}
}

// state is a true state of an endpoint. N is unique.
type state struct {
	ID, Addr string
	N        int
}

// truth is the states that the registry had, by N, and has, by ID.
type truth struct {
	mu  sync.Mutex
	all map[int]state
	now map[string]state

	withheld map[string]bool // IDs
}

func history(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	s := &faulty{Store: new(memory.Store), rnd: rand.New(rand.NewPCG(seed, 2)), on: true}
	opts := *quiet
	if rnd.IntN(2) == 0 {
		opts.ResyncEvery = 20 * time.Second
	}
	c := naming.New(s, &opts)
	defer c.Close()
	tr := &truth{all: make(map[int]state), now: make(map[string]state), withheld: make(map[string]bool)}

	readers := []reader{newWatcherReader, newWatcherReader, newFollowReader, newViewReader}
	var models []*model
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for i, read := range readers {
		m := &model{t: t, truth: tr, name: fmt.Sprintf("reader %d", i), got: make(map[string]state)}
		models = append(models, m)
		slow := rand.New(rand.NewPCG(seed, uint64(10+i)))
		pace := time.Duration(i) * 3 * time.Second // the first keeps up
		wg.Go(func() {
			if pace > 0 {
				time.Sleep(time.Duration(slow.Int64N(int64(pace))))
			}
			read(ctx, c, m, func() {
				if pace > 0 {
					time.Sleep(time.Duration(slow.Int64N(int64(pace))))
				}
			})
		})
	}

	for n := 1; n < 120; {
		time.Sleep(time.Duration(rnd.Int64N(int64(time.Second))))
		if rnd.IntN(4) == 0 {
			// Withholding is not a new state: an endpoint may become usable again in
			// the state in which it was withheld.
			id := fmt.Sprintf("id%d", rnd.IntN(8))
			tr.mu.Lock()
			if tr.withheld[id] {
				delete(tr.withheld, id)
				s.Unwithhold("svc", id)
			} else {
				tr.withheld[id] = true
				s.Withhold("svc", id, naming.Reason(1+rnd.IntN(3)), "")
			}
			tr.mu.Unlock()
		}
		var changes []naming.Change
		tr.mu.Lock()
		if rnd.IntN(30) == 0 {
			s.Wipe()
			clear(tr.now)
		}
		ids := rnd.Perm(8)[:1+rnd.IntN(3)]
		for _, i := range ids {
			id := fmt.Sprintf("id%d", i)
			if rnd.IntN(3) == 0 {
				changes = append(changes, naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: id}})
				delete(tr.now, id)
				continue
			}
			st := state{id, fmt.Sprintf("10.0.0.%d:80", rnd.IntN(3)), n}
			tr.all[n], tr.now[id] = st, st
			n++
			changes = append(changes, naming.Change{Endpoint: st.endpoint()})
		}
		if err := s.Apply(ctx, "svc", changes...); err != nil {
			t.Fatal(err)
		}
		tr.mu.Unlock()
	}

	s.heal(opts.ResyncEvery == 0)
	time.Sleep(3 * time.Minute)
	tr.mu.Lock()
	want, apart := maps.Clone(tr.now), make(map[string]state)
	for id := range tr.withheld {
		if st, ok := want[id]; ok {
			delete(want, id)
			apart[id] = st
		}
	}
	tr.mu.Unlock()
	for _, m := range models {
		m.mu.Lock()
		if m.withheld != nil && !maps.Equal(m.withheld, apart) {
			t.Errorf("%s ends with withheld\n%v, want\n%v", m.name, m.withheld, apart)
		}
		if !maps.Equal(m.got, want) {
			t.Errorf("%s ends with\n%v, want\n%v", m.name, m.got, want)
		}
		m.mu.Unlock()
	}
	cancel()
	c.Close()
	wg.Wait()
}

func (st state) endpoint() naming.Endpoint {
	m, _ := json.Marshal(st)
	return naming.Endpoint{ID: st.ID, Addr: st.Addr, Metadata: m}
}

// model is the states that a reader got.
type model struct {
	t     *testing.T
	truth *truth
	name  string

	mu    sync.Mutex
	ready bool
	got   map[string]state
	last  map[string]int // the newest N of an ID, also of an endpoint that is gone

	withheld map[string]state // nil: the reader does not get withheld endpoints
}

// add checks and records a state that the reader got.
func (m *model) add(meta any, id, addr string) {
	var st state
	b, _ := json.Marshal(meta)
	if err := json.Unmarshal(b, &st); err != nil {
		m.t.Errorf("%s got metadata %s: %v", m.name, b, err)
	}
	if id == "" {
		id = st.ID
	}
	m.truth.mu.Lock()
	want := m.truth.all[st.N]
	m.truth.mu.Unlock()
	if got := (state{id, addr, st.N}); got != want {
		m.t.Errorf("%s got %v, the true state was %v", m.name, got, want)
	}
	if m.last == nil {
		m.last = make(map[string]int)
	}
	if st.N < m.last[id] || st.N == m.last[id] && !m.wasWithheld(id) {
		m.t.Errorf("%s got %v after state %d: a state must not repeat or follow a newer one", m.name, st, m.last[id])
	}
	m.last[id] = st.N
	m.got[id] = st
}

// wasWithheld reports whether the reader does not have the endpoint: it may get the
// state of before again when the endpoint becomes usable.
func (m *model) wasWithheld(id string) bool {
	_, has := m.got[id]
	return !has
}

// apart checks and records withheld states that the reader got.
func (m *model) apart(list []naming.Withheld) {
	if m.withheld == nil {
		m.withheld = make(map[string]state)
	}
	for _, w := range list {
		var st state
		if err := json.Unmarshal(w.Endpoint.Metadata, &st); err != nil {
			m.t.Error(err)
		}
		m.truth.mu.Lock()
		want := m.truth.all[st.N]
		m.truth.mu.Unlock()
		if st != want || w.Reason == 0 || w.Endpoint.ID != st.ID {
			m.t.Errorf("%s got %v as withheld, the true state was %v", m.name, w, want)
		}
		if st.N < m.last[st.ID] {
			m.t.Errorf("%s got %v as withheld after state %d", m.name, st, m.last[st.ID])
		}
		m.withheld[st.ID] = st
	}
}

func (m *model) remove(id string) state {
	st, ok := m.got[id]
	if !ok {
		m.t.Errorf("%s got a deletion of %s, which it does not have", m.name, id)
	}
	delete(m.got, id)
	return st
}

// reader reads the service into m, and calls pause between its reads.
type reader func(ctx context.Context, c *naming.Client, m *model, pause func())

func newWatcherReader(ctx context.Context, c *naming.Client, m *model, pause func()) {
	w, err := c.Resolve("svc")
	if err != nil {
		m.t.Error(err)
		return
	}
	defer w.Close()
	for {
		ups, err := w.Next()
		if err != nil {
			if !errors.Is(err, naming.ErrWatcherClosed) {
				m.t.Error(err)
			}
			return
		}
		m.mu.Lock()
		if m.ready && len(ups) == 0 {
			m.t.Errorf("%s: Next returned nothing", m.name)
		}
		m.ready = true
		for _, u := range ups {
			if u.Op == naming.Add {
				m.add(u.Metadata, "", u.Addr)
				continue
			}
			var st state
			b, _ := json.Marshal(u.Metadata)
			if err := json.Unmarshal(b, &st); err != nil {
				m.t.Error(err)
			}
			if had := m.remove(st.ID); had.Addr != u.Addr || had != st {
				m.t.Errorf("%s got a deletion of %v, and had %v", m.name, st, had)
			}
		}
		m.mu.Unlock()
		pause()
	}
}

func newFollowReader(ctx context.Context, c *naming.Client, m *model, pause func()) {
	wake := make(chan struct{}, 1)
	f, err := c.Follow("svc", func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		m.t.Error(err)
		return
	}
	defer f.Close()
	for {
		for e, ok := f.Next(); ok; e, ok = f.Next() {
			m.mu.Lock()
			if e.Snapshot != (e.Status.Synced && !m.ready) {
				m.t.Errorf("%s: snapshot %v, had one %v, synced %v", m.name, e.Snapshot, m.ready, e.Status.Synced)
			}
			m.ready = m.ready || e.Snapshot
			for _, id := range e.Deleted {
				if _, ok := m.withheld[id]; ok {
					delete(m.withheld, id)
				} else {
					m.remove(id)
				}
			}
			for _, p := range e.Put {
				delete(m.withheld, p.ID)
				m.add(p.Metadata, p.ID, p.Addr)
			}
			for _, w := range e.Withheld {
				delete(m.got, w.Endpoint.ID)
			}
			m.apart(e.Withheld)
			m.mu.Unlock()
			pause()
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return
		}
	}
}

func newViewReader(ctx context.Context, c *naming.Client, m *model, pause func()) {
	var last naming.View
	for v, err := range c.Watch(ctx, "svc") {
		if err != nil {
			if !errors.Is(err, context.Canceled) && !errors.Is(err, naming.ErrClientClosed) {
				m.t.Error(err)
			}
			return
		}
		m.mu.Lock()
		if !v.Synced || v.Stale() != (v.Err != nil) {
			m.t.Errorf("%s: view %+v", m.name, v.Status)
		}
		if !slices.IsSortedFunc(v.Endpoints, func(a, b naming.Endpoint) int { return compare(a.ID, b.ID) }) {
			m.t.Errorf("%s: not sorted: %v", m.name, v.Endpoints)
		}
		// A slow reader may have skipped another error between two stale views.
		if !v.Stale() && reflect.DeepEqual(last, v) {
			m.t.Errorf("%s got the same view twice: %v", m.name, v)
		}
		last = v
		m.withheld = nil
		m.apart(v.Withheld)
		there := make(map[string]bool)
		for _, e := range v.Endpoints {
			if _, ok := m.withheld[e.ID]; ok {
				m.t.Errorf("%s got %s as usable and as withheld", m.name, e.ID)
			}
			there[e.ID] = true
			var st state
			if json.Unmarshal(e.Metadata, &st) != nil || m.got[e.ID] != st {
				m.add(e.Metadata, e.ID, e.Addr)
			}
		}
		for id := range m.got {
			if !there[id] {
				m.remove(id)
			}
		}
		m.mu.Unlock()
		pause()
	}
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// faulty is a store whose watches lose batches, repeat batches, yield snapshots at any
// time, fail, end without an error, and begin with a change.
type faulty struct {
	*memory.Store
	mu  sync.Mutex
	rnd *rand.Rand
	on  bool
}

// dice returns a number below n, and the largest one after the store was healed.
func (s *faulty) dice(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.on {
		return n - 1
	}
	return s.rnd.IntN(n)
}

// heal ends the faults. Lost batches stay lost until a full read. If the Client makes no
// full read by itself, breaks has the watches break once more.
func (s *faulty) heal(breaks bool) {
	s.mu.Lock()
	s.on = false
	s.mu.Unlock()
	if breaks {
		s.Break(io.ErrUnexpectedEOF)
	}
}

func (s *faulty) Watch(ctx context.Context, service string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) {
		switch s.dice(20) {
		case 0:
			yield(naming.Batch{}, errors.New("refused"))
			return
		case 1:
			return // a silent end
		case 2:
			yield(naming.Batch{Deleted: []string{"id1"}}, nil) // no snapshot
			return
		}
		first := true
		for b, err := range s.Store.Watch(ctx, service) {
			if err != nil {
				yield(b, err)
				return
			}
			batches := []naming.Batch{b}
			if !first {
				switch s.dice(25) {
				case 0, 1:
					batches = nil // lost
				case 2, 3:
					batches = append(batches, b)
				case 4, 5:
					for b := range s.Store.Watch(ctx, service) {
						batches = append(batches, b)
						break
					}
				case 6:
					yield(naming.Batch{}, io.ErrUnexpectedEOF)
					return
				case 7:
					return
				case 8:
					batches = append(batches, naming.Batch{Deleted: []string{"unheard of"}})
				}
			}
			first = false
			for _, b := range batches {
				// A batch belongs to its receiver.
				b.Put, b.Deleted, b.Withheld = slices.Clone(b.Put), slices.Clone(b.Deleted), slices.Clone(b.Withheld)
				if !yield(b, nil) {
					return
				}
			}
		}
	}
}
