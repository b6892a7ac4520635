package resolver_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/resolver"
)

// setReader reads Builder.Watch in a goroutine of its own.
type setReader struct {
	mu    sync.Mutex
	lines []string // guarded by mu
	err   error    // guarded by mu: of the sequence
	pause chan struct{}
}

// read reads the sets of a service until ctx is done. With pause, the reader waits for
// pause before each further set.
func (b *bubble) read(ctx context.Context, service string, pause chan struct{}) *setReader {
	r := &setReader{pause: pause}
	go func() {
		for set, err := range b.builder.Watch(ctx, service) {
			r.add(set, err)
			if r.pause != nil && err == nil {
				<-r.pause
			}
		}
	}()
	return r
}

func (r *setReader) add(set resolver.Set, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var line []string
	for _, e := range set.Endpoints {
		line = append(line, e.Addr)
	}
	switch {
	case err != nil:
		r.err = err
		line = append(line, "end")
	case set.Err != nil:
		line = append(line, set.Err.Error())
	}
	r.lines = append(r.lines, strings.Join(line, " "))
}

// wantSets waits a second, and compares the new sets of r. A want
// that ends in "..." is a prefix.
func (b *bubble) wantSets(r *setReader, want ...string) {
	b.Helper()
	time.Sleep(time.Second) // changes that come close together are collected
	r.mu.Lock()
	defer r.mu.Unlock()
	ok := len(r.lines) == len(want)
	for i := 0; ok && i < len(want); i++ {
		prefix, cut := strings.CutSuffix(want[i], "...")
		ok = r.lines[i] == want[i] || cut && strings.HasPrefix(r.lines[i], prefix)
	}
	if !ok {
		b.Errorf("got %q, want %q", r.lines, want)
	}
	r.lines = nil
}

func TestWatchYieldsWhatAClientCalls(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		r := b.read(ctx, "s", nil)
		b.wantSets(r, `naming: service "s" has no endpoints`)
		apply(b, b.store, "s", at("a:1", "b:1")...)
		b.wantSets(r, "a:1 b:1")
		time.Sleep(time.Second)
		apply(b, b.store, "s", naming.Change{Endpoint: naming.Endpoint{ID: "a:1", Addr: "a:1", Draining: true}})
		b.wantSets(r, "b:1")
		time.Sleep(time.Second)
		apply(b, b.store, "s", naming.Change{Endpoint: naming.Endpoint{ID: "b:1", Addr: "b:1", Metadata: json.RawMessage(`{"zone":"z"}`)}})
		b.wantSets(r, "b:1") // the metadata changed
		b.store.Down(errors.New("down"))
		time.Sleep(24 * time.Hour)
		b.wantSets(r)
		b.store.Up()
		time.Sleep(time.Minute)
		b.wantSets(r)
		apply(b, b.store, "s", naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: "b:1"}})
		b.wantSets(r, "a:1") // the last resort drains
		time.Sleep(time.Second)
		apply(b, b.store, "s", naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: "a:1"}})
		b.wantSets(r, `naming: service "s" has no endpoints`)
		cancel()
		b.wantSets(r, "end")
		if !errors.Is(r.err, context.Canceled) {
			b.Errorf("ended with %v", r.err)
		}
	})
}

func TestWatchBeforeTheFirstAnswer(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		b.store.Silence()
		r := b.read(b.Context(), "s", nil)
		b.wantSets(r)
		time.Sleep(resolver.DefaultFirstAnswerTimeout)
		b.wantSets(r, `naming: service "s" cannot be looked up: no answer...`)
		b.store.Speak()
		apply(b, b.store, "s", at("a:1")...)
		time.Sleep(time.Minute)
		synctest.Wait()
		r.mu.Lock()
		if n := len(r.lines); n == 0 || r.lines[n-1] != "a:1" {
			b.Errorf("got %q in the end, want a:1", r.lines)
		}
		r.lines = nil
		r.mu.Unlock()
		b.client.Close()
		b.wantSets(r, "end")
		if !errors.Is(r.err, naming.ErrClientClosed) {
			b.Errorf("ended with %v", r.err)
		}
		late := b.read(b.Context(), "s", nil)
		b.wantSets(late, "end")
		if !errors.Is(late.err, naming.ErrClientClosed) {
			b.Errorf("ended with %v", late.err)
		}
	})
}

// A ClientConn keeps the target of a closed Client, which a later Watch must not read.
func TestWatchEndsWithTheClient(t *testing.T) {
	for range 20 { // a select takes any of its cases
		inBubble(t, nil, func(b *bubble) {
			apply(b, b.store, "s", at("a:1")...)
			cc := new(clientConn)
			g := build(b, b.builder, cc, "s")
			b.want(cc, "a:1")
			b.client.Close()
			time.Sleep(time.Second)
			r := b.read(b.Context(), "s", nil)
			b.wantSets(r, "end")
			if !errors.Is(r.err, naming.ErrClientClosed) {
				b.Errorf("ended with %v", r.err)
			}
			closing(g, cc)
		})
	}
}

func TestWatchOfASlowReader(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		apply(b, b.store, "s", at("a:1")...)
		pause := make(chan struct{})
		slow, quick := b.read(b.Context(), "s", pause), b.read(b.Context(), "s", nil)
		b.wantSets(slow, "a:1")
		b.wantSets(quick, "a:1")
		for _, addr := range []string{"b:1", "c:1"} {
			time.Sleep(time.Second)
			apply(b, b.store, "s", at(addr)...)
		}
		b.wantSets(quick, "a:1 b:1", "a:1 b:1 c:1")
		b.wantSets(slow)
		pause <- struct{}{}
		b.wantSets(slow, "a:1 b:1 c:1")
		close(pause)
		b.wantSets(slow)
		b.client.Close()
		b.wantSets(quick, "end")
		b.wantSets(slow, "end")
	})
}

func TestWatchLeavesNothing(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		apply(b, b.store, "s", at("a:1")...)
		for set, err := range b.builder.Watch(b.Context(), "") {
			if !errors.Is(err, naming.ErrInvalid) || set.Endpoints != nil {
				b.Errorf("got %v, %v", set, err)
			}
		}
		seq := b.builder.Watch(b.Context(), "s")
		for range 2 {
			calls := b.store.Calls()
			for set, err := range seq {
				if err != nil || len(set.Endpoints) != 1 {
					b.Errorf("got %v, %v", set, err)
				}
				set.Endpoints[0].Addr = "" // the slice is ours
				break
			}
			// The Client keeps the watch for an hour, and only if nobody reads it longer.
			time.Sleep(2 * time.Hour)
			if b.store.Calls() == calls {
				b.Error("the watch of the loop before goes on")
			}
		}
	})
}
