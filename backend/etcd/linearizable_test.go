package etcd_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/mutant"
)

// kind is what an operation of a history does.
type kind int

const (
	write   kind = iota // Apply of an Add or a Delete, with a mark
	listing             // Client.List
	syncing             // Apply of a Delete without effect, then Client.List
	direct              // a linearizable read with the bare client
)

// op is an operation of a history. Every write also puts a unique mark under the ID of
// its process, in the same Apply. So every write can be identified, and the states of a
// history are all different.
type op struct {
	kind      kind
	process   int
	store     int    // the index of the Store; -1 means no Store
	id, value string // of a write; an empty value means a Delete
	mark      string
	call, ret int64 // times since the history began
	failed    bool  // the write returned an error: it may have happened, or may still happen
	got       string
}

func (o op) String() string {
	return fmt.Sprintf("%+v", struct {
		kind, process, store int
		id, value, mark      string
		call, ret            time.Duration
		failed               bool
		got                  string
	}{int(o.kind), o.process, o.store, o.id, o.value, o.mark, time.Duration(o.call), time.Duration(o.ret), o.failed, o.got})
}

func markID(process int) string { return fmt.Sprint("p", process) }

// after returns the state after a write to a state. A state has the form
// "id=addr id=addr".
func (o op) after(state string) string {
	set := make(map[string]string)
	for _, f := range strings.Fields(state) {
		id, addr, _ := strings.Cut(f, "=")
		set[id] = addr
	}
	if set[o.id] = o.value; o.value == "" {
		delete(set, o.id)
	}
	set[markID(o.process)] = o.mark
	return stateOf(set)
}

func stateOf(set map[string]string) string {
	var fields []string
	for _, id := range slices.Sorted(maps.Keys(set)) {
		fields = append(fields, id+"="+set[id])
	}
	return strings.Join(fields, " ")
}

// model is the registry that Apply promises: one state. Every write changes it
// atomically, and every read returns it whole.
var model = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, _ any) (bool, any) {
		o := input.(op)
		if o.kind == write {
			return true, o.after(state.(string))
		}
		return o.got == state, state
	},
	DescribeState: func(s any) string { return s.(string) },
}

// event is a revision in etcd's history: the mark that the revision put, and the state
// after it.
type event struct {
	mark, state string
	rev         int64
}

// past is etcd's history of a service.
type past struct {
	events  []event
	byMark  map[string]int // index in events
	byState map[string]int // index in events; -1 for the empty state
	err     error          // not nil if the changes of an Apply are in several revisions
}

// readPast reads the whole history of a service from etcd, up to now.
func readPast(t *testing.T, admin *clientv3.Client, dir string) past {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	p := past{byMark: make(map[string]int), byState: map[string]int{"": -1}}
	var last int64
	for last == 0 {
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		resp, err := admin.Get(call, dir, clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend))
		cancel()
		switch {
		case ctx.Err() != nil:
			t.Fatal(err)
		case err == nil && len(resp.Kvs) == 0:
			return p // Marks are never deleted: there was no write.
		case err == nil:
			last = resp.Kvs[0].ModRevision
		}
	}
	set := make(map[string]string)
	for r := range admin.Watch(ctx, dir, clientv3.WithPrefix(), clientv3.WithRev(1)) {
		must(t, r.Err())
		for i, ev := range r.Events {
			id := string(ev.Kv.Key[len(dir):])
			if ev.Type == mvccpb.DELETE {
				delete(set, id)
			} else {
				set[id] = addrOf(t, ev.Kv.Value)
			}
			rev := ev.Kv.ModRevision
			if n := len(p.events); n == 0 || p.events[n-1].rev != rev {
				p.events = append(p.events, event{rev: rev})
			}
			e := &p.events[len(p.events)-1]
			if strings.HasPrefix(id, "p") {
				e.mark = set[id]
			}
			if i+1 == len(r.Events) || r.Events[i+1].Kv.ModRevision != rev {
				e.state = stateOf(set)
				if other, ok := p.byMark[e.mark]; (ok || e.mark == "") && p.err == nil {
					p.err = fmt.Errorf("revisions %d and %d both have changes of the Apply with the mark %q", p.events[other].rev, rev, e.mark)
				}
				p.byMark[e.mark] = len(p.events) - 1
				p.byState[e.state] = len(p.events) - 1
			}
		}
		if r.Header.Revision >= last && len(p.events) > 0 && p.events[len(p.events)-1].rev >= last {
			break
		}
	}
	return p
}

