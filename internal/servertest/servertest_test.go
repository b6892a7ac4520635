package servertest

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// serve is the variable of the environment that makes the test binary a server at its value.
const serve = "SERVERTEST_SERVE"

func TestMain(m *testing.M) {
	addr := os.Getenv(serve)
	if addr == "" {
		os.Exit(m.Run())
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("hello from", addr)
	for {
		c, err := l.Accept()
		if err != nil {
			os.Exit(1)
		}
		fmt.Fprintln(c, "hello")
		c.Close()
	}
}

// server returns the command that runs the test binary as a server.
func server(addr string) Command {
	return Command{
		Path:    os.Args[0],
		Env:     []string{serve + "=" + addr, "GORACE=atexit_sleep_ms=0"},
		Healthy: func() error { return greeting(addr) },
	}
}

// greeting returns nil if the server at addr answers soon.
func greeting(addr string) error { return greetingWithin(addr, 300*time.Millisecond) }

// greetingWithin returns nil if the server at addr answers within d.
func greetingWithin(addr string, d time.Duration) error {
	c, err := net.DialTimeout("tcp", addr, max(d, time.Second))
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(d))
	b, err := io.ReadAll(c)
	if err == nil && string(b) != "hello\n" {
		err = fmt.Errorf("got %q", b)
	}
	return err
}

// fake is a test that may fail.
type fake struct {
	testing.TB // the test that uses the fake
	failed     bool
	skipped    bool
	log        strings.Builder
	cleanups   []func()
}

// run runs test with the fake, calls the cleanups, and returns the log.
func (f *fake) run(test func(testing.TB)) string {
	done := make(chan struct{})
	go func() {
		defer close(done)
		test(f)
	}()
	<-done
	for i := len(f.cleanups) - 1; i >= 0; i-- {
		f.cleanups[i]()
	}
	return f.log.String()
}

func (f *fake) Helper()                    {}
func (f *fake) Failed() bool               { return f.failed }
func (f *fake) Cleanup(fn func())          { f.cleanups = append(f.cleanups, fn) }
func (f *fake) Log(args ...any)            { fmt.Fprintln(&f.log, args...) }
func (f *fake) Logf(s string, args ...any) { fmt.Fprintf(&f.log, s+"\n", args...) }
func (f *fake) Skip(args ...any) {
	f.Log(args...)
	f.skipped = true
	runtime.Goexit()
}
func (f *fake) Fatal(args ...any) {
	f.Log(args...)
	f.failed = true
	runtime.Goexit()
}
func (f *fake) Fatalf(s string, args ...any) { f.Fatal(fmt.Sprintf(s, args...)) }

func TestMissing(t *testing.T) {
	t.Setenv("NAMING_SERVERS", "")
	missing := func(tb testing.TB) { Binary(tb, "no-such-server") }
	f := &fake{TB: t}
	if log := f.run(missing); !f.skipped || f.failed || !strings.Contains(log, "make servers") {
		t.Errorf("skipped %v, failed %v: %s", f.skipped, f.failed, log)
	}
	t.Setenv("NAMING_SERVERS", "required")
	f = &fake{TB: t}
	if log := f.run(missing); f.skipped || !f.failed || !strings.Contains(log, "make servers") {
		t.Errorf("skipped %v, failed %v: %s", f.skipped, f.failed, log)
	}
	if _, err := os.Stat(filepath.Join(Root(t), "go.mod")); err != nil {
		t.Error(err)
	}
}

func TestPorts(t *testing.T) {
	seen := make(map[int]bool)
	for range 10 {
		for _, p := range Ports(t, 3) {
			if seen[p] {
				t.Errorf("port %d twice", p)
			}
			seen[p] = true
			l, err := net.Listen("tcp", Addr(p))
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
		}
	}
}

func TestProcess(t *testing.T) {
	var p *Process
	addr := Addr(Ports(t, 1)[0])
	Start(t, func() []*Process {
		p = NewProcess(t, "server", server(addr))
		return []*Process{p}
	})
	if !p.Up() || greetingWithin(addr, Patience) != nil {
		t.Error("not up after Start")
	}
	pid := p.Pid()
	StartAll(t, []*Process{p}) // has no effect
	if p.Pid() != pid {
		t.Error("a second process was started")
	}

	p.Pause(t)
	if err := greeting(addr); err == nil || p.Up() {
		t.Error("a paused process answers")
	}
	p.Continue(t)
	p.Await(t)

	p.Pause(t)
	p.Kill(t)
	if err := greeting(addr); err == nil || p.Up() || p.Pid() != 0 {
		t.Error("a killed process answers")
	}
	p.Kill(t) // has no effect
	p.Restart(t)
	p.Restart(t)
	if p.Pid() == pid {
		t.Error("it is the same process after a restart")
	}

	p.Kill(t)
	for name, verb := range map[string]func(testing.TB){"pause": p.Pause, "continue": p.Continue, "reload": p.Reload, "await": p.Await} {
		f := &fake{TB: t}
		if log := f.run(verb); !f.failed || !strings.Contains(log, "does not run") {
			t.Errorf("%s of a dead process: failed %v: %s", name, f.failed, log)
		}
	}
}

