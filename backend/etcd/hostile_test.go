package etcd_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/internal/mutant"
)

// victim is a program on a fake server. It reads a service, lists services, and keeps
// an endpoint registered.
type victim struct {
	*fake
	client *naming.Client
	reg    *naming.Registration
	fuzzed bool // the false answers may be a valid set

	mu       sync.Mutex
	view     naming.View
	stale    bool // the program got a stale View
	services []string
	failures []string // why the watch of svc failed
}

func newVictim(t *testing.T, user string) *victim {
	t.Helper()
	v := &victim{fake: newFake(t)}
	v.fake.mu.Lock()
	must(t, v.put(&pb.PutRequest{Key: []byte("svc/good:1"), Value: []byte(`{"Op":0,"Addr":"good:1","Metadata":null}`)}))
	v.fake.mu.Unlock()
	v.client = naming.New(etcd.New(v.fake.client(t, user), nil), &naming.Options{
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Hooks: &naming.Hooks{WatchFailed: func(info naming.WatchFailedInfo) {
			v.mu.Lock()
			defer v.mu.Unlock()
			if info.Service == "svc" {
				v.failures = append(v.failures, info.Err.Error())
			}
		}},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for view, err := range v.client.Watch(ctx, "svc") {
			if err != nil {
				return
			}
			v.mu.Lock()
			v.view, v.stale = view, v.stale || view.Stale()
			v.mu.Unlock()
		}
	})
	wg.Go(func() {
		for names, err := range v.client.Services(ctx) {
			if err != nil {
				return
			}
			v.mu.Lock()
			v.services = names
			v.mu.Unlock()
		}
	})
	var err error
	v.reg, err = v.client.Register(ctx, "own", naming.Endpoint{Addr: "10.0.0.1:1"}, &naming.RegisterOptions{TTL: 15 * time.Second, DrainDelay: -1})
	must(t, err)
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		v.client.Close()
	})
	v.healthy(t)
	return v
}

// healthy waits until the reader, the list of services and the registration are correct.
func (v *victim) healthy(t *testing.T) {
	t.Helper()
	var why string
	for range 240 {
		v.mu.Lock()
		set, stale, services := text(naming.Batch{Put: v.view.Endpoints}), v.view.Stale(), fmt.Sprint(v.services)
		v.stale = false
		v.mu.Unlock()
		switch state := v.reg.Status(); {
		case set != "+good:1=good:1", stale:
			why = fmt.Sprintf("the reader has %s (stale: %v)", set, stale)
		case services != "[own svc]":
			why = fmt.Sprintf("the services are %s, and the registration %+v", services, state)
		case !state.Registered:
			why = fmt.Sprintf("the endpoint is not registered: %v", state.Err)
		default:
			return
		}
		time.Sleep(time.Second)
	}
	t.Fatalf("the program is not healthy after four minutes: %s", why)
}

// suffer has the fake give false answers for some minutes, and checks the promises of
// G31: the victim keeps the last good set, its requests and memory are bounded, and it
// recovers when the fake answers the truth again. budget is how many requests a minute
// may have. suffer reports whether the victim got a stale View.
func (v *victim) suffer(t *testing.T, minutes, budget int, a answers) (stale bool) {
	t.Helper()
	// The first attempts come faster than the budget allows. In the end, backoff
	// tries watches every half a minute, and renews or grants a lease every five
	// seconds.
	const extra = 300
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	asked := v.count()
	v.lie(a)
	for range minutes * 6 {
		time.Sleep(10 * time.Second)
		v.mu.Lock()
		set := text(naming.Batch{Put: v.view.Endpoints})
		v.mu.Unlock()
		if !v.fuzzed && !strings.Contains(set, "+good:1=good:1") {
			t.Errorf("the last good set was lost: the reader has %.1000s", set)
		}
		runtime.ReadMemStats(&now)
		if now.HeapAlloc > before.HeapAlloc+1<<30 {
			runtime.GC()
			if runtime.ReadMemStats(&now); now.HeapAlloc > before.HeapAlloc+600<<20 {
				t.Errorf("the heap has grown by %d MB", (now.HeapAlloc-before.HeapAlloc)>>20)
			}
		}
	}
	if n := v.count() - asked; n > extra+budget*minutes {
		t.Errorf("%d requests in %d minutes, want at most %d", n, minutes, extra+budget*minutes)
	}
	v.mu.Lock()
	stale = v.stale
	v.mu.Unlock()
	v.lie(answers{})
	v.healthy(t)
	return stale
}