func addrOf(t *testing.T, value []byte) string {
	var u naming.Update
	must(t, json.Unmarshal(value, &u))
	return u.Addr
}

// linearizable checks with porcupine that the writes and the linearizable reads of a
// history are linearizable.
func linearizable(history []op, p past) error {
	// A failed write is dropped if it is not in etcd's history. If it is there, it
	// happened before the first read that saw it had returned, and before the first
	// write of a later revision had returned. Without such operations it may have
	// happened at any time.
	seen := make(map[string]int64)
	var end int64
	for _, o := range history {
		end = max(end, o.ret)
		if o.kind != write {
			for _, f := range strings.Fields(o.got) {
				_, mark, _ := strings.Cut(f, "=")
				if at, ok := seen[mark]; !ok || o.ret < at {
					seen[mark] = o.ret
				}
			}
		}
	}
	later := make([]int64, len(p.events)) // the time at which the first write of a later revision had returned
	for i := range later {
		later[i] = end + 1
	}
	for _, o := range history {
		if at, ok := p.byMark[o.mark]; ok && o.kind == write && !o.failed {
			for i := range at {
				later[i] = min(later[i], o.ret)
			}
		}
	}
	var ops []porcupine.Operation
	for _, o := range history {
		if o.kind == listing {
			continue
		}
		ret := o.ret
		if o.failed {
			at, happened := p.byMark[o.mark]
			if !happened {
				continue
			}
			if ret = later[at]; seen[o.mark] > o.call {
				ret = min(ret, seen[o.mark])
			}
			ret = max(ret, o.call)
		}
		ops = append(ops, porcupine.Operation{ClientId: o.process, Input: o, Call: o.call, Return: ret})
	}
	if result := porcupine.CheckOperationsTimeout(model, ops, 10*time.Minute); result != porcupine.Ok {
		return fmt.Errorf("porcupine's result for %d operations: %s", len(ops), result)
	}
	return nil
}

// sessions checks a history against etcd's history. Every acknowledged write happened
// once, between its call and its return. Every list is one state. The state is not from
// the future, and not older than a state that the same Store has listed or applied
// before. sessions returns how many lists were older than a state that another Store had
// seen.
func sessions(history []op, p past) (lagging int, err error) {
	if p.err != nil {
		return 0, p.err
	}
	history = slices.Clone(history)
	slices.SortStableFunc(history, func(a, b op) int { return int(min(max(a.call-b.call, -1), 1)) })
	type known struct {
		at    int // index in past.events
		since int64
		store int
	}
	var done []known // which state each Store has seen, and since when
	for _, o := range history {
		at, ok := 0, false
		if o.kind == write {
			if at, ok = p.byMark[o.mark]; !ok && !o.failed {
				return lagging, fmt.Errorf("an acknowledged write is lost: %v", o)
			}
		} else if at, ok = p.byState[o.got]; !ok {
			return lagging, fmt.Errorf("a read of a state that never existed: %v", o)
		}
		late := false
		for _, k := range done {
			if !ok || k.since >= o.call || k.at <= at {
				continue
			}
			if o.failed {
				return lagging, fmt.Errorf("%v happened at revision %d, before its call", o, p.events[at].rev)
			}
			if o.kind != listing || k.store == o.store {
				return lagging, fmt.Errorf("%v has the state of index %d, and Store %d had seen index %d before", o, at, k.store, k.at)
			}
			late = true
		}
		if late {
			lagging++
		}
		if !o.failed {
			done = append(done, known{at, o.ret, o.store})
		}
	}
	// No read is from the future: every write that a read shows was called before the
	// read returned.
	called := make(map[string]int64)
	for _, o := range history {
		if o.kind == write {
			called[o.mark] = o.call
		}
	}
	for _, o := range history {
		if o.kind != write {
			for _, f := range strings.Fields(o.got) {
				if id, mark, _ := strings.Cut(f, "="); strings.HasPrefix(id, "p") && called[mark] > o.ret {
					return lagging, fmt.Errorf("%v shows the write %s, which was called later", o, mark)
				}
			}
		}
	}
	return lagging, nil
}

// variant returns the Store of a history. It may wrap s in a Store with a fault.
type variant func(s *etcd.Store, client *clientv3.Client, prefix string) naming.Store

