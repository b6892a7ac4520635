// Package examples_test tests the programs of this directory, and that the
// README shows what is in them.
package examples_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/naming-go/naming/internal/etcdtest"
)

// TestServerAndClient: a server registers itself, a client finds it, and the server leaves
// on SIGTERM. A server that joined a migration by its URL serves the clients of either
// registry.
func TestServerAndClient(t *testing.T) {
	c := etcdtest.Start(t, nil)
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, "./server", "./client").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	url := "etcd://" + c.Members[0].Addr + "?prefix=/naming/"
	other := "etcd://" + c.Members[0].Addr + "?prefix=/other/"
	t.Run("one registry", func(t *testing.T) { testServerAndClient(t, c, bin, url, url) })
	t.Run("old client", func(t *testing.T) {
		testServerAndClient(t, c, bin, "migrate:?phase=new-read&from="+url+"&to="+other, url)
	})
	t.Run("joined client", func(t *testing.T) {
		testServerAndClient(t, c, bin, url, "migrate:?phase=union&from="+other+"&to="+url)
	})
}

// testServerAndClient runs a server and a client with the URLs of their registries, of
// which the server's has the prefix /naming/.
func testServerAndClient(t *testing.T, c *etcdtest.Cluster, bin, serverURL, clientURL string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	server := exec.CommandContext(ctx, filepath.Join(bin, "server"), "-store", serverURL)
	r, w := io.Pipe()
	server.Stderr = w
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(r)
	if !lines.Scan() || !strings.Contains(lines.Text(), "serving at ") {
		t.Fatalf("the server wrote %q", lines.Text())
	}
	_, addr, _ := strings.Cut(lines.Text(), "serving at ")
	var rest bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(&rest, r)
	}()

	out, err := exec.CommandContext(ctx, filepath.Join(bin, "client"), "-store", clientURL, "-n", "1").CombinedOutput()
	if err != nil || !strings.Contains(string(out), addr+" says SERVING") {
		t.Errorf("the client, of a server at %s: %v\n%s", addr, err, out)
	}
	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err = server.Wait()
	w.Close()
	<-read
	if err != nil {
		t.Errorf("the server: %v\n%s", err, &rest)
	}
	for _, prefix := range []string{"/naming/", "/other/"} {
		left, err := c.Client(t).Get(ctx, prefix+"greeter/"+addr)
		if err != nil || len(left.Kvs) > 0 {
			t.Errorf("the server left %v, %v", left, err)
		}
	}
}

// TestHello runs the program that the README shows: as it is, and on etcd with the
// one line changed as its comment says.
func TestHello(t *testing.T) {
	const (
		file  = "hello/main.go"
		store = "new(memory.Store) // or "
		local = "127.0.0.1:2379"
	)
	program := read(t, "examples/"+file)
	if n := strings.Count(program, "\n"); n > 45 {
		t.Errorf("the program has %d lines, want 45 at most", n)
	}
	t.Run("memory", func(t *testing.T) { testHello(t, file) })
	t.Run("etcd", func(t *testing.T) {
		c := etcdtest.Start(t, nil)
		changed := program
		for _, change := range [][2]string{
			{store, ""},
			{local, c.Members[0].Addr},
			{`"github.com/naming-go/naming/backend/memory"`, "\"github.com/naming-go/naming/backend/etcd\"\n\tclientv3 \"go.etcd.io/etcd/client/v3\""},
		} {
			if strings.Count(changed, change[0]) != 1 {
				t.Fatalf("%s does not contain %q once", file, change[0])
			}
			changed = strings.Replace(changed, change[0], change[1], 1)
		}
		onEtcd := filepath.Join(t.TempDir(), "main.go")
		if err := os.WriteFile(onEtcd, []byte(changed), 0o666); err != nil {
			t.Fatal(err)
		}
		testHello(t, onEtcd)
		if revision := c.Revision(t); revision < 3 {
			t.Errorf("etcd is at revision %d, want the registration and its end", revision)
		}
	})
}

