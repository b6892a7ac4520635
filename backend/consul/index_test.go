package consul_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/internal/mutant"
	"github.com/naming-go/naming/internal/servertest"
)

// fake is a Consul whose answers a test chooses. It does no I/O.
type fake struct {
	answer func(q question) answer

	mu  sync.Mutex
	log []question
}

// question is a request as fake sees it.
type question struct {
	n     int // of the request
	at    time.Time
	bound time.Duration // until the asker gives up
	path  string
	index uint64
	wait  time.Duration
	mode  string
}

type answer struct {
	status  int // 0: 200
	index   uint64
	after   time.Duration
	hang    bool
	version int           // of the content
	more    int           // entries besides
	takes   time.Duration // until the body is there, after the header
}

func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	q := question{at: time.Now(), path: r.URL.Path}
	v := r.URL.Query()
	q.index, _ = strconv.ParseUint(v.Get("index"), 10, 64)
	if w := v.Get("wait"); w != "" {
		q.wait, _ = time.ParseDuration(w)
	}
	for _, mode := range []string{"consistent", "stale"} {
		if v.Has(mode) {
			q.mode += mode
		}
	}
	if d, ok := r.Context().Deadline(); ok {
		q.bound = time.Until(d)
	}
	f.mu.Lock()
	q.n = len(f.log)
	f.log = append(f.log, q)
	f.mu.Unlock()
	a := f.answer(q)
	var timer <-chan time.Time
	if !a.hang {
		timer = time.After(a.after)
	}
	select {
	case <-timer:
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if a.status == 0 {
		a.status = 200
	}
	var body strings.Builder
	for i := range a.more {
		fmt.Fprintf(&body, `,{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"y%d","Service":"greeter","Address":"h%d","Port":1}}`, i, i)
	}
	h := http.Header{}
	if a.index > 0 {
		h.Set("X-Consul-Index", strconv.FormatUint(a.index, 10))
	}
	if trace := httptrace.ContextClientTrace(r.Context()); trace != nil && trace.GotFirstResponseByte != nil {
		trace.GotFirstResponseByte()
	}
	content := io.MultiReader(lateReader(a.takes), strings.NewReader(fmt.Sprintf(first, a.version)+body.String()+"]"))
	return &http.Response{StatusCode: a.status, Header: h, Body: io.NopCloser(content), Request: r}, nil
}

// lateReader has nothing to read, and returns io.EOF late.
type lateReader time.Duration

func (l lateReader) Read([]byte) (int, error) {
	time.Sleep(time.Duration(l))
	return 0, io.EOF
}

const first = `[{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"x","Service":"greeter","Address":"h","Port":%d}}`

func (f *fake) store(t *testing.T) *consul.Store {
	client, err := api.NewClient(&api.Config{HttpClient: &http.Client{Transport: f}})
	if err != nil {
		t.Fatal(err)
	}
	return consul.New(client, nil)
}

// TestIndexRules: the requests keep the rules of blocking queries, whatever the answers
// (consul#5358, consul#2216).
func TestIndexRules(t *testing.T) {
	responses := 1000
	if mutant.Full() {
		responses = 10_000
	}
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	synctest.Test(t, func(t *testing.T) {
		// The index of the registry, and the answer to each question.
		index, version := uint64(1_000_000), 1
		var answers []answer
		f := &fake{}
		f.answer = func(q question) answer {
			a := answer{version: version}
			switch kind := rnd.IntN(14); {
			case kind == 0:
				if a.index = index / 2; a.index < q.index {
					a.version = 0 // all of it is older
				}
			case kind == 1:
				a.index = 0
			case kind == 2:
				a.index = q.index
			case kind == 3:
				a.hang = true
			case kind == 4:
				a.status = http.StatusTooManyRequests
			case kind == 5:
				a.status = http.StatusInternalServerError
			case kind == 6:
				a.index, a.after = max(q.index, 1), q.wait+q.wait/16
			case kind == 7: // another registry
				index = 10 + rnd.Uint64N(2_000_000)
				version++
				a.index, a.version = index, version
			default:
				index++
				version++
				a.index, a.version, a.after = index, version, time.Duration(rnd.IntN(1000))*time.Millisecond
			}
			answers = append(answers, a)
			return a
		}
		s := f.store(t)
		bound := s.SilenceBound()
		for len(answers) < responses {
			began := len(answers) // this watch's first question
			shown := -1
			for b, err := range s.Watch(t.Context(), "greeter") {
				if err != nil {
					if last := answers[len(answers)-1]; last.status == 0 && !last.hang {
						t.Fatalf("seed %d: answer %+v ended the watch: %v", seed, last, err)
					}
					break
				}
				if shown < 0 != b.Snapshot || len(b.Put)+len(b.Deleted) == 0 {
					t.Fatalf("seed %d: batch %+v", seed, b)
				}
				e := b.Put[0]
				now, _ := strconv.Atoi(e.Addr[strings.LastIndex(e.Addr, ":")+1:])
				if e.Addr == "h" {
					now = 0
				}
				if now < shown {
					t.Fatalf("seed %d: state %d after state %d", seed, now, shown)
				}
				shown = now
				if len(answers) >= responses {
					break
				}
			}
			var last uint64
			for n := began; n < len(answers); n++ {
				q := f.log[n]
				want := last
				switch {
				case n > began && max(answers[n-1].index, 1) < f.log[n-1].index:
					want = 0 // it went backwards
				}
				if q.index != want {
					t.Fatalf("seed %d: question %+v after answer %+v to %+v, want index %d", seed, q, answers[max(n, 1)-1], f.log[max(n, 1)-1], want)
				}
				if (q.mode == "consistent") != (q.index == 0) || strings.Contains(q.mode, "stale") {
					t.Fatalf("seed %d: question %+v", seed, q)
				}
				if q.bound <= 0 || q.bound > bound || q.index > 0 && (q.wait <= 26*time.Second || q.wait > 30*time.Second) {
					t.Fatalf("seed %d: question %+v, which waits too long or too short", seed, q)
				}
				last = max(answers[n].index, 1)
			}
		}
		atMost(t, f.log, 200, 100)
	})
}