// record returns a history of about n operations by three Stores while nemesis injects
// faults. Each Store has its own client and two processes that use it.
func record(t *testing.T, c *etcdtest.Cluster, prefix string, n int, seed uint64, wrong variant, nemesis func(stop <-chan struct{}, rnd *rand.Rand)) []op {
	t.Helper()
	const stores, perStore, service = 3, 2, "svc"
	begun := time.Now()
	var (
		mu      sync.Mutex
		history []op
		wg      sync.WaitGroup
		left    atomic.Int64
	)
	left.Store(int64(n))
	for i := range stores {
		client := c.Client(t)
		var s naming.Store = etcd.New(client, &etcd.Options{Prefix: prefix, SilenceBound: time.Second})
		if wrong != nil {
			s = wrong(s.(*etcd.Store), client, prefix)
		}
		registry := naming.New(s, &naming.Options{Logger: silent})
		t.Cleanup(registry.Close)
		for j := range perStore {
			process := i*perStore + j
			rnd := rand.New(rand.NewPCG(seed, uint64(process)))
			wg.Go(func() {
				for count := 0; left.Add(-1) >= 0; count++ {
					o := op{process: process, store: i, mark: fmt.Sprintf("m%d.%d", process, count)}
					switch r := rnd.IntN(100); {
					case r < 45:
						o.kind, o.id = write, fmt.Sprint("e", rnd.IntN(4))
						if rnd.IntN(3) > 0 {
							o.value = "v" + o.mark
						}
					case r < 75:
						o.kind = listing
					case r < 85:
						o.kind = syncing
					default:
						o.kind, o.store = direct, -1 // The Store does not see this read.
					}
					ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
					o.call = int64(time.Since(begun))
					err := o.do(ctx, s, registry, client, prefix, service)
					o.ret = int64(time.Since(begun))
					cancel()
					if o.failed = err != nil && o.kind == write; err == nil || o.failed {
						mu.Lock()
						history = append(history, o)
						mu.Unlock()
					}
					// Faults take time. The pause makes the history last until they happen.
					pause(t.Context(), rand.N(40*time.Millisecond))
				}
			})
		}
	}
	stop := make(chan struct{})
	go func() { wg.Wait(); close(stop) }()
	nemesis(stop, rand.New(rand.NewPCG(seed, 100)))
	<-stop
	return history
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// do runs the operation and records its result.
func (o *op) do(ctx context.Context, s naming.Store, registry *naming.Client, client *clientv3.Client, prefix, service string) error {
	set := make(map[string]string)
	switch o.kind {
	case write:
		change := del(o.id)
		if o.value != "" {
			change = add(o.id, o.value)
		}
		return s.Apply(ctx, service, change, add(markID(o.process), o.mark))
	case direct:
		dir := prefix + service + "/"
		resp, err := client.Get(ctx, dir, clientv3.WithPrefix())
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			var u naming.Update
			if err := json.Unmarshal(kv.Value, &u); err != nil {
				return err
			}
			set[string(kv.Key[len(dir):])] = u.Addr
		}
	case syncing:
		if err := s.Apply(ctx, service, del("nobody")); err != nil {
			return err
		}
		fallthrough
	case listing:
		view, err := registry.List(ctx, service)
		if err != nil {
			return err
		}
		for _, e := range view.Endpoints {
			set[e.ID] = e.Addr
		}
	}
	o.got = stateOf(set)
	return nil
}

func count(history []op, f func(op) bool) (n int) {
	for _, o := range history {
		if f(o) {
			n++
		}
	}
	return n
}

// TestLinearizable checks Store's promises about order while members of the cluster are
// killed and stopped.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, &etcdtest.Options{Members: 3})
	admin := cluster.Client(t)
	runs, ops := 1, 500
	if mutant.Full() {
		runs, ops = 100, 2000
	}
	var total, failed, happened, lagging, lists int
	for run := range runs {
		t.Run(fmt.Sprint(run), func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			prefix := fmt.Sprintf("/rig/%d/", rigs.Add(1))
			var faults int
			history := record(t, cluster, prefix, ops, seed, nil, func(stop <-chan struct{}, rnd *rand.Rand) {
				for ; ; faults++ {
					select {
					case <-stop:
						return
					case <-time.After(200 * time.Millisecond):
					}
					m := cluster.Members[rnd.IntN(3)]
					if rnd.IntN(2) == 0 {
						m = cluster.Leader(t)
					}
					if rnd.IntN(2) == 0 {
						m.Kill(t)
						pause(t.Context(), rand.N(800*time.Millisecond))
						m.Restart(t)
					} else {
						m.Pause(t)
						pause(t.Context(), rand.N(1500*time.Millisecond))
						m.Continue(t)
						m.Await(t)
					}
				}
			})
			p := readPast(t, admin, prefix+"svc/")
			if err := linearizable(history, p); err != nil {
				t.Error(err)
			}
			late, err := sessions(history, p)
			if err != nil {
				t.Error(err)
			}
			total += len(history)
			lagging += late
			lists += count(history, func(o op) bool { return o.kind == listing })
			failed += count(history, func(o op) bool { return o.failed })
			happened += count(history, func(o op) bool { _, ok := p.byMark[o.mark]; return o.failed && ok })
			t.Logf("%d operations, %d faults", len(history), faults)
			if t.Failed() {
				for _, o := range history {
					t.Log(o)
				}
			}
		})
	}
	t.Logf("%d operations; %d writes failed, and %d of the failed writes happened; %d of %d lists were older than another Store's",
		total, failed, happened, lagging, lists)
}

