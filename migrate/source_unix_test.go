//go:build unix

package migrate_test

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/naming-go/naming/migrate"
)

// TestFilePipe: a named pipe in the place of the file does not block the source.
func TestFilePipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "phases.json")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s := migrate.File(path, &migrate.FileOptions{Logger: new(logLines).logger()})
		if err := s.Err(); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("the error is %v", err)
		}
		s.Close()
	})
}
