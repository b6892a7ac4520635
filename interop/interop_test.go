package interop

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/consul/consulcodec"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/etcdcodec"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/servertest"
	"github.com/naming-go/naming/interop/peer"
)

// library is a library of other authors, and what its format can express.
type library struct {
	name    string // for the program, and the table
	version string
	program program
	store   func(t *testing.T, s servers, noMark bool) naming.Store

	noMetadata bool // the format has no metadata
	noWeight   bool // the format has no weight that the library knows
	readsOnly  bool // the library registers nothing
	noLease    bool // what the library registers stays when its process dies
	marked     bool // the library's readers see the mark of a server that drains
	keepsLast  bool // the library keeps its last addresses when a set is empty
}

// servers are the registries of the table.
type servers struct {
	etcd   *etcdtest.Cluster
	consul *consultest.Agent
}

func (s servers) addrs() peer.Servers {
	return peer.Servers{Etcd: s.etcd.Endpoints(), Consul: s.consul.Addr}
}

// inEtcd returns the store of a wire format.
func inEtcd(codec func() *etcd.Codec) func(*testing.T, servers, bool) naming.Store {
	return func(t *testing.T, s servers, noMark bool) naming.Store {
		return etcd.New(s.etcd.Client(t), &etcd.Options{Codec: codec(), NoDrainingMark: noMark})
	}
}

func inConsul(codec func() *consul.Codec) func(*testing.T, servers, bool) naming.Store {
	return func(t *testing.T, s servers, noMark bool) naming.Store {
		o := consul.Options{NoDrainingMark: noMark}
		if codec != nil {
			o.Codec = codec()
		}
		return consul.New(s.consul.Client(t), &o)
	}
}

var libraries = []library{
	{name: "old", version: "etcd 3.4 clientv3/naming, gRPC 1.26.0", program: old126Program, store: inEtcd(etcd.Default), noWeight: true, marked: true},
	{name: "old", version: "etcd 3.4 clientv3/naming, gRPC 1.29.1", program: old129Program, store: inEtcd(etcd.Default), noWeight: true, marked: true},
	{name: "etcd-naming", version: "etcd client/v3/naming 3.5.21, gRPC 1.71.0", program: etcdNaming35, store: inEtcd(etcd.Default), noWeight: true, marked: true},
	{name: "etcd-naming", version: "etcd client/v3/naming 3.7.3, gRPC 1.85.0", program: etcdNamingPresent, store: inEtcd(etcd.Default), noWeight: true, marked: true},
	{name: "go-zero", version: "go-zero 1.10.3, etcd", program: peersProgram, store: inEtcd(etcdcodec.GoZero), noMetadata: true, noWeight: true},
	{name: "kratos-etcd", version: "kratos 2.9.2, etcd", program: peersProgram, store: inEtcd(etcdcodec.Kratos)},
	{name: "kitex-etcd", version: "kitex registry-etcd 0.2.6", program: peersProgram, store: inEtcd(etcdcodec.Kitex)},
	{name: "go-kit-etcd", version: "go-kit 0.13.0, etcd", program: peersProgram, store: inEtcd(etcdcodec.GoKit), noMetadata: true, noWeight: true},
	{name: "kratos-consul", version: "kratos 2.9.2, Consul", program: peersProgram, store: inConsul(consulcodec.Kratos), keepsLast: true},
	{name: "go-kit-consul", version: "go-kit 0.13.0, Consul", program: peersProgram, store: inConsul(nil), noMetadata: true, noWeight: true, noLease: true},
	{name: "mbobakov", version: "mbobakov grpc-consul-resolver 1.5.3", program: peersProgram, store: inConsul(nil), noMetadata: true, noWeight: true, readsOnly: true},
}

// The columns of the table.
var columns = []string{"read", "metadata", "weight", "drain", "come and go", "lease end", "deregistration"}

const docPath = "../docs/interop.md"

// full reports whether the tests run at full length.
func full() bool { return os.Getenv("NAMING_FULL") != "" }

