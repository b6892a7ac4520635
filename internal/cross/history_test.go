package cross

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/naming-go/naming"
)

// length is the number of operations of a history, without those at its end.
const length = 200

// history is the operations that are applied to every store. The same seed makes the same
// history.
type history struct {
	seed       uint64
	services   []string
	operations []operation
}

// operation is one operation of a history.
type operation struct {
	text    string
	service int // the service that it changes, or all
	do      func(ctx context.Context, s *side) error
	// loose says that a reader may see states between the state before the
	// operation and the state after it.
	loose bool
}

// String returns the operations, one on each line.
func (h *history) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "services %.40q", h.services)
	for i, op := range h.operations {
		fmt.Fprintf(&b, "\n%4d  %s", i, op.text)
	}
	return b.String()
}

// families are lists of names. A backend that cuts, folds, cleans or escapes names without
// care confuses those of one list. A history has the names of one list.
var families = [][]string{
	{"greeter", "billing", "search", "mail"},
	{"a", "ab", "a/b", "A"},
	{"svc", "svc/", "/svc", "svc/unix:"},
	{"a b", " a", "a%20b", "a+b"},
	{"é", "e\u0301", "É", "世界 🙂"},
	{"a//b", "a/../b", "..", "a/."},
	{"%", "%2F", "~41", "~7E41"},
	{"a\x00", "a\nb", "\ufeffa", "'a\"`"},
	{strings.Repeat("long-", 40) + "1", strings.Repeat("long-", 40) + "2", strings.Repeat("é/", 40), "-"},
}

var ids = []string{
	"a", "A", "b", "ab", "a/b", "a%2Fb", "%", "/", "a//", "..", " a", "a b", "a\nb", "a\x00", "é", "e\u0301", "世界🙂", `"a"`, "a'b`", `a\b`,
	"null", "unix:/run/a.sock", "10.0.0.1:80", "[::1]:80", "greeter@10.0.0.1:80", "~41", strings.Repeat("id-", 70), strings.Repeat("é", 300),
}

var addresses = []string{
	"10.0.0.1:80", "10.0.0.2:80", "10.0.0.1:65535", "10.0.0.1:080", "10.0.0.1:http", "10.0.0.1", "0.0.0.0:80", ":80",
	"[::1]:80", "[2001:db8::1]:80", "[2001:DB8::1]:80", "[fe80::1%eth0]:80", "[::ffff:10.0.0.1]:80", "[::]:80", "::1",
	"unix:/run/a.sock", "unix:run/a.sock", "unix:///run/a%20b.sock", "unix-abstract:a", "dns:///a.example.com:443",
	"a.example.com:443", "A.example.com.:443", "例え.jp:80", " 10.0.0.1:80 ", "a:b:c", "é",
}

// dialled are addresses that Client.Register accepts.
var dialled = []string{"10.0.0.1:80", "[2001:db8::1]:80", "a.example.com:443", "unix:/run/a.sock"}

const (
	none    = -1 // no lease
	foreign = -2 // a lease of another store
	all     = -1 // all services
)

// change is a Change with the number of a lease of the history, or none or foreign.
type change struct {
	naming.Change
	lease int
}

// generator makes a history.
type generator struct {
	*rand.Rand
	history
	ids, addrs []string
	leases     int             // granted
	live       []int           // leases that have not ended
	regs       []*registration // registrations that are not closed
	registered int             // registrations so far
	last       naming.Endpoint // the last one that was put
	known      []*registration // endpoints without a registration
}

type registration struct {
	index    int
	endpoint naming.Endpoint
	drained  bool
}

// registrations is the service that has the registrations. Other operations put endpoints
// there too. An operation that deletes one there waits until it is registered again.
const registrations = 3

func generate(seed uint64) *history {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 3)), history: history{seed: seed}}
	g.services = slices.Clone(pick(g, families))
	g.Shuffle(len(g.services), func(i, j int) { g.services[i], g.services[j] = g.services[j], g.services[i] })
	// Few IDs and addresses, so that operations conflict.
	for range 7 {
		g.ids = append(g.ids, pick(g, ids))
	}
	g.ids = append(g.ids, "") // the ID is the address
	for range 6 {
		g.addrs = append(g.addrs, pick(g, addresses))
	}
	for i, addr := range dialled {
		e := naming.Endpoint{Addr: addr}
		if i%2 == 1 {
			e.ID = fmt.Sprintf("server %d %s", i, pick(g, ids))
		}
		g.known = append(g.known, &registration{endpoint: e})
	}
	g.grant()
	g.grant()
	expire := 20 + g.IntN(length-40)
	for len(g.operations) < length {
		if len(g.operations) >= expire {
			g.expire()
			expire = length
		}
		g.addRandom()
	}
	// Late events come before the events of these operations.
	for i := range g.services {
		g.apply(i, change{naming.Change{Endpoint: naming.Endpoint{ID: "the last", Addr: "10.9.9.9:99"}}, none})
	}
	return &g.history
}

