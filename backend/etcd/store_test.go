package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/etcdcodec"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/faultproxy"
	"github.com/naming-go/naming/internal/servertest"
)

// follow ranges over a watch in a goroutine, and returns a channel of its batches.
func follow(t *testing.T, s naming.Store, service string) <-chan naming.Batch {
	t.Helper()
	c := make(chan naming.Batch, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(c)
		for b, err := range s.Watch(ctx, service) {
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("watch %q: %v", service, err)
				}
				return
			}
			c <- b
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return c
}

// batch returns the next batch as text.
func batch(t *testing.T, c <-chan naming.Batch) string {
	t.Helper()
	select {
	case b := <-c:
		return text(b)
	case <-time.After(servertest.Patience):
		t.Fatal("no batch")
	}
	return ""
}

func text(b naming.Batch) string {
	var parts []string
	for _, e := range b.Put {
		parts = append(parts, fmt.Sprintf("+%s=%s%s", e.ID, e.Addr, e.Metadata))
	}
	for _, id := range b.Deleted {
		parts = append(parts, "-"+id)
	}
	slices.Sort(parts)
	if b.Snapshot {
		return "snapshot " + strings.Join(parts, " ")
	}
	return strings.Join(parts, " ")
}

func list(t *testing.T, s naming.Store, service string) string {
	t.Helper()
	for b, err := range s.Watch(t.Context(), service) {
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimPrefix(text(b), "snapshot ")
	}
	return ""
}

func services(t *testing.T, s naming.Store) []string {
	t.Helper()
	for names, err := range s.Services(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	return nil
}

func same[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s:\ngot  %v\nwant %v", what, got, want)
	}
}

func add(id, addr string) naming.Change {
	return naming.Change{Endpoint: naming.Endpoint{ID: id, Addr: addr}}
}

func del(id string) naming.Change {
	return naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: id}}
}

