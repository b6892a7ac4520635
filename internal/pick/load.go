package pick

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// sampled is one of how many calls of an endpoint are timed. Reading the clock
	// twice costs about as much as the rest of a pick.
	sampled = 8
	// memory is the time after which a sample has lost most of its effect (a factor
	// of e), while there are many others.
	memory = 5 * time.Second
	// MaxLatency is the longest time that counts as a latency. What takes longer is a
	// stream, whose length says nothing about the server.
	MaxLatency = 30 * time.Second
	// outlier bounds a sample relative to what was known before.
	outlier = 8
	// ratio bounds how many times as fast as another an endpoint counts. The latency of
	// a server that begins to hang is not known before its calls end. Until then, only
	// the calls in flight show it. With a lower ratio fewer callers wait for such a
	// server, and a slow server gets more of the calls: with 2 more than one of a
	// hundred, which is then the 99th percentile.
	ratio = 4
	// slowest bounds how many times as slow an endpoint counts because of failed calls.
	slowest = 1e6
)

// Load is what an endpoint has to do: its calls in flight, the mean latency of its calls,
// and the share of them that failed. Keep the Load of an endpoint as long as the endpoint,
// over any number of Pickers. The zero value is ready to use. All methods may be called
// concurrently.
//
// The caller of a Picker with LeastLoaded calls Begin for every call, and either End or
// Sample when the call ends.
type Load struct {
	calls  atomic.Uint64 // in the low half those in flight, in the high half all of them, modulo 2^32
	wanted atomic.Bool   // the next call shall be timed
	known  atomic.Uint64 // two float32: in the low half the latency, 0 if not known; in the high half the factor for failures, 0 for 1
	means  means
}

// means are the means of the samples, which forget with time.
type means struct {
	mu       sync.Mutex
	latency  float64       // in seconds, of calls that succeeded; 0: none yet
	failures float64       // the share of failed calls
	last     time.Duration // when the last sample came
	samples  uint64        // their number
}

// Begin counts a call that begins now. It reports whether the call should be timed, and end
// with Sample. Some calls are timed, among them the first one. Others end with End.
func (l *Load) Begin() (timed bool) {
	calls := l.calls.Add(1<<32 + 1)
	if calls>>32%sampled == 1 {
		return true
	}
	return l.wanted.Load() && l.wanted.Swap(false)
}

// End counts the end of a call that was not timed, or whose time says nothing about the
// endpoint: a call that the caller canceled, or that was never sent.
func (l *Load) End() { l.calls.Add(^uint64(0)) }

// Sample counts the end of a call that took elapsed. The time now may count from any point,
// the same for all Loads. A call is failed if it says that the server cannot serve now.
//
// Failed calls do not count as latencies, so that a server that fails at once does not look
// fast. With the share f of failed calls, an endpoint counts as 1/(1-f)^4 times as slow: 1.5
// times if one of ten fails, 16 times if half of them fail. A latency counts up to 8 times
// the mean. What took longer than [MaxLatency] is ignored unless it failed.
func (l *Load) Sample(now, elapsed time.Duration, failed bool) {
	l.End()
	if elapsed > MaxLatency && !failed {
		return
	}
	latency, failures := l.means.add(now, max(elapsed, 1).Seconds(), failed)
	square := (1 - failures) * (1 - failures)
	factor := 1 / max(square*square, 1/slowest)
	l.known.Store(uint64(math.Float32bits(float32(factor)))<<32 | uint64(math.Float32bits(float32(latency))))
}

// add adds a sample and returns the means.
func (m *means) add(now time.Duration, elapsed float64, failed bool) (latency, failures float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	// The weight of a sample grows with the time since the last one, but a single one is
	// never more than a quarter of the mean. The first samples have the same weight.
	m.samples++
	n := float64(m.samples)
	decay := min(float64(max(now-m.last, 0))/float64(memory), 0.25)
	m.last = max(m.last, now)
	f := 0.0
	if failed {
		f = 1
	}
	m.failures += max(decay, 1/(n+1)) * (f - m.failures) // begins with a success
	switch {
	case failed:
	case m.latency == 0:
		m.latency = elapsed
	default:
		m.latency += max(decay, 1/n) * (min(elapsed, outlier*m.latency) - m.latency)
	}
	return m.latency, m.failures
}

// inflight returns the number of calls in flight.
func (l *Load) inflight() uint32 { return uint32(l.calls.Load()) }

// InFlight returns the number of calls that have begun and not ended.
func (l *Load) InFlight() int { return int(l.inflight()) }

// latencies returns the mean latencies of two endpoints, within the ratio, and then with
// the factors for failed calls. An endpoint whose latency is not known is assumed to be as
// fast as the other.
func latencies(a, b *Load) (float64, float64) {
	la, fa := a.mean()
	lb, fb := b.mean()
	if la == 0 || lb == 0 {
		return fa, fb
	}
	return min(la, ratio*lb) * fa, min(lb, ratio*la) * fb
}

// mean returns the mean latency in seconds, 0 if it is not known, and the factor for failed
// calls.
func (l *Load) mean() (latency, factor float64) {
	known := l.known.Load()
	if known == 0 {
		return 0, 1
	}
	return float64(math.Float32frombits(uint32(known))), float64(math.Float32frombits(uint32(known >> 32)))
}
