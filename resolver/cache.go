package resolver

import (
	"bytes"
	"cmp"
	"crypto/rand"
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

	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/naming-go/naming"
)

const (
	// cacheWait is how long a registry that says nothing is given before a
	// cached set is used.
	cacheWait = time.Second
	// saveEvery is the least time between two writes for one service.
	saveEvery = 10 * time.Second
	// maxCacheFile is the largest file that is written or read, in bytes, and
	// cacheOverhead is more than it has besides the endpoints.
	maxCacheFile  = 256 << 20
	cacheOverhead = 64 << 10
)

// cache is a directory with a file for each service: the last good set of its
// endpoints. The modification time of a file is when the registry last vouched
// for the set.
//
// A file is a line, cacheMagic and the checksum of all that follows the line in
// hexadecimal, and then a cacheContent as JSON.
//
// The directory and its files are trusted as ssh trusts its configuration: see
// checkOwner. All access goes through an os.Root, so that the directory that was
// checked is the one that is used.
type cache struct {
	dir    string
	maxAge time.Duration
	log    *slog.Logger
	sweep  sync.Once
	writes atomic.Int64
}

const cacheMagic = "naming endpoints 1 "

// cacheContent is what a file says. Endpoints and Withheld are each sorted by ID.
type cacheContent struct {
	Service   string
	Endpoints []json.RawMessage // savedEndpoint
	Withheld  []json.RawMessage `json:",omitempty"` // savedEndpoint with a Reason
}

// savedEndpoint is an endpoint in a file.
type savedEndpoint struct {
	ID       string
	Addr     string
	Metadata json.RawMessage `json:",omitempty"`
	Draining bool            `json:",omitempty"`
	NoDrain  bool            `json:",omitempty"`
	Reason   naming.Reason   `json:",omitempty"`
	Detail   string          `json:",omitempty"`
}

// savedSet is the set of a service as the cache keeps it: the endpoints that may
// be used, and those that the registry withholds, each sorted by ID.
type savedSet struct {
	endpoints []naming.Endpoint
	withheld  []naming.Withheld
}

func (s savedSet) empty() bool { return len(s.endpoints)+len(s.withheld) == 0 }

// path returns the path of the file of a service, for people.
func (c *cache) path(service string) string { return filepath.Join(c.dir, cacheName(service)) }

// cacheName returns the name of the file of a service. Names that differ have
// different files, also on file systems that ignore case, forbid characters or
// keep names short.
func cacheName(service string) string {
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
	return readable[:min(len(readable), most)] + "-" + hex.EncodeToString(sum[:16]) + cacheSuffix
}

// encodeCache returns the content of a file, and the errors of the endpoints that
// were left out. An endpoint is left out if it could not be read back, and the
// largest ones are left out if all together exceed maxCacheFile.
func encodeCache(service string, set savedSet) (data []byte, left []error, err error) {
	total := 0
	encode := func(list []json.RawMessage, e savedEndpoint) []json.RawMessage {
		data, err := marshal(e)
		if err == nil {
			err = checkSaved(e)
		}
		if err != nil {
			left = append(left, fmt.Errorf("endpoint %q: %w", naming.SafeText(e.ID), err))
			return list
		}
		total += len(data) + 1
		return append(list, data)
	}
	c := cacheContent{Service: service, Endpoints: make([]json.RawMessage, 0, len(set.endpoints))}
	for _, e := range set.endpoints {
		c.Endpoints = encode(c.Endpoints, savedEndpoint{ID: e.ID, Addr: e.Addr, Metadata: e.Metadata, Draining: e.Draining, NoDrain: e.NoDrain})
	}
	for _, w := range set.withheld {
		e := w.Endpoint
		c.Withheld = encode(c.Withheld, savedEndpoint{ID: e.ID, Addr: e.Addr, Metadata: e.Metadata, Draining: e.Draining, NoDrain: e.NoDrain,
			Reason: cmp.Or(w.Reason, naming.Maintenance), Detail: naming.SafeText(w.Detail)})
	}
	if room := maxCacheFile - cacheOverhead; total > room {
		n := len(c.Endpoints) + len(c.Withheld)
		c.Endpoints, c.Withheld = fit(room, c.Endpoints, c.Withheld)
		left = append(left, fmt.Errorf("%d endpoints are larger together than the %d bytes of a file", n, maxCacheFile))
	}
	content, err := marshal(c)
	if err != nil {
		return nil, left, err
	}
	sum := sha256.Sum256(content)
	return slices.Concat([]byte(cacheMagic), []byte(hex.EncodeToString(sum[:])), []byte("\n"), content), left, nil
}