// atMost fails the test if at any time there were more questions than a bucket allows.
func atMost(t *testing.T, log []question, burst, perSecond float64) {
	t.Helper()
	for i := range log {
		for _, j := range []int{i + 30, i + 150, i + 500} {
			if j >= len(log) {
				break
			}
			if d := log[j].at.Sub(log[i].at).Seconds(); float64(j-i) > burst+perSecond*d+2 {
				t.Fatalf("%d questions within %v s", j-i, d)
			}
		}
	}
}

// TestHotAnswers: a Consul that answers every query at once is not asked in a loop
// (mbobakov#7).
func TestHotAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		version          func(n int) int
		burst, perSecond int
	}{
		"news":    {func(n int) int { return n + 1 }, 200, 100},
		"no news": {func(int) int { return 1 }, 16, 2},
	} {
		for how, index := range map[string]func(q question) uint64{
			"higher": func(q question) uint64 { return uint64(q.n) + 1 },
			"same":   func(question) uint64 { return 7 },
			"none":   func(question) uint64 { return 0 },
			"lower":  func(q question) uint64 { return 1_000_000 - uint64(q.n) },
		} {
			if name == "news" && how == "lower" {
				continue // they count for nothing
			}
			t.Run(name+" "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := &fake{}
					f.answer = func(q question) answer { return answer{index: index(q), version: test.version(q.n)} }
					s := f.store(t)
					const d = 5 * time.Minute
					ctx, cancel := context.WithTimeout(t.Context(), d)
					defer cancel()
					for _, err := range s.Watch(ctx, "greeter") {
						if err != nil && !errors.Is(err, context.DeadlineExceeded) {
							t.Error(err)
						}
					}
					most := test.burst + test.perSecond*int(d/time.Second) + 2
					if n := len(f.log); n > most || n < most/2 {
						t.Errorf("%d questions within %v, want up to %d", n, d, most)
					}
					atMost(t, f.log, float64(test.burst), float64(test.perSecond))
				})
			})
		}
	}
}

// TestRests: changes of a large service that come close together are read together. So
// are changes of a small service on a busy machine. A change that comes alone is read at
// once. A rest that costs more than it saves is skipped.
func TestRests(t *testing.T) {
	for _, test := range []struct {
		entries     int
		takes, rest time.Duration
	}{
		{1, 0, 0}, {99, 0, 0},
		{100, 0, 2 * time.Millisecond}, {200, 0, 4 * time.Millisecond}, {1000, 0, 20 * time.Millisecond},
		{1, 500 * time.Microsecond, 0}, {40, 1500 * time.Microsecond, 0}, {200, 4500 * time.Microsecond, 4 * time.Millisecond},
		{40, 5300 * time.Microsecond, 16_800 * time.Microsecond}, {200, 9500 * time.Microsecond, 24 * time.Millisecond},
		{1, time.Second, 100 * time.Millisecond}, {5000, time.Second, 100 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			const quiet = time.Second
			f := &fake{}
			f.answer = func(q question) answer {
				a := answer{index: uint64(q.n) + 1, version: q.n + 1, more: test.entries - 1, takes: test.takes}
				if q.n == 10 {
					a.after = quiet
				}
				return a
			}
			shown := f.shown(t, 20)
			for n := 2; n < len(f.log); n++ {
				if got := f.log[n].at.Sub(shown[n-1]); got != test.rest {
					t.Errorf("question %d comes %v after the news of %d entries that took %v, want %v", n, got, test.entries, test.takes, test.rest)
				}
			}
			if got := f.log[1].at.Sub(shown[0]); got != 0 {
				t.Errorf("the watch begins %v after the snapshot", got)
			}
			if got := shown[10].Sub(f.log[10].at); got != quiet+test.takes {
				t.Errorf("a change that took %v to come is shown after %v", quiet+test.takes, got)
			}
		})
	}
}

