//go:build unix

package migrate

import (
	"os"
	"syscall"
)

// openFile opens a file to read it. It does not block if the file is a named pipe: another
// program may have put one in the place of the file since the file was checked.
func openFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}