func pick[T any](g *generator, list []T) T { return list[g.IntN(len(list))] }

// addOperation adds one operation. The text describes it.
func (g *generator) addOperation(service int, loose bool, do func(context.Context, *side) error, format string, args ...any) {
	g.operations = append(g.operations, operation{fmt.Sprintf(format, args...), service, do, loose})
}

// addRandom adds one random operation, or several that belong together.
func (g *generator) addRandom() {
	svc := g.IntN(registrations)
	switch n := g.IntN(100); {
	case n < 26: // a new endpoint or a changed one
		g.apply(svc, g.add(g.aLease()))
	case n < 32: // the same state, maybe under another lease
		g.apply(svc, change{naming.Change{Endpoint: g.last}, g.aLease()})
	case n < 44: // an endpoint that exists or does not
		g.apply(svc, g.delete(none))
	case n < 54: // an ID that is free or is not
		c := g.add(g.aLive())
		if g.IntN(4) == 0 {
			// The ID is free, so that no store skips the Add if the lease has
			// ended.
			c.Endpoint.ID, c.lease = fmt.Sprintf("new %d", len(g.operations)), g.IntN(g.leases)
		}
		c.IfFree = true
		g.apply(svc, c)
	case n < 61:
		g.apply(svc, g.delete(g.IntN(g.leases)))
	case n < 71:
		g.apply(svc, g.batch(false)...)
	case n < 74:
		g.apply(svc, g.batch(true)...)
	case n < 77:
		g.grant()
	case n < 81:
		i := g.IntN(g.leases)
		g.live = slices.DeleteFunc(g.live, func(l int) bool { return l == i })
		g.addOperation(all, false, func(ctx context.Context, s *side) error { return s.leases[i].Revoke(ctx) }, "revoke lease %d", i)
	case n < 84:
		i := g.IntN(g.leases)
		g.addOperation(all, false, func(ctx context.Context, s *side) error { return s.leases[i].Renew(ctx) }, "renew lease %d", i)
	case n < 86:
		g.update(svc)
	case n < 89:
		g.wrong(svc)
	default:
		g.addRegistration()
	}
}

// grant adds a Grant.
func (g *generator) grant() {
	g.live = append(g.live, g.leases)
	g.leases++
	g.addOperation(all, false, func(ctx context.Context, s *side) error {
		l, err := s.store.Grant(ctx, 10*time.Minute)
		s.leases = append(s.leases, l)
		return err
	}, "grant lease %d", g.leases-1)
}

// aLease returns a lease, which may have ended, or none.
func (g *generator) aLease() int {
	if g.IntN(2) == 0 {
		return none
	}
	// Newer leases more often: most of the old ones have ended.
	return max(g.IntN(g.leases), g.IntN(g.leases))
}

// aLive returns a lease that has not ended.
func (g *generator) aLive() int {
	if len(g.live) == 0 {
		g.grant()
	}
	return pick(g, g.live)
}

// endpoint returns a random endpoint.
func (g *generator) endpoint() naming.Endpoint {
	e := naming.Endpoint{ID: pick(g, g.ids), Addr: pick(g, g.addrs), Metadata: g.metadata()}
	if (e.ID != "" || e.Metadata != nil) && g.IntN(12) == 0 {
		e.Addr = ""
	}
	return e
}

// add returns a random Add under a lease.
func (g *generator) add(lease int) change {
	e := g.endpoint()
	if e.ID != "" && e.ID == g.last.ID && g.IntN(2) == 0 {
		e.Addr = g.last.Addr // only the metadata differs
	}
	g.last = e
	return change{naming.Change{Endpoint: e}, lease}
}

// delete returns a random Delete with a lease.
func (g *generator) delete(lease int) change {
	e := g.endpoint()
	if e.ID+e.Addr != "" {
		e.Metadata = nil
	}
	return change{naming.Change{Op: naming.Delete, Endpoint: e}, lease}
}

