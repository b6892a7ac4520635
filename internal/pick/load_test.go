package pick

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// simulated is a server of a simulation. Its calls take an exponentially distributed time.
type simulated struct {
	weight  float64
	latency time.Duration
	fails   bool
	queues  bool // one call at a time
	free    time.Duration
	load    Load
	calls   int
}

type ending struct {
	at, elapsed time.Duration
	server      *simulated
	timed       bool
}

type endings []ending

func (e endings) Len() int           { return len(e) }
func (e endings) Less(i, j int) bool { return e[i].at < e[j].at }
func (e endings) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *endings) Push(x any)        { *e = append(*e, x.(ending)) }
func (e *endings) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// simulation is one client of some servers, in virtual time.
type simulation struct {
	servers []*simulated
	picker  *Picker
	random  *rand.Rand
	now     time.Duration
	ends    endings
}

func simulate(seed uint64, servers ...*simulated) *simulation {
	all := make([]Candidate, len(servers))
	for i, s := range servers {
		all[i] = Candidate{Weight: s.weight, Load: &s.load}
	}
	return &simulation{servers: servers, picker: New(Config{LeastLoaded: true}, all, seed), random: rand.New(rand.NewPCG(seed, 1))}
}

// run lets n calls arrive, with exponentially distributed times between them, and returns
// the share of the calls that each server got. A time of 0 means one call after the other.
func (s *simulation) run(n int, between time.Duration) []float64 {
	for _, v := range s.servers {
		v.calls = 0
	}
	for range n {
		if between == 0 {
			s.end(-1)
		} else {
			s.now += time.Duration(s.random.ExpFloat64() * float64(between))
			s.end(s.now)
		}
		s.begin()
	}
	shares := make([]float64, len(s.servers))
	for i, v := range s.servers {
		shares[i] = float64(v.calls) / float64(n)
	}
	return shares
}

// begin begins a call.
func (s *simulation) begin() {
	v := s.servers[s.picker.Pick()]
	v.calls++
	takes := time.Duration(s.random.ExpFloat64() * float64(v.latency))
	at := s.now + takes
	if v.queues {
		at = max(s.now, v.free) + takes
		v.free = at
	}
	heap.Push(&s.ends, ending{at: at, elapsed: at - s.now, server: v, timed: v.load.Begin()})
}

// finish ends a call.
func (s *simulation) finish(e ending) {
	s.now = max(s.now, e.at)
	if e.timed {
		e.server.load.Sample(e.at, e.elapsed, e.server.fails)
	} else {
		e.server.load.End()
	}
}

// end ends the calls that end until a time, or all if the time is negative.
func (s *simulation) end(until time.Duration) {
	for len(s.ends) > 0 && (until < 0 || s.ends[0].at <= until) {
		s.finish(heap.Pop(&s.ends).(ending))
	}
}

const ms = time.Millisecond

// fleet returns n servers alike, and one more.
func fleet(n int, last *simulated) []*simulated {
	var all []*simulated
	for range n {
		all = append(all, &simulated{latency: 10 * ms})
	}
	return append(all, last)
}

// loads are times between calls: one call after the other; one call in flight, on average;
// ten; a hundred.
var loads = []time.Duration{0, 10 * ms, ms, ms / 10}

// TestSlowServer checks that one slow server of ten gets far less than a tenth of the calls.
func TestSlowServer(t *testing.T) {
	for _, between := range loads {
		for seed := range seeds(10) {
			got := simulate(seed, fleet(9, &simulated{latency: 100 * ms})...).run(50_000, between)[9]
			if got > 0.02 {
				t.Errorf("time between calls %v, seed %d: a server that is 10 times as slow as the others got %.4f of the calls, want less than 0.02", between, seed, got)
			}
		}
	}
}

// TestFailingServer checks that a server that fails at once does not attract calls.
func TestFailingServer(t *testing.T) {
	for _, between := range loads {
		for seed := range seeds(10) {
			got := simulate(seed, fleet(9, &simulated{latency: ms / 10, fails: true})...).run(50_000, between)[9]
			if got > 0.05 {
				t.Errorf("time between calls %v, seed %d: a server that fails got %.4f of the calls, want less than 0.05", between, seed, got)
			}
		}
	}
}

// TestHangingServer checks that a server that was the fastest, and then stops answering,
// keeps few callers waiting.
func TestHangingServer(t *testing.T) {
	for seed := range seeds(10) {
		s := simulate(seed, fleet(3, &simulated{latency: ms / 10})...)
		s.run(20_000, 10*ms)
		v := s.servers[3]
		v.latency = time.Hour
		s.end(-1)
		// 16 callers, one call after the other.
		for range 16 {
			s.begin()
		}
		for range 5000 {
			if s.ends[0].server == v {
				break // all callers wait
			}
			e := heap.Pop(&s.ends).(ending)
			s.finish(e)
			s.begin()
		}
		if n := v.load.InFlight(); n > 13 {
			t.Errorf("seed %d: %d of 16 callers wait for the server that hangs", seed, n)
		}
	}
}

