//go:build !unix

package migrate

import "os"

// openFile opens a file to read it.
func openFile(path string) (*os.File, error) { return os.Open(path) }
