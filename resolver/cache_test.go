package resolver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
)

var someEndpoints = []naming.Endpoint{
	{ID: "1", Addr: "10.0.0.1:9000"},
	{ID: "2", Addr: "[::1]:9000", Metadata: json.RawMessage(`{"weight":2,"zone":"<&>"}`)},
	{ID: "größe", Addr: "unix:/a b", Metadata: json.RawMessage(`null`)},
}

func testCache(t *testing.T) *cache {
	return &cache{dir: filepath.Join(t.TempDir(), "new"), maxAge: time.Hour, log: slog.New(slog.DiscardHandler)}
}

func encode(t testing.TB, service string, endpoints ...naming.Endpoint) []byte {
	t.Helper()
	data, left, err := encodeCache(service, savedSet{endpoints: endpoints})
	if err != nil || left != nil {
		t.Fatal(left, err)
	}
	return data
}

func TestCacheRoundTrip(t *testing.T) {
	c := testCache(t)
	if _, _, _, err := c.load("s"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("load of nothing: %v", err)
	}
	before := time.Now()
	if err := c.save("s", encode(t, "s", someEndpoints...)); err != nil {
		t.Fatal(err)
	}
	set, at, left, err := c.load("s")
	if err != nil || left != nil {
		t.Fatal(left, err)
	}
	got := set.endpoints
	if len(got) != len(someEndpoints) {
		t.Fatalf("got %v, want %v", got, someEndpoints)
	}
	for i := range got {
		if !got[i].Equal(someEndpoints[i]) {
			t.Errorf("got %v, want %v", got[i], someEndpoints[i])
		}
	}
	if at.Before(before.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
		t.Errorf("vouched for at %v, want now", at)
	}
	for path, want := range map[string]fs.FileMode{c.dir: 0o700, c.path("s"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, error %v, want %v", path, info.Mode(), err, want)
		}
	}
	if files, _ := os.ReadDir(c.dir); len(files) != 1 {
		t.Errorf("%d files, want 1", len(files))
	}
}

// TestCacheKeepsTheBytesOfMetadata: metadata is not escaped for HTML. A file of a version
// that escaped metadata can be read.
func TestCacheKeepsTheBytesOfMetadata(t *testing.T) {
	const metadata = `{"zone":"<&>\u2028"}`
	want := naming.Endpoint{ID: "a", Addr: "a:1", Metadata: json.RawMessage(metadata)}
	file := encode(t, "s", want)
	if !bytes.Contains(file, []byte(metadata)) {
		t.Errorf("the file is %q, want %s in it", file, metadata)
	}
	set, left, err := decodeCache("s", file)
	if err != nil || left != nil || len(set.endpoints) != 1 || string(set.endpoints[0].Metadata) != metadata {
		t.Errorf("got %v, %v, %v, want metadata %s", set, left, err, metadata)
	}
	old := sealed(`{"Service":"s","Endpoints":[{"ID":"a","Addr":"a:1","Metadata":{"zone":"\u003c\u0026\u003e\u2028"}}]}`)
	set, left, err = decodeCache("s", old)
	if err != nil || left != nil || len(set.endpoints) != 1 || !set.endpoints[0].Equal(want) {
		t.Errorf("an old file: got %v, %v, %v, want %v", set, left, err, want)
	}
}

func TestCacheFileNames(t *testing.T) {
	c := &cache{dir: "/var/cache/naming"}
	seen := make(map[string]string)
	for _, service := range []string{
		"a", "A", "a/b", "a_b", "a b", "ab", "..", "../../etc/passwd", ".", "/", "//", "\x00", "con", "CON.txt", "nul", "ä", "a\u0308",
		strings.Repeat("x", 10_000), strings.Repeat("x", 9_999) + "y", strings.Repeat("ü", 300), "naming:///a", `C:\x`, "-rf", ".cache",
	} {
		path := c.path(service)
		if filepath.Dir(path) != c.dir || len(filepath.Base(path)) > 100 {
			t.Errorf("%.50q is kept in %s", service, path)
		}
		if strings.Trim(filepath.Base(path), "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
			t.Errorf("%.50q is kept in %s", service, path)
		}
		if other, ok := seen[strings.ToLower(path)]; ok {
			t.Errorf("%.50q and %.50q are both kept in %s", service, other, path)
		}
		seen[strings.ToLower(path)] = service
	}
	if got, want := c.path("shop/Greeter"), "/var/cache/naming/shop_greeter-"; !strings.HasPrefix(got, want) {
		t.Errorf("got %s, want a name that people recognize: %s...", got, want)
	}
}