// TestRawKeys checks entries that programs on the old package's API put under keys with
// slashes and percent signs in the address.
func TestRawKeys(t *testing.T) {
	r := newRig(t, etcdtest.Start(t, nil), nil)
	ctx := t.Context()
	unix := func(addr string) string { return `{"Op":0,"Addr":"` + addr + `","Metadata":null}` }
	r.put(t, "svc/unix:/run/a.sock", unix("unix:/run/a.sock"))
	r.put(t, "svc/[fe80::1%25eth0]:80", unix("[fe80::1%25eth0]:80"))
	r.put(t, "svc/unix:/run/deep/x", unix("10.0.0.1:80")) // of the service svc/unix:/run/deep
	r.put(t, "svc/deeper/y", unix("10.0.0.2:80"))
	r.put(t, "svc/%zz", unix("10.0.0.3:80"))

	c := follow(t, r, "svc")
	same(t, "a watch", batch(t, c), "snapshot +%zz=10.0.0.3:80 +[fe80::1%25eth0]:80=[fe80::1%25eth0]:80 +unix:/run/a.sock=unix:/run/a.sock")
	same(t, "the deeper service", list(t, r, "svc/unix:/run/deep"), "+x=10.0.0.1:80")
	same(t, "the services", fmt.Sprint(services(t, r)), "[svc svc/deeper svc/unix:/run/deep]")

	// The Store puts its own key and deletes the raw key in one transaction.
	must(t, r.Apply(ctx, "svc", naming.Change{Endpoint: naming.Endpoint{Addr: "unix:/run/a.sock", Metadata: []byte("1")}}))
	same(t, "a watch", batch(t, c), "+unix:/run/a.sock=unix:/run/a.sock1")
	same(t, "the raw key", r.value(t, "svc/unix:/run/a.sock"), "")
	// An old program puts the raw key again. The last put counts. After the raw key is
	// deleted, the Store's key counts again.
	r.put(t, "svc/unix:/run/a.sock", unix("unix:/run/a.sock"))
	same(t, "a watch", batch(t, c), "+unix:/run/a.sock=unix:/run/a.sock")
	same(t, "a list", list(t, r, "svc"), "+%zz=10.0.0.3:80 +[fe80::1%25eth0]:80=[fe80::1%25eth0]:80 +unix:/run/a.sock=unix:/run/a.sock")
	_, err := r.admin.Delete(ctx, r.prefix+"svc/unix:/run/a.sock")
	must(t, err)
	same(t, "a watch", batch(t, c), "+unix:/run/a.sock=unix:/run/a.sock1")
	// A Delete deletes both keys, and no key of another service.
	r.put(t, "svc/unix:/run/a.sock", unix("unix:/run/a.sock"))
	same(t, "a watch", batch(t, c), "+unix:/run/a.sock=unix:/run/a.sock")
	must(t, r.Apply(ctx, "svc", del("unix:/run/a.sock"), del("[fe80::1%25eth0]:80"), del("%zz"), del("unix:/run/deep/x"), del("deeper/y")))
	same(t, "a watch", batch(t, c), "-%zz -[fe80::1%25eth0]:80 -unix:/run/a.sock")
	same(t, "the services", fmt.Sprint(services(t, r)), "[svc/deeper svc/unix:/run/deep]")

	// A change with a condition.
	l, err := r.Grant(ctx, time.Minute)
	must(t, err)
	other, err := r.Grant(ctx, time.Minute)
	must(t, err)
	_, err = r.admin.Put(ctx, r.prefix+"svc/unix:/run/a.sock", unix("unix:/run/a.sock"), clientv3.WithLease(etcd.LeaseID(l)))
	must(t, err)
	same(t, "a watch", batch(t, c), "+unix:/run/a.sock=unix:/run/a.sock")
	remove, taken := del("unix:/run/a.sock"), add("unix:/run/a.sock", "unix:/taken")
	remove.Lease, taken.Lease, taken.IfFree = other, other, true
	must(t, r.Apply(ctx, "svc", remove, taken))
	same(t, "a list", list(t, r, "svc"), "+unix:/run/a.sock=unix:/run/a.sock")
	remove.Lease = l
	must(t, r.Apply(ctx, "svc", remove, taken))
	same(t, "a watch", batch(t, c), "+unix:/run/a.sock=unix:/taken")

	// A new value gives the key another ID, and then another service.
	r.put(t, "svc/%2Fq", unix("10.0.0.4:80"))
	same(t, "a watch", batch(t, c), "+/q=10.0.0.4:80")
	r.put(t, "svc/%2Fq", unix("%2Fq"))
	same(t, "a watch", batch(t, c), "+%2Fq=%2Fq -/q")
	r.put(t, "svc/unix:/s", unix("unix:/s"))
	same(t, "a watch", batch(t, c), "+unix:/s=unix:/s")
	r.put(t, "svc/unix:/s", unix("10.0.0.5:80"))
	same(t, "a watch", batch(t, c), "-unix:/s")
}

// TestRawKeyOfAnother checks two IDs of which one, escaped, is the other: the Store's own
// key of the one is the raw key of the other.
func TestRawKeyOfAnother(t *testing.T) {
	r := newRig(t, etcdtest.Start(t, nil), nil)
	own, raw := "[fe80::1%eth0]:80", "[fe80::1%25eth0]:80"
	for _, changes := range [][]naming.Change{{add(own, raw), add(raw, "10.0.0.2:80")}, {add(raw, "10.0.0.2:80"), add(own, raw)}} {
		r.put(t, "svc/"+raw, `{"Op":0,"Addr":"`+raw+`","Metadata":null}`)
		must(t, r.Apply(t.Context(), "svc", changes...))
		same(t, "a list", list(t, r, "svc"), "+"+raw+"=10.0.0.2:80 +"+own+"="+raw)
		must(t, r.Apply(t.Context(), "svc", del(raw)))
		same(t, "a list", list(t, r, "svc"), "+"+own+"="+raw)
		must(t, r.Apply(t.Context(), "svc", del(own)))
		same(t, "a list", list(t, r, "svc"), "")
	}
}

