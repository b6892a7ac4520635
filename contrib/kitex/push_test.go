package kitexnaming

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming/backend/memory"
)

// TestPush checks that each change is pushed once, and that a push which blocks delays
// nothing else.
func TestPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory.Store{}
		put(t, store, "a:1")
		r := newTestResolver(t, newClient(t, store))
		pushed := make(chan string, 10)
		blocked := make(chan struct{})
		r.push = func(service string) {
			pushed <- addrs(r, service)
			<-blocked
		}
		addrs(r, greeter)
		time.Sleep(time.Second)
		if len(pushed) != 0 {
			t.Errorf("the first answer was pushed: %q", <-pushed)
		}
		for i := range 5 {
			put(t, store, fmt.Sprint("b:", i+1))
			time.Sleep(time.Second)
			if got, want := len(addrs(r, greeter)), 3+4*(i+1); got != want {
				t.Errorf("while a push blocks: %q", addrs(r, greeter))
			}
		}
		close(blocked)
		time.Sleep(time.Second)
		for _, want := range []string{"a:1 b:1", "a:1 b:1 b:2 b:3 b:4 b:5"} {
			if got := <-pushed; got != want {
				t.Errorf("pushed: %q, want %q", got, want)
			}
		}
		if len(pushed) != 0 {
			t.Errorf("pushed as well: %q", <-pushed)
		}
	})
}

// fakeCache does what kitex's package lbcache does with one service: a balancer resolves
// every five seconds, until no call came for 30 seconds.
type fakeCache struct {
	r *clientResolver

	mu     sync.Mutex
	until  time.Time // guarded by mu: the end of the balancer
	pushes int       // guarded by mu
}

// push is a push of the Resolver.
func (f *fakeCache) push(service string) {
	if f.exists() {
		addrs(f.r, service)
		return
	}
	_, _ = f.r.Resolve(context.WithValue(context.Background(), pushKey{}, true), service)
	f.run(30 * time.Second)
	addrs(f.r, service)
}

// exists counts a push, and reports whether there is a balancer.
func (f *fakeCache) exists() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pushes++
	return time.Now().Before(f.until)
}

// run makes a balancer that lasts for d.
func (f *fakeCache) run(d time.Duration) {
	f.mu.Lock()
	f.until = time.Now().Add(d)
	f.mu.Unlock()
	go func() {
		for began := time.Now(); time.Since(began) < d; time.Sleep(5 * time.Second) {
			addrs(f.r, greeter)
		}
	}()
}

// TestPushKeepsNoWatch checks that pushes do not keep a service watched for ever, though
// kitex makes a balancer for a push if it has none.
func TestPushKeepsNoWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory.Store{}
		put(t, store, "a:1")
		r := newTestResolver(t, newClient(t, store))
		kitex := &fakeCache{r: r}
		r.push = kitex.push
		change := func(d time.Duration) {
			for began := time.Now(); time.Since(began) < d; time.Sleep(time.Second) {
				put(t, store, fmt.Sprint("b:", 1+time.Now().Unix()%60000))
			}
		}
		addrs(r, greeter)
		kitex.run(10 * time.Minute)
		change(10 * time.Minute)
		kitex.mu.Lock()
		if kitex.pushes < 9*60 {
			t.Errorf("%d pushes in ten minutes of use with a change each second", kitex.pushes)
		}
		kitex.mu.Unlock()
		change(3 * time.Minute)
		if left := watched(r); len(left) != 0 {
			t.Errorf("watched three minutes after the last use: %q", left)
		}
	})
}
