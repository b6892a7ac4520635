package servertest

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"testing"
)

// A test that is killed leaves no server. go test kills a test that takes too long.
func TestKilledTest(t *testing.T) {
	addr := Addr(Ports(t, 1)[0])
	cmd := exec.Command(os.Args[0], "-test.run=^TestOrphan$")
	cmd.Env = append(os.Environ(), "SERVERTEST_ORPHAN="+addr)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, readErr := bufio.NewReader(out).ReadString('\n')
	greetErr := greetingWithin(addr, Patience)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if line != "started\n" || greetErr != nil {
		t.Fatalf("the other test said %q, %v; its server: %v", line, readErr, greetErr)
	}
	Poll(t, "the server outlives the test", func() error {
		if greeting(addr) == nil {
			return errors.New("it answers")
		}
		return nil
	})
}
