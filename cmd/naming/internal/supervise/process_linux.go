package supervise

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// endWithParent has the kernel kill the program when the thread that starts it ends: a
// supervisor that was killed can withdraw nothing and start nothing again, and a program that
// outlives it keeps the address for which the next one is started.
func endWithParent(sys *syscall.SysProcAttr) { sys.Pdeathsig = syscall.SIGKILL }

// isSubreaper reports whether orphans become children of this process.
func isSubreaper() bool {
	var is int32
	err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&is)), 0, 0, 0)
	return err == nil && is != 0
}