// early returns from Apply before the changes are stored.
type early struct {
	naming.Store
	wg *sync.WaitGroup
}

func (e early) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	e.wg.Go(func() {
		pause(ctx, rand.N(20*time.Millisecond))
		_ = e.Store.Apply(context.WithoutCancel(ctx), service, changes...)
	})
	return nil
}

// torn applies the changes of an Apply one by one.
type torn struct{ naming.Store }

func (s torn) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	for _, c := range changes {
		if err := s.Store.Apply(ctx, service, c); err != nil {
			return err
		}
	}
	return nil
}

// twice repeats an Apply. Other writes may have happened in between.
type twice struct{ naming.Store }

func (s twice) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	err := s.Store.Apply(ctx, service, changes...)
	pause(ctx, 20*time.Millisecond)
	return errors.Join(err, s.Store.Apply(ctx, service, changes[:1]...))
}

// laggard lists the state of a member that is some revisions behind.
type laggard struct {
	naming.Store
	client *clientv3.Client
	prefix string
}

func (l laggard) Watch(ctx context.Context, service string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) {
		dir := l.prefix + service + "/"
		resp, err := l.client.Get(ctx, dir, clientv3.WithPrefix())
		if err == nil {
			resp, err = l.client.Get(ctx, dir, clientv3.WithPrefix(), clientv3.WithRev(max(1, resp.Header.Revision-rand.Int64N(6))))
		}
		if err != nil {
			yield(naming.Batch{}, err)
			return
		}
		b := naming.Batch{Snapshot: true}
		for _, kv := range resp.Kvs {
			var u naming.Update
			_ = json.Unmarshal(kv.Value, &u)
			b.Put = append(b.Put, naming.Endpoint{ID: string(kv.Key[len(dir):]), Addr: u.Addr})
		}
		yield(b, nil)
	}
}

// TestLinearizableMutants checks that the checkers notice the faults of faulty Stores.
func TestLinearizableMutants(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	admin := cluster.Client(t)
	var wg sync.WaitGroup
	for _, m := range []struct {
		name                   string
		wrong                  variant
		linearizable, sessions bool // whether the checker of this name accepts the history
	}{
		{"right", nil, true, true},
		{"returns before it has stored", func(s *etcd.Store, _ *clientv3.Client, _ string) naming.Store { return early{s, &wg} }, false, false},
		{"is not atomic", func(s *etcd.Store, _ *clientv3.Client, _ string) naming.Store { return torn{s} }, false, false},
		{"applies twice", func(s *etcd.Store, _ *clientv3.Client, _ string) naming.Store { return twice{s} }, false, false},
		{"lists of a member that lags", func(s *etcd.Store, c *clientv3.Client, prefix string) naming.Store { return laggard{s, c, prefix} }, false, false},
	} {
		t.Run(m.name, func(t *testing.T) {
			seed := rand.Uint64()
			prefix := fmt.Sprintf("/rig/%d/", rigs.Add(1))
			history := record(t, cluster, prefix, 300, seed, m.wrong, func(<-chan struct{}, *rand.Rand) {})
			wg.Wait()
			p := readPast(t, admin, prefix+"svc/")
			if err := linearizable(history, p); (err == nil) != m.linearizable {
				t.Errorf("seed %d: porcupine: %v", seed, err)
			}
			if _, err := sessions(history, p); (err == nil) != m.sessions {
				t.Errorf("seed %d: sessions: %v", seed, err)
			}
		})
	}
}
