//go:build unix

package resolver

import (
	"fmt"
	"io/fs"
	"syscall"
)

// openFlags keep an open from waiting for the other end of a named pipe. A pipe may have
// taken the place of a regular file since the file was checked.
const openFlags = syscall.O_NONBLOCK

// checkOwner returns an error if a file or directory belongs to another user than uid or
// root, or if others can write it. ssh trusts its configuration by the same rule
// (OpenSSH, readconf.c: read_config_file with SSHCONF_CHECKPERM). A user who can write
// the endpoints of a service decides where its calls go.
func checkOwner(info fs.FileInfo, uid int) error {
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Errorf("bad permissions: mode %04o lets others write it (chmod go-w)", perm)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 && int(stat.Uid) != uid {
		return fmt.Errorf("bad owner: user %d, and only files of user %d or root are trusted", stat.Uid, uid)
	}
	return nil
}
