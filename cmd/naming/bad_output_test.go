package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/hashicorp/consul/api"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.yaml.in/yaml/v3"

	"github.com/naming-go/naming/cmd/naming/internal/devetcd"
	"github.com/naming-go/naming/internal/consultest"
)

// nasty has a sequence that clears a terminal, one that sets its title, a control character of
// the range C1, a mark that turns the direction of text, a line of its own, and DEL.
const nasty = "a\x1b[2J\x1b]0;owned\x07b\u009b31mc\u202edcba\u2066\r\nnaming: all is well\x7f\u200b"

// nastyJSON is nasty in JSON, and so are the control characters in the text of the JSON.
var nastyJSON = func() string {
	b, err := json.Marshal(nasty)
	if err != nil {
		panic(err)
	}
	return string(b)
}()

// nastyEtcd returns an etcd whose keys and values were written to do harm.
func nastyEtcd(t *testing.T) string {
	s, err := devetcd.Start(t.Context(), devetcd.Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for key, value := range map[string]string{
		"/n/greeter/one":               `{"Op":0,"Addr":"10.0.0.1:80","Metadata":{"zone":` + nastyJSON + `,"version":` + nastyJSON + `,"tags":[` + nastyJSON + `],` + nastyJSON + `:` + nastyJSON + `}}`,
		"/n/greeter/" + nasty:          `{"Op":0,"Addr":"10.0.0.2:80","Metadata":{"draining":true}}`,
		"/n/greeter/malformed" + nasty: nasty,
		"/n/greeter/address":           `{"Op":0,"Addr":` + nastyJSON + `,"Metadata":null}`,
		"/n/greeter/bytes":             "\xff\xfe{",
		"/n/greeter" + nasty + "/one":  `{"Op":0,"Addr":"10.0.0.1:80","Metadata":null}`,
		"/n/naming/migration/greeter":  `{"Op":0,"Addr":"10.0.0.9:80","Metadata":{"phase":` + nastyJSON + `}}`,
		"/n/naming/migration/" + nasty: `{"Op":0,"Addr":"x","Metadata":{"phase":2,"seq":1,"by":` + nastyJSON + `}}`,
	} {
		if _, err := c.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	return "etcd://" + s.Addr() + "?prefix=/n/"
}

// nastyConsul returns a Consul whose registrations and checks were written to do harm.
func nastyConsul(t *testing.T) string {
	a := consultest.Start(t, nil)
	agent := a.Client(t).Agent()
	for _, r := range []api.AgentServiceRegistration{
		{ID: "one", Name: "n-greeter", Address: "10.0.0.1", Port: 80, Tags: []string{nasty}, Meta: map[string]string{"zone": nasty, "version": nasty}},
		{ID: "two" + nasty, Name: "n-greeter", Address: "10.0.0.2", Port: 80, Check: &api.AgentServiceCheck{Name: nasty, Status: "critical", Notes: nasty, TTL: "1h"}},
		{ID: "three", Name: "n-greeter", Address: nasty, Port: 80},
		{ID: "four", Name: "n-greeter" + nasty, Address: "10.0.0.1", Port: 80},
	} {
		if err := agent.ServiceRegister(&r); err != nil {
			t.Logf("Consul refuses %q: %v", r.ID, err)
		}
	}
	if err := agent.EnableServiceMaintenance("one", nasty); err != nil {
		t.Fatal(err)
	}
	return "consul://" + a.Addr + "?prefix=n-"
}

// printable reports the first character of an output that a terminal would obey. The colours
// of a table are not among them: the output of a test is not a terminal.
func printable(out string) (string, bool) {
	if i := strings.IndexFunc(out, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
		return out[max(0, i-40):min(len(out), i+40)], false
	}
	return "", true
}

// TestHostileEntries reads hostile registries with all commands and in all formats. Nothing of
// the entries reaches the terminal as it is, and the documents can be read by programs.
func TestHostileEntries(t *testing.T) {
	t.Parallel()
	for kind, start := range map[string]func(*testing.T) string{"etcd": nastyEtcd, "consul": nastyConsul} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			url, to := start(t), other(t)
			lines := slices.Concat(reading, []string{
				"get --wide greeter -s STORE", "doctor --dial STORE -v", "drain greeter one -s STORE --verify 0s",
				"resume greeter one -s STORE --verify 0s", "copy STORE OTHER --leased skip",
				"migrate advance --all --settle 0s --by x --old STORE --new OTHER", "migrate back --all --old STORE --new OTHER",
				"migrate sweep --election none --old STORE --new OTHER", "migrate approve 0123 --old STORE --new OTHER", "deregister greeter none -s STORE",
			})
			for i, line := range lines {
				lines[i] = "-v " + line
			}
			for _, format := range []string{"table", "json", "yaml"} {
				each(t, lines, url, to, func(t *testing.T, line string, args []string) {
					hostile(t, execute(t, append(args, "-o", format, "--timeout", "30s")...), line, format)
				})
			}
			for _, line := range []string{"watch -s STORE", "watch greeter -s STORE -o json", "watch -s STORE -o yaml"} {
				s := begin(t, fill(line, url, to)...)
				s.until("10.0.0.2|synced")
				s.until("synced")
				s.signal(syscall.SIGINT)
				hostile(t, s.end(), line, "")
			}
			get := execute(t, "get", "greeter", "-s", url, "-o", "json").out
			if !strings.Contains(get, `\u001b[2J`) {
				t.Errorf("the hostile text is not in\n%s", get)
			}
		})
	}
}