// batch returns changes of several endpoints. If double is set, one endpoint may have
// several changes.
func (g *generator) batch(double bool) []change {
	var list []change
	there := make(map[string]bool)
	for range 2 + g.IntN(5) {
		// An Add under a lease that has ended, which is skipped because of IfFree
		// or a later change, is an error of some stores and not of others. So the
		// lease of such an Add is live.
		lease := none
		if double && g.IntN(2) == 0 {
			lease = g.aLive()
		} else if !double {
			lease = g.aLease()
		}
		c := g.add(lease)
		switch g.IntN(6) {
		case 0, 1:
			c = g.delete(none)
		case 2:
			c = g.delete(g.IntN(g.leases))
		case 3:
			c.lease, c.IfFree = g.aLive(), true
		}
		id := c.Endpoint.ID
		if id == "" {
			id = c.Endpoint.Addr
		}
		if double && len(list) > 0 && g.IntN(2) == 0 {
			c.Endpoint.ID = list[0].Endpoint.ID
			if c.Endpoint.ID == "" {
				c.Endpoint.ID = list[0].Endpoint.Addr
			}
		} else if there[id] {
			continue
		}
		there[id] = true
		list = append(list, c)
	}
	return list
}

// apply adds an Apply.
func (g *generator) apply(svc int, changes ...change) {
	name := g.services[svc]
	seen := make(map[string]bool)
	loose := false
	for _, c := range changes {
		id := c.Endpoint.ID
		if id == "" {
			id = c.Endpoint.Addr
		}
		loose = loose || seen[id]
		seen[id] = true
	}
	g.addOperation(svc, loose, func(ctx context.Context, s *side) error {
		return s.store.Apply(ctx, name, s.changes(changes)...)
	}, "%.40q: %s", name, describe(changes))
}

// update adds a Client.Update, the API of the former package.
func (g *generator) update(svc int) {
	name := g.services[svc]
	u := naming.Update{Addr: pick(g, g.addrs), Metadata: g.metadata()}
	if g.IntN(3) == 0 {
		u.Op = naming.Delete
	}
	g.addOperation(svc, false, func(ctx context.Context, s *side) error { return s.client.Update(ctx, name, u) },
		"%.40q: update %v %q metadata %s", name, u.Op, u.Addr, short(u.Metadata.(json.RawMessage)))
}

// wrong adds an operation that must fail and change nothing.
func (g *generator) wrong(svc int) {
	name := g.services[svc]
	good := g.add(none)
	bad := g.add(none)
	switch g.IntN(8) {
	case 0:
		bad.Op = 7
	case 1:
		bad.Endpoint = naming.Endpoint{}
	case 2:
		bad.Endpoint.ID = "\xff"
	case 3:
		bad.Endpoint.Metadata = json.RawMessage(`{"a":`)
	case 4:
		bad.IfFree = true
	case 5:
		bad.lease = foreign
	case 6:
		g.addOperation(all, false, func(ctx context.Context, s *side) error {
			_, err := s.store.Grant(ctx, 0)
			return err
		}, "grant a lease with a time to live of zero")
		return
	case 7:
		g.addOperation(svc, false, func(ctx context.Context, s *side) error {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return s.store.Apply(ctx, name, s.changes([]change{good})...)
		}, "%.40q: %s, with a context that is done", name, describe([]change{good}))
		return
	}
	g.apply(svc, good, bad)
}

// expire adds a lease that expires.
func (g *generator) expire() {
	name := g.services[0]
	var puts []change
	for i := range 3 {
		puts = append(puts, change{naming.Change{Endpoint: naming.Endpoint{ID: "mortal " + strconv.Itoa(i), Addr: pick(g, g.addrs), Metadata: g.metadata()}}, none})
	}
	g.apply(0, puts...)
	index := g.leases
	g.leases++
	under := slices.Clone(puts)
	for i := range under {
		under[i].lease = index
	}
	// The states of the endpoints do not change under the lease, so that a reader sees
	// only their deletion.
	g.addOperation(0, false, func(ctx context.Context, s *side) error {
		s.leases = append(s.leases, nil)
		// A reader that is late would see neither the endpoints nor their deletion.
		if err := s.until(ctx, "the mortals", func() string {
			return s.lacks(0, "mortal 0") + s.lacks(0, "mortal 1")
		}); err != nil {
			return err
		}
		for ttl := s.ttl; ; ttl *= 2 {
			start := time.Now()
			l, err := s.store.Grant(ctx, ttl)
			if err != nil {
				return err
			}
			s.leases[index] = l
			err = s.store.Apply(ctx, name, s.changes(under)...)
			if class(err) == classLost {
				s.slow = true
				continue
			}
			if err == nil {
				err = s.store.Apply(ctx, name, s.changes(puts[2:])...)
			}
			s.slow = s.slow || time.Since(start) >= ttl
			if err != nil {
				return err
			}
			return s.until(ctx, "the expiry", func() string {
				if s.lacks(0, "mortal 0") == "" || s.lacks(0, "mortal 1") == "" {
					return "the lease has not expired"
				}
				return ""
			})
		}
	}, "%.40q: the mortals under lease %d, the last of them under no lease, and wait for the lease to expire", name, index)
}

