package resolver

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/naming-go/naming"
)

const (
	// cacheWait is how long a registry that says nothing is given before a
	// cached set is used.
	cacheWait = time.Second
	// saveEvery is the least time between two writes for one service.
	saveEvery = 10 * time.Second
	// maxCacheFile is the size beyond which a file is no cache of ours.
	maxCacheFile = 256 << 20
)

// cache is a directory with a file for each service: the last good set of its
// endpoints. The modification time of a file is when the registry last vouched
// for the set.
//
// A file is a line, cacheMagic and the checksum of all that follows the line in
// hexadecimal, and then a cacheContent as JSON.
type cache struct {
	dir    string
	maxAge time.Duration
	log    *slog.Logger
	sweep  sync.Once
	writes atomic.Int64
}

const cacheMagic = "naming endpoints 1 "

type cacheContent struct {
	Service   string
	Endpoints []naming.Endpoint
}

// path returns the name of the file of a service. Names that differ have
// different files, also on file systems that ignore case, forbid characters or
// keep names short.
func (c *cache) path(service string) string {
	// The hash tells files apart. The rest is for people.
	const most = 40
	readable := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9', r == '-':
			return r
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '_'
	}, service)
	sum := sha256.Sum256([]byte(service))
	return filepath.Join(c.dir, readable[:min(len(readable), most)]+"-"+hex.EncodeToString(sum[:16])+".cache")
}

// encodeCache returns the content of a file.
func encodeCache(service string, endpoints []naming.Endpoint) ([]byte, error) {
	content, err := json.Marshal(cacheContent{service, endpoints})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(content)
	return slices.Concat([]byte(cacheMagic), []byte(hex.EncodeToString(sum[:])), []byte("\n"), content), nil
}

// decodeCache returns the endpoints in a file, of which there is at least one.
func decodeCache(service string, data []byte) ([]naming.Endpoint, error) {
	rest, ok := bytes.CutPrefix(data, []byte(cacheMagic))
	if !ok {
		return nil, errors.New("not a cache of this version")
	}
	hexSum, content, ok := bytes.Cut(rest, []byte("\n"))
	sum := sha256.Sum256(content)
	if !ok || string(hexSum) != hex.EncodeToString(sum[:]) {
		return nil, errors.New("wrong checksum")
	}
	var c cacheContent
	if err := json.Unmarshal(content, &c); err != nil {
		return nil, err
	}
	if c.Service != service {
		return nil, fmt.Errorf("of service %q", c.Service)
	}
	if len(c.Endpoints) == 0 {
		return nil, errors.New("no endpoints")
	}
	for i, e := range c.Endpoints {
		if e.ID == "" || e.Addr == "" || !utf8.ValidString(e.ID) || !utf8.ValidString(e.Addr) {
			return nil, fmt.Errorf("endpoint with ID %q and address %q", e.ID, e.Addr)
		}
		if i > 0 && c.Endpoints[i-1].ID >= e.ID {
			return nil, fmt.Errorf("endpoint %q after %q", e.ID, c.Endpoints[i-1].ID)
		}
	}
	return c.Endpoints, nil
}

// load returns the endpoints that were last saved for a service, and when the
// registry last vouched for them. It returns fs.ErrNotExist if there are none.
func (c *cache) load(service string) ([]naming.Endpoint, time.Time, error) {
	f, err := os.Open(c.path(service))
	if err != nil {
		return nil, time.Time{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, time.Time{}, err
	}
	at := info.ModTime()
	// A clock that was set back makes a file of the future. How old it is is
	// anybody's guess, within the same bound.
	if age := time.Since(at); age.Abs() > c.maxAge {
		return nil, at, fmt.Errorf("%v old, and at most %v is allowed", age.Round(time.Second), c.maxAge)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxCacheFile))
	if err != nil {
		return nil, at, err
	}
	endpoints, err := decodeCache(service, data)
	return endpoints, at, err
}

// save replaces the file of a service. After a crash at any moment there is the
// old file or the new one.
func (c *cache) save(service string, data []byte) (err error) {
	c.writes.Add(1)
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	c.sweep.Do(c.removeLeftovers)
	path := c.path(service)
	f, err := os.CreateTemp(c.dir, filepath.Base(path)+".*"+tempSuffix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	if now := time.Now(); err == nil {
		err = os.Chtimes(f.Name(), now, now)
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	// Not all systems can sync a directory, and it only decides which of the
	// two files a crash leaves.
	if d, err := os.Open(c.dir); err == nil {
		_ = d.Sync()
		d.Close()
	}
	return nil
}

// touch notes that the registry still vouches for what was saved.
func (c *cache) touch(service string) error {
	now := time.Now()
	return os.Chtimes(c.path(service), now, now)
}

const tempSuffix = ".tmp"

// removeLeftovers removes files that programs which crashed were about to save.
func (c *cache) removeLeftovers() {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), tempSuffix) || !strings.Contains(e.Name(), ".cache.") {
			continue
		}
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()).Abs() > time.Hour {
			os.Remove(filepath.Join(c.dir, e.Name()))
		}
	}
}