// marshal returns the JSON of v without the escapes that json.Marshal makes for
// HTML: metadata is saved with the bytes that the registry has.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// fit returns two lists without the largest elements of both, so that what remains
// has room bytes with a comma each.
func fit(room int, a, b []json.RawMessage) (_, _ []json.RawMessage) {
	sizes := make([]int, 0, len(a)+len(b))
	for _, e := range slices.Concat(a, b) {
		sizes = append(sizes, len(e)+1)
	}
	slices.Sort(sizes)
	n := 0
	for n < len(sizes) && sizes[n] <= room {
		room -= sizes[n]
		n++
	}
	// Of those that are as large as the first that has no room, none is kept.
	keep := func(list []json.RawMessage) []json.RawMessage {
		return slices.DeleteFunc(list, func(e json.RawMessage) bool { return n < len(sizes) && len(e)+1 >= sizes[n] })
	}
	return keep(a), keep(b)
}

// checkSaved returns an error if an endpoint has no place in a file.
func checkSaved(e savedEndpoint) error {
	switch {
	case e.ID == "":
		return errors.New("no ID")
	case e.Addr == "" && e.Reason == 0:
		return errors.New("no address")
	}
	return naming.CheckEndpoint(e.endpoint())
}

func (e savedEndpoint) endpoint() naming.Endpoint {
	return naming.Endpoint{ID: e.ID, Addr: e.Addr, Metadata: e.Metadata, Draining: e.Draining, NoDrain: e.NoDrain}
}

// decodeCache returns the set in a file, which is not empty, and the errors of the
// entries that were left out: one that cannot be understood spoils no other.
func decodeCache(service string, data []byte) (set savedSet, left []error, err error) {
	rest, ok := bytes.CutPrefix(data, []byte(cacheMagic))
	if !ok {
		return set, nil, errVersion
	}
	hexSum, content, ok := bytes.Cut(rest, []byte("\n"))
	sum := sha256.Sum256(content)
	if !ok || string(hexSum) != hex.EncodeToString(sum[:]) {
		return set, nil, errors.New("wrong checksum")
	}
	var c cacheContent
	if err := json.Unmarshal(content, &c); err != nil {
		return set, nil, err
	}
	if c.Service != service {
		return set, nil, fmt.Errorf("of service %q", naming.SafeText(c.Service))
	}
	decode := func(entries []json.RawMessage, take func(savedEndpoint)) error {
		last := ""
		for i, entry := range entries {
			var e savedEndpoint
			err := json.Unmarshal(entry, &e)
			if err == nil {
				err = checkSaved(e)
			}
			if err != nil {
				left = append(left, fmt.Errorf("entry %d: %w", i, err))
				continue
			}
			if e.ID <= last {
				return fmt.Errorf("endpoint %q after %q", naming.SafeText(e.ID), naming.SafeText(last))
			}
			last = e.ID
			take(e)
		}
		return nil
	}
	withheld := make(map[string]bool)
	err = decode(c.Withheld, func(e savedEndpoint) {
		withheld[e.ID] = true
		set.withheld = append(set.withheld, naming.Withheld{Endpoint: e.endpoint(), Reason: e.Reason, Detail: naming.SafeText(e.Detail)})
	})
	if err == nil {
		err = decode(c.Endpoints, func(e savedEndpoint) {
			if !withheld[e.ID] {
				set.endpoints = append(set.endpoints, e.endpoint())
			}
		})
	}
	switch {
	case err != nil:
	case !set.empty():
		return set, left, nil
	case len(left) > 0:
		err = left[0]
	default:
		err = errors.New("no endpoints")
	}
	return savedSet{}, nil, err
}

var errVersion = errors.New("not a cache of this version")

// openDir opens the directory, if it may be trusted.
func (c *cache) openDir() (*os.Root, error) {
	// OpenRoot would wait for a writer of a named pipe.
	if info, err := os.Stat(c.dir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a directory", c.dir)
	}
	root, err := os.OpenRoot(c.dir)
	if err != nil {
		return nil, err
	}
	info, err := root.Stat(".")
	if err == nil {
		err = checkOwner(info, os.Geteuid())
	}
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("directory %s: %w", c.dir, err)
	}
	return root, nil
}

