package naming_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
)

// fakeComposite gives out feeds that a test fills.
type fakeComposite struct {
	mu     sync.Mutex
	feeds  []*fakeFeed
	err    error // of Follow
	closed int
}

func (c *fakeComposite) Follow(service string, wake func()) (naming.Feed, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	f := &fakeFeed{service: service, wake: wake}
	c.feeds = append(c.feeds, f)
	return f, nil
}

func (c *fakeComposite) List(context.Context, string) (naming.View, error) {
	return naming.View{Service: "svc"}, io.ErrUnexpectedEOF
}

func (c *fakeComposite) Apply(context.Context, string, []naming.Change) error {
	return io.ErrNoProgress
}

func (c *fakeComposite) Announce(string, naming.Endpoint, naming.RegisterOptions) (naming.Announcement, error) {
	return nil, io.ErrClosedPipe
}

func (c *fakeComposite) Close() {
	runtime.Gosched() // so that a Close that does not wait is found
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed++
}

// last returns the newest feed, and how many there are.
func (c *fakeComposite) last() (*fakeFeed, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.feeds[len(c.feeds)-1], len(c.feeds)
}

// fakeFeed returns the events that a test sends.
type fakeFeed struct {
	service string
	wake    func()

	mu              sync.Mutex
	events          []naming.Event
	retries, closed int
}

func (f *fakeFeed) Next() (naming.Event, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.events) == 0 {
		return naming.Event{}, false
	}
	e := f.events[0]
	f.events = f.events[1:]
	return e, true
}

func (f *fakeFeed) send(events ...naming.Event) {
	f.mu.Lock()
	f.events = append(f.events, events...)
	f.mu.Unlock()
	f.wake()
	synctest.Wait()
}

func (f *fakeFeed) Retry() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.retries++
}

func (f *fakeFeed) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed++
}

// snapshotOf returns an event of endpoints whose IDs are their addresses.
func snapshotOf(addrs ...string) naming.Event {
	e := changesOf(addrs...)
	e.Snapshot = true
	return e
}

func changesOf(addrs ...string) (e naming.Event) {
	e.Status = naming.Status{Synced: true, AsOf: time.Now()}
	for _, addr := range addrs {
		e.Put = append(e.Put, naming.Endpoint{ID: addr, Addr: addr})
	}
	return e
}

func staleSince(e naming.Event, since time.Time) naming.Event {
	e.Status.StaleSince, e.Status.Err = since, io.EOF
	return e
}

// onComposite runs a test in a bubble with a Follower of a Client on a fakeComposite.
func onComposite(t *testing.T, opts naming.Options, test func(c *fakeComposite, client *naming.Client, f *naming.Follower)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		if opts.Logger == nil {
			opts.Logger = slog.New(slog.DiscardHandler)
		}
		c := new(fakeComposite)
		client := naming.NewComposite(c, &opts)
		defer client.Close()
		f, err := client.Follow("svc", func() {})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		test(c, client, f)
	})
}

// TestFeed follows a Feed: a set, changes, staleness, and the end.
func TestFeed(t *testing.T) {
	var stale []bool
	hooks := &naming.Hooks{Stale: func(i naming.StaleInfo) { stale = append(stale, !i.Since.IsZero()) }}
	var client *naming.Client
	onComposite(t, naming.Options{Hooks: hooks, IdleGrace: -1}, func(c *fakeComposite, cl *naming.Client, f *naming.Follower) {
		client = cl
		feed, _ := c.last()
		if feed.service != "svc" {
			t.Errorf("the feed is of %q", feed.service)
		}
		begun := time.Now()
		feed.send(naming.Event{Status: naming.Status{StaleSince: begun, Err: io.EOF}})
		expectEvent(t, f, "synced=false err=EOF")
		feed.send(snapshotOf("a:1", "b:1"))
		expectEvent(t, f, "snapshot put=[a:1 b:1] synced=true")
		feed.send(changesOf("c:1"))
		e := naming.Event{Status: naming.Status{Synced: true}}
		e.Deleted = []string{"a:1"}
		feed.send(e)
		expectEvent(t, f, "put=[c:1] deleted=[a:1] synced=true")
		feed.send(staleSince(changesOf(), time.Now()))
		expectEvent(t, f, "synced=true err=EOF")
		sides := changesOf()
		sides.Status.Sides = []naming.SideStatus{{Name: "old", Used: true}}
		feed.send(sides)
		got, _ := f.Next()
		if len(got.Status.Sides) != 1 || got.Status.Sides[0].Name != "old" {
			t.Errorf("status of the registries: %v", got.Status.Sides)
		}
		f.Retry()
		f.Close()
		synctest.Wait()
		if feed.retries != 1 || feed.closed == 0 {
			t.Errorf("the feed got %d Retry and %d Close, want 1 and at least 1", feed.retries, feed.closed)
		}
	})
	client.Close()
	if fmt.Sprint(stale) != "[true false true false]" {
		t.Errorf("calls of the hook Stale: %v", stale)
	}
}

