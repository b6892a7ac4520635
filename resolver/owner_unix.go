//go:build unix

package resolver

import (
	"fmt"
	"io/fs"
	"syscall"
)

// openFlags keep an open from waiting for the other end of a named pipe, should
// one take the place of a file that was a regular one a moment ago.
const openFlags = syscall.O_NONBLOCK

// checkOwner returns an error if a file or directory belongs to another user than
// uid or root, or can be written by others. It is the rule by which ssh trusts its
// configuration (OpenSSH, readconf.c: read_config_file with SSHCONF_CHECKPERM):
// who can write the endpoints of a service decides where its calls go.
func checkOwner(info fs.FileInfo, uid int) error {
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Errorf("bad permissions: mode %04o lets others write it (chmod go-w)", perm)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 && int(stat.Uid) != uid {
		return fmt.Errorf("bad owner: user %d, and only files of user %d or root are trusted", stat.Uid, uid)
	}
	return nil
}
