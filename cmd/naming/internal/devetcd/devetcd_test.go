package devetcd_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming/cmd/naming/internal/devetcd"
)

// TestMain makes the test binary a program with a server: see serverProgram.
func TestMain(m *testing.M) {
	if dir := os.Getenv("DEVETCD_TEST_DIR"); dir != "" {
		serverProgram(dir)
	}
	os.Exit(m.Run())
}

// serverProgram starts a server on a data directory, prints its address, and runs until its
// input ends or the server ends the process.
func serverProgram(dir string) {
	s, err := devetcd.Start(context.Background(), devetcd.Options{
		Listen: "127.0.0.1:0", Dir: dir, Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(100)
	}
	fmt.Println(s.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	s.Close()
	os.Exit(0)
}

// program is a running serverProgram.
type program struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	addr string
	log  strings.Builder // may be read after the end of cmd
}

// startProgram starts a serverProgram. The shell commands of before run first.
func startProgram(t *testing.T, dir, before string) *program {
	t.Helper()
	p := &program{cmd: exec.Command("sh", "-c", before+`exec "$0"`, os.Args[0])}
	p.cmd.Env = append(os.Environ(), "DEVETCD_TEST_DIR="+dir)
	p.cmd.Stderr = &p.log
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = p.cmd.Wait()
		t.Fatalf("the server does not start: %v\n%s", err, p.log.String())
	}
	p.addr = strings.TrimSpace(line)
	return p
}

func client(t *testing.T, addr string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, DialTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// bounded returns a context that only a hang outlives.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// What was written survives that the process is killed, and that the server is closed.
func TestRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	p := startProgram(t, dir, "")
	if _, err := client(t, p.addr).Put(bounded(t), "key", "value"); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	for _, when := range []string{"after the kill", "after the end"} {
		p = startProgram(t, dir, "")
		got, err := client(t, p.addr).Get(bounded(t), "key")
		if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "value" {
			t.Errorf("%s: %v, %v", when, got, err)
		}
		_ = p.in.Close()
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("%s: the server ends with %v\n%s", when, err, p.log.String())
		}
	}
}

// A second server on the same directory or address is refused at once, and the first server
// is not harmed.
func TestInUse(t *testing.T) {
	dir := t.TempDir()
	s, err := devetcd.Start(bounded(t), devetcd.Options{Listen: "127.0.0.1:0", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := devetcd.Start(bounded(t), devetcd.Options{Listen: "127.0.0.1:0", Dir: dir}); !errors.Is(err, devetcd.ErrDirInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("the same directory: the error is %v", err)
	}
	other := t.TempDir()
	for range 2 { // the refusal leaves the other directory unlocked
		if _, err := devetcd.Start(bounded(t), devetcd.Options{Listen: s.Addr(), Dir: other}); !errors.Is(err, devetcd.ErrInUse) || !strings.Contains(err.Error(), s.Addr()) {
			t.Errorf("the same address: the error is %v", err)
		}
	}
	if _, err := client(t, s.Addr()).Put(bounded(t), "key", "value"); err != nil {
		t.Error(err)
	}
	s.Close()
	s, err = devetcd.Start(bounded(t), devetcd.Options{Listen: "127.0.0.1:0", Dir: dir})
	if err != nil {
		t.Fatalf("after the end of the first server: %v", err)
	}
	s.Close()
}

func TestListen(t *testing.T) {
	for _, addr := range []string{"", "nowhere", "127.0.0.1", ":2379", "example.com:2379", "127.0.0.1:etcd", "127.0.0.1:99999"} {
		dir := filepath.Join(t.TempDir(), "data")
		if _, err := devetcd.Start(t.Context(), devetcd.Options{Listen: addr, Dir: dir}); !errors.Is(err, devetcd.ErrListen) {
			t.Errorf("%q: the error is %v", addr, err)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%q: the directory was made", addr)
		}
	}
}

// A temporary directory goes with its server. Only the loopback interface is open.
func TestTemporary(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	s, err := devetcd.Start(bounded(t), devetcd.Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if host, _, _ := net.SplitHostPort(s.Addr()); host != "127.0.0.1" {
		t.Errorf("the server listens on %s", s.Addr())
	}
	if _, err := os.Stat(s.Dir()); err != nil {
		t.Error(err)
	}
	if _, err := devetcd.Start(bounded(t), devetcd.Options{Listen: s.Addr()}); !errors.Is(err, devetcd.ErrInUse) {
		t.Errorf("the same address: the error is %v", err)
	}
	s.Close()
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("%v are left, error %v", left, err)
	}
}

// etcd ends the process when it cannot write. The log says why. The limit of the size of a file
// stands for a full disk here.
func TestDiskFull(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	p := startProgram(t, dir, "") // makes the files that are large from the beginning
	_ = p.in.Close()
	if err := p.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	p = startProgram(t, dir, "ulimit -f 125100\n") // in units of 512 bytes: a little over the log of 64 MB
	c, value := client(t, p.addr), strings.Repeat("x", 1<<20)
	for i := 0; i < 200; i++ {
		if _, err := c.Put(bounded(t), fmt.Sprint(i), value); err != nil {
			break
		}
	}
	_ = p.in.Close()
	if err := p.cmd.Wait(); err == nil || !strings.Contains(p.log.String(), "level=ERROR") || !strings.Contains(p.log.String(), "file too large") {
		t.Errorf("the process ends with %v and says\n%s", err, p.log.String())
	}
}