// expectEvent checks the next event of a Follower. With an empty want, nothing is new.
func expectEvent(t *testing.T, f *naming.Follower, want string) {
	t.Helper()
	e, ok := f.Next()
	got := ""
	if ok {
		got = eventText(e)
	}
	if got != want {
		t.Errorf("Next returned %q, want %q", got, want)
	}
}

func eventText(e naming.Event) string {
	var parts []string
	if e.Snapshot {
		parts = append(parts, "snapshot")
	}
	var put []string
	for _, p := range e.Put {
		put = append(put, p.ID)
	}
	if len(put) > 0 {
		parts = append(parts, fmt.Sprintf("put=%v", put))
	}
	if len(e.Deleted) > 0 {
		parts = append(parts, fmt.Sprintf("deleted=%v", e.Deleted))
	}
	parts = append(parts, fmt.Sprintf("synced=%v", e.Status.Synced))
	if e.Status.Err != nil {
		parts = append(parts, "err="+e.Status.Err.Error())
	}
	return strings.Join(parts, " ")
}

// TestFeedBreaksContract sends events that a Feed must not return. The set stays as it was
// and is stale, and a new Feed repairs it.
func TestFeedBreaksContract(t *testing.T) {
	twice := changesOf("x:1", "x:1")
	early := snapshotOf("x:1")
	early.Status.Synced = false
	deletion := snapshotOf("x:1")
	deletion.Deleted = []string{"a:1"}
	many := changesOf()
	many.Put = make([]naming.Endpoint, naming.MaxEndpoints)
	for i := range many.Put {
		many.Put[i] = naming.Endpoint{ID: fmt.Sprintf("%06d", i), Addr: "x:1"}
	}
	nameless := changesOf()
	nameless.Put = []naming.Endpoint{{Addr: "x:1"}}
	for name, bad := range map[string]naming.Event{
		"an ID twice": twice, "endpoints before the set": early, "a snapshot with a deletion": deletion,
		"too many endpoints": many, "an endpoint without an ID": nameless,
	} {
		t.Run(name, func(t *testing.T) {
			onComposite(t, naming.Options{}, func(c *fakeComposite, _ *naming.Client, f *naming.Follower) {
				feed, _ := c.last()
				feed.send(snapshotOf("a:1"))
				expectEvent(t, f, "snapshot put=[a:1] synced=true")
				feed.send(bad, changesOf("lost:1"))
				v, _, _ := f.Current()
				if len(v.Endpoints) != 1 || !v.Stale() || !v.Synced {
					t.Errorf("%d endpoints, stale=%v; want the set of before, stale", len(v.Endpoints), v.Stale())
				}
				time.Sleep(time.Minute)
				again, n := c.last()
				if n != 2 || feed.closed != 1 {
					t.Fatalf("%d feeds, the first was closed %d times; want a second feed", n, feed.closed)
				}
				again.send(naming.Event{}, snapshotOf("a:1", "lost:1"))
				if v, _, _ := f.Current(); len(v.Endpoints) != 2 || v.Stale() {
					t.Errorf("%d endpoints, stale=%v; want 2, fresh", len(v.Endpoints), v.Stale())
				}
			})
		})
	}
}

// TestFeedWithoutSnapshot sends changes before a snapshot, for ever. The Client waits
// longer and longer for the next Feed.
func TestFeedWithoutSnapshot(t *testing.T) {
	onComposite(t, naming.Options{}, func(c *fakeComposite, _ *naming.Client, f *naming.Follower) {
		for range 60 {
			feed, _ := c.last()
			feed.send(changesOf("a:1"))
			time.Sleep(10 * time.Second)
		}
		if _, n := c.last(); n < 3 || n > 60 {
			t.Errorf("%d feeds in ten minutes", n)
		}
		if v, _, _ := f.Current(); v.Synced || v.Err == nil {
			t.Errorf("status %+v, want an error", v.Status)
		}
		time.Sleep(time.Minute) // the longest wait for the next Feed is shorter
		feed, _ := c.last()
		feed.send(snapshotOf("a:1"))
		if v, _, _ := f.Current(); !v.Synced || v.Stale() {
			t.Errorf("status %+v, want a fresh set", v.Status)
		}
	})
}

