package supervise

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func TestHTTP(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			w.WriteHeader(http.StatusNoContent)
		case "/moved":
			http.Redirect(w, r, "/ok", http.StatusFound)
		case "/bad":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/never":
			<-r.Context().Done()
		}
	}))
	defer s.Close()
	for path, want := range map[string]string{"/ok": "", "/moved": "302", "/bad": "503", "/never": "deadline"} {
		wantCheck(t, "HTTP "+path, HTTP(s.Listener.Addr().String(), path), want)
	}
	wantCheck(t, "HTTP to nobody", HTTP(freeAddr(t), "/"), "refused")
}

func TestGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, h := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(s, h)
	h.SetServingStatus("bad", healthpb.HealthCheckResponse_NOT_SERVING)
	go func() { _ = s.Serve(l) }()
	defer s.Stop()
	for service, want := range map[string]string{"": "", "bad": "NOT_SERVING", "none": "unknown service"} {
		wantCheck(t, "gRPC "+service, GRPC(l.Addr().String(), service), want)
	}
	wantCheck(t, "gRPC to nobody", GRPC(freeAddr(t), ""), "refused")
}

// A socket of this machine is asked as an address is.
func TestUnix(t *testing.T) {
	dir, err := os.MkdirTemp("", "naming-") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	listen := func(name string) net.Listener {
		l, err := net.Listen("unix", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	web := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	defer func() { _ = web.Close() }()
	go func() { _ = web.Serve(listen("web")) }()
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	defer s.Stop()
	go func() { _ = s.Serve(listen("grpc")) }()
	addr := func(name string) string { return "unix:" + filepath.Join(dir, name) }
	eventually(t, "both listen", func() bool { return TCP(addr("web"))(t.Context()) == nil && TCP(addr("grpc"))(t.Context()) == nil })
	wantCheck(t, "HTTP", HTTP(addr("web"), "/"), "")
	wantCheck(t, "gRPC", GRPC(addr("grpc"), ""), "")
	wantCheck(t, "TCP to nobody", TCP(addr("none")), "no such file")
}

// A check asks the program itself, and never a proxy of the environment. A proxy is never used
// for the loopback interface, so the program is asked at another address of this machine.
func TestNoProxy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	go func() { _ = s.Serve(l) }()
	defer s.Stop()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	cmd := exec.Command(os.Args[0], "0.0.0.0:"+port)
	cmd.Env = append(os.Environ(), "SUPERVISE_TEST=check", "HTTPS_PROXY=http://"+freeAddr(t), "HTTP_PROXY=http://"+freeAddr(t))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the check fails: %v\n%s", err, out)
	}
}

// checkProgram makes a gRPC check of an address.
func checkProgram(args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := GRPC(args[0], "")(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func TestCheckAddr(t *testing.T) {
	for addr, ok := range map[string]bool{
		"127.0.0.1:80": true, "[::1]:80": true, ":80": true, "localhost:80": true, "unix:/run/s": true,
		"": false, "localhost": false, "localhost:": false, "localhost:0": false, "localhost:http": false, "localhost:65536": false, "unix:": false,
	} {
		if err := CheckAddr(addr); (err == nil) != ok {
			t.Errorf("%q: the error is %v", addr, err)
		}
	}
}

// A listener that accepts and never answers is healthy for TCP alone.
func TestSilent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	addr := l.Addr().String()
	wantCheck(t, "TCP", TCP(addr), "")
	wantCheck(t, "HTTP", HTTP(addr, "/"), "deadline")
	wantCheck(t, "gRPC", GRPC(addr, ""), "DeadlineExceeded")
	wantCheck(t, "TCP to nobody", TCP(freeAddr(t)), "refused")
}

// wantCheck calls a check, whose error must contain a text. The empty text means no error.
func wantCheck(t *testing.T, what string, check func(context.Context) error, want string) {
	t.Helper()
	bound := time.Minute // only a hang takes longer
	if strings.HasPrefix(strings.ToLower(want), "deadline") {
		bound = 100 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	err := check(ctx)
	if want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, want %q", what, err, want)
	}
}
