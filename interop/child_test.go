package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/naming-go/naming/interop/peer"
)

// program is a program that speaks the protocol of package peer, and how it is built.
type program struct {
	dir     string // its module
	pkg     string
	modfile string // empty: go.mod
}

var (
	peersProgram       = program{".", "./cmd/peers", ""}
	old129Program      = program{"old", ".", ""}
	old126Program      = program{"old", ".", "grpc126.mod"}
	etcdNaming35       = program{"etcdnaming", ".", ""}
	etcdNamingPresent  = program{"etcdnaming", ".", "current.mod"}
	built              sync.Map // program to func() (string, error)
	programs           string   // the directory of the built programs
	errChildHasStopped = "the process has stopped"
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "interop")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	programs = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// build returns the path of a program.
func (p program) build(t *testing.T) string {
	t.Helper()
	f, _ := built.LoadOrStore(p, sync.OnceValues(func() (string, error) {
		path := filepath.Join(programs, strings.NewReplacer("/", "_", ".", "_").Replace(p.dir+p.pkg+p.modfile))
		args := []string{"build", "-o", path}
		if p.modfile != "" {
			args = append(args, "-modfile="+p.modfile)
		}
		cmd := exec.Command("go", append(args, p.pkg)...)
		cmd.Dir = p.dir
		cmd.Env = append(os.Environ(), "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go build in %s: %w\n%s", p.dir, err, out)
		}
		return path, nil
	}))
	path, err := f.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// child is a running library. It is not for concurrent use.
type child struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *json.Decoder
	stderr  tail
	stopped chan struct{} // closed when the process has ended
}

// start starts a library. The process ends with the test.
func (p program) start(t *testing.T, library string, servers peer.Servers) *child {
	t.Helper()
	path := p.build(t)
	arg, err := json.Marshal(servers)
	if err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: exec.Command(path, library, string(arg)), stopped: make(chan struct{})}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = json.NewDecoder(out)
	c.cmd.Stdout, c.cmd.Stderr = w, &c.stderr
	c.cmd.Dir = t.TempDir() // some libraries write logs
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go func() {
		defer close(c.stopped)
		_ = c.cmd.Wait()
	}()
	t.Cleanup(func() {
		c.kill()
		out.Close()
	})
	return c
}

// kill ends the process at once, as a crash does.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.stopped
}

// try makes a request.
func (c *child) try(req peer.Request) (peer.Reply, error) {
	line, err := json.Marshal(req)
	if err != nil {
		return peer.Reply{}, err
	}
	var reply peer.Reply
	_, err = c.in.Write(append(line, '\n'))
	if err == nil {
		err = c.out.Decode(&reply)
	}
	switch {
	case err != nil:
		<-c.stopped // it closed its pipes
		return reply, fmt.Errorf("%s: %s: %w\n%s", req.Do, errChildHasStopped, err, c.stderr.String())
	case reply.Unsupported:
		return reply, fmt.Errorf("%s: %w", req.Do, peer.ErrUnsupported)
	case reply.Err != "":
		return reply, fmt.Errorf("%s: %s", req.Do, reply.Err)
	}
	return reply, nil
}

// do makes a request that has to succeed.
func (c *child) do(t *testing.T, req peer.Request) peer.Reply {
	t.Helper()
	reply, err := c.try(req)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// tail keeps the beginning of a process's output, or of a panic.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const keptOfStderr = 8 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := bytes.Index(p, []byte("panic: ")); i >= 0 {
		t.buf.Reset()
		t.buf.Write(p[i:min(len(p), i+keptOfStderr)])
	} else if t.buf.Len() < keptOfStderr {
		t.buf.Write(p)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}
