package open_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/backend/open"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/servertest"
)

// read returns a service's first snapshot.
func read(t *testing.T, store naming.Store, service string) []naming.Endpoint {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), servertest.Patience)
	defer cancel()
	for b, err := range store.Watch(ctx, service) {
		if err != nil {
			t.Fatal(err)
		}
		return b.Put
	}
	return nil
}

// TestFieldI10Codec: a URL says which framework wrote the entries.
func TestFieldI10Codec(t *testing.T) {
	client := etcdtest.Start(t, nil)
	addr := "etcd://" + client.Members[0].Addr
	put := func(kv clientv3.KV, key, value string) {
		t.Helper()
		if _, err := kv.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	kv := client.Client(t)
	kratos := `{"id":"1","name":"greeter","version":"","metadata":{"weight":"30"},"endpoints":["grpc://127.0.0.1:1","grpcs://127.0.0.1:2"]}`
	for codec, entry := range map[string][3]string{
		"default":      {"greeter.default/1", `{"Op":0,"Addr":"127.0.0.1:1","Metadata":null}`, "127.0.0.1:1"},
		"kratos":       {"/microservices/greeter.kratos/1", kratos, "127.0.0.1:1"},
		"kratos-grpcs": {"/microservices/greeter.kratos-grpcs/1", kratos, "127.0.0.1:2"},
		"kitex":        {"kitex/registry-etcd/greeter.kitex/127.0.0.1:1", `{"network":"tcp","address":"127.0.0.1:1","weight":10,"tags":null}`, "127.0.0.1:1"},
		"go-micro":     {"/micro/registry/greeter.go-micro/1", `{"name":"greeter","version":"","metadata":null,"endpoints":[],"nodes":[{"metadata":null,"id":"1","address":"127.0.0.1:1"}]}`, "127.0.0.1:1"},
		"go-zero":      {"greeter.go-zero/1", "127.0.0.1:1", "127.0.0.1:1"},
		"go-kit":       {"/services/greeter.go-kit/1", "127.0.0.1:1", "127.0.0.1:1"},
	} {
		put(kv, entry[0], entry[1])
		if got := read(t, mustOpen(t, addr+"?codec="+codec), "greeter."+codec); len(got) != 1 || got[0].Addr != entry[2] || got[0].NoDrainingMark != (codec != "default") {
			t.Errorf("codec=%s reads %+v", codec, got)
		}
	}
	put(kv, "deep/sub/x", `{"Op":0,"Addr":"127.0.0.1:1","Metadata":null}`)
	if got := read(t, mustOpen(t, addr+"?deep=true"), "deep"); len(got) != 1 || got[0].ID != "sub/x" {
		t.Errorf("deep=true reads %+v", got)
	}
	if got := read(t, mustOpen(t, addr+"?deep=false"), "deep"); len(got) != 0 {
		t.Errorf("deep=false reads %+v", got)
	}
	put(kv, "/naming2/greeter/1", `{"Op":0,"Addr":"127.0.0.1:1","Metadata":null}`)
	if got := read(t, mustOpen(t, addr+"?prefix=/naming"), "2/greeter"); len(got) != 0 {
		t.Errorf("prefix=/naming reads %+v", got)
	}
	draining := naming.Change{Endpoint: naming.Endpoint{Addr: "127.0.0.1:1", Draining: true}}
	if err := mustOpen(t, addr+"?no-draining-mark=true").Apply(t.Context(), "x", draining); !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("no-draining-mark=true: err %v", err)
	}
	if err := mustOpen(t, addr).Apply(t.Context(), "x", draining); err != nil {
		t.Error(err)
	}
}