// saver saves the endpoints of one service: the first set at once, and then at
// most every saveEvery. What is saved stays when its ClientConns are closed. It
// has a goroutine only while it writes.
type saver struct {
	cache   *cache
	service string

	mu     sync.Mutex
	closed bool
	busy   bool                      // writing
	latest [][]grpcresolver.Endpoint // to be saved; nil if there is nothing to save
	saved  [][]grpcresolver.Endpoint // what was saved last
	sum    [sha256.Size]byte         // of the file; zero if that is not known

	unsaved bool        // there was a change that did not make it to latest
	fresh   bool        // the registry vouches for what was told last
	timer   *time.Timer // not nil: will save or touch
	last    time.Time   // when it last did
	failed  bool        // the last attempt did
}

// tell is called with every set that the registry yields: the sorted lists that
// it consists of, whether they are others than before, and whether the registry
// vouches for them.
func (s *saver) tell(fresh, changed bool, lists ...[]grpcresolver.Endpoint) {
	empty := !slices.ContainsFunc(lists, func(l []grpcresolver.Endpoint) bool { return len(l) > 0 })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh = fresh && !empty
	s.unsaved = s.unsaved || changed
	if s.fresh && s.unsaved {
		s.unsaved = false
		s.latest = lists
		s.plan()
	}
}

// plan sets the timer for what is to be done. s.mu is held.
func (s *saver) plan() {
	if s.closed || s.busy {
		return
	}
	if s.timer != nil {
		s.timer.Stop()
	}
	// An unchanged set has to stay young enough to be of use.
	wait := s.cache.maxAge / 8
	if s.latest != nil {
		wait = 0
		if !s.last.IsZero() {
			wait = max(0, time.Until(s.last.Add(saveEvery)))
		}
	}
	s.timer = time.AfterFunc(wait, s.run)
}

// run saves what is to be saved, or else touches it.
func (s *saver) run() {
	s.mu.Lock()
	if s.closed || s.busy {
		s.mu.Unlock()
		return
	}
	s.busy = true
	s.timer = nil
	latest, sum, fresh := s.latest, s.sum, s.fresh
	s.latest = nil
	s.mu.Unlock()

	var err error
	if latest != nil {
		sum, err = s.save(latest, sum)
	} else if fresh {
		err = s.cache.touch(s.service)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
	s.last = time.Now()
	s.sum = sum
	if latest != nil {
		s.saved = latest
	}
	if err != nil {
		s.sum = [sha256.Size]byte{}
		if s.latest == nil {
			s.latest = s.saved // tried again
		}
		if !s.failed {
			s.cache.log.Warn("naming: endpoints could not be saved", slog.String("service", s.service), slog.Any("err", err))
		}
	}
	s.failed = err != nil
	s.plan()
}

// save saves lists, unless it was their like that was saved last, with the
// checksum sum; and returns theirs.
func (s *saver) save(lists [][]grpcresolver.Endpoint, sum [sha256.Size]byte) ([sha256.Size]byte, error) {
	var endpoints []naming.Endpoint
	for _, list := range lists {
		for _, e := range list {
			endpoints = append(endpoints, *memberOf(e).endpoint)
		}
	}
	slices.SortFunc(endpoints, func(a, b naming.Endpoint) int { return cmp.Compare(a.ID, b.ID) })
	data, err := encodeCache(s.service, endpoints)
	if err != nil {
		return sum, err
	}
	if sum == ([sha256.Size]byte{}) {
		if old, err := os.ReadFile(s.cache.path(s.service)); err == nil {
			sum = sha256.Sum256(old)
		}
	}
	if sha256.Sum256(data) == sum {
		if s.cache.touch(s.service) == nil {
			return sum, nil
		}
	}
	return sha256.Sum256(data), s.cache.save(s.service, data)
}

// close ends the saver. It does not wait for a write in progress: a disk that
// hangs must not hold up a ClientConn.
func (s *saver) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
}

// cachedKey is the key of an attribute of a State: the time.Time of a cached set.
type cachedKey struct{}

// CachedAt reports, to load balancing policies, whether the endpoints of a State
// are from the cache of [Options] because the registry has not answered yet,
// and if so when the registry last vouched for them.
func CachedAt(s grpcresolver.State) (time.Time, bool) {
	at, ok := s.Attributes.Value(cachedKey{}).(time.Time)
	return at, ok
}

// loaded is what a target learned from its cache.
type loaded struct {
	endpoints []naming.Endpoint // empty: nothing of use
	at        time.Time
}

// loadCache reads the cache for t, and has it look at the result.
func (t *target) loadCache() {
	c := t.builder.cache
	var l loaded
	var err error
	l.endpoints, l.at, err = c.load(t.service)
	if err != nil {
		l.endpoints = nil
		if !errors.Is(err, fs.ErrNotExist) {
			c.log.Warn("naming: saved endpoints are of no use", slog.String("service", t.service),
				slog.String("file", c.path(t.service)), slog.Any("err", err))
		}
	}
	t.wakeMu.Lock()
	defer t.wakeMu.Unlock()
	t.loaded = &l
	t.poke()
}