// TestServicesOfDoubtfulKeys checks that the list of services follows changes of keys whose
// service only the value determines.
func TestServicesOfDoubtfulKeys(t *testing.T) {
	r := newRig(t, etcdtest.Start(t, nil), nil)
	c := make(chan string, 100)
	go func() {
		defer close(c)
		for names, err := range r.Services(t.Context()) {
			if err != nil {
				return
			}
			c <- fmt.Sprintf("%q", names)
		}
	}()
	next := func(want string) {
		t.Helper()
		select {
		case got := <-c:
			same(t, "the services", got, want)
		case <-time.After(servertest.Patience):
			t.Fatalf("the list does not become %s", want)
		}
	}
	next(`[]`)
	r.put(t, "svc/unix:/run/a", `{"Addr":"unix:/run/a"}`)
	next(`["svc"]`)
	r.put(t, "svc/unix:/run/a", `{"Addr":"10.0.0.1:80"}`)
	next(`["svc/unix:/run"]`)
	r.put(t, "no-entry", "x")
	r.put(t, "/no-entry", "x")
	r.put(t, "not-utf8/\xff", "x")
	r.put(t, "b/x", "malformed, but there")
	next(`["b" "svc/unix:/run"]`)
	_, err := r.admin.Delete(t.Context(), r.prefix, clientv3.WithPrefix())
	must(t, err)
	next(`[]`)
}

// TestPages checks that a snapshot of several pages is one state, although entries change
// and the history is compacted at the same time.
func TestPages(t *testing.T) {
	each(t, func(t *testing.T, release etcdtest.Release) {
		cluster := etcdtest.Start(t, &etcdtest.Options{Release: release})
		r := newRig(t, cluster, nil)
		ctx := t.Context()
		const n = 25_000
		for i := 0; i < n; i += 100 {
			var ops []clientv3.Op
			for j := i; j < i+100; j++ {
				ops = append(ops, clientv3.OpPut(fmt.Sprintf("%ssvc/%06d", r.prefix, j), `{"Op":0,"Addr":"10.0.0.1:80","Metadata":0}`))
			}
			_, err := r.admin.Txn(ctx).Then(ops...).Commit()
			must(t, err)
		}
		// The first and the last entry always change together.
		stop := make(chan struct{})
		writing := make(chan error, 1)
		go func() {
			for i := 1; ; i++ {
				v := fmt.Sprintf(`{"Op":0,"Addr":"10.0.0.1:80","Metadata":%d}`, i)
				resp, err := r.admin.Txn(ctx).Then(
					clientv3.OpPut(r.prefix+"svc/000000", v), clientv3.OpPut(fmt.Sprintf("%ssvc/%06d", r.prefix, n-1), v)).Commit()
				if err == nil && i%10 == 0 {
					_, err = r.admin.Compact(ctx, resp.Header.Revision)
				}
				select {
				case <-stop:
					writing <- err
					return
				default:
				}
				if err != nil {
					writing <- err
					return
				}
			}
		}()
		for range rounds(5) {
			for b, err := range r.Watch(ctx, "svc") {
				must(t, err)
				if len(b.Put) != n {
					t.Fatalf("a snapshot of %d entries, want %d", len(b.Put), n)
				}
				ends := make(map[string]bool)
				for _, e := range b.Put {
					if e.ID == "000000" || e.ID == fmt.Sprintf("%06d", n-1) {
						ends[string(e.Metadata)] = true
					}
				}
				if len(ends) != 1 {
					t.Fatalf("a snapshot of two states: %v", slices.Sorted(maps.Keys(ends)))
				}
				break
			}
		}
		close(stop)
		must(t, <-writing)
	})
}

// TestLargeApply applies more changes than fit into a transaction.
func TestLargeApply(t *testing.T) {
	r := newRig(t, etcdtest.Start(t, nil), nil)
	var changes []naming.Change
	for i := range 3*etcd.MaxTxnOps + 7 {
		changes = append(changes, add(fmt.Sprint("id/", i), "10.0.0.1:80")) // Two operations each.
	}
	must(t, r.Apply(t.Context(), "svc", changes...))
	for b, err := range r.Watch(t.Context(), "svc") {
		must(t, err)
		same(t, "the endpoints", len(b.Put), len(changes))
		break
	}
	huge := naming.Change{Endpoint: naming.Endpoint{Addr: "a:1", Metadata: []byte(`"` + strings.Repeat("x", 1_900_000) + `"`)}}
	if err := r.Apply(t.Context(), "svc", huge); !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("a change that is too large: %v", err)
	}
}

