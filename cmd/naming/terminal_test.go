package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/open"
	"github.com/naming-go/naming/cmd/naming/internal/devetcd"
)

// terminal is a pseudo-terminal with a shell, made by tmux.
type terminal struct {
	t      *testing.T
	socket string
}

// newTerminal starts a terminal of 80x24. environment is of the form NAME=VALUE.
func newTerminal(t *testing.T, environment ...string) *terminal {
	// The path of a socket must be short.
	dir, err := os.MkdirTemp("", "naming-tmux-")
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t, filepath.Join(dir, "s")}
	args := []string{"-u", "-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "env", "PS1=$ ", "ENV=", "HOME=" + t.TempDir()}
	term.tmux(append(append(args, environment...), "sh")...)
	t.Cleanup(func() {
		term.tmux("kill-server")
		_ = os.RemoveAll(dir)
	})
	term.wait("$")
	return term
}

func (term *terminal) tmux(args ...string) string {
	term.t.Helper()
	out, err := exec.Command("tmux", append([]string{"-S", term.socket}, args...)...).CombinedOutput()
	if err != nil {
		term.t.Fatalf("tmux %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// run enters a command.
func (term *terminal) run(command string) {
	term.t.Helper()
	term.tmux("send-keys", "-l", command)
	term.keys("Enter")
}

func (term *terminal) keys(names ...string) {
	term.t.Helper()
	term.tmux(append([]string{"send-keys"}, names...)...)
}

func (term *terminal) screen() string {
	term.t.Helper()
	return term.tmux("capture-pane", "-p")
}

// eventually waits until a condition holds.
func (term *terminal) eventually(what string, holds func() bool) {
	term.t.Helper()
	const bound = time.Minute // only a hang takes longer
	for begin := time.Now(); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Since(begin) > bound {
			term.t.Fatalf("%s never; the screen is\n%s", what, term.screen())
		}
	}
}

// wait waits until the screen has texts.
func (term *terminal) wait(texts ...string) {
	term.t.Helper()
	for _, text := range texts {
		term.eventually("there is "+text, func() bool { return strings.Contains(term.screen(), text) })
	}
}

// waitNot waits until the screen does not have a text.
func (term *terminal) waitNot(text string) {
	term.t.Helper()
	term.eventually("there is not "+text, func() bool { return !strings.Contains(term.screen(), text) })
}

// restored waits until the last command has ended with a status, and checks that the terminal
// is as it was before: no other screen, a cursor, and the same settings.
func (term *terminal) restored(before string, status int) {
	term.t.Helper()
	term.idle()
	term.run("echo status $?.")
	term.wait(fmt.Sprintf("status %d.", status))
	if got := term.tmux("display-message", "-p", "#{alternate_on} #{cursor_flag} #{keypad_cursor_flag} #{mouse_any_flag}"); got != "0 1 0 0\n" {
		term.t.Errorf("alternate screen, cursor, keypad and mouse are %q", got)
	}
	if after := term.settings(); after != before {
		term.t.Errorf("the settings are\n%s\nand were\n%s", after, before)
	}
}

// idle waits until the shell waits for a command. What is typed before, the program reads.
func (term *terminal) idle() {
	term.t.Helper()
	term.eventually("the shell waits", func() bool {
		return term.tmux("display-message", "-p", "#{pane_current_command}") == "sh\n"
	})
}

// settings returns the settings of the terminal.
func (term *terminal) settings() string {
	term.t.Helper()
	tty := strings.TrimSpace(term.tmux("display-message", "-p", "#{pane_tty}"))
	out, err := exec.Command("stty", "-a", "-F", tty).CombinedOutput()
	if err != nil {
		term.t.Fatalf("stty: %v\n%s", err, out)
	}
	_, rest, _ := strings.Cut(string(out), "\n") // the first line has the size
	return rest
}

// pid waits for a process of the terminal, and returns its ID.
func (term *terminal) pid(name string) string {
	term.t.Helper()
	tty := strings.TrimPrefix(strings.TrimSpace(term.tmux("display-message", "-p", "#{pane_tty}")), "/dev/")
	var pid string
	term.eventually("process "+name, func() bool {
		out, err := exec.Command("ps", "-t", tty, "-o", "pid=,comm=").Output()
		if err != nil {
			return false
		}
		for line := range strings.Lines(string(out)) {
			if f := strings.Fields(line); len(f) == 2 && f[1] == name {
				pid = f[0]
			}
		}
		return pid != ""
	})
	return pid
}

// registry is an etcd that a test changes.
type registry struct {
	t     *testing.T
	url   string
	store naming.Store
	stop  func()
}

func newRegistry(t *testing.T) *registry {
	s, err := devetcd.Start(t.Context(), devetcd.Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			s.Close()
		}
	}
	t.Cleanup(stop)
	url := "etcd://" + s.Addr() + "?prefix=/t/"
	store, done, err := open.Store(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = done() })
	return &registry{t, url, store, stop}
}

// put writes entries without a lease: the ID and the address of each.
func (r *registry) put(service string, entries ...string) {
	r.t.Helper()
	for i := 0; i < len(entries); i += 2 {
		e := naming.Endpoint{ID: entries[i], Addr: entries[i+1]}
		if err := r.store.Apply(context.Background(), service, naming.Change{Endpoint: e}); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *registry) delete(service, id string) {
	r.t.Helper()
	if err := r.store.Apply(context.Background(), service, naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: id}}); err != nil {
		r.t.Fatal(err)
	}
}