// addRegistration adds an operation of a Registration.
func (g *generator) addRegistration() {
	if len(g.known) > 0 && (len(g.regs) == 0 || g.IntN(4) == 0) {
		g.register()
		return
	}
	name := g.services[registrations]
	i := g.IntN(len(g.regs))
	reg := g.regs[i]
	on := func(what string, loose bool, do func(context.Context, *naming.Registration) error) {
		g.addOperation(registrations, loose, func(ctx context.Context, s *side) error { return do(ctx, s.registrations[reg.index]) }, "%.40q: %s registration %d", name, what, reg.index)
	}
	switch g.IntN(8) {
	case 0, 1:
		m := g.metadata()
		on("update with "+short(m), false, func(ctx context.Context, r *naming.Registration) error { return r.Update(ctx, m) })
	case 2:
		reg.drained = true
		on("drain", false, func(ctx context.Context, r *naming.Registration) error { return r.Drain(ctx) })
	case 3:
		reg.drained = false
		on("resume", false, func(ctx context.Context, r *naming.Registration) error { return r.Resume(ctx) })
	case 4, 5:
		// A registration that is not draining drains for a moment.
		on("close", !reg.drained, func(_ context.Context, r *naming.Registration) error { return r.Close() })
		g.regs = slices.Delete(g.regs, i, i+1)
		g.known = append(g.known, &registration{endpoint: reg.endpoint})
	case 6:
		g.succeed(reg)
	case 7:
		g.deleteRegistered(reg)
	}
}

// register adds a Client.Register.
func (g *generator) register() {
	name := g.services[registrations]
	i := g.IntN(len(g.known))
	reg := &registration{index: g.registered, endpoint: g.known[i].endpoint}
	reg.endpoint.Metadata = g.metadata()
	g.known = slices.Delete(g.known, i, i+1)
	g.regs = append(g.regs, reg)
	g.registered++
	g.addOperation(registrations, false, func(ctx context.Context, s *side) error {
		r, err := s.client.Register(ctx, name, reg.endpoint, &naming.RegisterOptions{
			TTL: 10 * time.Minute, Wait: true, DrainDelay: -1, CloseTimeout: patience,
			OnChange: func(naming.RegistrationStatus) { s.signal() },
		})
		s.registrations = append(s.registrations, r)
		return err
	}, "%.40q: registration %d: %s", name, reg.index, text(reg.endpoint))
}

// id returns the ID of the registered endpoint.
func (r *registration) id() string {
	if r.endpoint.ID != "" {
		return r.endpoint.ID
	}
	return r.endpoint.Addr
}

// succeed adds an Add of a successor of a registration. The successor has its own lease: the
// registration would take back an entry that is under no lease.
func (g *generator) succeed(reg *registration) {
	name := g.services[registrations]
	e := naming.Endpoint{ID: reg.id(), Addr: pick(g, g.addrs), Metadata: g.metadata()}
	g.addOperation(registrations, false, func(ctx context.Context, s *side) error {
		l, err := s.store.Grant(ctx, 10*time.Minute)
		if err != nil {
			return err
		}
		return s.store.Apply(ctx, name, naming.Change{Endpoint: e, Lease: l})
	}, "%.40q: Add %s under its own lease", name, text(e))
}

// deleteRegistered adds a Delete of a registered endpoint, and waits until the endpoint is
// registered again.
func (g *generator) deleteRegistered(reg *registration) {
	name, id := g.services[registrations], reg.id()
	g.addOperation(registrations, true, func(ctx context.Context, s *side) error {
		if err := s.store.Apply(ctx, name, naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: id}}); err != nil {
			return err
		}
		return s.until(ctx, "the registration", func() string {
			list, err := s.list(ctx, registrations)
			if _, ok := list[id]; !ok {
				return fmt.Sprintf("it was not made again, %v", err)
			}
			return ""
		})
	}, "%.40q: delete %.40q, and wait until registration %d has put it again", name, id, reg.index)
}