// TestFieldI10ConsulCodec: so does a URL of Consul.
func TestFieldI10ConsulCodec(t *testing.T) {
	agent := consultest.Start(t, nil)
	client, err := api.NewClient(&api.Config{Address: agent.Addr})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: "1", Name: "greeter", Address: "127.0.0.1", Port: 1,
		Meta:            map[string]string{"zone": "a"},
		Tags:            []string{"version=v1"},
		TaggedAddresses: map[string]api.ServiceAddress{"grpc": {Address: "grpc://127.0.0.1:1", Port: 1}},
	}); err != nil {
		t.Fatal(err)
	}
	draining := naming.Change{Endpoint: naming.Endpoint{Addr: "127.0.0.1:1", Draining: true}}
	if err := mustOpen(t, "consul://"+agent.Addr+"?no-draining-mark=true").Apply(t.Context(), "x", draining); !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("no-draining-mark=true: err %v", err)
	}
	if err := client.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: "spring", Name: "spring", Address: "127.0.0.1", Port: 8080, Meta: map[string]string{"gRPC_port": "9090"},
	}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, mustOpen(t, "consul://"+agent.Addr+"?codec=grpc-spring"), "spring"); len(got) != 1 || got[0].Addr != "127.0.0.1:9090" {
		t.Errorf("codec=grpc-spring reads %+v", got)
	}
	// The default codec and that of go-micro read the entry too, without its version.
	for codec, version := range map[string]string{"kratos": "v1", "go-micro": "", "default": ""} {
		got := read(t, mustOpen(t, "consul://"+agent.Addr+"?codec="+codec), "greeter")
		if len(got) != 1 || got[0].Addr != "127.0.0.1:1" || got[0].Info().Version != version {
			t.Errorf("codec=%s reads %+v", codec, got)
		}
	}
}

// TestFieldI10Logger: a malformed entry is logged once for each reason, without control
// characters, and the number of logged entries is bounded.
func TestFieldI10Logger(t *testing.T) {
	var text bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&text, nil))
	store, _, err := open.Store(t.Context(), "memory:", &open.Options{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	mem := store.(*memory.Store)
	reread := func() {
		for range store.Watch(t.Context(), "greeter") {
			break
		}
	}
	lines := func() []map[string]any {
		var list []map[string]any
		for line := range strings.Lines(text.String()) {
			var m map[string]any
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Fatal(err)
			}
			list = append(list, m)
		}
		text.Reset()
		return list
	}
	mem.PutMalformed("greeter", "x", errors.New("no \x1b[31mJSON"))
	reread()
	reread()
	got := lines()
	if len(got) != 1 || got[0]["level"] != "WARN" || got[0]["service"] != "greeter" || got[0]["key"] != "x" || got[0]["err"] != `no \x1b[31mJSON` {
		t.Fatalf("logged %v, want one line", got)
	}
	mem.PutMalformed("greeter", "x", errors.New("another reason"))
	reread()
	if got := lines(); len(got) != 1 {
		t.Errorf("logged %v, want one line for another reason", got)
	}
	for i := range 1500 {
		mem.PutMalformed("greeter", fmt.Sprint(i), errors.New("no JSON"))
	}
	reread()
	reread()
	if got := lines(); len(got) != 999 {
		t.Errorf("logged %d lines, want 999", len(got))
	}
}

// TestFieldR10OneLog: the Client logs that a registry is down, with the cause. The client
// of etcd logs nothing.
func TestFieldR10OneLog(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	stderr := capture(t)
	lines := make(chan string, 100)
	c := naming.New(mustOpen(t, "etcd://"+addr), &naming.Options{Logger: slog.New(slog.NewTextHandler(writer(lines), nil))})
	w, err := c.Resolve("greeter")
	if err != nil {
		t.Fatal(err)
	}
	select {
	case line := <-lines:
		if !strings.Contains(line, "level=WARN") || !strings.Contains(line, "connection refused") {
			t.Errorf("logged %s", line)
		}
	case <-time.After(servertest.Patience): // it takes half a second, or 20 seconds if the registry is silent
		t.Error("nothing is logged")
	}
	w.Close()
	c.Close()
	if text := stderr(); text != "" {
		t.Errorf("the client wrote\n%s", text)
	}
}

type writer chan<- string

func (w writer) Write(b []byte) (int, error) {
	select {
	case w <- string(b):
	default:
	}
	return len(b), nil
}

// capture captures standard error until the function that it returns is called.
func capture(t *testing.T) func() string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	was := os.Stderr
	os.Stderr = w
	var text []byte
	done := make(chan struct{})
	go func() {
		defer close(done)
		text, _ = io.ReadAll(r)
		_ = r.Close()
	}()
	stop := sync.OnceValue(func() string {
		os.Stderr = was
		_ = w.Close()
		<-done
		return string(text)
	})
	t.Cleanup(func() { stop() })
	return stop
}