// sealed returns content with the right checksum.
func sealed(content string) []byte {
	sum := sha256.Sum256([]byte(content))
	return []byte(cacheMagic + hex.EncodeToString(sum[:]) + "\n" + content)
}

func TestCacheDamage(t *testing.T) {
	good := encode(t, "s", someEndpoints...)
	c := testCache(t)
	check := func(name string, data []byte) {
		t.Helper()
		if err := c.save("s", data); err != nil {
			t.Fatal(err)
		}
		if got, _, _, err := c.load("s"); err == nil {
			t.Errorf("%s: loaded %v", name, got)
		}
	}
	for n := range good {
		if got, _, err := decodeCache("s", good[:n]); err == nil {
			t.Errorf("decoded the first %d bytes to %v", n, got)
		}
		bad := bytes.Clone(good)
		bad[n] ^= 1
		if got, _, err := decodeCache("s", bad); err == nil {
			t.Errorf("decoded to %v with byte %d changed", got, n)
		}
	}
	check("more at the end", append(bytes.Clone(good), '\n'))
	check("another version", bytes.Replace(good, []byte("endpoints 1"), []byte("endpoints 2"), 1))
	check("another service", encode(t, "S", someEndpoints...))
	check("no endpoints", encode(t, "s"))
	check("nothing", nil)
	check("no address", sealed(`{"Service":"s","Endpoints":[{"ID":"a"}]}`))
	check("no ID", sealed(`{"Service":"s","Endpoints":[{"Addr":"a"}]}`))
	check("an ID twice", sealed(`{"Service":"s","Endpoints":[{"ID":"a","Addr":"a"},{"ID":"a","Addr":"b"}]}`))
	check("not sorted", sealed(`{"Service":"s","Endpoints":[{"ID":"b","Addr":"a"},{"ID":"a","Addr":"b"}]}`))
	check("not JSON", sealed(`{"Service":"s","Endpoints":[`))
	if err := os.Remove(c.path("s")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(c.path("s"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, _, _, err := c.load("s"); err == nil {
		t.Errorf("loaded %v from a directory", got)
	}
	if err := c.save("s", good); err == nil {
		t.Error("saved to a directory")
	}
	if files, _ := os.ReadDir(c.dir); len(files) != 1 {
		t.Errorf("%d files after a failure to save, want 1", len(files))
	}
}

func TestCacheAge(t *testing.T) {
	c := testCache(t)
	if err := c.save("s", encode(t, "s", someEndpoints...)); err != nil {
		t.Fatal(err)
	}
	for _, age := range []time.Duration{0, 59 * time.Minute, -59 * time.Minute} {
		at := time.Now().Add(-age)
		if err := os.Chtimes(c.path("s"), at, at); err != nil {
			t.Fatal(err)
		}
		if _, got, _, err := c.load("s"); err != nil || got.Sub(at).Abs() > time.Second {
			t.Errorf("%v old: vouched for at %v, error %v", age, got, err)
		}
	}
	for _, age := range []time.Duration{61 * time.Minute, -61 * time.Minute} {
		at := time.Now().Add(-age)
		if err := os.Chtimes(c.path("s"), at, at); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := c.load("s"); err == nil {
			t.Errorf("%v old, and loaded", age)
		}
	}
	if err := c.touch("s"); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := c.load("s"); err != nil {
		t.Errorf("touched, and not loaded: %v", err)
	}
}

func TestCacheLeftovers(t *testing.T) {
	c := testCache(t)
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * time.Hour)
	for _, f := range []struct {
		name string
		old  bool
	}{{"a-1.cache.7.tmp", true}, {"b-1.cache.8.tmp", false}, {"notes.tmp", true}, {"c.cache", true}} {
		path := filepath.Join(c.dir, f.name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if f.old {
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.save("s", encode(t, "s", someEndpoints...)); err != nil {
		t.Fatal(err)
	}
	var names []string
	files, _ := os.ReadDir(c.dir)
	for _, f := range files {
		names = append(names, f.Name())
	}
	if want := []string{"b-1.cache.8.tmp", "c.cache", "notes.tmp", filepath.Base(c.path("s"))}; !reflect.DeepEqual(names, want) {
		t.Errorf("left %q, want %q", names, want)
	}
}

// FuzzDecodeCache: no file makes the decoder panic, and a file without an error is a set.
func FuzzDecodeCache(f *testing.F) {
	f.Add(encode(f, "s", someEndpoints...), false)
	f.Add(encode(f, "s"), false)
	f.Add([]byte(`{"Service":"s","Endpoints":[{"ID":"a","Addr":"b","Metadata":{}}]}`), true)
	f.Add([]byte(`{"Service":"s","Endpoints":[null]}`), true)
	f.Fuzz(func(t *testing.T, data []byte, seal bool) {
		if seal {
			data = sealed(string(data))
		}
		got, _, err := decodeCache("s", data)
		if err != nil {
			return
		}
		s := &set{threshold: 1}
		s.apply(naming.Event{Batch: naming.Batch{Snapshot: true, Put: slices.Clone(got.endpoints), Withheld: got.withheld}})
		if changed, _ := s.publish(time.Time{}); !changed && len(got.endpoints) > 0 {
			t.Errorf("nothing to publish of %v", got)
		}
		file, left, err := encodeCache("s", got)
		if err != nil || left != nil {
			t.Fatal(left, err)
		}
		again, left, err := decodeCache("s", file)
		if err != nil || left != nil || len(again.endpoints) != len(got.endpoints) || len(again.withheld) != len(got.withheld) {
			t.Errorf("got %v, %v, %v, want %v", again, left, err, got)
		}
	})
}

// FuzzCacheRoundTrip: decodeCache returns the endpoint that encodeCache was given.
func FuzzCacheRoundTrip(f *testing.F) {
	f.Add("s", "id", "addr", `{"a":1.0}`)
	f.Fuzz(func(t *testing.T, service, id, addr, metadata string) {
		e := naming.Endpoint{ID: id, Addr: addr, Metadata: json.RawMessage(metadata)}
		changes, err := naming.Normalize(service, []naming.Change{{Endpoint: e}})
		if err != nil || addr == "" {
			return
		}
		e = changes[0].Endpoint
		got, left, err := decodeCache(service, encode(t, service, e))
		if err != nil || left != nil || len(got.endpoints) != 1 || !got.endpoints[0].Equal(e) {
			t.Errorf("got %v, %v, %v, want %v", got, left, err, e)
		}
	})
}

// program is one run of a program with a cache.
type program struct {
	t        *testing.T
	store    *memory.Store
	client   *naming.Client
	builder  *Builder
	log      *log
	logged   *bytes.Buffer
	resolver grpcresolver.Resolver
	mu       sync.Mutex // of logged
}

// lockedWriter makes the log of slog readable while it is written.
type lockedWriter struct{ p *program }

func (w lockedWriter) Write(b []byte) (int, error) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	return w.p.logged.Write(b)
}

func start(t *testing.T, store *memory.Store, dir string) *program {
	t.Helper()
	p := &program{t: t, store: store, log: new(log), logged: new(bytes.Buffer)}
	p.client = naming.New(store, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	p.builder = NewBuilder(p.client, &Options{CacheDir: dir, Logger: slog.New(slog.NewTextHandler(lockedWriter{p}, nil))})
	p.build()
	return p
}

func (p *program) build() {
	p.t.Helper()
	var err error
	p.resolver, err = p.builder.Build(grpcresolver.Target{URL: parse("naming:///x")}, p.log, grpcresolver.BuildOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *program) stop() {
	p.resolver.Close()
	p.client.Close()
	synctest.Wait()
}

// wantLog compares what was logged with the texts that must be in it, line by
// line.
func (p *program) wantLog(want ...string) {
	p.t.Helper()
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	lines := strings.Split(strings.TrimSuffix(p.logged.String(), "\n"), "\n")
	p.logged.Reset()
	if len(want) == 0 && len(lines) == 1 && lines[0] == "" {
		return
	}
	if len(lines) != len(want) {
		p.t.Errorf("logged %q, want %q", lines, want)
		return
	}
	for i := range want {
		if !strings.Contains(lines[i], want[i]) {
			p.t.Errorf("logged %q, want %q", lines[i], want[i])
		}
	}
}

func put(t *testing.T, s *memory.Store, endpoints ...naming.Endpoint) {
	t.Helper()
	for _, e := range endpoints {
		if err := s.Apply(context.Background(), "x", naming.Change{Op: naming.Add, Endpoint: e}); err != nil {
			t.Fatal(err)
		}
	}
}

func remove(t *testing.T, s *memory.Store, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := s.Apply(context.Background(), "x", naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: id}}); err != nil {
			t.Fatal(err)
		}
	}
}

// saved returns the IDs in the cache.
func (p *program) saved() string {
	p.t.Helper()
	synctest.Wait()
	data, err := os.ReadFile(p.builder.cache.path("x"))
	if errors.Is(err, fs.ErrNotExist) {
		return "nothing"
	}
	if err != nil {
		p.t.Fatal(err)
	}
	set, left, err := decodeCache("x", data)
	if err != nil || left != nil {
		p.t.Fatal(left, err)
	}
	var ids []string
	for _, e := range set.endpoints {
		ids = append(ids, e.ID)
	}
	for _, w := range set.withheld {
		ids = append(ids, "-"+w.Endpoint.ID)
	}
	return strings.Join(ids, " ")
}

func (p *program) wantSaved(want string) {
	p.t.Helper()
	if got := p.saved(); got != want {
		p.t.Errorf("saved %q, want %q", got, want)
	}
}

// TestColdStart is G15.
func TestColdStart(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store := new(memory.Store)
		put(t, store, endpoints("a", "b")...)
		p := start(t, store, dir)
		p.log.want(t, "state a b")
		p.wantSaved("a b")
		p.stop()

		// While the registry is up, a saved set does not matter.
		remove(t, store, "b")
		p = start(t, store, dir)
		p.log.want(t, "state a")
		time.Sleep(time.Minute)
		p.log.want(t)
		p.wantLog()
		p.wantSaved("a")
		p.stop()

		time.Sleep(23 * time.Hour)
		store.Down(errors.New("down"))
		p = start(t, store, dir)
		p.log.want(t, "cached a")
		p.wantLog("saved endpoints are used")
		store.Refuse(errors.New("still down"))
		time.Sleep(30 * time.Hour) // not too old once it is in use: stale beats empty
		p.log.want(t)
		// A second ClientConn, and one after idleness.
		p.build()
		p.log.want(t, "cached a")
		p.wantLog()
		store.Up()
		put(t, store, endpoints("c")...)
		time.Sleep(time.Minute)
		p.log.want(t, "state a c", "state a c")
		p.wantLog("the registry answered")
		p.wantSaved("a c")
		p.stop()
	})
}

// TestColdStartWithTheSameSet: the ClientConn gets the same set without the mark of a
// cached one.
func TestColdStartWithTheSameSet(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store := new(memory.Store)
		put(t, store, endpoints("a", "b")...)
		p := start(t, store, dir)
		p.log.want(t, "state a b")
		p.stop()
		store.Silence()
		p = start(t, store, dir)
		time.Sleep(cacheWait - 1)
		p.log.want(t)
		time.Sleep(time.Nanosecond)
		p.log.want(t, "cached a b")
		time.Sleep(DefaultFirstAnswerTimeout)
		p.log.want(t)
		store.Speak()
		time.Sleep(time.Minute)
		p.log.want(t, "state a b")
		if n := p.builder.cache.writes.Load(); n != 0 {
			t.Errorf("an unchanged set was written %d times", n)
		}
		p.stop()
	})
}

