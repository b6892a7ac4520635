package resolver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
)

// nested returns metadata of n levels.
func nested(n int) []byte {
	return []byte(strings.Repeat("[", n) + strings.Repeat("]", n))
}

// scriptedProgram is a program whose Builder follows a script.
func scriptedProgram(t *testing.T, s *script, dir string) *program {
	t.Helper()
	p := &program{t: t, log: new(log), logged: new(bytes.Buffer), client: naming.New(nil, nil)}
	logger := slog.New(slog.NewTextHandler(lockedWriter{p}, nil))
	p.builder = NewBuilder(nil, &Options{CacheDir: dir, Logger: logger})
	p.builder.follow = scripted(s).follow
	p.build()
	return p
}

// TestFieldK1OneEntrySpoilsNothing: an endpoint that could not be read back is
// left out of the file, and all others are in it.
func TestFieldK1OneEntrySpoilsNothing(t *testing.T) {
	text := func(n int) string { return strings.Repeat("x", n) }
	for _, bad := range []struct {
		name string
		e    naming.Endpoint
	}{
		{"metadata of 9,998 brackets", naming.Endpoint{ID: "b", Addr: "b:1", Metadata: nested(9_998)}},
		{"metadata of 9,999 brackets", naming.Endpoint{ID: "b", Addr: "b:1", Metadata: nested(9_999)}},
		{"metadata of 100,000 brackets", naming.Endpoint{ID: "b", Addr: "b:1", Metadata: nested(100_000)}},
		{"metadata just too deep", naming.Endpoint{ID: "b", Addr: "b:1", Metadata: nested(naming.MaxDepth + 1)}},
		{"metadata that is too large", naming.Endpoint{ID: "b", Addr: "b:1", Metadata: []byte(`"` + text(naming.MaxMetadata) + `"`)}},
		{"metadata that is not JSON", naming.Endpoint{ID: "b", Addr: "b:1", Metadata: []byte(`{`)}},
		{"an ID that is not UTF-8", naming.Endpoint{ID: "b\xff", Addr: "b:1"}},
		{"an ID that is too long", naming.Endpoint{ID: "b" + text(naming.MaxID), Addr: "b:1"}},
		{"no ID", naming.Endpoint{Addr: "b:1"}},
		{"an address that is not UTF-8", naming.Endpoint{ID: "b", Addr: "b:1\xff"}},
		{"an address that does not print", naming.Endpoint{ID: "b", Addr: "b:1\x1b"}},
		{"an address that is too long", naming.Endpoint{ID: "b", Addr: text(naming.MaxAddr + 1)}},
	} {
		t.Run(bad.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "cache")
			synctest.Test(t, func(t *testing.T) {
				put := []naming.Endpoint{{ID: "a", Addr: "a:1"}, bad.e, {ID: "c", Addr: "c:1"}}
				if bad.e.ID == "" {
					put[0], put[1] = put[1], put[0]
				}
				s := new(script)
				p := scriptedProgram(t, s, dir)
				s.play(naming.Event{Batch: naming.Batch{Snapshot: true, Put: put}, Status: naming.Status{Synced: true}})
				p.wantSaved("a c")
				p.wantLog("left out of what was saved")
				// Logged once, and not at every change.
				time.Sleep(time.Minute)
				s.play(naming.Event{Batch: naming.Batch{Put: endpoints("d")}, Status: naming.Status{Synced: true}})
				time.Sleep(time.Minute)
				p.wantSaved("a c d")
				p.wantLog()
				p.stop()
				// A cold start has all others.
				s = new(script)
				p = scriptedProgram(t, s, dir)
				p.log.lines = nil
				s.play(naming.Event{Status: naming.Status{Err: errors.New("down")}})
				p.log.want(t, "cached a:1 c:1 d")
				p.stop()
			})
		})
	}
}