// answered returns the answer that creates a watch, and then an answer with events.
func answered(created *pb.WatchResponse, evs ...*mvccpb.Event) []*pb.WatchResponse {
	return []*pb.WatchResponse{created, {Header: created.Header, WatchId: created.WatchId, Events: evs}}
}

func putEvent(key string, rev int64) *mvccpb.Event {
	return &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte(key), Value: []byte(`{"Addr":"x:1"}`), ModRevision: rev, CreateRevision: rev}}
}

// long returns full in make full and short otherwise. A big row takes seconds under the
// race detector.
func long(full, short int) int {
	if mutant.Full() {
		return full
	}
	return short
}

const junk = "\x1b[31mjunk\r\n\x00\u202e"

// hostile is the table of false answers. stale says that the victim must get a stale
// View.
var hostile = []struct {
	name  string
	stale bool
	answers
	minutes int    // 0 means 5
	says    string // an error of the watch must have this text
}{
	{name: "nothing at all", stale: true, answers: answers{silent: true}},
	{name: "reads without a header", stale: true, answers: breaking(func(_ *pb.RangeRequest, r *pb.RangeResponse) {
		r.Header = nil
	})},
	{name: "reads with an empty header", stale: true, answers: breaking(func(_ *pb.RangeRequest, r *pb.RangeResponse) {
		r.Header = &pb.ResponseHeader{}
	})},
	{name: "reads at a negative revision", stale: true, answers: breaking(func(_ *pb.RangeRequest, r *pb.RangeResponse) {
		r.Header.Revision = -1
	})},
	{name: "reads of nothing with more to come", stale: true, answers: breaking(func(_ *pb.RangeRequest, r *pb.RangeResponse) {
		r.Kvs, r.More = nil, true
	})},
	{name: "a page that never ends", stale: true, answers: breaking(func(_ *pb.RangeRequest, r *pb.RangeResponse) {
		r.More, r.Count = true, 1<<20
	})},
	{name: "pages that go on for ever", stale: true, answers: breaking(func(q *pb.RangeRequest, r *pb.RangeResponse) {
		r.More, r.Count = true, math.MaxInt64
		r.Kvs = []*mvccpb.KeyValue{{Key: append(append([]byte{}, q.Key...), 'x'), Value: []byte(`{"Addr":"x:1"}`), ModRevision: 1}}
	})},
	{name: "a negative count", stale: true, answers: breaking(func(_ *pb.RangeRequest, r *pb.RangeResponse) {
		r.Count = math.MinInt64
	})},
	{name: "a huge count", stale: true, answers: breaking(func(_ *pb.RangeRequest, r *pb.RangeResponse) {
		r.Count = math.MaxInt64
	})},
	{name: "a count that exceeds what follows", stale: true, answers: breaking(func(_ *pb.RangeRequest, r *pb.RangeResponse) {
		r.Count = 100
	})},
	{name: "entries without a key", stale: true, answers: breaking(func(_ *pb.RangeRequest, r *pb.RangeResponse) {
		r.Kvs, r.Count = []*mvccpb.KeyValue{{}}, 1
	})},
	{name: "keys shorter than what was asked for", stale: true, answers: breaking(func(_ *pb.RangeRequest, r *pb.RangeResponse) {
		r.Kvs, r.Count = []*mvccpb.KeyValue{{Key: []byte("s"), ModRevision: 1}}, 1
	})},
	{name: "the same key twice", stale: true, answers: breaking(func(q *pb.RangeRequest, r *pb.RangeResponse) {
		kv := &mvccpb.KeyValue{Key: []byte("svc/a"), ModRevision: 1}
		if len(q.Key) == 1 {
			kv.Key = []byte("x/a")
		}
		r.Kvs, r.Count = []*mvccpb.KeyValue{kv, kv}, 2
	})},
	{name: "entries of the future", stale: true, answers: breaking(func(_ *pb.RangeRequest, r *pb.RangeResponse) {
		for i, kv := range r.Kvs {
			r.Kvs[i] = &mvccpb.KeyValue{Key: kv.Key, Value: kv.Value, CreateRevision: 1, ModRevision: math.MaxInt64}
		}
	})},
	{minutes: 1, name: "more endpoints than there may be", stale: true, says: "more than 200000 endpoints", answers: breaking(func(q *pb.RangeRequest, r *pb.RangeResponse) {
		if !strings.HasPrefix(string(q.Key), "svc/") || pages.Add(1) > 100 {
			return
		}
		const total = naming.MaxEndpoints + 5
		r.Kvs, r.Count = nil, total
		from := 0
		if _, err := fmt.Sscanf(string(q.Key[strings.IndexByte(string(q.Key), '/')+1:]), "%d", &from); err == nil {
			from++
		}
		dir := "svc/"
		for i := from; i < min(from+int(q.Limit), total); i++ {
			r.Kvs = append(r.Kvs, &mvccpb.KeyValue{Key: fmt.Appendf(nil, "%s%07d", dir, i), Value: []byte(`{"Addr":"x:1"}`), ModRevision: 1})
		}
		r.More, r.Count = from+int(q.Limit) < total, int64(total-from)
	})},
	{minutes: 1, name: "a long error with control characters", stale: true, answers: failing(codes.Unavailable, strings.Repeat(junk, long(10_000, 2_000)))},
	{name: "an event without an entry", stale: true, answers: answers{watch: func(_ *pb.WatchCreateRequest, r *pb.WatchResponse) ([]*pb.WatchResponse, error) {
		return answered(r, &mvccpb.Event{}), nil
	}}},
	{name: "a nil event", stale: true, answers: answers{watch: func(_ *pb.WatchCreateRequest, r *pb.WatchResponse) ([]*pb.WatchResponse, error) {
		return answered(r, &mvccpb.Event{Type: mvccpb.DELETE}), nil
	}}},
	{name: "an event of a key shorter than the prefix", stale: true, answers: answers{watch: func(_ *pb.WatchCreateRequest, r *pb.WatchResponse) ([]*pb.WatchResponse, error) {
		return answered(r, putEvent("s", 1<<20)), nil
	}}},
	{name: "an event of another service", stale: true, answers: answers{watch: func(q *pb.WatchCreateRequest, r *pb.WatchResponse) ([]*pb.WatchResponse, error) {
		if len(q.Key) == 1 { // all keys
			return answered(r, putEvent("", 1<<20)), nil
		}
		return answered(r, putEvent("foreign/x", 1<<20)), nil
	}}},
	{name: "an event of an unknown type", stale: true, answers: answers{watch: func(q *pb.WatchCreateRequest, r *pb.WatchResponse) ([]*pb.WatchResponse, error) {
		ev := putEvent(string(q.Key)+"x", 1<<20)
		ev.Type = 77
		return answered(r, ev), nil
	}}},
	{name: "revisions that go back", stale: true, answers: answers{watch: func(q *pb.WatchCreateRequest, r *pb.WatchResponse) ([]*pb.WatchResponse, error) {
		return answered(r, putEvent(string(q.Key)+"x", 1<<20), putEvent(string(q.Key)+"x", 5)), nil
	}}},
	{name: "a watch with another ID", stale: true, answers: answers{watch: func(_ *pb.WatchCreateRequest, r *pb.WatchResponse) ([]*pb.WatchResponse, error) {
		first := &pb.WatchResponse{Header: r.Header, Created: true, WatchId: r.WatchId}
		return []*pb.WatchResponse{first, first, {Header: r.Header, Created: true, WatchId: -5}}, nil
	}}},
	{name: "watches that are never created", stale: true, answers: answers{watch: func(*pb.WatchCreateRequest, *pb.WatchResponse) ([]*pb.WatchResponse, error) {
		return nil, nil
	}}},
	{name: "a watch that is compacted at an odd revision", stale: true, answers: answers{watch: func(_ *pb.WatchCreateRequest, r *pb.WatchResponse) ([]*pb.WatchResponse, error) {
		r.Canceled, r.CompactRevision = true, math.MinInt64
		return []*pb.WatchResponse{r}, nil
	}}},
	{name: "a watch that is canceled for no reason", stale: true, answers: answers{watch: func(_ *pb.WatchCreateRequest, r *pb.WatchResponse) ([]*pb.WatchResponse, error) {
		return []*pb.WatchResponse{r, {WatchId: r.WatchId, Canceled: true}}, nil
	}}},
	{name: "a watch that is canceled for an odd reason", stale: true, answers: answers{watch: func(_ *pb.WatchCreateRequest, r *pb.WatchResponse) ([]*pb.WatchResponse, error) {
		return []*pb.WatchResponse{r, {WatchId: r.WatchId, Canceled: true, CancelReason: strings.Repeat(junk, 100_000)}}, nil
	}}},
	{name: "a watch that is canceled for want of a token, always", stale: true, answers: answers{watch: func(_ *pb.WatchCreateRequest, r *pb.WatchResponse) ([]*pb.WatchResponse, error) {
		return []*pb.WatchResponse{r, {WatchId: r.WatchId, Canceled: true, CancelReason: "etcdserver: invalid auth token"}}, nil
	}}},
	{name: "every member is a learner", stale: true, answers: answers{watch: func(*pb.WatchCreateRequest, *pb.WatchResponse) ([]*pb.WatchResponse, error) {
		return nil, status.Error(codes.FailedPrecondition, "etcdserver: rpc not supported for learner")
	}}},
	{name: "another cluster", stale: true, answers: answers{watch: func(q *pb.WatchCreateRequest, r *pb.WatchResponse) ([]*pb.WatchResponse, error) {
		rs := answered(r, putEvent(string(q.Key)+"x", 1<<20))
		rs[1].Header = &pb.ResponseHeader{ClusterId: 99, Revision: 3}
		return rs, nil
	}}},
	{name: "fragments that are never completed", stale: true, answers: answers{watch: func(q *pb.WatchCreateRequest, r *pb.WatchResponse) ([]*pb.WatchResponse, error) {
		rs := []*pb.WatchResponse{r}
		for range 100 {
			rs = append(rs, &pb.WatchResponse{Header: r.Header, WatchId: r.WatchId, Fragment: true, Events: []*mvccpb.Event{putEvent(string(q.Key)+"x", 1<<20)}})
		}
		return rs, nil
	}}},
	{minutes: 1, name: "fragments without end", stale: true, says: "more than 268435456 bytes", answers: answers{watch: func(q *pb.WatchCreateRequest, r *pb.WatchResponse) ([]*pb.WatchResponse, error) {
		if string(q.Key) != "svc/" || int(endless.Add(1)) > long(2, 1) {
			return []*pb.WatchResponse{r}, nil
		}
		part := &pb.WatchResponse{Header: r.Header, WatchId: r.WatchId, Fragment: true}
		ev := putEvent(string(q.Key)+"x", 1<<20)
		ev.Kv.Value = make([]byte, 1<<20)
		for range 10 {
			part.Events = append(part.Events, ev)
		}
		rs := []*pb.WatchResponse{r}
		for range long(40, 27) { // More than a watch keeps.
			rs = append(rs, part)
		}
		return rs, nil
	}}},
	{minutes: 1, name: "a revision of too many events", stale: true, says: "more than 1048576 events", answers: answers{watch: func(q *pb.WatchCreateRequest, r *pb.WatchResponse) ([]*pb.WatchResponse, error) {
		rs := []*pb.WatchResponse{r}
		if string(q.Key) != "svc/" || crowds.Add(1) > 1 {
			return rs, nil
		}
		part := &pb.WatchResponse{Header: r.Header, WatchId: r.WatchId, Fragment: true, Events: make([]*mvccpb.Event, 100_000)}
		for i := range part.Events {
			part.Events[i] = putEvent("svc/x", r.Header.Revision+1)
			part.Events[i].Kv.Value = nil
		}
		for range 12 {
			rs = append(rs, part)
		}
		return rs, nil
	}}},
	{minutes: 1, name: "a storm about no watch", answers: answers{watch: func(q *pb.WatchCreateRequest, r *pb.WatchResponse) ([]*pb.WatchResponse, error) {
		if string(q.Key) != "svc/" || storms.Add(1) > 2 {
			return []*pb.WatchResponse{r}, nil
		}
		rs := []*pb.WatchResponse{r}
		for range 70_000 {
			rs = append(rs, &pb.WatchResponse{Header: r.Header, WatchId: 12345})
		}
		return rs, nil
	}}},
	{name: "a storm of values that say nothing", answers: answers{watch: func(q *pb.WatchCreateRequest, r *pb.WatchResponse) ([]*pb.WatchResponse, error) {
		rs := []*pb.WatchResponse{r}
		for i := range int64(long(10_000, 2_000)) {
			ev := putEvent(string(q.Key)+"x", r.Header.Revision+1+i)
			ev.Kv.Value = []byte(junk)
			rs = append(rs, &pb.WatchResponse{Header: r.Header, WatchId: r.WatchId, Events: []*mvccpb.Event{ev}})
		}
		return rs, nil
	}}},
	{name: "a revision beyond all others", answers: answers{watch: func(_ *pb.WatchCreateRequest, r *pb.WatchResponse) ([]*pb.WatchResponse, error) {
		r.Header.Revision = math.MaxInt64
		return []*pb.WatchResponse{r}, nil
	}}},
	{name: "a lease of no time", answers: answers{grant: func(r *pb.LeaseGrantResponse) (*pb.LeaseGrantResponse, error) {
		r.TTL = 0
		return r, nil
	}, alive: dead}},
	{name: "a lease of less than no time", answers: answers{grant: func(r *pb.LeaseGrantResponse) (*pb.LeaseGrantResponse, error) {
		r.TTL = -5
		return r, nil
	}, alive: dead}},
	{name: "a lease of more time than there is", answers: answers{grant: func(r *pb.LeaseGrantResponse) (*pb.LeaseGrantResponse, error) {
		r.TTL = math.MaxInt64
		return r, nil
	}, alive: dead}},
	{name: "a lease without an ID", answers: answers{grant: func(r *pb.LeaseGrantResponse) (*pb.LeaseGrantResponse, error) {
		r.ID = 0
		return r, nil
	}, alive: dead}},
	{name: "a lease that is an error", answers: answers{grant: func(*pb.LeaseGrantResponse) (*pb.LeaseGrantResponse, error) {
		return &pb.LeaseGrantResponse{Error: strings.Repeat(junk, 10_000)}, nil
	}, alive: dead}},
	{name: "renewals of other leases", answers: answers{alive: func(r *pb.LeaseKeepAliveResponse) ([]*pb.LeaseKeepAliveResponse, error) {
		return []*pb.LeaseKeepAliveResponse{{ID: r.ID + 1, TTL: 5}, {ID: -r.ID, TTL: -1}}, nil
	}}},
	{name: "a renewal for less than no time", answers: answers{alive: func(r *pb.LeaseKeepAliveResponse) ([]*pb.LeaseKeepAliveResponse, error) {
		r.TTL = math.MinInt64
		return []*pb.LeaseKeepAliveResponse{r}, nil
	}}},
	{minutes: 1, name: "a storm of renewals", answers: answers{alive: func(r *pb.LeaseKeepAliveResponse) ([]*pb.LeaseKeepAliveResponse, error) {
		rs := []*pb.LeaseKeepAliveResponse{r}
		if renewals.Add(1) > 2 {
			return rs, nil
		}
		for range 70_000 {
			rs = append(rs, &pb.LeaseKeepAliveResponse{Header: r.Header, ID: r.ID, TTL: math.MaxInt64})
		}
		return rs, nil
	}}},
	{name: "no answer to a renewal", answers: answers{alive: func(*pb.LeaseKeepAliveResponse) ([]*pb.LeaseKeepAliveResponse, error) {
		return nil, nil
	}}},
	{name: "renewals that are refused for want of a token, always", answers: answers{alive: func(*pb.LeaseKeepAliveResponse) ([]*pb.LeaseKeepAliveResponse, error) {
		return nil, status.Error(codes.Unauthenticated, "etcdserver: invalid auth token")
	}}},
	{name: "writes without a header", answers: answers{write: func(*pb.ResponseHeader) (*pb.ResponseHeader, error) { return nil, nil }, alive: dead}},
	{name: "writes at a revision beyond all others", answers: answers{write: func(h *pb.ResponseHeader) (*pb.ResponseHeader, error) {
		h.Revision = math.MaxInt64
		return h, nil
	}, alive: dead}},
	{name: "transactions that answer nothing", answers: answers{txn: func(*pb.TxnResponse) (*pb.TxnResponse, error) {
		return &pb.TxnResponse{}, nil
	}, alive: dead}},
}