func TestASlowRegistryHasItsChance(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store := new(memory.Store)
		put(t, store, endpoints("a")...)
		p := start(t, store, dir)
		p.log.want(t, "state a")
		p.stop()
		put(t, store, endpoints("b")...)
		store.Delay(cacheWait - 1)
		p = start(t, store, dir)
		time.Sleep(time.Minute)
		p.log.want(t, "state a b")
		p.stop()
		store.Delay(cacheWait + time.Second)
		p = start(t, store, dir)
		time.Sleep(time.Minute)
		p.log.want(t, "cached a b", "state a b")
		p.stop()
	})
}

// TestALateAnswerOfASlowDisk: FirstAnswerTimeout has passed when a slow disk returns a set
// of withheld endpoints only. The ClientConn gets an error at once.
func TestALateAnswerOfASlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(script)
		p := scriptedProgram(t, s, t.TempDir())
		publisher := &p.builder.open.targets["x"].publisher
		publisher.began = publisher.began.Add(-DefaultFirstAnswerTimeout)
		publisher.known.cache = cacheLoading
		publisher.seed(&savedState{savedSet: savedSet{withheld: withheld(naming.Maintenance, "a")}})
		p.log.want(t, `error naming: service "x" cannot be looked up: no answer from the registry in 5s`)
		time.Sleep(time.Minute)
		p.log.want(t)
		p.stop()
	})
}