// TestFeedHold loses all endpoints at once through a Feed: the Client holds them.
func TestFeedHold(t *testing.T) {
	onComposite(t, naming.Options{}, func(c *fakeComposite, _ *naming.Client, f *naming.Follower) {
		feed, _ := c.last()
		feed.send(snapshotOf("a:1", "b:1"))
		gone := changesOf()
		gone.Deleted = []string{"a:1", "b:1"}
		gone.Status.Held = []naming.Endpoint{{ID: "of the feed"}}
		feed.send(gone)
		if v, _, _ := f.Current(); len(v.Held) != 2 || len(v.Endpoints) != 0 {
			t.Errorf("%d endpoints, %d held; want 2 held", len(v.Endpoints), len(v.Held))
		}
	})
}

// TestCompositeClient checks the methods that a Composite has: their errors come through.
// A Follow that fails is retried. Close closes the Composite once, and every Close waits.
func TestCompositeClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeComposite{err: io.ErrShortBuffer}
		client := naming.NewComposite(c, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
		if v, err := client.List(t.Context(), "svc"); !errors.Is(err, io.ErrUnexpectedEOF) || v.Service != "" {
			t.Errorf("List returned %v, %v", v, err)
		}
		if err := client.Update(t.Context(), "svc", naming.Update{Addr: "a:1"}); !errors.Is(err, io.ErrNoProgress) {
			t.Errorf("Update returned %v", err)
		}
		if _, err := client.Register(t.Context(), "svc", naming.Endpoint{Addr: "a:1"}, nil); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("Register returned %v", err)
		}
		f, err := client.FollowServices(func() {})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if v, _, _ := f.Current(); !errors.Is(v.Err, io.ErrShortBuffer) {
			t.Errorf("the status has the error %v", v.Err)
		}
		c.mu.Lock()
		c.err = nil
		c.mu.Unlock()
		time.Sleep(time.Minute)
		feed, _ := c.last()
		feed.send(snapshotOf("svc"))
		expectEvent(t, f, "snapshot put=[svc] synced=true")
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				client.Close()
				c.mu.Lock()
				defer c.mu.Unlock()
				if c.closed != 1 {
					t.Errorf("after Close, the Composite was closed %d times", c.closed)
				}
			})
		}
		wg.Wait()
	})
}

// TestCurrent interleaves Current and Next, with a slow reader whose chain was swept.
func TestCurrent(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		f, err := c.Follow("svc", func() {})
		if err != nil {
			t.Fatal(err)
		}
		expectCurrent(t, f, 0, false)
		put(t, s, "svc", "a a:1", "b b:1")
		synctest.Wait()
		expectCurrent(t, f, 2, true)
		expectCurrent(t, f, 2, false)
		expectEvent(t, f, "")
		put(t, s, "svc", "c c:1")
		synctest.Wait()
		expectEvent(t, f, "put=[c] synced=true")
		expectCurrent(t, f, 3, false)
		for i := range 1000 { // far more changes than endpoints: the chain is swept
			put(t, s, "svc", fmt.Sprintf("d d:1 %d", i))
			synctest.Wait()
		}
		expectCurrent(t, f, 4, true)
		expectEvent(t, f, "")
		remove(t, s, "svc", "d")
		synctest.Wait()
		expectEvent(t, f, "deleted=[d] synced=true")
		s.Down(io.EOF)
		synctest.Wait()
		expectCurrent(t, f, 3, true)
		f.Close()
		expectCurrent(t, f, 0, false)
	})
}

func expectCurrent(t *testing.T, f *naming.Follower, n int, changed bool) {
	t.Helper()
	v, _, is := f.Current()
	if len(v.Endpoints) != n || is != changed {
		t.Errorf("Current returned %d endpoints, %v; want %d, %v", len(v.Endpoints), is, n, changed)
	}
}

// TestFollowServices follows the list of services.
func TestFollowServices(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		put(t, s, "a", "x x:1")
		f, err := c.FollowServices(func() {})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		expectEvent(t, f, "snapshot put=[a] synced=true")
		put(t, s, "b", "x x:1")
		remove(t, s, "a", "x")
		synctest.Wait()
		expectEvent(t, f, "put=[b] deleted=[a] synced=true")
		f.Close()
		c.Close()
		if _, err := c.FollowServices(func() {}); !errors.Is(err, naming.ErrClientClosed) {
			t.Errorf("after Close, FollowServices returned %v", err)
		}
		if _, err := naming.New(nil, nil).FollowServices(func() {}); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("without a Store, FollowServices returned %v", err)
		}
	})
}
