package supervise

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
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
		wantCheck(t, "HTTP "+path, HTTP(s.URL+path), want)
	}
	wantCheck(t, "HTTP to nobody", HTTP("http://"+freeAddr(t)), "refused")
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

// A listener that accepts and never answers is healthy for TCP alone.
func TestSilent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	addr := l.Addr().String()
	wantCheck(t, "TCP", TCP(addr), "")
	wantCheck(t, "HTTP", HTTP("http://"+addr), "deadline")
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