// shown watches until n batches were shown, and returns the times.
func (f *fake) shown(t *testing.T, n int) (shown []time.Time) {
	t.Helper()
	for _, err := range f.store(t).Watch(t.Context(), "greeter") {
		if err != nil {
			t.Fatal(err)
		}
		if shown = append(shown, time.Now()); len(shown) == n {
			break
		}
	}
	return shown
}

// TestSustainedChange: a change every 15 ms to a service of up to 200 instances is shown
// at once, for as long as the changes go on. A reader that is behind shows several
// changes at once.
func TestSustainedChange(t *testing.T) {
	changes := 2000 // half a minute
	if !mutant.Full() {
		changes = 600
	}
	for _, entries := range []int{1, 50, 151, 200} {
		synctest.Test(t, func(t *testing.T) {
			const every, way = 15 * time.Millisecond, 3 * time.Millisecond
			began := time.Now()
			f := &fake{}
			f.answer = func(q question) answer {
				// The present index, or else the index of the next change.
				now := uint64(time.Since(began)/every) + 1
				a := answer{index: now, version: int(now), more: entries - 1, after: way}
				if now <= q.index {
					a.index, a.version = q.index+1, int(q.index+1)
					a.after = time.Until(began.Add(time.Duration(q.index)*every)) + way
				}
				return a
			}
			for n, at := range f.shown(t, changes) {
				if late := at.Sub(began.Add(time.Duration(n) * every)); late > way {
					t.Fatalf("change %d to a service of %d is shown after %v, want %v", n, entries, late, way)
				}
			}
		})
	}
}

// TestEntriesRead: the entries that a watch reads are bounded, in few large answers or in
// many small ones. After an answer of any size there is a next query.
func TestEntriesRead(t *testing.T) {
	for _, entries := range []int{0, 1, 1000, 40_000} {
		synctest.Test(t, func(t *testing.T) {
			f := &fake{}
			f.answer = func(q question) answer {
				return answer{index: uint64(q.n) + 1, version: q.n + 1, more: entries - 1}
			}
			d := 20 * time.Second
			if !mutant.Full() {
				d = 5 * time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			for _, err := range f.store(t).Watch(ctx, "greeter") {
				if err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			}
			cost := max(entries, 150)
			most := (30_000+15_000*int(d/time.Second))/cost + 3
			if n := len(f.log); n > most || n < most-3-most/50 {
				t.Errorf("%d answers of %d entries within %v, want up to %d", n, entries, d, most)
			}
		})
	}
}

// TestCloseDuringWait closes a Client whose query waits for an answer.
func TestCloseDuringWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: func(q question) answer { return answer{index: 5, version: 1, hang: q.index > 0} }}
		c := naming.New(f.store(t), nil)
		w, err := c.Resolve("greeter")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Next(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := len(f.log); n != 2 || f.log[1].index != 5 {
			t.Fatalf("questions %+v, want one that waits", f.log)
		}
		began := time.Now()
		c.Close()
		if d := time.Since(began); d > 100*time.Millisecond {
			t.Errorf("Close has taken %v", d)
		}
	})
}

// TestCloseFreesConnection: a watch that is left gives its connection back at once. The
// watch of grpc-consul-resolver keeps it until the wait is over.
func TestCloseFreesConnection(t *testing.T) {
	asked, gone := make(chan struct{}), make(chan net.Addr, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Consul-Index", "5")
		if r.URL.Query().Has("index") {
			close(asked)
			<-r.Context().Done()
			gone <- nil
			return
		}
		io.WriteString(w, "[]")
	}))
	defer server.Close()
	transport := &http.Transport{}
	client, err := api.NewClient(&api.Config{Address: server.Listener.Addr().String(), HttpClient: &http.Client{Transport: transport}})
	if err != nil {
		t.Fatal(err)
	}
	c := naming.New(consul.New(client, nil), nil)
	w, err := c.Resolve("greeter")
	if err != nil {
		t.Fatal(err)
	}
	if set, err := w.Next(); len(set) != 0 || err != nil {
		t.Fatal(set, err)
	}
	<-asked
	c.Close() // waits for its watches
	select {
	case <-gone:
	case <-time.After(servertest.Patience):
		t.Error("the connection was not freed")
	}
}