// TestTable runs every library in both directions, and compares what happened
// with the table in docs/interop.md. NAMING_UPDATE=1 writes the table anew.
func TestTable(t *testing.T) {
	s := servers{etcdtest.Start(t, nil), consultest.Start(t, nil)}
	rows := make(map[string][]string)
	var mu sync.Mutex
	t.Run("libraries", func(t *testing.T) {
		for n, l := range libraries {
			for _, direction := range []string{"they read ours", "we read theirs"} {
				t.Run(l.version+"/"+direction, func(t *testing.T) {
					t.Parallel()
					service := fmt.Sprintf("interop-%d-%s", n, strings.ReplaceAll(direction, " ", "-"))
					run := l.readsOurs
					if direction == "we read theirs" {
						run = l.writesTheirs
					}
					row := run(t, s, service)
					mu.Lock()
					defer mu.Unlock()
					rows[l.version+"/"+direction] = row
				})
			}
		}
	})
	if t.Failed() {
		return // the table would be wrong
	}
	table := render(rows)
	if os.Getenv("NAMING_UPDATE") != "" {
		if err := os.WriteFile(docPath, []byte(table), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	doc, err := os.ReadFile(docPath)
	if err != nil {
		t.Fatal(err)
	}
	if string(doc) != table {
		t.Errorf("docs/interop.md is not what the libraries did; NAMING_UPDATE=1 writes it:\n%s", table)
	}
}

const preamble = `# Other libraries

This page shows what happens between this library and others. Each library runs in a
process of its own, on etcd 3.7.3 and Consul 1.22.5, and makes a real call every 5 ms.
` + "`go test ./...`" + ` in ` + "`interop/`" + ` runs all of it and compares the results with this page.
` + "`NAMING_UPDATE=1`" + ` writes the page.

- **read**: three servers are found, and calls reach each of them.
- **metadata**, **weight**: a string and a weight of 30 arrive.
- **drain**: a server stops in order. The other side stops calling the server, no call
  fails, and no warning is logged.
- **come and go**: servers are replaced, at the same and at new addresses. No call fails.
- **lease end**: the process dies. Its entry is gone once its lease has ended.
- **deregistration**: the last servers leave in order, and no entry is left.

"–" means that the format or the library does not have the feature. The stores for
frameworks other than etcd's own naming have ` + "`Options.NoDrainingMark`" + `. With this option a
server that stops in order is removed first, and then serves on for the drain delay. The
readers of a framework do not know the mark. A store whose writers all belong to another
library has the option as well. Without the option, servers that leave in order would
count as lost.

An object in the metadata of etcd's naming format makes balancers of gRPC up to 1.29
panic. It also makes balancers of gRPC 1.50 to 1.71 behind etcd client 3.5 panic when the
endpoint changes. Objects from the libraries' own writers cause the same panics. This
library puts no object there that a program did not.

`

func render(rows map[string][]string) string {
	var b strings.Builder
	b.WriteString(preamble)
	for _, direction := range []string{"they read ours", "we read theirs"} {
		fmt.Fprintf(&b, "## %s\n\n| library | %s |\n|-|%s\n", strings.ToUpper(direction[:1])+direction[1:],
			strings.Join(columns, " | "), strings.Repeat("-|", len(columns)))
		for _, l := range libraries {
			fmt.Fprintf(&b, "| %s | %s |\n", l.version, strings.Join(rows[l.version+"/"+direction], " | "))
		}
		b.WriteString("\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// row collects the cells of one row.
type row map[string]string

func (r row) cells() []string {
	cells := make([]string, len(columns))
	for i, c := range columns {
		if cells[i] = r[c]; cells[i] == "" {
			cells[i] = "–"
		}
	}
	return cells
}

// addrs returns the addresses of instances, sorted.
func addrs(list []peer.Instance) []string {
	var all []string
	for _, i := range list {
		all = append(all, i.Addr)
	}
	slices.Sort(all)
	return all
}

// reader is a library that reads what we register.
type reader struct {
	*child
	library *library
	t       *testing.T
}

// seen waits until the library sees the wanted addresses, and returns the instances.
func (r reader) seen(service string, want []string) (list []peer.Instance) {
	r.t.Helper()
	servertest.Poll(r.t, "what the library sees", func() error {
		list = r.do(r.t, peer.Request{Do: "seen", Service: service}).Seen
		if got := addrs(list); !slices.Equal(got, want) {
			return fmt.Errorf("%s sees %q, want %q", r.library.version, got, want)
		}
		return nil
	})
	return list
}

// reaches waits until a call has reached each address. It fails the test if a call
// fails.
func (r reader) reaches(want []string) {
	r.t.Helper()
	to := make(map[string]int)
	servertest.Poll(r.t, "calls", func() error {
		report := r.do(r.t, peer.Request{Do: "report"})
		if report.Failed > 0 {
			r.t.Fatalf("%d of %d calls failed: %s", report.Failed, report.Calls, report.FirstErr)
		}
		for a, n := range report.To {
			to[a] += n
		}
		return reachedAll(to, want)
	})
}

func reachedAll(to map[string]int, want []string) error {
	for _, a := range want {
		if to[a] == 0 {
			return fmt.Errorf("no call has reached %s: %v", a, to)
		}
	}
	return nil
}

// fleet is the servers of a service.
type fleet struct {
	servers []*server
	regs    []*naming.Registration
}

func (f *fleet) addrs() []string {
	var all []string
	for _, s := range f.servers {
		all = append(all, s.addr)
	}
	slices.Sort(all)
	return all
}

// readTrial is a trial in which the library reads what we register.
type readTrial struct {
	*testing.T
	library *library
	service string
	store   naming.Store
	ours    *ours
	fleet   fleet
	reader  reader
	cells   row
}

// readsOurs has the library read what we register.
func (l *library) readsOurs(t *testing.T, s servers, service string) []string {
	// The old packages get a default store, because their readers know the mark. The
	// readers of a framework do not: such a server leaves first and stops later.
	store := l.store(t, s, !l.marked)
	r := &readTrial{T: t, library: l, service: service, store: store, ours: newOurs(t, store), cells: make(row)}
	for range 3 {
		srv := listen(t, "")
		r.fleet.servers = append(r.fleet.servers, srv)
		r.fleet.regs = append(r.fleet.regs, r.ours.register(t, service, srv, nil))
	}
	r.reader = reader{l.program.start(t, l.name, s.addrs()), l, t}
	r.reader.do(t, peer.Request{Do: "watch", Service: service})
	r.reader.seen(service, r.fleet.addrs())
	r.reader.do(t, peer.Request{Do: "call", Service: service})
	r.reader.reaches(r.fleet.addrs())
	r.cells["read"] = "yes"

	r.metadata()
	r.drain()
	r.comeAndGo()
	if n := r.ours.alarms.Load(); n > 0 {
		t.Errorf("%d alarms, although nothing failed", n)
	}
	r.leaseEnd()
	r.deregistration()
	return r.cells.cells()
}

// metadata registers an endpoint with metadata. No calls are made to it: an object in
// Metadata makes balancers of gRPC up to 1.71 panic. This library puts no object there
// of its own.
func (r *readTrial) metadata() {
	l := r.library
	if l.noMetadata {
		return
	}
	r.cells["metadata"] = "yes"
	metadata := map[string]any{"color": "red"}
	if !l.noWeight {
		r.cells["weight"] = "yes"
		metadata["weight"] = 30
	}
	labelled := listen(r.T, "")
	reg := r.ours.register(r.T, r.service+"-labels", labelled, metadata)
	r.reader.do(r.T, peer.Request{Do: "watch", Service: r.service + "-labels"})
	i := r.reader.seen(r.service+"-labels", []string{labelled.addr})[0]
	if i.Metadata["color"] != "red" {
		r.Errorf("metadata %v", i.Metadata)
	}
	if !l.noWeight && i.Weight != 30 {
		r.Errorf("weight %d, metadata %v", i.Weight, i.Metadata)
	}
	stop(r.T, labelled, reg)
}

// drain stops a server in order, while calls are made.
func (r *readTrial) drain() {
	f := &r.fleet
	gone := f.servers[0].addr
	stop(r.T, f.servers[0], f.regs[0])
	f.servers, f.regs = f.servers[1:], f.regs[1:]
	r.reader.seen(r.service, f.addrs())
	r.reader.reaches(f.addrs())
	report := r.reader.do(r.T, peer.Request{Do: "report"})
	if report.To[gone] > 0 || report.Failed > 0 {
		r.Errorf("%d calls to a server that has gone, %d failed: %s", report.To[gone], report.Failed, report.FirstErr)
	}
	r.cells["drain"] = "0 failed"
}

// comeAndGo replaces servers, at the same address and at others, while calls are made.
func (r *readTrial) comeAndGo() {
	f := &r.fleet
	restarts := 4
	if full() {
		restarts = 20
	}
	calls := 0
	for n := range restarts {
		i := n % len(f.servers)
		stop(r.T, f.servers[i], f.regs[i])
		addr := ""
		if n/len(f.servers)%2 == 0 {
			addr = f.servers[i].addr
		}
		f.servers[i] = listen(r.T, addr)
		f.regs[i] = r.ours.register(r.T, r.service, f.servers[i], nil)
		r.reader.seen(r.service, f.addrs())
		report := r.reader.do(r.T, peer.Request{Do: "report"})
		if report.Failed > 0 {
			r.Fatalf("%d of %d calls failed: %s", report.Failed, report.Calls, report.FirstErr)
		}
		calls += report.Calls
		r.reader.reaches(f.addrs())
	}
	r.Logf("%d restarts, %d calls, 0 failed", restarts, calls)
	r.cells["come and go"] = "0 failed"
}

// leaseEnd registers an endpoint whose lease nobody renews, as after a crash.
func (r *readTrial) leaseEnd() {
	lease, err := r.store.Grant(r.Context(), 3*time.Second)
	if err != nil {
		r.Fatal(err)
	}
	dead := listen(r.T, "")
	err = r.store.Apply(r.Context(), r.service, naming.Change{Endpoint: naming.Endpoint{Addr: dead.addr}, Lease: lease})
	if err != nil {
		r.Fatal(err)
	}
	with := append(r.fleet.addrs(), dead.addr)
	slices.Sort(with)
	r.reader.seen(r.service, with)
	r.reader.seen(r.service, r.fleet.addrs())
	r.cells["lease end"] = "gone"
}

// deregistration stops all servers in order.
func (r *readTrial) deregistration() {
	for i := range r.fleet.servers {
		stop(r.T, r.fleet.servers[i], r.fleet.regs[i])
	}
	if r.library.keepsLast {
		r.cells["deregistration"] = "keeps the last"
		return
	}
	r.reader.seen(r.service, nil)
	r.cells["deregistration"] = "gone"
}

// writeTrial is a trial in which we read what the library registers.
type writeTrial struct {
	*testing.T
	library *library
	service string
	ours    *ours
	child   *child
	fleet   fleet
	views   *views
	calls   *traffic
	cells   row
}

// writesTheirs has us read what the library registers.
func (l *library) writesTheirs(t *testing.T, s servers, service string) []string {
	w := &writeTrial{T: t, library: l, service: service, cells: make(row)}
	if l.readsOnly {
		return w.cells.cells()
	}
	// All writers are the library's. None of them marks a server that drains.
	w.ours = newOurs(t, l.store(t, s, true))
	w.child = l.program.start(t, l.name, s.addrs())
	for range 4 {
		srv := listen(t, "")
		w.fleet.servers = append(w.fleet.servers, srv)
		w.register(w.instance(srv))
	}
	w.views = watch(t, w.ours, service)
	w.views.wait(t, w.fleet.addrs())
	w.calls = w.ours.traffic(t, service)
	w.calls.wait(t, w.fleet.addrs())
	w.cells["read"] = "yes"

	w.metadata()
	w.drain()
	w.comeAndGo()
	last := w.fleet.servers
	for _, srv := range last {
		w.deregister(srv)
	}
	w.noneHeld(w.views.wait(t, nil))
	w.cells["deregistration"] = "gone"
	if n := w.ours.alarms.Load(); n > 0 {
		t.Errorf("%d alarms, although nothing failed", n)
	}
	if !l.noLease {
		w.register(w.instance(last[0]))
		w.views.wait(t, []string{last[0].addr})
		w.child.kill()
		w.views.wait(t, nil)
		w.cells["lease end"] = "gone"
	}
	return w.cells.cells()
}

func (w *writeTrial) instance(srv *server) peer.Instance {
	return peer.Instance{ID: w.service + "-" + srv.addr[len("127.0.0.1:"):], Addr: srv.addr}
}

func (w *writeTrial) register(i peer.Instance) {
	w.Helper()
	w.child.do(w.T, peer.Request{Do: "register", Service: w.service, Instance: i})
}

func (w *writeTrial) deregister(srv *server) {
	w.Helper()
	w.child.do(w.T, peer.Request{Do: "deregister", Service: w.service, Instance: w.instance(srv)})
}

// noneHeld fails the test if endpoints are held.
func (w *writeTrial) noneHeld(view naming.View) {
	w.Helper()
	if len(view.Held) > 0 {
		w.Errorf("held although they left in order: %v", view.Held)
	}
}

// metadata has the library register an endpoint with metadata.
func (w *writeTrial) metadata() {
	l := w.library
	if l.noMetadata {
		return
	}
	w.cells["metadata"] = "yes"
	labelled := listen(w.T, "")
	i := w.instance(labelled)
	i.Metadata = map[string]string{"color": "red"}
	if !l.noWeight {
		w.cells["weight"] = "yes"
		i.Weight = 30
	}
	w.child.do(w.T, peer.Request{Do: "register", Service: w.service + "-labels", Instance: i})
	labels := watch(w.T, w.ours, w.service+"-labels")
	e := labels.wait(w.T, []string{labelled.addr}).Endpoints[0]
	if !strings.Contains(string(e.Metadata), `"color":"red"`) {
		w.Errorf("metadata %s", e.Metadata)
	}
	if weight := e.Info().Weight; !l.noWeight && weight != 30 {
		w.Errorf("weight %v of %s", weight, e.Metadata)
	}
}

// drain has two of four servers leave in order. Strangers may be at their addresses
// afterwards, so no call may go there.
func (w *writeTrial) drain() {
	f := &w.fleet
	left := map[string]bool{f.servers[0].addr: true, f.servers[1].addr: true}
	for _, srv := range f.servers[:2] {
		w.deregister(srv)
	}
	f.servers = f.servers[2:]
	w.noneHeld(w.views.wait(w.T, f.addrs()))
	w.calls.wait(w.T, f.addrs())
	for a, n := range w.calls.report().To {
		if left[a] && n > 0 {
			w.Errorf("%d calls to %s, which has left", n, a)
		}
	}
	w.cells["drain"] = "0 failed"
}

// comeAndGo replaces servers while calls are made. It ends the calls.
func (w *writeTrial) comeAndGo() {
	f := &w.fleet
	for range 4 {
		srv := listen(w.T, "")
		w.register(w.instance(srv))
		f.servers = append(f.servers, srv)
		w.views.wait(w.T, f.addrs())
		w.calls.wait(w.T, f.addrs())
		w.deregister(f.servers[0])
		f.servers = f.servers[1:]
		w.views.wait(w.T, f.addrs())
	}
	if report := w.calls.end(); report.Failed > 0 {
		w.Errorf("%d of %d calls failed: %s", report.Failed, report.Calls, report.FirstErr)
	}
	w.cells["come and go"] = "0 failed"
}
