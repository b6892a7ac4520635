package resolver

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/naming-go/naming"
)

// cache is a directory with a file for each service: the last good set of its endpoints.
// The modification time of a file is when the registry last vouched for the set. All
// methods may be called concurrently, also by several processes.
//
// The directory and its files are trusted as ssh trusts its configuration: see
// checkOwner. All access goes through an os.Root, so that the directory that was checked
// is the directory that is used.
type cache struct {
	dir     string
	maxAge  time.Duration
	log     *slog.Logger
	sweep   sync.Once
	writes  atomic.Int64       // for tests
	reading func()             // nil, or called before a file is read, for tests
	reads   singleflight.Group // by service
}

// savedState is a saved set and its age.
type savedState struct {
	savedSet           // empty: nothing that can be used
	at       time.Time // when the registry last vouched for the set
}

// read returns the saved set of a service, and logs why a set or parts of it cannot be
// used. Concurrent calls for one service share one read of the disk: a disk that hangs
// must not hold a thread for every ClientConn that is built and closed meanwhile. The
// result is shared and must not be modified. save ends the sharing: a read that begins
// after a save reads what was saved.
func (c *cache) read(service string) *savedState {
	var left []error
	leads := false // this call reads, and logs for all that share the read
	saved, err, _ := c.reads.Do(service, func() (any, error) {
		leads = true
		if c.reading != nil {
			c.reading()
		}
		set, at, leftOut, err := c.load(service)
		left = leftOut
		return &savedState{set, at}, err
	})
	// Not within Do: the logger is the caller's code, and may block.
	if leads && err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Warn("naming: saved endpoints are of no use", slog.String("service", service),
			slog.String("file", c.path(service)), slog.Any("err", naming.SafeError(err)))
	}
	if leads && len(left) > 0 {
		c.log.Warn("naming: saved endpoints were left out", slog.String("service", service),
			slog.String("file", c.path(service)), slog.Int("left out", len(left)), slog.Any("err", naming.SafeError(left[0])))
	}
	return saved.(*savedState)
}

// path returns the path of the file of a service, for people.
func (c *cache) path(service string) string { return filepath.Join(c.dir, cacheName(service)) }

// cacheName returns the name of the file of a service. Different services have different
// files, also on file systems that ignore case, forbid characters or limit the length of
// names.
func cacheName(service string) string {
	// The hash distinguishes files. The rest is for people.
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

// openDir opens the directory. The error says why it cannot be trusted.
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

// openFile opens a regular file of bounded size for reading. The error says why the file
// cannot be trusted. Nothing but a regular file is opened: the mere open of a pipe or a
// device has effects.
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

// load returns the set that was last saved for a service, when the registry last vouched
// for the set, and the errors of the endpoints that were left out. The error is
// fs.ErrNotExist if nothing was saved.
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
	// A clock that was set back makes a file of the future. Its age is unknown, and
	// has the same bound.
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

// readMagic reads the beginning of a file. It returns an error unless the file begins
// with cacheMagic. So a file that was put there by mistake is not read as a whole.
func readMagic(r io.Reader) error {
	var magic [len(cacheMagic)]byte
	if _, err := io.ReadFull(r, magic[:]); err != nil || string(magic[:]) != cacheMagic {
		return errVersion
	}
	return nil
}

// sum returns the checksum of the whole file of a service.
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

// save replaces the file of a service. A crash at any moment leaves the old file or the
// new one.
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
	c.reads.Forget(service) // a read in progress may have the file of before
	// Not all systems can sync a directory. The sync only decides which of the two
	// files a crash leaves.
	if d, err := root.Open("."); err == nil {
		_ = d.Sync()
		d.Close()
	}
	return nil
}

// touch notes that the registry still vouches for the saved set. It returns an error for
// a file that load would refuse to open.
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

// removeLeftovers removes the temporary files of programs that crashed during save.
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
