// Package cases gives registries faults, and finds out which peers recover. The state of
// the registry decides: the last set of a consumer has to be what the registry contains,
// and the registry has to contain what a peer registered.
//
// Every peer goes through every case in a process of its own and with a server of its
// own. A peer may panic or hang, and several trials run side by side.
package cases

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/naming-go/naming/bench/peer"
	"github.com/naming-go/naming/internal/faultproxy"
	"github.com/naming-go/naming/internal/servertest"
)

// Verdict is the outcome of a trial.
type Verdict string

const (
	Passes        Verdict = "passes"
	Fails         Verdict = "fails"
	NotApplicable Verdict = "not applicable"
	// Invalid is a trial that shows nothing, because the bench itself failed.
	Invalid Verdict = "invalid"
)

// Result is the result of a trial, which is one peer in one case.
type Result struct {
	Peer    string  `json:"peer"`
	Backend string  `json:"backend"`
	Case    string  `json:"case"` // the letter
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	// Discovery and Registration say in words what failed. They are empty if nothing
	// failed.
	Discovery    string `json:"discovery,omitempty"`
	Registration string `json:"registration,omitempty"`
	// Note is a further remark.
	Note string        `json:"note,omitempty"`
	Took time.Duration `json:"took_ns"`
}

// String returns the verdict and the parts that failed.
func (r Result) String() string {
	if r.Verdict != Fails {
		return string(r.Verdict)
	}
	var parts []string
	if r.Discovery != "" {
		parts = append(parts, "discovery")
	}
	if r.Registration != "" {
		parts = append(parts, "registration")
	}
	return "fails (" + strings.Join(parts, ", ") + ")"
}