// hostile checks an output that contains hostile texts.
func hostile(t *testing.T, r ran, line, format string) {
	t.Helper()
	if text, ok := printable(r.all()); !ok {
		t.Errorf("a terminal obeys %q", text)
	}
	if strings.Contains(r.all(), "\nnaming: all is well") {
		t.Errorf("an entry has a line of its own in\n%s", r.all())
	}
	if strings.Contains(r.err, "yaml:") || r.status > 3 {
		t.Errorf("the status is %d: %s", r.status, r.err)
	}
	r.sober(t)
	decode := map[string]func(io.Reader) interface{ Decode(any) error }{
		"json": func(r io.Reader) interface{ Decode(any) error } { return json.NewDecoder(r) },
		"yaml": func(r io.Reader) interface{ Decode(any) error } { return yaml.NewDecoder(r) },
	}[format]
	if decode == nil || r.out == "" {
		return
	}
	for dec := decode(strings.NewReader(r.out)); ; {
		var doc any
		if err := dec.Decode(&doc); err == io.EOF {
			return
		} else if err != nil {
			t.Fatalf("%s: the document cannot be read: %v\n%s", line, err, r.out)
		}
	}
}

// longLines are lines of the commands that run until Ctrl-C, or for long. The text is what they
// print when they are at work. The status is that after Ctrl-C.
var longLines = []badLine{
	{"watch -s STORE", 0, "synced"},
	{"register greeter 10.0.0.9:80 -s STORE --drain-delay 0s", 0, "registered"},
	{"run greeter --addr 10.0.0.9:80 --health none --drain-delay 0s -s STORE -- yes started", 130, "started"},
	{"check STORE --many 50 -o json", 1, `"result":"passed"`},
	{"doctor STORE --samples 10000", 0, "reach"}, // or 1: the reads may end before the signal
	{"serve --listen 127.0.0.1:0 -s STORE", 0, "http://"},
	{"ui --listen 127.0.0.1:0 -s STORE", 0, "http://"},
	{"dev --listen 127.0.0.1:0 --temporary", 0, "Ctrl-C stops it"},
	{"drain greeter two --verify 0s --wait 1h -s OTHER", 1, ""}, // until the registry has the mark
	{"copy OTHER STORE --leased keep", 0, "keeping 1 copy|1 written"},
	{"migrate verify --soak 1h --settle 1h --old OTHER --new STORE", 1, "of 1h0m0s"},
	{"migrate advance --all --soak 1h --settle 1h --old OTHER --new STORE", 1, "of 1h0m0s"},
	{"migrate bridge --election none --service greeter --old OTHER --new STORE", 0, "copied|waiting for"},
	{"migrate drill --pause 1s --old OTHER --new STORE", 1, "0 old"},
}

// started is a command that runs, whose output is read line by line.
type started struct {
	t      *testing.T
	cancel context.CancelFunc
	lines  chan string
	wait   func() int
	close  func() // closes the end of the pipe that is read
	signal func(os.Signal)
	output bytes.Buffer // what lines has returned
}

// begin starts a command.
func begin(t *testing.T, args ...string) *started {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute) // only a hang takes longer
	cmd := newCommand(ctx, t, args...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	s := &started{t: t, cancel: cancel, close: func() { r.Close() }, lines: make(chan string, 1000), signal: func(sig os.Signal) { _ = cmd.Process.Signal(sig) }}
	go func() {
		defer close(s.lines)
		defer r.Close()
		for scan := bufio.NewScanner(r); scan.Scan(); {
			s.lines <- scan.Text()
		}
	}()
	s.wait = func() int { return exitStatus(t, cmd.Wait()) }
	return s
}

