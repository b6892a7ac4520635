package supervise

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// become makes a process a subreaper, if the test says so.
func become() {
	if os.Getenv("SUPERVISE_SUBREAPER") == "" {
		return
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(100)
	}
}

// supervisorCommand returns a command that supervises a program in a process of its own.
func supervisorCommand(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "SUPERVISE_TEST=supervisor")
	cmd.Stderr = os.Stderr
	return cmd
}

// A program does not outlive a supervisor that was killed.
func TestSupervisorKilled(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	cmd := supervisorCommand("sh", "-c", "trap '' TERM INT HUP; echo $$ > $0; while :; do sleep 0.1; done", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := pidIn(t, file)
	if ended(pid) {
		t.Fatal("the program has ended")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	eventually(t, "the program ends", func() bool { return ended(pid) })
}

// orphans is a program that leaves three orphans, waits until all have ended, and reports how
// many of them are not reaped.
const orphans = `
for i in 1 2 3; do (sleep 0.1 & echo $! >> $0); done
while read pid; do
	while [ -d /proc/$pid ] && ! grep -q '^State:.*zombie' /proc/$pid/status 2>/dev/null; do sleep 0.05; done
done < $0
for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
	left=0
	while read pid; do [ -d /proc/$pid ] && left=$((left+1)); done < $0
	[ $left = 0 ] && exit 42
	sleep 0.1
done
exit $left`

// TestReapsOrphans has a subreaper and a process 1. A machine that forbids namespaces has no
// other process 1. TestAdopts says there that the two are treated alike.
func TestReapsOrphans(t *testing.T) {
	wraps := map[string]func(*exec.Cmd){
		"subreaper": func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "SUPERVISE_SUBREAPER=1") },
	}
	if args := unshare(t); args != nil {
		wraps["process 1"] = func(cmd *exec.Cmd) {
			cmd.Path, _ = exec.LookPath(args[0])
			cmd.Args = append(args, cmd.Args...)
		}
	}
	for name, wrap := range wraps {
		t.Run(name, func(t *testing.T) {
			cmd := supervisorCommand("sh", "-c", orphans, filepath.Join(t.TempDir(), "pids"))
			wrap(cmd)
			if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 42 {
				t.Errorf("orphans are left: %v", err)
			}
		})
	}
}

// unshare returns a command that runs its arguments as process 1, or nil if the machine forbids
// the namespace.
func unshare(t *testing.T) []string {
	for _, user := range [][]string{nil, {"--user", "--map-root-user"}} {
		args := append(append([]string{"unshare"}, user...), "--pid", "--fork", "--mount-proc")
		out, err := exec.Command(args[0], append(args[1:], "true")...).CombinedOutput()
		if err == nil {
			return args
		}
		t.Logf("%v: %v: %s", args, err, strings.TrimSpace(string(out)))
	}
	return nil
}

func TestAdopts(t *testing.T) {
	for _, c := range []struct {
		pid       int
		subreaper bool
		want      bool
	}{{1, false, true}, {1, true, true}, {2, true, true}, {2, false, false}} {
		if got := adopts(c.pid, c.subreaper); got != c.want {
			t.Errorf("process %d, subreaper %v: %v", c.pid, c.subreaper, got)
		}
	}
}