// Details returns the failures and the note in words.
func (r Result) Details() string {
	var parts []string
	for _, s := range []string{r.Discovery, r.Registration, r.Note} {
		if s != "" && !slices.Contains(parts, s) {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, "; ")
}

// Options are the options of [Run]. Zero fields have the defaults given.
type Options struct {
	// Only, if not empty, lists the letters of the cases to run.
	Only []string
	// Parallel is how many trials run side by side, 4 by default. Trials mostly
	// wait.
	Parallel int
	// Bound is how long a peer may take to recover after the fault has ended. The
	// default of two minutes is eight times the time to live of the registrations.
	// Some peers recover after five minutes or more, which counts as a failure.
	Bound time.Duration
	// Stable is how long the recovered state has to last. The default of 20 seconds is
	// more than the time to live of a registration that nobody renews.
	Stable time.Duration
	// Surplus is how long a peer may show an endpoint that a replaced registry has
	// lost. The default is six minutes, because a peer may keep such endpoints on
	// purpose. What a peer does not show is bounded by Bound. A negative value means
	// no limit.
	Surplus time.Duration
	// Logf, if not nil, logs every result.
	Logf func(format string, args ...any)
}

func (o Options) withDefaults() Options {
	if o.Parallel <= 0 {
		o.Parallel = 4
	}
	if o.Bound <= 0 {
		o.Bound = 2 * time.Minute
	}
	if o.Stable <= 0 {
		o.Stable = 20 * time.Second
	}
	if o.Surplus == 0 {
		o.Surplus = 6 * time.Minute
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	return o
}

// Run tries every peer except the floors in every case. It returns the results in the
// order of the cases and, within a case, of the peers. The program or test that calls Run
// has to call [actor.Main] with [Role].
func Run(ctx context.Context, peers []peer.Peer, opts Options) []Result {
	opts = opts.withDefaults()
	// The trials make calls fail on purpose. etcd's client would log every such call.
	if os.Getenv("ETCD_CLIENT_DEBUG") == "" {
		os.Setenv("ETCD_CLIENT_DEBUG", "fatal")
	}
	var results []*Result
	var trials errgroup.Group
	trials.SetLimit(opts.Parallel)
	for _, c := range table {
		if len(opts.Only) > 0 && !slices.Contains(opts.Only, c.letter) {
			continue
		}
		for _, p := range peers {
			if p.Floor {
				continue
			}
			res := &Result{Peer: p.Name, Backend: p.Backend, Case: c.letter, Name: c.name, Verdict: NotApplicable}
			results = append(results, res)
			if c.backend != "" && c.backend != p.Backend {
				continue
			}
			trials.Go(func() error {
				try(ctx, p, c, opts, res)
				opts.Logf("%-16s (%s) %s after %v %s", p.Name, c.letter, res, res.Took.Round(time.Second), res.Details())
				return nil
			})
		}
	}
	_ = trials.Wait() // a trial's error is in its result
	out := make([]Result, len(results))
	for i, r := range results {
		out[i] = *r
	}
	return out
}

// try runs one trial.
func try(ctx context.Context, p peer.Peer, c kase, opts Options, res *Result) {
	start := time.Now()
	defer func() { res.Took = time.Since(start) }()
	// The sum of its waits bounds a trial.
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute+2*opts.Bound+max(opts.Surplus, 0))
	defer cancel()
	t := &trial{ctx: ctx, peer: p, opts: opts, res: res, backdrop: fmt.Sprintf("%s-%s", p.Name, c.letter)}
	var log bytes.Buffer
	program := servertest.NewProgram(t.backdrop, &log)
	ended := program.Run(func() bool {
		switch p.Backend {
		case "etcd":
			t.registry = startEtcd(program)
		case "consul":
			t.registry = startConsul(program, c.letter == "b")
		}
		t.proxy = t.registry.proxy()
		t.tb = program
		defer t.close()
		t.invalid = c.run(t)
		return true
	})
	if !ended {
		t.invalid = errors.Join(t.invalid, errors.New(strings.TrimSpace(log.String())))
	}
	switch {
	case t.subject != nil && t.died != nil:
		res.Verdict, res.Discovery = Fails, "the process ended: "+t.died.Error()
		if t.registered {
			res.Registration = res.Discovery
		}
	case res.Discovery != "" || res.Registration != "":
		res.Verdict = Fails
	case errors.Is(t.invalid, errNotApplicable):
		res.Verdict = NotApplicable
	case t.invalid != nil:
		res.Verdict, res.Note = Invalid, t.invalid.Error()
	default:
		res.Verdict = Passes
	}
}

// errNotApplicable ends a trial that can show nothing for this peer.
var errNotApplicable = errors.New("not applicable")

// errFailed ends a trial in which the peer has failed.
var errFailed = errors.New("the peer failed")

const service = "svc"

// own is what the subject registers.
const own = "127.0.0.1:10001"

// trial is one peer in one case.
type trial struct {
	ctx      context.Context
	tb       *servertest.Program
	peer     peer.Peer
	opts     Options
	res      *Result
	backdrop string
	registry registry
	proxy    *faultproxy.Proxy
	subject  *subject

	addrs      []string // every address that was put or registered
	registered bool     // the subject has registered own
	invalid    error
	died       error
}

func (t *trial) close() {
	if t.subject == nil {
		return
	}
	select {
	case <-t.subject.Done():
		if t.died = t.subject.Err(); t.died == nil {
			t.died = errors.New("without an error")
		}
	default:
		t.subject.Close()
	}
}

// addr returns the address of the endpoint with a number, of this service or of a
// neighbour.
func addr(neighbour bool, id int) string {
	if neighbour {
		return fmt.Sprintf("127.0.0.1:102%02d", id)
	}
	return fmt.Sprintf("127.0.0.1:101%02d", id)
}

func (t *trial) entry(service, addr string) peer.Entry {
	if !slices.Contains(t.addrs, addr) {
		t.addrs = append(t.addrs, addr)
		slices.Sort(t.addrs)
	}
	return t.peer.Entry(service, peer.Endpoint{ID: addr, Addr: addr})
}

// put puts endpoints of the service into the registry, behind the proxy.
func (t *trial) put(ids ...int) error {
	for _, id := range ids {
		e := t.entry(service, addr(false, id))
		if err := retry(t.ctx, func(ctx context.Context) error { return t.registry.put(ctx, e) }); err != nil {
			return fmt.Errorf("put: %w", err)
		}
	}
	return nil
}

func (t *trial) remove(ids ...int) error {
	for _, id := range ids {
		e := t.entry(service, addr(false, id))
		if err := retry(t.ctx, func(ctx context.Context) error { return t.registry.remove(ctx, e) }); err != nil {
			return fmt.Errorf("remove: %w", err)
		}
	}
	return nil
}

// open starts the subject.
func (t *trial) open() error {
	var err error
	t.subject, err = newSubject(t.peer, t.registry.servers())
	return err
}

// await waits until f returns true. It returns false if f does not return true within d,
// or the subject has ended.
func (t *trial) await(d time.Duration, f func() bool) bool {
	for end := time.Now().Add(d); !f(); {
		select {
		case <-t.subject.Done():
			return false
		default:
		}
		if time.Now().After(end) || pause(t.ctx, 50*time.Millisecond) != nil {
			return false
		}
	}
	return true
}

// begin puts three endpoints, and has the subject register one more if register is true.
// It waits until the subject shows them. Then it puts another endpoint and waits for it,
// because a subject may show a first set before it watches.
func (t *trial) begin(register bool) error {
	if err := t.put(1, 2, 3); err != nil {
		return err
	}
	if err := t.open(); err != nil {
		return err
	}
	if register {
		if err := t.register(); err != nil {
			return err
		}
	}
	if err := t.subject.Send(command{Do: "resolve", Service: service}); err != nil {
		return err
	}
	for _, more := range [][]int{nil, {7}} {
		if err := t.put(more...); err != nil {
			return err
		}
		if ok, r := t.right(t.opts.Bound, 0, false); !ok {
			e, _ := t.subject.answer("resolve")
			t.res.Registration, t.res.Discovery = r.registration, strings.TrimSpace("before the fault: "+r.discovery+" "+e.Err)
			return errFailed
		}
	}
	return nil
}

// register has the subject register, if the subject has a registrar.
func (t *trial) register() error {
	if err := t.subject.Send(command{Do: "register", Service: service, ID: own, Addr: own}); err != nil {
		return err
	}
	var e event
	if !t.await(t.opts.Bound, func() (ok bool) { e, ok = t.subject.answer("register"); return ok }) {
		t.res.Registration = "it does not register"
		return errFailed
	}
	switch {
	case e.Unsupported:
		t.res.Note = "it has no registrar"
	case e.Err != "":
		t.res.Registration = "it does not register: " + e.Err
		return errFailed
	default:
		t.registered = true
		t.entry(service, own)
	}
	return nil
}

// holds returns which addresses of the trial the registry contains.
func (t *trial) holds() ([]string, error) {
	ctx, cancel := context.WithTimeout(t.ctx, 3*time.Second)
	defer cancel()
	return t.registry.holds(ctx, service, t.addrs)
}

// settle waits until the subject shows what the registry contains, with what the subject
// registered, and this lasts. Then it puts one more endpoint, because the right set may be
// the last set that the subject ever gets. If surplus is not 0, the subject may show other
// endpoints for that long.
func (t *trial) settle(id int, surplus time.Duration) error {
	begin := time.Now()
	ok, reason := t.right(t.opts.Bound, t.opts.Stable, surplus != 0)
	if !ok {
		t.res.Registration, t.res.Discovery = reason.registration, reason.discovery
		return errFailed
	}
	if reason.surplus != "" {
		t.res.Note = strings.TrimSpace(t.res.Note + " " + reason.surplus)
		if surplus > 0 {
			if ok, reason := t.right(surplus-time.Since(begin), 0, false); !ok {
				t.res.Registration, t.res.Discovery = reason.registration, reason.discovery
				return errFailed
			}
			t.res.Note += fmt.Sprintf(", for %v", time.Since(begin).Round(time.Second))
		}
	}
	if err := t.put(id); err != nil {
		return err
	}
	if ok, reason := t.right(t.opts.Bound, 0, surplus != 0); !ok {
		t.res.Registration, t.res.Discovery = reason.registration, "it recovered, but does not show the next change: "+reason.discovery
		return errFailed
	}
	return nil
}

// reason is what is wrong, in words.
type reason struct{ discovery, registration, surplus string }

// right waits until nothing was wrong for as long as stable. It returns false if this does
// not happen within bound.
func (t *trial) right(bound, stable time.Duration, surplus bool) (bool, reason) {
	begin := time.Now()
	since := begin // since then nothing is wrong
	for {
		r := t.look(surplus)
		well := r.discovery == "" && r.registration == ""
		now := time.Now()
		if !well {
			since = now
		}
		if well && now.Sub(since) >= stable {
			return true, r
		}
		ended := false
		select {
		case <-t.subject.Done():
			ended = true
		default:
		}
		waited := now.Sub(begin)
		if ended || !well && waited > bound || waited > bound+stable || pause(t.ctx, 100*time.Millisecond) != nil {
			for _, s := range []*string{&r.discovery, &r.registration} {
				if *s != "" {
					*s += fmt.Sprintf(", still after %v", waited.Round(time.Second))
				}
			}
			return false, r
		}
	}
}

// look compares what the subject shows with what the registry contains.
func (t *trial) look(surplus bool) (r reason) {
	have, err := t.holds()
	if err != nil {
		r.discovery = fmt.Sprintf("the registry does not answer: %v", err)
		return r
	}
	shown := t.subject.shown()
	missing, more := minus(have, shown), minus(shown, have)
	switch {
	case len(missing) > 0, len(more) > 0 && !surplus:
		r.discovery = fmt.Sprintf("it shows %v, the registry has %v", short(shown), short(have))
	case len(more) > 0:
		r.surplus = fmt.Sprintf("it shows %v, which did not come back", short(more))
	}
	if t.registered && !slices.Contains(have, own) {
		r.registration = "what it registered is not in the registry"
	}
	return r
}

// minus returns the elements of a that are not in b.
func minus(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

// short returns the addresses without the prefix that they share.
func short(addrs []string) []string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = strings.TrimPrefix(a, "127.0.0.1")
	}
	return out
}