// openFile opens a file for reading: a regular file of bounded size that may be
// trusted. Nothing else is opened, since to open a pipe or a device has effects of
// its own.
func openFile(root *os.Root, name string) (*os.File, fs.FileInfo, error) {
	before, err := root.Lstat(name)
	if err != nil {
		return nil, nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("not a regular file: mode %v", before.Mode())
	}
	f, err := root.OpenFile(name, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !os.SameFile(before, info):
		err = errors.New("replaced while it was opened")
	case info.Size() > maxCacheFile:
		err = fmt.Errorf("%d bytes, and at most %d are allowed", info.Size(), maxCacheFile)
	default:
		err = checkOwner(info, os.Geteuid())
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// load returns the set that was last saved for a service, when the registry last
// vouched for it, and the errors of the endpoints that were left out. The error
// is fs.ErrNotExist if nothing was saved.
func (c *cache) load(service string) (set savedSet, at time.Time, left []error, err error) {
	root, err := c.openDir()
	if err != nil {
		return set, at, nil, err
	}
	defer root.Close()
	f, info, err := openFile(root, cacheName(service))
	if err != nil {
		return set, at, nil, err
	}
	defer f.Close()
	at = info.ModTime()
	// A clock that was set back makes a file of the future. How old it is is
	// anybody's guess, within the same bound.
	if age := time.Since(at); age.Abs() > c.maxAge {
		return set, at, nil, fmt.Errorf("%v old, and at most %v is allowed", age.Round(time.Second), c.maxAge)
	}
	if err := readMagic(f); err != nil {
		return set, at, nil, err
	}
	data := append(make([]byte, 0, max(info.Size(), int64(len(cacheMagic)))), cacheMagic...)
	data = data[:cap(data)]
	if _, err := io.ReadFull(f, data[len(cacheMagic):]); err != nil {
		return set, at, nil, err
	}
	set, left, err = decodeCache(service, data)
	return set, at, left, err
}

// readMagic reads the beginning of a file. It returns an error unless that is
// cacheMagic, so that what is no cache is not read as a whole.
func readMagic(r io.Reader) error {
	var magic [len(cacheMagic)]byte
	if _, err := io.ReadFull(r, magic[:]); err != nil || string(magic[:]) != cacheMagic {
		return errVersion
	}
	return nil
}

// sum returns the checksum of the file of a service.
func (c *cache) sum(service string) (sum [sha256.Size]byte, err error) {
	root, err := c.openDir()
	if err != nil {
		return sum, err
	}
	defer root.Close()
	f, info, err := openFile(root, cacheName(service))
	if err != nil {
		return sum, err
	}
	defer f.Close()
	if err := readMagic(f); err != nil {
		return sum, err
	}
	h := sha256.New()
	h.Write([]byte(cacheMagic))
	if _, err := io.Copy(h, io.LimitReader(f, info.Size())); err != nil {
		return sum, err
	}
	h.Sum(sum[:0])
	return sum, nil
}

// save replaces the file of a service. After a crash at any moment there is the
// old file or the new one.
func (c *cache) save(service string, data []byte) (err error) {
	c.writes.Add(1)
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	root, err := c.openDir()
	if err != nil {
		return err
	}
	defer root.Close()
	c.sweep.Do(func() { removeLeftovers(root) })
	name := cacheName(service)
	temp := name + "." + rand.Text() + tempSuffix
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = root.Remove(temp)
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
	now := time.Now()
	if err := root.Chtimes(temp, now, now); err != nil {
		return err
	}
	if err := root.Rename(temp, name); err != nil {
		return err
	}
	// Not all systems can sync a directory, and it only decides which of the
	// two files a crash leaves.
	if d, err := root.Open("."); err == nil {
		_ = d.Sync()
		d.Close()
	}
	return nil
}

// touch notes that the registry still vouches for what was saved. It touches
// nothing that load would refuse to open.
func (c *cache) touch(service string) error {
	root, err := c.openDir()
	if err != nil {
		return err
	}
	defer root.Close()
	f, _, err := openFile(root, cacheName(service))
	if err != nil {
		return err
	}
	f.Close()
	now := time.Now()
	return root.Chtimes(cacheName(service), now, now)
}

const (
	cacheSuffix = ".cache"
	tempSuffix  = ".tmp"
)

// removeLeftovers removes files that programs which crashed were about to save.
func removeLeftovers(root *os.Root) {
	d, err := root.Open(".")
	if err != nil {
		return
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), tempSuffix) || !strings.Contains(e.Name(), cacheSuffix+".") {
			continue
		}
		if info, err := root.Lstat(e.Name()); err == nil && time.Since(info.ModTime()).Abs() > time.Hour {
			_ = root.Remove(e.Name())
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
	busy   bool              // writing
	latest *contents         // to be saved; nil if there is nothing to save
	saved  *contents         // what was saved last
	sum    [sha256.Size]byte // of the file; zero if that is not known

	unsaved bool        // there was a change that did not make it to latest
	fresh   bool        // the registry vouches for what was told last
	timer   *time.Timer // not nil: will save or touch
	last    time.Time   // when it last did
	failed  bool        // the last attempt did
	partial bool        // endpoints were left out of the last attempt
}

// contents are what a set consists of: sorted lists, none of which is modified.
type contents struct {
	active, draining []grpcresolver.Endpoint
	withheld         []naming.Withheld
}

func (c *contents) empty() bool { return len(c.active)+len(c.draining)+len(c.withheld) == 0 }

// tell is called with every set that the registry yields, whether it is another
// than before, and whether the registry vouches for it.
func (s *saver) tell(fresh, changed bool, c *contents) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh = fresh && !c.empty()
	s.unsaved = s.unsaved || changed
	if s.fresh && s.unsaved {
		s.unsaved = false
		s.latest = c
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
	wait := max(s.cache.maxAge/8, time.Second)
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
	latest, sum, fresh, ok := s.begin()
	if !ok {
		return
	}
	var err error
	var left []error
	if latest != nil {
		sum, left, err = s.save(latest, sum)
	} else if fresh {
		err = s.cache.touch(s.service)
	}
	failed, partial := s.end(latest, sum, left, err)
	// The logger is the caller's code, and the mutex is held up by nobody's.
	log := s.cache.log
	if failed {
		log.Warn("naming: endpoints could not be saved", slog.String("service", s.service), slog.Any("err", naming.SafeError(err)))
	}
	if partial {
		log.Warn("naming: endpoints were left out of what was saved", slog.String("service", s.service),
			slog.Int("left out", len(left)), slog.Any("err", naming.SafeError(left[0])))
	}
}

// begin returns what is to be done. It reports false if that is nothing.
func (s *saver) begin() (latest *contents, sum [sha256.Size]byte, fresh, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.busy {
		return nil, sum, false, false
	}
	s.busy = true
	s.timer = nil
	latest, s.latest = s.latest, nil
	return latest, s.sum, s.fresh, true
}

// end notes what was done since begin, and plans what is next. It reports whether
// it was the first attempt that failed, or left something out, after others.
func (s *saver) end(latest *contents, sum [sha256.Size]byte, left []error, err error) (failed, partial bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
	s.last = time.Now()
	s.sum = sum
	if latest != nil {
		s.saved = latest
		partial = len(left) > 0 && !s.partial
		s.partial = len(left) > 0
	}
	if err != nil {
		s.sum = [sha256.Size]byte{}
		if s.latest == nil {
			s.latest = s.saved // tried again
		}
		failed = !s.failed
	}
	s.failed = err != nil
	s.plan()
	return failed, partial
}

// save writes c to the service's file and returns the file's checksum, and the
// errors of the endpoints that were left out. If the checksum equals sum, only
// the file's time is updated.
func (s *saver) save(c *contents, sum [sha256.Size]byte) ([sha256.Size]byte, []error, error) {
	set := savedSet{withheld: c.withheld}
	for _, list := range [][]grpcresolver.Endpoint{c.active, c.draining} {
		for _, e := range list {
			set.endpoints = append(set.endpoints, *memberOf(e).endpoint)
		}
	}
	slices.SortFunc(set.endpoints, func(a, b naming.Endpoint) int { return cmp.Compare(a.ID, b.ID) })
	data, left, err := encodeCache(s.service, set)
	if err != nil {
		return sum, left, err
	}
	if sum == ([sha256.Size]byte{}) {
		sum, _ = s.cache.sum(s.service) // what cannot be read is replaced
	}
	if sha256.Sum256(data) == sum && s.cache.touch(s.service) == nil {
		return sum, left, nil
	}
	return sha256.Sum256(data), left, s.cache.save(s.service, data)
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
	savedSet // empty: nothing of use
	at       time.Time
}

// loadCache reads the cache for t, and has it look at the result.
func (t *target) loadCache() {
	c := t.builder.cache
	set, at, left, err := c.load(t.service)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Warn("naming: saved endpoints are of no use", slog.String("service", t.service),
			slog.String("file", c.path(t.service)), slog.Any("err", naming.SafeError(err)))
	}
	if len(left) > 0 {
		c.log.Warn("naming: saved endpoints were left out", slog.String("service", t.service),
			slog.String("file", c.path(t.service)), slog.Int("left out", len(left)), slog.Any("err", naming.SafeError(left[0])))
	}
	t.wakeMu.Lock()
	defer t.wakeMu.Unlock()
	t.loaded = &loaded{set, at}
	t.poke()
}