// dead ends every lease. So the Client grants a new lease and puts the endpoint again.
func dead(r *pb.LeaseKeepAliveResponse) ([]*pb.LeaseKeepAliveResponse, error) {
	r.TTL = 0
	return []*pb.LeaseKeepAliveResponse{r}, nil
}

// breaking returns answers in which f falsifies reads.
func breaking(f func(*pb.RangeRequest, *pb.RangeResponse)) answers {
	return answers{read: func(q *pb.RangeRequest, r *pb.RangeResponse) (*pb.RangeResponse, error) {
		f(q, r)
		return r, nil
	}}
}

// failing returns answers in which every request fails.
func failing(code codes.Code, text string) answers {
	err := status.Error(code, strings.ToValidUTF8(text, "?"))
	return answers{
		read:  func(*pb.RangeRequest, *pb.RangeResponse) (*pb.RangeResponse, error) { return nil, err },
		write: func(*pb.ResponseHeader) (*pb.ResponseHeader, error) { return nil, err },
		txn:   func(*pb.TxnResponse) (*pb.TxnResponse, error) { return nil, err },
		watch: func(*pb.WatchCreateRequest, *pb.WatchResponse) ([]*pb.WatchResponse, error) { return nil, err },
		alive: func(*pb.LeaseKeepAliveResponse) ([]*pb.LeaseKeepAliveResponse, error) { return nil, err },
		grant: func(*pb.LeaseGrantResponse) (*pb.LeaseGrantResponse, error) { return nil, err },
		login: func(*pb.AuthenticateResponse) (*pb.AuthenticateResponse, error) { return nil, err },
	}
}