// until reads lines until one has one of the texts.
func (s *started) until(texts string) {
	s.t.Helper()
	for line := range s.lines {
		s.output.WriteString(line + "\n")
		for text := range strings.SplitSeq(texts, "|") {
			if strings.Contains(line, text) {
				return
			}
		}
	}
	s.t.Fatalf("the command ended with the status %d without %q:\n%s", s.wait(), texts, &s.output)
}

// end reads the lines to the end, and returns the run.
func (s *started) end() ran {
	for line := range s.lines {
		s.output.WriteString(line + "\n")
	}
	defer s.cancel()
	return ran{status: s.wait(), out: s.output.String()}
}

// TestInterrupted sends Ctrl-C to each command that runs for long. It ends with its status, and
// leaves nothing in the registry that it has put there.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	for kind, url := range registries(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			command(t, "register", "greeter", "10.0.0.1:80", "--permanent", "-s", url)
			for _, line := range longLines {
				t.Run(line.args, func(t *testing.T) {
					to := other(t)
					s := begin(t, fill(line.args, url, to)...)
					if line.message != "" {
						s.until(line.message)
					}
					for line.message == "" && !strings.Contains(execute(t, "get", "greeter", "-s", to).out, "draining") {
						time.Sleep(50 * time.Millisecond)
					}
					s.signal(syscall.SIGINT)
					r := s.end()
					if r.sober(t); r.status != line.status && (r.status != 1 || !strings.HasPrefix(line.args, "doctor")) {
						t.Errorf("the status is %d, want %d:\n%s", r.status, line.status, r.out)
					}
				})
			}
			clean(t, url)
		})
	}
}

// TestInterruptedInOutage interrupts the checks of a registry that is down. The command says that
// it could not remove what the checks had put.
func TestInterruptedInOutage(t *testing.T) {
	t.Parallel()
	o := newOutage(t)
	o.startRegistry()
	s := begin(t, "check", o.url())
	s.until("passed")
	o.killRegistry()
	s.signal(syscall.SIGINT)
	r := s.end()
	r.err = r.out // s reads both outputs as one
	r.expect(t, 1, "interrupted; what the check .* put may be left: .*connection refused")
}

// clean checks that the commands that put services of their own have left none.
func clean(t *testing.T, url string) {
	t.Helper()
	list := execute(t, "ls", "-s", url, "-o", "json").out
	if strings.Contains(list, "naming-") || strings.Contains(list, "drill-") {
		t.Errorf("the registry has %s", list)
	}
}

// TestClosedOutput closes the output after the first line, as head -1 does. The commands end
// without a message, and leave nothing in the registry. The commands that keep something in the
// registry go on until Ctrl-C.
func TestClosedOutput(t *testing.T) {
	t.Parallel()
	for kind, url := range registries(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			command(t, "register", "greeter", "10.0.0.1:80", "--permanent", "-s", url)
			each(t, []string{
				"ls -s STORE", "get greeter -s STORE -o json", "top -s STORE -o yaml", "doctor STORE --samples 1000",
				"check STORE --many 50 --quiet 100ms", "bench STORE --registrations 10 --changes 2", "diff STORE OTHER", "watch -s STORE", "--help",
			}, url, other(t), func(t *testing.T, line string, args []string) {
				r := closedOutput(t, strings.HasPrefix(line, "check") || strings.HasPrefix(line, "doctor"), append(args, "--timeout", "1m")...)
				r.sober(t)
				if line != "--help" && (r.status != 1 || r.err != "") {
					t.Errorf("the status is %d: %s", r.status, r.err)
				}
			})
			clean(t, url)
			s := begin(t, "register", "greeter", "10.0.0.9:80", "--drain-delay", "0s", "-s", url)
			s.until("registered")
			s.close()
			s.signal(syscall.SIGINT)
			if status := s.wait(); status != 0 {
				t.Errorf("the status of register is %d", status)
			}
			if out := execute(t, "get", "greeter", "-s", url).out; strings.Contains(out, "10.0.0.9") {
				t.Errorf("register has left its entry: %s", out)
			}
		})
	}
}

// closedOutput runs a command whose output nobody reads, or nobody reads after the first byte.
func closedOutput(t *testing.T, first bool, args ...string) ran {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // only a hang takes longer
	defer cancel()
	cmd := newCommand(ctx, t, args...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if first {
		_, _ = r.Read(make([]byte, 1))
	}
	r.Close()
	err = cmd.Wait()
	if ctx.Err() != nil {
		t.Fatalf("naming %q does not end: %s", args, &stderr)
	}
	return ran{status: exitStatus(t, err), err: stderr.String()}
}