// TestRecovery checks that servers that were slow or failed get calls again.
func TestRecovery(t *testing.T) {
	for _, last := range []*simulated{{latency: 100 * ms}, {latency: ms, fails: true}} {
		for _, between := range []time.Duration{0, 10 * ms, ms} {
			v := &simulated{latency: last.latency, fails: last.fails}
			s := simulate(7, fleet(9, v)...)
			s.run(50_000, between)
			v.latency, v.fails = 10*ms, false
			s.run(200_000, between)
			if got := s.run(50_000, between)[9]; got < 0.07 {
				t.Errorf("time between calls %v: a server that was slow or failed (%v) got %.4f of the calls later, want about 0.1", between, last.fails, got)
			}
		}
	}
}

// TestEvenLoad checks that shares follow the weights while the load is even.
func TestEvenLoad(t *testing.T) {
	for _, weights := range [][]float64{{1, 1}, {1, 2, 7}, {1, 99}, slices.Repeat([]float64{1}, 10)} {
		for _, between := range loads {
			var servers []*simulated
			for _, w := range weights {
				servers = append(servers, &simulated{weight: w, latency: 10 * ms})
			}
			got := simulate(3, servers...).run(50_000, between)
			for i, want := range shares(weights...) {
				if got[i] < 0.75*want || got[i] > 1.33*want {
					t.Errorf("weights %v, time between calls %v: server %d got %.4f of the calls, want about %.4f", weights, between, i, got[i], want)
				}
			}
		}
	}
}

// TestQueues checks that less waits in the queues of servers that do one call at a time than
// with a choice by weight.
func TestQueues(t *testing.T) {
	wait := func(least bool) (total time.Duration) {
		servers := fleet(9, &simulated{latency: 10 * ms})
		for _, v := range servers {
			v.queues = true
		}
		s := simulate(5, servers...)
		s.picker.leastLoaded = least
		for range 50_000 {
			s.run(1, 1250*time.Microsecond) // 80 % of what the servers can do
			for _, v := range servers {
				total += max(v.free-s.now, 0)
			}
		}
		return total
	}
	least, weighted := wait(true), wait(false)
	t.Logf("least loaded waits %.2f of weighted", least.Seconds()/weighted.Seconds())
	if least > weighted*3/4 {
		t.Errorf("least loaded: %v, weighted: %v", least, weighted)
	}
}

// TestSample checks what samples say about an endpoint.
func TestSample(t *testing.T) {
	const s = time.Second
	sample := func(l *Load, elapsed time.Duration, failed bool) (latency time.Duration, factor float64) {
		l.Begin()
		l.Sample(0, elapsed, failed)
		seconds, factor := l.mean()
		return time.Duration(seconds * float64(s)).Round(ms), factor
	}
	l := new(Load)
	if latency, factor := l.mean(); latency != 0 || factor != 1 {
		t.Errorf("without samples: %v, %v", latency, factor)
	}
	// A failed call says nothing about the latency.
	if latency, factor := sample(l, ms, true); latency != 0 || factor < 10 {
		t.Errorf("after a failed call: %v, %v", latency, factor)
	}
	l = new(Load)
	if latency, factor := sample(l, 100*ms, false); latency != 100*ms || factor != 1 {
		t.Errorf("after one call: %v, %v", latency, factor)
	}
	if latency, _ := sample(l, 300*ms, false); latency != 200*ms {
		t.Errorf("after two calls of 100 and 300 ms: %v", latency)
	}
	// A long call counts as 8 times the mean, and a stream not at all.
	if latency, _ := sample(l, 20*s, false); latency < 660*ms || latency > 670*ms {
		t.Errorf("after a long call: %v, want 666 ms", latency)
	}
	before, _ := l.mean()
	if _, factor := sample(l, time.Hour, false); factor != 1 {
		t.Errorf("after a stream: factor %v", factor)
	}
	if after, _ := l.mean(); after != before {
		t.Errorf("a stream changed the latency from %v to %v", before, after)
	}
	if l.InFlight() != 0 {
		t.Errorf("%d calls in flight, want 0", l.InFlight())
	}
}

// TestTimed checks that the first call is timed, and later ones now and then.
func TestTimed(t *testing.T) {
	l, timed := new(Load), 0
	for i := range 800 {
		now := l.Begin()
		if i == 0 && !now {
			t.Error("the first call is not timed")
		}
		if now {
			timed++
		}
	}
	if timed != 100 {
		t.Errorf("%d of 800 calls are timed, want 100", timed)
	}
	l.wanted.Store(true)
	l.Begin()
	l.Begin()
	if l.wanted.Load() {
		t.Error("a wanted sample is not taken within two calls")
	}
	if l.InFlight() != 802 {
		t.Errorf("%d calls in flight, want 802", l.InFlight())
	}
}