// How often a fake has given each long answer. One or two are enough: another proves
// nothing new, and each takes seconds under the race detector.
var endless, crowds, storms, pages, renewals atomic.Int32

// TestFieldE7HostileServer has a server give the false answers of each row, for five
// minutes mostly.
func TestFieldE7HostileServer(t *testing.T) {
	rows := hostile
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		row := rows[0]
		row.name, row.stale, row.answers = "every request fails with "+code.String(), true, failing(code, junk)
		rows = append(rows[:len(rows):len(rows)], row)
	}
	for _, row := range rows {
		t.Run(strings.ReplaceAll(row.name, " ", "_"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newVictim(t, "")
				if stale := v.suffer(t, cmp.Or(row.minutes, 5), 120, row.answers); row.stale && !stale {
					t.Error("the reader got no stale View")
				}
				v.mu.Lock()
				defer v.mu.Unlock()
				if says := func(text string) bool { return strings.Contains(text, row.says) }; row.says != "" && !slices.ContainsFunc(v.failures, says) {
					t.Errorf("failures of the watch: %q, want one with %q", v.failures, row.says)
				}
			})
		})
	}
	// If the server refuses tokens, etcd's client repeats a call a hundred times, each
	// time with a new token.
	for _, token := range []string{"", strings.Repeat("t", 4<<10)} {
		t.Run(fmt.Sprintf("a token of %d bytes", len(token)), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newVictim(t, "app")
				a := failing(codes.Unauthenticated, "etcdserver: invalid auth token")
				a.login = func(r *pb.AuthenticateResponse) (*pb.AuthenticateResponse, error) {
					r.Token = token
					return r, nil
				}
				v.suffer(t, 2, 5000, a)
			})
		})
	}
}