// TestCodecs checks that the Store reads and writes the keys and values of other frameworks.
func TestCodecs(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	for name, c := range map[string]struct {
		codec      *etcd.Codec
		key, value string // an entry as the framework writes it
		want       string
		own        string // the key of an endpoint that the Store puts
	}{
		"kratos":  {etcdcodec.Kratos(), "/microservices/greeter/1", `{"id":"1","name":"greeter","version":"v1","metadata":null,"endpoints":["grpc://127.0.0.1:9000"]}`, `+1=127.0.0.1:9000{"version":"v1"}`, "/microservices/greeter/2"},
		"kitex":   {etcdcodec.Kitex(), "kitex/registry-etcd/greeter/127.0.0.1:9000", `{"network":"tcp","address":"127.0.0.1:9000","weight":10,"tags":null}`, `+127.0.0.1:9000=127.0.0.1:9000{"weight":10}`, "kitex/registry-etcd/greeter/2"},
		"gomicro": {etcdcodec.GoMicro(), "/micro/registry/greeter/greeter-1", `{"name":"greeter","version":"","metadata":null,"endpoints":[],"nodes":[{"metadata":{"a":"b"},"id":"greeter-1","address":"127.0.0.1:9000"}]}`, `+greeter-1=127.0.0.1:9000{"a":"b"}`, "/micro/registry/greeter/2"},
		"gozero":  {etcdcodec.GoZero(), "greeter/7587869134945672710", "127.0.0.1:9000", "+7587869134945672710=127.0.0.1:9000", "greeter/2"},
		"gokit":   {etcdcodec.GoKit(), "/services/greeter/127.0.0.1:9000", "127.0.0.1:9000", "+127.0.0.1:9000=127.0.0.1:9000", "/services/greeter/2"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, cluster, nil)
			s := r.store(c.codec)
			r.put(t, c.key, c.value)
			same(t, "a list", list(t, s, "greeter"), c.want)
			same(t, "the services", fmt.Sprint(services(t, s)), "[greeter]")
			must(t, s.Apply(t.Context(), "greeter", add("2", "127.0.0.1:9002")))
			if r.value(t, c.own) == "" {
				t.Errorf("the Store's endpoint is not under the key %q", c.own)
			}
			must(t, s.Apply(t.Context(), "greeter", del(c.key[strings.LastIndexByte(c.key, '/')+1:])))
			same(t, "a list", list(t, s, "greeter"), "+2=127.0.0.1:9002")
			r.put(t, c.key, "null")
			same(t, "a list", list(t, s, "greeter"), "+2=127.0.0.1:9002")
			if len(r.reported) != 1 || r.reported[0].Key != r.prefix+c.key {
				t.Errorf("reported as malformed: %v", r.reported)
			}
		})
	}
}

// TestNamespace checks a client whose KV and Watcher were replaced by those of package
// namespace. The Store must stay inside the namespace, and its watches must end when etcd
// falls silent.
func TestNamespace(t *testing.T) {
	r := newRig(t, etcdtest.Start(t, nil), nil)
	ns := r.prefix + "ns/"
	c := r.client
	c.KV, c.Watcher, c.Lease = namespace.NewKV(c.KV, ns), namespace.NewWatcher(c.Watcher, ns), namespace.NewLease(c.Lease, ns)
	s := etcd.New(c, &etcd.Options{SilenceBound: bound})
	w := make(chan naming.Batch)
	go func() {
		defer close(w)
		for b, err := range s.Watch(t.Context(), "svc") {
			if err != nil {
				return
			}
			w <- b
		}
	}()
	same(t, "a watch", batch(t, w), "snapshot ")
	must(t, s.Apply(t.Context(), "svc", add("", "a:1")))
	same(t, "a watch", batch(t, w), "+a:1=a:1")
	if r.value(t, "ns/svc/a:1") == "" {
		t.Error("the endpoint is not in the namespace")
	}
	same(t, "the services", fmt.Sprint(services(t, s)), "[svc]")
	// Answers to probes keep an idle watch open beyond the bound.
	quiet := time.NewTimer(2 * bound)
	defer quiet.Stop()
	select {
	case b, ok := <-w:
		t.Fatalf("an idle watch yielded %v (ended: %v)", b, !ok)
	case <-quiet.C:
	}
	r.each((*faultproxy.Proxy).BlackHole)
	defer r.heal()
	_, open := <-w
	same(t, "in silence, a watch goes on", open, false)
}