func TestColdStartWithoutACache(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, path string)
		log     []string
	}{
		{"no file", func(*testing.T, string) {}, nil},
		{"corrupt", func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("garbage"), 0o600); err != nil {
				t.Fatal(err)
			}
			now := time.Now() // of the bubble
			if err := os.Chtimes(path, now, now); err != nil {
				t.Fatal(err)
			}
		}, []string{"saved endpoints are of no use"}},
		{"too old", func(t *testing.T, path string) {
			if err := os.WriteFile(path, encode(t, "x", someEndpoints...), 0o600); err != nil {
				t.Fatal(err)
			}
			old := time.Now().Add(-25 * time.Hour)
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}, []string{"25h0m0s old"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				c.prepare(t, (&cache{dir: dir}).path("x"))
				store := new(memory.Store)
				store.Down(errors.New("down"))
				p := start(t, store, dir)
				p.log.want(t, `error naming: service "x" cannot be looked up: memory: watch "x": down`)
				p.wantLog(c.log...)
				p.stop()

				store.Up()
				store.Silence()
				p = start(t, store, dir)
				time.Sleep(DefaultFirstAnswerTimeout - 1)
				p.log.want(t)
				time.Sleep(time.Nanosecond)
				p.log.want(t, `error naming: service "x" cannot be looked up: no answer from the registry in 5s`)
				p.stop()

				store.Speak()
				put(t, store, endpoints("a")...)
				p = start(t, store, dir)
				p.log.want(t, "state a")
				p.wantSaved("a")
				p.stop()
			})
		})
	}
}

