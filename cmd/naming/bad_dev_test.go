package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestBadDev has what naming dev finds in use or damaged: it ends with a message, and without
// the stack of etcd.
func TestBadDev(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	s := begin(t, "dev", "--listen", "127.0.0.1:0", "--data-dir", data)
	s.until("registry ready")
	execute(t, "dev", "--listen", "127.0.0.1:0", "--data-dir", data).expect(t, 1, `the data directory \S+/data is in use by another program`)
	url := strings.TrimSpace(strings.TrimPrefix(s.output.String(), "registry ready: etcd://"))
	addr, _, _ := strings.Cut(url, "?")
	execute(t, "dev", "--listen", addr, "--temporary").expect(t, 1, addr+` is in use by another program: stop the other program, or use --listen`)
	s.signal(syscall.SIGINT)
	if r := s.end(); r.status != 0 {
		t.Errorf("the status is %d: %s", r.status, r.out)
	}
	logs, err := filepath.Glob(filepath.Join(data, "etcd/member/wal/0*.wal"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("the logs are %v, error %v", logs, err)
	}
	for _, file := range append(logs[:1], filepath.Join(data, "etcd/member/snap/db")) {
		if err := os.WriteFile(file, []byte("junk"), 0o600); err != nil {
			t.Fatal(err)
		}
		execute(t, "dev", "--listen", "127.0.0.1:0", "--data-dir", data).expect(t, 1, `^naming: (etcd: |the data directory \S+/data cannot be used: )`)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	execute(t, "dev", "--listen", "127.0.0.1:0", "--data-dir", file).expect(t, 1, `--data-dir: .*not a directory`)
}

// A server whose port is in use says so.
func TestPortInUse(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	for _, name := range []string{"serve", "ui"} {
		execute(t, name, "--listen", lis.Addr().String(), "-s", "memory:").expect(t, 1, `--listen: .*address already in use`)
	}
}
