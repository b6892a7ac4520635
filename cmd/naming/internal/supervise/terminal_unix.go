//go:build unix

package supervise

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// terminal is the terminal of this process, if its input is one.
type terminal struct {
	exists bool
	// given says that the program gets the terminal.
	given bool
}

// newTerminal returns the terminal of this process. With foreground, the program gets the
// terminal if this process has it.
func newTerminal(foreground bool) *terminal {
	fd := int(os.Stdin.Fd())
	t := &terminal{exists: term.IsTerminal(fd)}
	if t.exists && foreground {
		group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		t.given = err == nil && group == unix.Getpgrp()
	}
	return t
}

// owned reports whether the program has the terminal: the keys reach the program, and Ctrl-C
// as well.
func (t *terminal) owned() bool { return t.given }

// input returns the input of the program. A process that reads a terminal which it does not
// own is stopped by the kernel. So the program gets an empty input instead.
func (t *terminal) input() (*os.File, func(), error) {
	if !t.exists || t.given {
		return os.Stdin, func() {}, nil
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, err
	}
	return f, func() { _ = f.Close() }, nil
}

// give gives the terminal to the group of the program, if this process has the terminal. After
// the command bg of a shell, the shell has it.
func (t *terminal) give(group int) { t.pass(unix.Getpgrp(), group) }

// take takes the terminal back, if the group of the program has it.
func (t *terminal) take(group int) { t.pass(group, unix.Getpgrp()) }

// pass passes the terminal from one process group to another.
func (t *terminal) pass(from, to int) {
	if !t.given {
		return
	}
	fd := int(os.Stdin.Fd())
	if has, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err != nil || has != from {
		return
	}
	// The kernel would stop this process, which is in the background at this moment.
	signal.Ignore(syscall.SIGTTOU)
	defer signal.Reset(syscall.SIGTTOU)
	_ = unix.IoctlSetPointerInt(fd, unix.TIOCSPGRP, to)
}