// TestWhatIsNotSaved: a set that a fault of the registry emptied is not saved. It would
// turn the fault into an outage after the next start.
func TestWhatIsNotSaved(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store := new(memory.Store)
		put(t, store, endpoints("a", "b", "c")...)
		p := start(t, store, dir)
		p.log.want(t, "state a b c")
		p.wantSaved("a b c")
		time.Sleep(time.Hour)

		store.Wipe()
		synctest.Wait() // or the watch may show the wipe and d together
		put(t, store, endpoints("d")...)
		time.Sleep(time.Minute)
		p.log.want(t, "state d a b c", "state d") // held endpoints stay for ten seconds
		p.wantSaved("a b c")                      // the others are held
		put(t, store, endpoints("a", "b", "c")...)
		time.Sleep(time.Minute)
		p.wantSaved("a b c d")

		store.Wipe()
		time.Sleep(time.Minute)
		p.wantSaved("a b c d")
		at := modified(t, p)
		time.Sleep(24 * time.Hour) // no longer held: the service is empty
		p.wantSaved("a b c d")
		if got := modified(t, p); !got.Equal(at) {
			t.Errorf("a set that the registry does not vouch for was touched at %v", got)
		}
		p.stop()
	})
}

func modified(t *testing.T, p *program) time.Time {
	t.Helper()
	synctest.Wait()
	info, err := os.Stat(p.builder.cache.path("x"))
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

// TestAnUnchangedSetStaysYoung: a set that does not change for a month is not written
// again, and stays young enough to be used.
func TestAnUnchangedSetStaysYoung(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store := new(memory.Store)
		put(t, store, endpoints("a")...)
		p := start(t, store, dir)
		p.log.want(t, "state a")
		for range 30 {
			time.Sleep(24 * time.Hour)
			store.Break(errors.New("broken"))
		}
		if age := time.Since(modified(t, p)); age > 3*time.Hour {
			t.Errorf("the saved set is %v old", age)
		}
		if n := p.builder.cache.writes.Load(); n != 1 {
			t.Errorf("written %d times, want once", n)
		}
		// A registry that is down does not vouch for it.
		store.Down(errors.New("down"))
		time.Sleep(12 * time.Hour)
		if age := time.Since(modified(t, p)); age < 12*time.Hour {
			t.Errorf("the saved set is %v old, 12 hours after the registry failed", age)
		}
		p.stop()
	})
}