// TestFieldK1ReadsAroundABadEntry: of a file that another version wrote, only the entries
// are left out that cannot be decoded.
func TestFieldK1ReadsAroundABadEntry(t *testing.T) {
	for _, bad := range []string{
		`{"ID":5,"Addr":"b"}`, `{"ID":"b"}`, `{"Addr":"b"}`, `null`, `7`, `[]`, `{"ID":"b","Addr":"b\u0000"}`,
		`{"ID":"b","Addr":"b","Metadata":` + string(nested(naming.MaxDepth+1)) + `}`,
		`{"ID":"b","Addr":"b","Draining":"perhaps"}`,
	} {
		set, left, err := decodeCache("s", sealed(`{"Service":"s","Endpoints":[{"ID":"a","Addr":"a","New":1},`+bad+`,{"ID":"c","Addr":"c","Metadata":null}]}`))
		if err != nil || len(left) != 1 || len(set.endpoints) != 2 || set.endpoints[0].ID != "a" || set.endpoints[1].ID != "c" {
			t.Errorf("%.40s: got %v, %v, %v; want the two others", bad, set, left, err)
		}
	}
	// An endpoint that is both usable and withheld counts as withheld.
	set, _, err := decodeCache("s", sealed(`{"Service":"s","Endpoints":[{"ID":"a","Addr":"a"},{"ID":"b","Addr":"b"}],"Withheld":[{"ID":"b","Addr":"b","Reason":77}]}`))
	if err != nil || len(set.endpoints) != 1 || len(set.withheld) != 1 {
		t.Errorf("an endpoint that is withheld as well: %v, %v", set, err)
	}
}

// TestFieldK1TheLargestAreLeftOut: a set that is too large for a file is saved without its
// largest endpoints.
func TestFieldK1TheLargestAreLeftOut(t *testing.T) {
	list := func(sizes ...int) (l []json.RawMessage) {
		for _, n := range sizes {
			l = append(l, bytes.Repeat([]byte("x"), n))
		}
		return l
	}
	sizes := func(l []json.RawMessage) (sizes []int) {
		for _, e := range l {
			sizes = append(sizes, len(e))
		}
		return sizes
	}
	for _, c := range []struct {
		room int
		want string
	}{
		{1000, "[9 3 7] [5 1]"}, {30, "[9 3 7] [5 1]"}, {29, "[3 7] [5 1]"}, {20, "[3 7] [5 1]"}, {19, "[3] [5 1]"}, {11, "[3] [1]"}, {5, "[] [1]"}, {1, "[] []"},
	} {
		a, b := fit(c.room, list(9, 3, 7), list(5, 1))
		if got := fmt.Sprint(sizes(a), sizes(b)); got != c.want {
			t.Errorf("room for %d: kept %s, want %s", c.room, got, c.want)
		}
	}
}

// TestFieldK2NoFileIsReadForItsSize: to read or replace a sparse file of 40 GB, or a file
// of the largest size that is not a cache, allocates next to nothing.
func TestFieldK2NoFileIsReadForItsSize(t *testing.T) {
	for _, f := range []struct {
		size  int64
		begin string
	}{{40 << 30, ""}, {40 << 30, cacheMagic}, {maxCacheFile + 1, cacheMagic}, {maxCacheFile, ""}} {
		c := testCache(t)
		good := encode(t, "s", someEndpoints...)
		if err := c.save("s", good); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(c.path("s"), []byte(f.begin), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(c.path("s"), f.size); err != nil {
			t.Fatal(err)
		}
		got := allocated(func() {
			if set, _, _, err := c.load("s"); err == nil {
				t.Errorf("loaded %v", set)
			}
			s := &saver{cache: c, service: "s"}
			if _, _, err := s.save(contentsOf(someEndpoints...), [32]byte{}); err != nil {
				t.Error(err)
			}
		})
		if got > 1<<20 {
			t.Errorf("a file of %d bytes: allocated %d", f.size, got)
		}
		if set, _, _, err := c.load("s"); err != nil || len(set.endpoints) != len(someEndpoints) {
			t.Errorf("after the next save: %v, %v", set, err)
		}
	}
}

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// contentsOf returns the contents of a set of endpoints.
func contentsOf(endpoints ...naming.Endpoint) *contents {
	c := new(contents)
	for _, e := range endpoints {
		c.active = append(c.active, made(e))
	}
	return c
}

// TestFieldR1NotDatedByAReadThatProvedNothing: a snapshot of a watch that failed
// before is not saved, and does not touch the file, until the watch is healthy.
func TestFieldR1NotDatedByAReadThatProvedNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	synctest.Test(t, func(t *testing.T) {
		s := new(script)
		p := scriptedProgram(t, s, dir)
		stale := naming.Status{Synced: true, StaleSince: time.Now(), Err: errors.New("the watch failed")}
		s.play(naming.Event{Batch: naming.Batch{Snapshot: true, Put: endpoints("a")}, Status: stale})
		p.wantSaved("nothing")
		s.play(naming.Event{Batch: naming.Batch{Put: endpoints("b")}, Status: stale})
		time.Sleep(time.Hour)
		p.wantSaved("nothing")
		s.play(naming.Event{Status: naming.Status{Synced: true}})
		time.Sleep(time.Minute)
		p.wantSaved("a b")
		at := modified(t, p)
		for range 100 {
			time.Sleep(time.Hour)
			stale.AsOf = time.Now()
			s.play(naming.Event{Status: stale})
		}
		if got := modified(t, p); got.Sub(at) > 4*time.Hour {
			t.Errorf("touched %v after the watch failed", got.Sub(at))
		}
		p.stop()
	})
}