func testHello(t *testing.T, file string) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // with the compiler
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "run", file).CombinedOutput()
	if err != nil || !regexp.MustCompile(`127\.0\.0\.1:\d+ says SERVING\n.*stopped, error: <nil>\n$`).Match(out) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestArguments: a program refuses an argument that is not a flag, such as a URL without
// -store. Otherwise the argument would be ignored.
func TestArguments(t *testing.T) {
	for _, program := range []string{"./server", "./client", "./quickstart", "./migration", "./reverseproxy", "./both"} {
		out, err := exec.Command("go", "run", program, "etcd://127.0.0.1:1").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "with -store") {
			t.Errorf("%s: %v\n%s", program, err, out)
		}
	}
}

// TestFieldR10NoRegistry: with no registry running, a program reports the first refused
// connection soon. It has one log, with one line for each event, and ends on SIGTERM.
func TestFieldR10NoRegistry(t *testing.T) {
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, "./server", "./client").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refuses := l.Addr().String()
	l.Close()
	for _, url := range []string{"etcd://" + refuses + "?prefix=/naming/", "consul://" + refuses} {
		for _, c := range []struct {
			program string
			waits   string // what the program says that it waits for
			events  int    // events that are logged before the first retry
		}{{"client", "a call waits", 1}, {"server", "tried again until there is one", 2}} {
			t.Run(c.program+" "+url[:4], func(t *testing.T) {
				lines := runWithoutRegistry(t, filepath.Join(bin, c.program), "-store", url)
				all := strings.Join(lines, "\n")
				if !strings.Contains(all, c.waits) {
					t.Errorf("does not say that it waits:\n%s", all)
				}
				warnings := 0
				for _, line := range lines {
					if strings.HasPrefix(line, "{") {
						t.Errorf("another log: %s", line)
					}
					if isRefusal(line) {
						warnings++
					}
				}
				// Closing may warn once more, of what is left undone.
				if warnings > c.events+2 {
					t.Errorf("%d lines for %d events:\n%s", warnings, c.events, all)
				}
			})
		}
	}
}

// isRefusal reports whether a line of the log warns of a refused connection.
func isRefusal(line string) bool {
	return strings.Contains(line, "WARN") && strings.Contains(line, "connection refused")
}

// runWithoutRegistry runs a program until it warns of a refused connection, and then
// stops it. It returns the lines that the program wrote.
func runWithoutRegistry(t *testing.T, program string, args ...string) (lines []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	warned := make(chan time.Duration, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for s := bufio.NewScanner(r); s.Scan(); {
			lines = append(lines, s.Text())
			if isRefusal(s.Text()) {
				select {
				case warned <- time.Since(begin):
				default:
				}
			}
		}
	}()
	select {
	case took := <-warned:
		// It was 20 s once. A busy machine may take a while to start a program.
		if took > 10*time.Second {
			t.Errorf("warned after %v that there is no registry", took)
		}
	case <-ctx.Done():
		t.Error("no warning within a minute")
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
	w.Close()
	<-read
	if ctx.Err() != nil {
		t.Error("did not end on SIGTERM")
	}
	return lines
}

const root = ".."

// TestReadmeCode: every block of Go in the README is part of the program that the comment
// above it names.
func TestReadmeCode(t *testing.T) {
	readme := read(t, "README.md")
	blocks := regexp.MustCompile("(?s)(?:<!-- (\\S+) -->\n)?```go\n(.*?)```").FindAllStringSubmatch(readme, -1)
	if len(blocks) < 2 {
		t.Errorf("the README has %d blocks of Go, want one of a server and one of a client", len(blocks))
	}
	for _, b := range blocks {
		file, code := b[1], b[2]
		if file == "" {
			t.Errorf("no comment says which file this is of:\n%s", code)
			continue
		}
		if !strings.Contains(flat(read(t, file)), flat(code)) {
			t.Errorf("this is not in %s:\n%s", file, code)
		}
	}
}

// flat returns lines without their indentation.
func flat(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
	}
	return "\n" + strings.Join(lines, "\n") + "\n"
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