func TestSavesAreBounded(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store := new(memory.Store)
		put(t, store, endpoints("a")...)
		p := start(t, store, dir)
		p.log.want(t, "state a")
		for i := range 600 { // a minute
			time.Sleep(100 * time.Millisecond)
			put(t, store, endpoints(fmt.Sprint("b", i%7))...)
			remove(t, store, fmt.Sprint("b", (i+3)%7))
		}
		put(t, store, endpoints("z")...)
		if n := p.builder.cache.writes.Load(); n < 3 || n > 7 {
			t.Errorf("written %d times in a minute, want every 10 s", n)
		}
		time.Sleep(10 * time.Second)
		if got := p.saved(); !strings.HasSuffix(got, " z") {
			t.Errorf("saved %q, want the last change in it", got)
		}
		p.stop()
	})
}

// TestADiskThatFails: a failed write is logged once, and has no other effect.
func TestADiskThatFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // not a directory
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		store := new(memory.Store)
		put(t, store, endpoints("a")...)
		p := start(t, store, dir)
		p.log.want(t, "state a")
		p.wantLog("could not be saved")
		put(t, store, endpoints("b")...)
		time.Sleep(time.Hour)
		p.log.want(t, "state a b")
		p.wantLog()
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		p.wantSaved("a b")
		// An operator removes the directory.
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		p.wantSaved("a b")
		p.wantLog("could not be saved")
		p.stop()
	})
}

// TestReadsAreShared: while the disk hangs, concurrent calls of read for one service share
// one read of the disk, and one of them logs. A read after a save has what was saved.
func TestReadsAreShared(t *testing.T) {
	c := testCache(t)
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.path("s"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.maxAge = 1 << 62 // of a bubble's time
	data := encode(t, "s", naming.Endpoint{ID: "a", Addr: "a:1"})
	synctest.Test(t, func(t *testing.T) {
		hangs := make(chan struct{})
		var began, logged atomic.Int64
		c.reading = func() {
			if began.Add(1) == 1 {
				<-hangs
			}
		}
		c.log = slog.New(counter{&logged})
		var done sync.WaitGroup
		for range 100 {
			done.Go(func() {
				if saved := c.read("s"); !saved.empty() {
					t.Errorf("read %v", saved)
				}
			})
		}
		synctest.Wait()
		if got := began.Load(); got != 1 {
			t.Errorf("read %d times, want once", got)
		}
		// The hanging read has the old file: it began before the save.
		old := []byte("garbage")
		if err := c.save("s", data); err != nil {
			t.Fatal(err)
		}
		if saved := c.read("s"); len(saved.endpoints) != 1 {
			t.Errorf("after a save read %v, want the endpoint that was saved", saved)
		}
		if err := os.WriteFile(c.path("s"), old, 0o600); err != nil {
			t.Fatal(err)
		}
		close(hangs)
		done.Wait()
		if got := logged.Load(); got != 1 {
			t.Errorf("logged %d times, want once", got)
		}
	})
}

// counter is a handler that counts records. It takes no lock, which a bubble could not see.
type counter struct{ n *atomic.Int64 }

func (c counter) Enabled(context.Context, slog.Level) bool  { return true }
func (c counter) Handle(context.Context, slog.Record) error { c.n.Add(1); return nil }
func (c counter) WithAttrs([]slog.Attr) slog.Handler        { return c }
func (c counter) WithGroup(string) slog.Handler             { return c }

// TestLateSavedSet: a saved set that arrives after the registry's answer is released, and
// causes no run.
func TestLateSavedSet(t *testing.T) {
	var p publisher
	p.known.synced = true
	p.seed(&savedState{savedSet: savedSet{endpoints: make([]naming.Endpoint, 1)}})
	if p.known.saved != nil {
		t.Error("the saved set is kept")
	}
	if !p.debouncer.timing.oldest.IsZero() {
		t.Error("the saved set causes a run")
	}
}