// The output of a server is logged if the test failed.
func TestProcessLog(t *testing.T) {
	for _, failed := range []bool{false, true} {
		f := &fake{TB: t, failed: failed}
		var p *Process
		log := f.run(func(tb testing.TB) {
			p = NewProcess(tb, "server", server(Addr(Ports(tb, 1)[0])))
			p.Restart(tb)
		})
		if p.Up() {
			t.Error("up after the cleanup")
		}
		if strings.Contains(log, "hello from") != failed {
			t.Errorf("test failed: %v, log: %q", failed, log)
		}
	}
}

func TestStartTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	attempts := 0
	var ps []*Process
	Start(t, func() []*Process {
		attempts++
		addr := taken.Addr().String()
		if attempts > 2 {
			addr = Addr(Ports(t, 1)[0])
		}
		ps = []*Process{
			NewProcess(t, "one", server(Addr(Ports(t, 1)[0]))),
			NewProcess(t, "two", server(addr)),
		}
		return ps
	})
	if attempts != 3 {
		t.Errorf("%d attempts, want 3", attempts)
	}
	for _, p := range ps {
		p.Await(t)
	}

	// Start tries five times, and only once if another error occurs.
	for _, path := range []string{os.Args[0], "no such program"} {
		attempts = 0
		f := &fake{TB: t}
		log := f.run(func(tb testing.TB) {
			Start(tb, func() []*Process {
				attempts++
				cmd := server(taken.Addr().String())
				cmd.Path = path
				return []*Process{NewProcess(tb, "server", cmd)}
			})
		})
		if !f.failed {
			t.Error("it did not fail")
		}
		if want := map[bool]int{true: 5, false: 1}[path == os.Args[0]]; attempts != want {
			t.Errorf("%d attempts with %s, want %d: %s", attempts, path, want, log)
		}
	}
	f := &fake{TB: t}
	log := f.run(func(tb testing.TB) {
		Start(tb, func() []*Process {
			cmd := server("127.0.0.1:no-port")
			return []*Process{NewProcess(tb, "server", cmd)}
		})
	})
	if !f.failed || !strings.Contains(log, "ended: exit status 1") || !strings.Contains(log, "no-port") {
		t.Errorf("failed %v, log: %s", f.failed, log)
	}
}

// TestOrphan is the other process of TestKilledTest.
func TestOrphan(t *testing.T) {
	addr := os.Getenv("SERVERTEST_ORPHAN")
	if addr == "" {
		return
	}
	NewProcess(t, "server", server(addr)).Restart(t)
	fmt.Println("started")
	_, _ = io.Copy(io.Discard, os.Stdin) // until killed
}

func TestCA(t *testing.T) {
	ca, path := NewCA(t), filepath.Join(t.TempDir(), "both.pem")
	listen := func(pem []byte) (net.Listener, string) {
		WriteFile(t, path, pem)
		cert, err := tls.LoadX509KeyPair(path, path)
		if err != nil {
			t.Fatal(err)
		}
		l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
			Certificates: []tls.Certificate{cert},
			ClientAuth:   tls.RequireAndVerifyClientCert,
			ClientCAs:    ca.Pool(),
		})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		t.Cleanup(func() {
			l.Close()
			<-done
		})
		go func() {
			defer close(done)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, "hello\n")
				c.Close()
			}
		}()
		return l, l.Addr().String()
	}
	hello := func(addr string, config *tls.Config) error {
		c, err := tls.Dial("tcp", addr, config)
		if err != nil {
			return err
		}
		defer c.Close()
		b, err := io.ReadAll(c)
		if err == nil && string(b) != "hello\n" {
			err = fmt.Errorf("got %q", b)
		}
		return err
	}
	_, addr := listen(ca.Issue(t, "server", time.Hour, "registry.example"))
	config := ca.ClientConfig(t, "client")
	for _, name := range []string{"", "localhost", "registry.example"} {
		config.ServerName = name
		if err := hello(addr, config); err != nil {
			t.Errorf("server %q: %v", name, err)
		}
	}
	config.ServerName = "other.example"
	if err := hello(addr, config); err == nil {
		t.Error("the certificate is good for another name")
	}
	if err := hello(addr, NewCA(t).ClientConfig(t, "client")); err == nil {
		t.Error("another CA will do")
	}
	config = ca.ClientConfig(t, "client")
	config.Certificates = nil
	if err := hello(addr, config); err == nil {
		t.Error("no certificate will do")
	}

	_, expired := listen(ca.Issue(t, "server", -time.Hour))
	if err := hello(expired, ca.ClientConfig(t, "client")); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("a certificate that has expired: %v", err)
	}
	if a, b := ServedSerial(t, addr, ca.ClientConfig(t, "x")), ServedSerial(t, expired, ca.ClientConfig(t, "x")); a == b || a == "" {
		t.Errorf("serial numbers %s and %s", a, b)
	}
}
