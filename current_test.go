package naming_test

import (
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
)

// TestCurrentLive: after a failure, Current says that the set follows the registry as soon
// as a watch has delivered its snapshot, although the set is stale until that watch has
// proved itself. Current reports each change of that, also when readers have no event.
func TestCurrentLive(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		put(t, s, "svc", "a:1")
		var woken atomic.Bool
		f, err := c.Follow("svc", func() { woken.Store(true) })
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		check := func(when string, wantLive, wantStale bool) {
			t.Helper()
			synctest.Wait()
			v, live, changed := f.Current()
			if live != wantLive || v.Stale() != wantStale || !changed || !woken.Load() {
				t.Errorf("%s: live %v, stale %v, changed %v, woken %v", when, live, v.Stale(), changed, woken.Load())
			}
			if _, _, changed := f.Current(); changed {
				t.Errorf("%s: a change was reported twice", when)
			}
			woken.Store(false)
		}
		woken.Store(true) // the set may have been known already
		check("at first", true, false)
		s.Down(io.ErrUnexpectedEOF)
		check("in an outage", false, true)
		time.Sleep(time.Minute)
		s.Up()
		f.Retry()
		time.Sleep(2 * time.Second)
		check("after the outage", true, true)
		s.Down(io.ErrUnexpectedEOF)
		check("in the next outage", false, true)
		s.Up()
		time.Sleep(2 * time.Minute)
		check("in the end", true, false)
	})
}
