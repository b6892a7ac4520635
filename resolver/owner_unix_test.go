//go:build unix

package resolver

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestFieldK2OnlyARegularFileIsOpened: load refuses anything else in the place of a file
// at once. The next save replaces it without following it.
func TestFieldK2OnlyARegularFileIsOpened(t *testing.T) {
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	old := time.Now().Add(-time.Minute).Truncate(time.Second)
	for _, c := range []struct {
		name  string
		place func(t *testing.T, path string)
		stays bool // the save fails
	}{
		{"a named pipe", func(t *testing.T, path string) { must(t, syscall.Mkfifo(path, 0o600)) }, false},
		{"a socket", func(t *testing.T, path string) {
			// The path of a socket must be short.
			l, err := net.Listen("unix", "/tmp/"+filepath.Base(path)[:8]+".sock")
			must(t, err)
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			must(t, os.Rename(l.Addr().String(), path))
			l.Close()
		}, false},
		{"a link to a good file", func(t *testing.T, path string) { must(t, os.Symlink(elsewhere, path)) }, false},
		{"a link within the directory", func(t *testing.T, path string) {
			must(t, os.Rename(path, path+"2"))
			must(t, os.Symlink(filepath.Base(path)+"2", path))
		}, false},
		{"a link to a device", func(t *testing.T, path string) { must(t, os.Symlink("/dev/zero", path)) }, false},
		{"a link to nothing", func(t *testing.T, path string) { must(t, os.Symlink(elsewhere+"2", path)) }, false},
		{"a link to itself", func(t *testing.T, path string) { must(t, os.Symlink(path, path)) }, false},
		{"a directory", func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cache := testCache(t)
			good := encode(t, "s", someEndpoints...)
			must(t, os.WriteFile(elsewhere, good, 0o600))
			must(t, os.Chtimes(elsewhere, old, old))
			must(t, cache.save("s", good))
			path := cache.path("s")
			if c.name != "a link within the directory" {
				must(t, os.Remove(path))
			}
			c.place(t, path)
			begin := time.Now()
			if set, _, _, err := cache.load("s"); err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("load: %v, %v; want an error that says what it is", set, err)
			}
			if err := cache.touch("s"); err == nil {
				t.Error("touched it")
			}
			s := &saver{cache: cache, service: "s"}
			_, _, err := s.save(contentsOf(someEndpoints...), [32]byte{})
			if (err != nil) != c.stays {
				t.Errorf("save: %v", err)
			}
			if !c.stays {
				if set, _, _, err := cache.load("s"); err != nil || len(set.endpoints) != len(someEndpoints) {
					t.Errorf("load after save: %v, %v", set, err)
				}
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
			if info, err := os.Stat(elsewhere); err != nil || !info.ModTime().Equal(old) {
				t.Errorf("a file elsewhere was touched: %v, %v", info, err)
			}
			if _, err := os.Stat(elsewhere + "2"); err == nil {
				t.Error("a file was made elsewhere")
			}
		})
	}
}

// TestFieldK2TheDirectoryIsADirectory: a pipe is refused, because an open would wait.
func TestFieldK2TheDirectoryIsADirectory(t *testing.T) {
	c := testCache(t)
	if err := syscall.Mkfifo(c.dir, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := c.load("s"); err == nil {
		t.Error("no error of load")
	}
	if err := c.save("s", nil); err == nil {
		t.Error("no error of save")
	}
}

// TestFieldK3WhoMayWrite: a file or directory that others can write is refused,
// with an error that says what to do, and nothing is written there.
func TestFieldK3WhoMayWrite(t *testing.T) {
	good := encode(t, "s", someEndpoints...)
	for _, c := range []struct {
		dir, file fs.FileMode
		want      string // in the error; empty: none
	}{
		{0o700, 0o600, ""},
		{0o755, 0o644, ""},
		{0o700 | fs.ModeSetgid, 0o640, ""},
		{0o770, 0o600, "directory"},
		{0o707, 0o600, "directory"},
		{0o777 | fs.ModeSticky, 0o600, "directory"},
		{0o700, 0o620, "mode 0620"},
		{0o700, 0o602, "mode 0602"},
		{0o700, 0o666, "chmod go-w"},
	} {
		cache := testCache(t)
		if err := cache.save("s", good); err != nil {
			t.Fatal(err)
		}
		path := cache.path("s")
		if err := errors.Join(os.Chmod(path, c.file), os.Chmod(cache.dir, c.dir)); err != nil {
			t.Fatal(err)
		}
		_, _, _, err := cache.load("s")
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("directory %v, file %v: load: %v", c.dir, c.file, err)
		}
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), "bad permissions")) {
			t.Errorf("directory %v, file %v: load: %v", c.dir, c.file, err)
		}
		err = cache.save("s", good)
		if refused := c.want == "directory"; (err != nil) != refused {
			t.Errorf("directory %v, file %v: save: %v", c.dir, c.file, err)
		} else if !refused {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("file %v: after a save %v, %v", c.file, info.Mode(), err)
			}
		}
	}
}

// owned is the FileInfo of a file of another user.
type owned struct {
	fs.FileInfo
	stat syscall.Stat_t
}

func (o owned) Sys() any { return &o.stat }

// TestFieldK3OfAnotherUser: a file of another user than the program's and root is
// refused. As root the test makes such a file, and otherwise it asks as another user.
func TestFieldK3OfAnotherUser(t *testing.T) {
	c := testCache(t)
	if err := c.save("s", encode(t, "s", someEndpoints...)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(c.path("s"))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		owner uint32
		uid   int
		ok    bool
	}{{1000, 1000, true}, {0, 1000, true}, {0, 0, true}, {1001, 1000, false}, {1000, 0, false}} {
		err := checkOwner(owned{info, syscall.Stat_t{Uid: x.owner}}, x.uid)
		if (err == nil) != x.ok || err != nil && !strings.Contains(err.Error(), "bad owner") {
			t.Errorf("a file of user %d for user %d: %v", x.owner, x.uid, err)
		}
	}
	if os.Geteuid() != 0 {
		return // the rest can be made by root only
	}
	for _, path := range []string{c.path("s"), c.dir} {
		if err := os.Chown(path, 4711, 4711); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := c.load("s"); err == nil || !strings.Contains(err.Error(), "bad owner") {
			t.Errorf("load of what belongs to another user: %v", err)
		}
		if path == c.path("s") {
			if err := c.touch("s"); err == nil {
				t.Error("touched a file of another user")
			}
		} else if err := c.save("s", nil); err == nil || !strings.Contains(err.Error(), "bad owner") {
			t.Errorf("save to a directory of another user: %v", err)
		}
	}
}

// TestFieldK3HardLinksAndSwaps: a second name of a file keeps what it had, and a
// directory that is replaced while it is in use is not the one that is used.
func TestFieldK3HardLinksAndSwaps(t *testing.T) {
	c := testCache(t)
	old := encode(t, "s", someEndpoints[:1]...)
	if err := c.save("s", old); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Link(c.path("s"), link); err != nil {
		t.Fatal(err)
	}
	if err := c.save("s", encode(t, "s", someEndpoints...)); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(link); err != nil || string(got) != string(old) {
		t.Errorf("the other name has %q, %v", got, err)
	}

	root, err := c.openDir()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := errors.Join(os.Rename(c.dir, c.dir+"2"), os.Mkdir(c.dir, 0o777), os.WriteFile(c.path("s"), old, 0o666)); err != nil {
		t.Fatal(err)
	}
	f, info, err := openFile(root, cacheName("s"))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if info.Size() == int64(len(old)) {
		t.Error("opened a file of the directory that came later")
	}
}