// TestTerminalTop drives naming top with keys, in windows of several sizes.
func TestTerminalTop(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	r.put("greeter", "one", "10.0.0.1:80", "two", "10.0.0.2:80")
	r.put("users", "bad\x1b[2J\x07", "10.0.1.1:80")
	term := newTerminal(t, "NAMING_STORE="+r.url)
	before := term.settings()
	term.run("naming top")
	term.wait("naming top  etcd://127.0.0.1:", "2 services  3 endpoints", "> greeter     2", "  users       1", "q quit")
	term.keys("s")
	term.wait("sorted by size")
	term.keys("Down")
	term.wait("> users")
	term.keys("Enter")
	term.wait("users  fresh  1 serving", "> 10.0.1.1:80  serving", `bad\x1b[2J\a`, "esc back")
	r.put("users", "new", "10.0.1.2:80")
	term.wait("10.0.1.2:80  serving")
	term.tmux("resize-window", "-x", "40", "-y", "10")
	term.wait("users  fresh  2 serving", "10.0.1.2:80")
	term.tmux("resize-window", "-x", "120", "-y", "30")
	term.keys("BSpace")
	term.wait("> users       2")
	term.keys("/")
	term.wait("enter keeps the filter")
	term.keys("1", "0", ".", "0", ".", "0")
	term.waitNot("users")
	term.keys("Enter")
	term.wait("filter: 10.0.0", "> greeter     2")
	term.keys("?")
	term.wait("by age of the last change")
	term.keys("q")
	term.restored(before, 0)
	term.waitNot("SERVICE")
}

// TestTerminalWatch sees changes, and the end by each way to end a command.
func TestTerminalWatch(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	r.put("greeter", "one", "10.0.0.1:80")
	term := newTerminal(t, "NAMING_STORE="+r.url)
	before := term.settings()
	term.run("naming watch greeter later")
	term.wait("naming watch  etcd://", "> greeter  10.0.0.1:80  serving", "later    -            no endpoints")
	r.put("greeter", "two", "10.0.0.2:80")
	r.put("later", "three", "10.0.0.3:80")
	r.delete("greeter", "one")
	term.wait("10.0.0.2:80  serving", "later    10.0.0.3:80  serving")
	term.waitNot("10.0.0.1:80")
	term.keys("C-c")
	term.restored(before, 0)
	for _, signal := range []string{"TERM", "INT"} {
		term.run("clear; naming watch")
		term.wait("10.0.0.2:80")
		if out, err := exec.Command("kill", "-"+signal, term.pid("naming")).CombinedOutput(); err != nil {
			t.Fatalf("kill: %v\n%s", err, out)
		}
		term.restored(before, 0)
	}
	term.run("clear; naming watch < /dev/null")
	term.wait("10.0.0.2:80")
	term.keys("C-z")
	term.idle()
	term.run("fg")
	term.wait("10.0.0.2:80")
	term.keys("q")
	term.restored(before, 0)
}

// TestTerminalOutage ends tables whose registry is down: from the beginning, and from the
// middle.
func TestTerminalOutage(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	r.put("greeter", "one", "10.0.0.1:80")
	term := newTerminal(t, "NAMING_STORE="+r.url)
	before := term.settings()
	term.run("naming top")
	term.wait("> greeter     1")
	r.stop()
	term.wait("1 stale", "list of services stale for")
	term.keys("Enter")
	term.wait("greeter  stale for", "10.0.0.1:80  serving, stale")
	term.keys("q")
	term.restored(before, 0)
	term.run("clear; naming watch 2>/dev/null")
	term.wait("naming watch", "The registry has not answered:")
	term.keys("C-c")
	term.restored(before, 0)
}

// TestTerminalPlain has terminals that want no colours, and one that cannot draw a table.
func TestTerminalPlain(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	r.put("greeter", "one", "10.0.0.1:80")
	for _, c := range []struct {
		environment string
		colours     bool
	}{{"COLORTERM=", true}, {"NO_COLOR=1", false}} {
		term := newTerminal(t, "NAMING_STORE="+r.url, c.environment)
		term.run("naming watch greeter none")
		term.wait("> greeter", "no endpoints")
		if got := strings.Contains(term.tmux("capture-pane", "-p", "-e"), "\x1b[31m"); got != c.colours {
			t.Errorf("%s: colours are %v", c.environment, got)
		}
		term.keys("q")
		term.waitNot("SERVICE")
	}
	term := newTerminal(t, "NAMING_STORE="+r.url, "TERM=dumb")
	term.run("naming top; naming top --once; naming watch")
	term.wait("SERVICE  SIZE", "greeter  1", "greeter  added  10.0.0.1:80", "greeter  synced")
	term.keys("C-c")
}

// TestTerminalRefused has a registry that is not there when the table begins.
func TestTerminalRefused(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	term := newTerminal(t, "NAMING_STORE=etcd://"+addr)
	before := term.settings()
	term.run("naming top")
	term.wait("naming top  etcd://"+addr, "The registry has not answered:", "refused")
	term.keys("q")
	term.restored(before, 0)
}
