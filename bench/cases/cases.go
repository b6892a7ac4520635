// Package cases does to registries what happens to them, and finds out which of
// the peers are right again afterwards. The registry itself is the judge: what a
// consumer was given last has to be what the registry holds, and what a peer
// registered has to be in there.
//
// Every peer goes through every case in a process of its own and with a server
// of its own, so that one may panic or hang and several wait side by side.
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

// Verdict is what became of a peer in a case.
type Verdict string

const (
	Passes        Verdict = "passes"
	Fails         Verdict = "fails"
	NotApplicable Verdict = "not applicable"
	// Invalid is a trial that says nothing, since the bench itself failed.
	Invalid Verdict = "invalid"
)

// Result is what a trial, one peer in one case, found.
type Result struct {
	Peer    string  `json:"peer"`
	Backend string  `json:"backend"`
	Case    string  `json:"case"` // the letter
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	// Discovery and Registration say in words what failed, empty if nothing
	// did.
	Discovery    string `json:"discovery,omitempty"`
	Registration string `json:"registration,omitempty"`
	// Note is what else there is to say.
	Note string        `json:"note,omitempty"`
	Took time.Duration `json:"took_ns"`
}

// String returns the verdict with what fails.
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

// Details says in words what there is to say.
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
	// Only, if not empty, has the letters of the cases to run.
	Only []string
	// Parallel is how many trials run side by side, 4 by default. They mostly
	// wait.
	Parallel int
	// Bound is how long after the fault is over all has to be well again: two
	// minutes by default, eight times the time to live of the registrations.
	// Some peers are right after five minutes or more; that is a failure.
	Bound time.Duration
	// Stable is how long all has to stay well, 20 seconds by default: more
	// than the time to live of a registration that nobody renews.
	Stable time.Duration
	// Surplus is how long an endpoint may be shown after a registry was
	// replaced that it does not have any more. It is six minutes by default:
	// to go on with what was known then is what a peer may do on purpose, and
	// what it did not get from the registry is what Bound is for. A negative
	// value means for ever.
	Surplus time.Duration
	// Logf, if any, is told of every result.
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

// Run tries every peer that is no floor in every case, and returns the results
// in the order of the cases and, within one, of the peers. It has to be called
// in a program, or test, that calls [actor.Main] with [Role].
func Run(ctx context.Context, peers []peer.Peer, opts Options) []Result {
	opts = opts.withDefaults()
	// What etcd's client logs of calls that fail is what the trials are about.
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

// try is one trial.
func try(ctx context.Context, p peer.Peer, c kase, opts Options, res *Result) {
	start := time.Now()
	defer func() { res.Took = time.Since(start) }()
	// No trial takes longer than its waits together.
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

// errNotApplicable ends a trial in which there is nothing to see.
var errNotApplicable = errors.New("not applicable")

// errFailed ends a trial that has found what it was for.
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

	addrs      []string // all that there ever were
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
			t.died = errors.New("without a word")
		}
	default:
		t.subject.Close()
	}
}

// addr returns the address of the endpoint with an ID that is a number of one
// digit, of this service or of a neighbour.
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

// await waits until f reports true. It reports false if it does not within d, or
// the subject has ended.
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

// begin puts three endpoints, lets the subject register one more if it is to,
// waits until the subject shows them, and then puts a fourth and waits for that:
// the first set may be there before the watch is.
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
			t.res.Registration, t.res.Discovery = r.registration, strings.TrimSpace("before anything happened: "+r.discovery+" "+e.Err)
			return errFailed
		}
	}
	return nil
}

// register makes the subject register, if it can.
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

// holds asks the registry.
func (t *trial) holds() ([]string, error) {
	ctx, cancel := context.WithTimeout(t.ctx, 3*time.Second)
	defer cancel()
	return t.registry.holds(ctx, service, t.addrs)
}

// settle waits until the subject shows what the registry holds, and what it
// registered is among it, for as long as makes sure that it stays so. Then one
// more change has to be shown: the right set may be the last. If surplus is not
// 0, what the registry does not hold may be shown for that long.
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
		t.res.Registration, t.res.Discovery = reason.registration, "it was right, and does not show the next change: "+reason.discovery
		return errFailed
	}
	return nil
}

// reason is why all is not well.
type reason struct{ discovery, registration, surplus string }

// right waits until all is well for as long as stable, or that cannot be within
// bound.
func (t *trial) right(bound, stable time.Duration, surplus bool) (bool, reason) {
	begin := time.Now()
	since := begin // when all became well
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

// look compares what the subject shows with what the registry holds.
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
		r.surplus = fmt.Sprintf("%v is shown although it did not come back", short(more))
	}
	if t.registered && !slices.Contains(have, own) {
		r.registration = "what it registered is not in the registry"
	}
	return r
}

// minus returns what is in a and not in b.
func minus(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

// short leaves out what all addresses begin with.
func short(addrs []string) []string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = strings.TrimPrefix(a, "127.0.0.1")
	}
	return out
}
