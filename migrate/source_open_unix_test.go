//go:build unix

package migrate

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestOpenPipe opens a named pipe, as if it had replaced the file after the check. The
// Source would otherwise hang, and its Close as well.
func TestOpenPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "phases.json")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		f, err := openFile(path)
		if err == nil {
			if checkRegular(f.Stat()) == nil {
				t.Error("the pipe counts as a regular file")
			}
			err = f.Close()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("to open the pipe blocks")
	}
}
