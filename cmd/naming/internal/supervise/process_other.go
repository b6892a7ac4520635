//go:build unix && !linux

package supervise

import "syscall"

// endWithParent does nothing: the system cannot end a program with its parent. A program
// outlives a supervisor that was killed with SIGKILL.
func endWithParent(*syscall.SysProcAttr) {}

// isSubreaper reports false: only Linux has subreapers.
func isSubreaper() bool { return false }
