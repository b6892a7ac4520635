package migrate

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
)

// monitored is a monitor, and what it has reported.
type monitored struct {
	*monitor
	start time.Time

	mu       sync.Mutex
	told     []string // guarded by mu
	compared int      // guarded by mu
}

func newMonitored(t *testing.T) *monitored {
	w := &monitored{start: time.Now()}
	w.monitor = newMonitor("s", 5*time.Second, Accept{fieldZone}, func(info ParityInfo) {
		w.mu.Lock()
		defer w.mu.Unlock()
		what := "over"
		if !info.Since.IsZero() {
			what = fmt.Sprintf("since %v", info.Since.Sub(w.start).Round(time.Second/10))
		}
		w.told = append(w.told, strings.TrimSpace(fmt.Sprintf("%v %s: %s", time.Since(w.start).Round(time.Second/10), what, brief(info.Report))))
	})
	compare := w.compare
	w.compare = func(old, next naming.View) *Report {
		w.mu.Lock()
		w.compared++
		w.mu.Unlock()
		return compare(old, next)
	}
	t.Cleanup(w.close)
	return w
}

// reported returns what was reported since the last call.
func (w *monitored) reported() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	told := w.told
	w.told = nil
	return told
}

func (w *monitored) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	if got := w.reported(); !slices.Equal(got, want) {
		t.Errorf("after %v:\ngot  %q\nwant %q", time.Since(w.start), got, want)
	}
}

// TestMonitorReports: a difference is reported once when it has lasted, again when it
// has changed, and once when it is over.
func TestMonitorReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMonitored(t)
		m.update(viewOf("a@1"), viewOf("a@1"), true)
		time.Sleep(10 * time.Second)
		m.want(t)
		m.update(viewOf("a@1", "b@2"), viewOf("a@1"), true)
		time.Sleep(4900 * time.Millisecond)
		m.want(t)
		time.Sleep(time.Second)
		m.want(t, "15s since 10s: missing b@2")
		time.Sleep(time.Hour)
		m.want(t)
		m.update(viewOf("a@1", "b@2", "c@3"), viewOf("a@1"), true)
		time.Sleep(time.Minute)
		m.want(t, "1h0m20.9s since 10s: missing b@2; missing c@3")
		m.update(viewOf("a@1", "b@2"), viewOf("a@1"), true)
		time.Sleep(time.Second)
		m.update(viewOf("a@1"), viewOf("a@1"), true)
		time.Sleep(time.Minute)
		m.want(t, "1h1m16.9s over:")
		if r := m.report(); !r.Equal() || r.OldCount != 1 {
			t.Errorf("the last report is %v", r)
		}
	})
}

// TestMonitorDebounces: differences that do not last are not reported, however many.
func TestMonitorDebounces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMonitored(t)
		for i := range 100 {
			m.update(viewOf("a@1", fmt.Sprintf("b@%d", i)), viewOf("a@1"), true)
			time.Sleep(2 * time.Second)
			if i%2 == 0 {
				m.update(viewOf("a@1"), viewOf("a@1"), true)
				time.Sleep(2 * time.Second)
			}
		}
		m.update(viewOf("a@1"), viewOf("a@1"), true)
		time.Sleep(time.Minute)
		m.want(t)
	})
}

// TestMonitorDataThatChange: data that differ all the time are one difference, though the
// data change.
func TestMonitorDataThatChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMonitored(t)
		for i := range 100 {
			m.update(viewOf(fmt.Sprintf(`a@1 {"load":%d}`, i)), viewOf("a@1"), true)
			time.Sleep(time.Second)
		}
		m.want(t, "5s since 0s: a@1/a metadata")
	})
}

// TestMonitorEqual: endpoints that drain, withheld ones, copies and accepted differences are
// not reported.
func TestMonitorEqual(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMonitored(t)
		m.update(viewOf("a@1", "b@2 drain", "!c@3", `d@4 {"zone":"z"}`), viewOf("~old~a@1", "d@4"), true)
		time.Sleep(time.Minute)
		m.want(t)
		if r := m.report(); len(r.Copies) != 1 || r.Accepted != 1 {
			t.Errorf("the report is %+v", r)
		}
		m.update(viewOf("a@1", "b@2"), viewOf("a@1", "c@3"), true)
		time.Sleep(time.Minute)
		m.want(t, "1m5s since 1m0s: missing b@2; extra c@3")
	})
}