// TestFieldW1WhatTheCacheKeeps: a cold start calls nothing that was withheld when
// the set was saved, and knows which endpoints drain.
func TestFieldW1WhatTheCacheKeeps(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	synced := naming.Status{Synced: true}
	down := naming.Event{Status: naming.Status{Err: errors.New("down")}}
	synctest.Test(t, func(t *testing.T) {
		s := new(script)
		p := scriptedProgram(t, s, dir)
		drains := naming.Endpoint{ID: "d", Addr: "d", Draining: true}
		s.play(naming.Event{Batch: naming.Batch{Snapshot: true, Put: append(endpoints("a", "b"), drains)}, Status: synced})
		p.log.want(t, "state a b")
		p.wantSaved("a b d")
		time.Sleep(time.Minute)
		s.play(naming.Event{Batch: naming.Batch{Withheld: withheld(naming.Maintenance, "a")}, Status: synced})
		p.log.want(t, "state b")
		p.wantSaved("b d -a")
		p.stop()

		s = new(script)
		p = scriptedProgram(t, s, dir)
		s.play(down)
		p.log.want(t, "cached b")
		p.wantLog("withheld=1")
		p.stop()

		// All endpoints are withheld: the older file must not bring them back.
		s = new(script)
		p = scriptedProgram(t, s, dir)
		s.play(naming.Event{Batch: naming.Batch{Snapshot: true, Withheld: append(withheld(naming.Maintenance, "a"), withheld(naming.FailedCheck, "b")...)}, Status: synced})
		p.wantSaved("-a -b")
		p.stop()
		s = new(script)
		p = scriptedProgram(t, s, dir)
		s.play(down)
		synctest.Wait()
		s.play(down)
		const text = `error naming: service "x" cannot be looked up: down`
		p.log.want(t, text, text)
		time.Sleep(time.Hour)
		p.log.want(t)
		p.stop()

		// The threshold applies to a saved set as well.
		s = new(script)
		p = &program{t: t, log: new(log), logged: new(bytes.Buffer), client: naming.New(nil, nil)}
		p.builder = NewBuilder(nil, &Options{CacheDir: dir, PanicThreshold: 0.5, Logger: slog.New(slog.DiscardHandler)})
		p.builder.follow = scripted(s).follow
		p.build()
		s.play(down)
		p.log.want(t, "cached b")
		p.stop()
	})
}

// withheld returns endpoints that the registry withholds.
func withheld(reason naming.Reason, addrs ...string) (list []naming.Withheld) {
	for _, e := range endpoints(addrs...) {
		list = append(list, naming.Withheld{Endpoint: e, Reason: reason})
	}
	return list
}

// TestCacheMaxAgeIsNoPace: a tiny CacheMaxAge does not make the saver touch the file all
// the time. The time of the bubble would stand still.
func TestCacheMaxAgeIsNoPace(t *testing.T) {
	c := testCache(t)
	c.maxAge = 1
	synctest.Test(t, func(t *testing.T) {
		s := &saver{cache: c, service: "s"}
		s.update(true, true, contentsOf(someEndpoints...))
		time.Sleep(10 * time.Second)
		s.close()
		synctest.Wait()
	})
}

// TestFieldR4TheCacheLogsUnderNoLock: the logger is called without the saver's lock.
func TestFieldR4TheCacheLogsUnderNoLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var s *saver
		logged := false
		h := slog.NewTextHandler(writer(func(b []byte) {
			s.plan.Lock()
			logged = true
			s.plan.Unlock()
		}), nil)
		s = &saver{cache: &cache{dir: dir, maxAge: time.Hour, log: slog.New(h)}, service: "s"}
		s.update(true, true, contentsOf(someEndpoints...))
		synctest.Wait()
		s.close()
		synctest.Wait()
		if !logged {
			t.Error("nothing was logged")
		}
	})
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) {
	w(b)
	return len(b), nil
}