// metadata returns a random JSON value, or nil in one of ten calls.
func (g *generator) metadata() json.RawMessage {
	switch g.IntN(10) {
	case 0:
		return nil
	case 1, 2, 3: // the most common form
		return json.RawMessage(fmt.Sprintf(`{"weight":%d,"zone":"eu-%d","version":"1.%d","tags":["x","y%d"]}`, g.IntN(5), g.IntN(3), g.IntN(9), g.IntN(3)))
	case 4:
		return json.RawMessage(g.large())
	}
	return json.RawMessage(g.value(3))
}

// numbers and texts are values that change if they are decoded and encoded without care.
// members are names of members of objects.
var (
	numbers = []string{"0", "1", "1.0", "1e0", "-0", "-0.0", "0.10", "1E5", "1e+5", "100000", "9007199254740993", "12345678901234567890", "1e400", "-1e-400", "65535", "65536", "3.14159265358979323846264338327950288"}
	texts   = []string{`""`, `"0"`, `"null"`, `"a"`, `" a "`, `"A"`, `"<>&"`, `"\u003c"`, `"é"`, `"e\u0301"`, `"世界 🙂"`, `"\ud83d\ude42"`, `"\u2028"`, `"\u0000"`, `"\"\\\/\b\f\n\r\t"`, `"%20+"`, `"{\"a\":1}"`}
	members = []string{`"a"`, `"A"`, `"a b"`, `"a/b"`, `"é"`, `""`, `"<"`, `"\u0061b"`, `"a\nb"`, `"weight"`, `"zone"`, `"version"`, `"tags"`, `"draining"`, `"Weight"`,
		`"naming-id"`, `"naming-json"`, `"Naming-Gen"`, `"consul-x"`, `"Op"`, `"Addr"`, `"Metadata"`}
)

// value returns a random JSON value, nested at most depth deep.
func (g *generator) value(depth int) string {
	n := g.IntN(10)
	if depth == 0 {
		n %= 4
	}
	switch {
	case n == 0:
		return pick(g, numbers)
	case n < 3:
		return pick(g, texts)
	case n == 3:
		return pick(g, []string{"true", "false", "null", "[]", "{}", " {} ", `[ ]`})
	}
	var parts []string
	for range g.IntN(5) {
		part := g.value(depth - 1)
		if n > 5 {
			part = pick(g, members) + pick(g, []string{":", " : "}) + part
		}
		parts = append(parts, part)
	}
	list := strings.Join(parts, pick(g, []string{",", ", ", "\n,\t"}))
	if n > 5 {
		return "{" + list + "}"
	}
	return "[" + list + "]"
}

// large returns a value that exceeds one metadata value of Consul, and not all of them
// together.
func (g *generator) large() string {
	n := g.IntN(4000)
	switch g.IntN(4) {
	case 0:
		return `"` + strings.Repeat("a", n) + `é"`
	case 1:
		return `{"` + strings.Repeat("k", 1+n%300) + `":"` + strings.Repeat("é", n) + `"}`
	case 2:
		return "[" + strings.Repeat("1234567,", n/8) + "1]"
	}
	var b strings.Builder
	for i := range n/40 + 1 { // up to a hundred; Consul allows 64
		fmt.Fprintf(&b, `,"member-%d":"%d"`, i, n)
	}
	return "{" + b.String()[1:] + "}"
}

// describe returns the changes as text.
func describe(changes []change) string {
	var parts []string
	for _, c := range changes {
		s := c.Op.String() + " " + text(c.Endpoint)
		switch {
		case c.lease == foreign:
			s += " under another store's lease"
		case c.lease >= 0:
			s += fmt.Sprintf(" under lease %d", c.lease)
		}
		if c.IfFree {
			s += " if free"
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, "; ")
}

// text returns an endpoint as text.
func text(e naming.Endpoint) string {
	s := fmt.Sprintf("{%.40q at %q", e.ID, e.Addr)
	if e.Metadata != nil {
		s += " with " + short(e.Metadata)
	}
	return s + "}"
}

// short returns metadata as text, without its end if it is long.
func short(m json.RawMessage) string {
	line := strings.ReplaceAll(string(m), "\n", " ")
	if len(line) > 120 {
		return fmt.Sprintf("%s... of %d bytes", line[:100], len(line))
	}
	return line
}