// TestMonitorCoalesces: a set that changes all the time is compared once in a second, and
// its last state is compared.
func TestMonitorCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMonitored(t)
		for range 1000 {
			m.update(viewOf("a@1", "b@2"), viewOf("a@1", "b@2"), true)
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(5 * time.Millisecond) // not at the moment of a comparison
		m.update(viewOf("a@1", "b@2"), viewOf("b@2"), true)
		time.Sleep(time.Minute)
		m.want(t, "16s since 11s: missing a@1")
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.compared < 10 || m.compared > 12 {
			t.Errorf("%d comparisons in 10 seconds", m.compared)
		}
	})
}

// TestMonitorStale: while a registry does not vouch for its endpoints nothing is reported,
// neither as different nor as over.
func TestMonitorStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMonitored(t)
		m.update(viewOf("a@1"), naming.View{}, false)
		time.Sleep(time.Minute)
		m.want(t)
		if m.report() != nil {
			t.Error("a report without a comparison")
		}
		m.update(viewOf("a@1"), viewOf(), true)
		time.Sleep(3 * time.Second)
		m.update(viewOf("a@1"), viewOf(), false)
		time.Sleep(time.Minute)
		m.want(t)
		m.update(viewOf("a@1"), viewOf(), true)
		time.Sleep(time.Minute)
		m.want(t, "2m8s since 2m3s: missing a@1")
		m.update(viewOf(), viewOf(), false)
		time.Sleep(time.Minute)
		m.want(t)
		m.update(viewOf("a@1"), viewOf(), true)
		time.Sleep(time.Minute)
		m.want(t)
		m.update(viewOf("a@1"), viewOf("a@1"), true)
		m.want(t, "5m3s over:")
	})
}

// TestMonitorEnds: the end of the comparison ends a difference.
func TestMonitorEnds(t *testing.T) {
	for name, end := range map[string]func(m *monitored){"end": func(m *monitored) { m.end() }, "close": func(m *monitored) { m.close() }} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMonitored(t)
				m.update(viewOf("a@1"), viewOf(), true)
				time.Sleep(2 * time.Second)
				end(m)
				time.Sleep(time.Minute)
				m.want(t)
				m = newMonitored(t)
				m.update(viewOf("a@1"), viewOf(), true)
				time.Sleep(time.Minute)
				m.want(t, "5s since 0s: missing a@1")
				end(m)
				m.want(t, "1m0s over:")
				end(m)
				time.Sleep(time.Minute)
				m.want(t)
				if m.report() != nil {
					t.Error("a report after the end")
				}
				m.update(viewOf("a@1"), viewOf(), true)
				time.Sleep(time.Minute)
				if name == "end" {
					m.want(t, "2m5s since 2m0s: missing a@1")
				} else {
					m.want(t)
				}
			})
		})
	}
}

// TestMonitorCalls: the functions of the program run without a lock, and close waits for
// them.
func TestMonitorCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *monitor
		running, calls := false, 0
		m = newMonitor("s", time.Second, nil, func(info ParityInfo) {
			if running {
				t.Error("two calls at once")
			}
			running, calls = true, calls+1
			m.update(viewOf("b@2"), viewOf(), true) // must not block
			m.report()
			time.Sleep(time.Second)
			running = false
		})
		m.update(viewOf("a@1"), viewOf(), true)
		time.Sleep(1500 * time.Millisecond)
		m.close()
		m.close()
		if running || calls != 2 {
			t.Errorf("%d calls, one of which still runs: %v", calls, running)
		}
	})
}

// TestMonitorLogs: the log and the hook get the same.
func TestMonitorLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		calls := 0
		j := &Joined{log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))}
		j.opts = Options{Hooks: &Hooks{Parity: func(ParityInfo) { calls++ }}}.withDefaults()
		m := j.newMonitor("s")
		for _, next := range []string{`b@2 {"weight":1}`, "b@2"} {
			m.update(viewOf("b@2"), viewOf(next), true)
			time.Sleep(time.Minute)
		}
		m.close()
		const want = `level=WARN msg="naming: registries differ" service=s missing=0 extra=0 mismatch=1 fields=weight
level=INFO msg="naming: registries agree again" service=s
`
		if log.String() != want || calls != 2 {
			t.Errorf("got %d calls, and\n%s\nwant\n%s", calls, log.String(), want)
		}
	})
}
