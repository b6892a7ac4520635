package naming_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
)

// mark marks the endpoint a:1 of the service svc, as an operator does.
func mark(t *testing.T, s naming.Store, draining bool) {
	t.Helper()
	operator := naming.New(s, quiet)
	defer operator.Close()
	if err := operator.Mark(t.Context(), "svc", "a:1", draining); err != nil {
		t.Fatalf("Mark(%v): %v", draining, err)
	}
	synctest.Wait()
}

// marked fails t unless the status says so.
func marked(t *testing.T, g *naming.Registration, draining, byOther bool) {
	t.Helper()
	synctest.Wait()
	if st := g.Status(); st.Draining != draining || st.MarkedByOther != byOther || !st.Registered || st.Err != nil {
		t.Fatalf("status %+v, want Draining %v and MarkedByOther %v", st, draining, byOther)
	}
}

// applied returns how many changes the store has got.
func (p *picky) applied() int {
	n, _ := p.counts()
	return n
}

func TestMarkIsKept(t *testing.T) {
	var log bytes.Buffer
	opts := &naming.Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Hold: naming.Hold{Disabled: true}}
	inPicky(t, opts, func(t *testing.T, p *picky, c *naming.Client) {
		var changes []naming.RegistrationStatus
		g := register(t, c, "svc", `a:1 a:1 {"k":1}`, &naming.RegisterOptions{OnChange: func(st naming.RegistrationStatus) { changes = append(changes, st) }})
		time.Sleep(time.Minute)
		writes := p.applied()
		mark(t, p.Store, true)
		marked(t, g, true, true)
		if err := g.Ready(); err == nil || !strings.Contains(err.Error(), "draining") {
			t.Errorf("Ready returned %v, want an error that says draining", err)
		}
		if last := changes[len(changes)-1]; !last.Draining || !last.MarkedByOther {
			t.Errorf("OnChange was called with %+v last", last)
		}
		time.Sleep(time.Hour)
		if n := p.applied() - writes; n != 0 {
			t.Errorf("%d writes after the mark, want none", n)
		}
		if err := g.Update(t.Context(), json.RawMessage(`{"k":2}`)); err != nil {
			t.Fatal(err)
		}
		listed(t, p, "svc", `a:1 a:1 {"k":2} draining`)
		for _, lose := range []func(){p.ExpireAll, p.Wipe} {
			lose()
			time.Sleep(backWithin)
			listed(t, p, "svc", `a:1 a:1 {"k":2} draining`)
			marked(t, g, true, true)
		}
		writes = p.applied()
		mark(t, p.Store, false)
		marked(t, g, false, false)
		if n := p.applied() - writes; n != 0 {
			t.Errorf("%d writes after the removal of the mark, want none", n)
		}
		if err := g.Update(t.Context(), json.RawMessage(`{"k":3}`)); err != nil {
			t.Fatal(err)
		}
		listed(t, p, "svc", `a:1 a:1 {"k":3}`)
		for text, want := range map[string]int{"the mark is kept": 1, "removed the draining mark": 1} {
			if n := strings.Count(log.String(), text); n != want {
				t.Errorf("the log says %q %d times, want %d", text, n, want)
			}
		}
	})
}

// What the program itself says of the mark counts more than what others say.
func TestMarkOfTheProgram(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		var last naming.RegistrationStatus
		g := register(t, c, "svc", "a:1", &naming.RegisterOptions{OnChange: func(st naming.RegistrationStatus) { last = st }})
		time.Sleep(time.Minute)
		mark(t, s, true)
		if err := g.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		listed(t, s, "svc", "a:1")
		marked(t, g, false, false)

		mark(t, s, true)
		if err := g.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		marked(t, g, true, false)
		if !last.Draining || last.MarkedByOther {
			t.Errorf("OnChange was called with %+v last", last)
		}
		mark(t, s, false) // the program still drains
		time.Sleep(time.Second)
		listed(t, s, "svc", "a:1 draining")
		marked(t, g, true, false)
		if err := g.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		listed(t, s, "svc", "a:1")
		mark(t, s, true)
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		listed(t, s, "svc")
	})
}

// during calls f once, just before an Add that is made after call.
func during(p *picky, f func()) {
	p.set(func() {
		p.refuse = func(c naming.Change) error {
			if c.Op == naming.Add {
				p.set(func() { p.refuse = nil })
				f()
			}
			return nil
		}
	})
}

// A put that is under way while the mark is set overwrites the mark. The Registration puts
// the mark again. The watch shows the put before the Registration looks, or afterwards.
func TestMarkDuringUpdate(t *testing.T) {
	for _, after := range []func(naming.Change){
		func(naming.Change) { synctest.Wait() },
		nil,
	} {
		inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
			g := register(t, c, "svc", "a:1", nil)
			time.Sleep(time.Minute)
			p.set(func() { p.after = after })
			during(p, func() {
				mark(t, p.Store, true)
			})
			if err := g.Update(t.Context(), json.RawMessage(`{"k":2}`)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			listed(t, p, "svc", `a:1 a:1 {"k":2} draining`)
			marked(t, g, true, true)
			mark(t, p.Store, false)
			marked(t, g, false, false)
			time.Sleep(time.Minute)
			listed(t, p, "svc", `a:1 a:1 {"k":2}`)
		})
	}
}

// An operator who removes the mark at once is not overruled, although the program puts the
// entry at that time.
func TestMarkRemovedAtOnce(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
		g := register(t, c, "svc", "a:1", nil)
		time.Sleep(time.Minute)
		p.set(func() {
			p.after = func(naming.Change) {
				p.set(func() { p.after = nil })
				mark(t, p.Store, true)
				mark(t, p.Store, false)
			}
		})
		if err := g.Update(t.Context(), json.RawMessage(`{"k":2}`)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		listed(t, p, "svc", `a:1 a:1 {"k":2}`)
		marked(t, g, false, false)
	})
}

// notTwo refuses the metadata 2.
func notTwo(c naming.Change) error {
	if string(c.Endpoint.Metadata) == "2" {
		return fmt.Errorf("%w: two", naming.ErrInvalid)
	}
	return nil
}

// An Update that the store refuses does not cost the mark, and the operator can remove the mark
// afterwards.
func TestMarkAndRefusedUpdate(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
		g := register(t, c, "svc", "a:1 a:1 1", nil)
		time.Sleep(time.Minute)
		mark(t, p.Store, true)
		p.set(func() { p.refuse = notTwo })
		if err := g.Update(t.Context(), json.RawMessage("2")); !errors.Is(err, naming.ErrInvalid) {
			t.Fatalf("Update returned %v, want ErrInvalid", err)
		}
		if st := g.Status(); !st.Draining || !st.MarkedByOther {
			t.Errorf("status %+v after an Update that was refused", st)
		}
		listed(t, p, "svc", "a:1 a:1 1 draining")
		mark(t, p.Store, false)
		if err := g.Update(t.Context(), json.RawMessage("3")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		listed(t, p, "svc", "a:1 a:1 3")
		marked(t, g, false, false)
	})
}

// The Update is made while the Registration reads the mark, and then the store refuses it.
func TestMarkBeforeRefusedUpdate(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, _ *naming.Client) {
		s := &late{picky: p}
		c := naming.New(s, quiet)
		defer c.Close()
		g := register(t, c, "svc", "a:1 a:1 1", nil)
		time.Sleep(time.Minute)
		refused := make(chan error, 1)
		p.set(func() {
			p.refuse = notTwo
			s.before = func() {
				p.set(func() { s.before = nil })
				go func() { refused <- g.Update(t.Context(), json.RawMessage("2")) }()
				time.Sleep(time.Millisecond)
			}
		})
		writes := p.applied()
		mark(t, p.Store, true)
		if err := <-refused; !errors.Is(err, naming.ErrInvalid) {
			t.Fatalf("Update returned %v, want ErrInvalid", err)
		}
		time.Sleep(time.Minute)
		if n := p.applied() - writes; n != 1 {
			t.Errorf("%d writes, want the one that was refused", n)
		}
		if err := g.Update(t.Context(), json.RawMessage("3")); err != nil {
			t.Fatal(err)
		}
		listed(t, p, "svc", "a:1 a:1 3 draining")
		marked(t, g, true, true)
	})
}

// Two operators who do not agree: the last counts.
func TestMarkOfTwoOperators(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		g := register(t, c, "svc", "a:1", nil)
		time.Sleep(time.Minute)
		for n := range 100 {
			if err := s.Mark(t.Context(), "svc", "a:1", n%3 != 0); err != nil {
				t.Fatal(err)
			}
			if n%10 == 0 {
				synctest.Wait()
			}
		}
		if err := s.Mark(t.Context(), "svc", "a:1", true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		listed(t, s, "svc", "a:1 draining")
		marked(t, g, true, true)
	})
}

// late is a Store whose watches show everything later. The function before, if not nil, is
// called before each watch begins. picky.mu guards it.
type late struct {
	*picky
	lag    time.Duration
	before func()
}

func (l *late) Watch(ctx context.Context, service string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) {
		l.mu.Lock()
		before := l.before
		l.mu.Unlock()
		if before != nil {
			before()
		}
		ctx, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		queue := make(chan func() bool, 1000)
		wg.Go(func() {
			defer close(queue)
			for b, err := range l.picky.Watch(ctx, service) {
				due := time.Now().Add(l.lag)
				queue <- func() bool {
					time.Sleep(time.Until(due))
					return yield(b, err)
				}
			}
		})
		for show := range queue {
			if !show() {
				return
			}
		}
	}
}

// readsOf has a program change its own mark and its metadata in three rounds, while the watch
// shows each change late. It returns how many reads that cost.
func readsOf(t *testing.T, round func(t *testing.T, g *naming.Registration) []error) (reads int) {
	inPicky(t, nil, func(t *testing.T, p *picky, _ *naming.Client) {
		watches := 0
		c := naming.New(&late{picky: p, lag: 100 * time.Millisecond, before: func() { watches++ }}, quiet)
		defer c.Close()
		put(t, p.Store, "svc", "a:1") // a predecessor's
		g := register(t, c, "svc", "a:1", nil)
		for range 3 {
			time.Sleep(time.Minute)
			if err := errors.Join(round(t, g)...); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if err := g.Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
		reads = watches - 1
	})
	return reads
}

// The marks that the program itself sets cost no read, although the watch shows them after the
// program has changed something else.
func TestMarkCostsNothing(t *testing.T) {
	reads := readsOf(t, func(t *testing.T, g *naming.Registration) []error {
		return []error{
			g.Drain(t.Context()), g.Update(t.Context(), json.RawMessage(`1`)), sleepFor(time.Second),
			g.Resume(t.Context()), g.Update(t.Context(), json.RawMessage(`2`)), sleepFor(time.Second),
			g.Drain(t.Context()), g.Update(t.Context(), json.RawMessage(`3`)),
		}
	})
	if reads != 0 {
		t.Errorf("%d reads, want none", reads)
	}
}

// leaseSpy is a late store that knows the last lease that it granted.
type leaseSpy struct {
	*late
	lease naming.Lease
}

func (s *leaseSpy) Grant(ctx context.Context, ttl time.Duration) (naming.Lease, error) {
	l, err := s.late.Grant(ctx, ttl)
	s.lease = l
	return l, err
}

// An own mark costs no read either if a put long before it has changed nothing.
func TestMarkAfterEqualPut(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, _ *naming.Client) {
		watches := 0
		s := &leaseSpy{late: &late{picky: p, lag: 100 * time.Millisecond, before: func() { watches++ }}}
		c := naming.New(s, quiet)
		defer c.Close()
		g := register(t, c, "svc", "a:1", nil)
		for range 2 { // The second loss is followed by a rest.
			time.Sleep(time.Second)
			put(t, p.Store, "svc", "a:1")
			time.Sleep(101 * time.Millisecond)
		}
		e := naming.Change{Endpoint: naming.Endpoint{ID: "a:1", Addr: "a:1"}, Lease: s.lease}
		if err := p.Store.Apply(t.Context(), "svc", e); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := errors.Join(g.Drain(t.Context()), g.Update(t.Context(), json.RawMessage(`1`))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		listed(t, p, "svc", "a:1 a:1 1 draining")
		if watches != 1 {
			t.Errorf("%d watches were started, want one", watches)
		}
	})
}

// A mark that the program takes back before the watch has shown it looks like one of others for a
// moment. Each state that the watch shows costs one read at most.
func TestQuickMarksCostLittle(t *testing.T) {
	reads := readsOf(t, func(t *testing.T, g *naming.Registration) []error {
		return []error{g.Drain(t.Context()), g.Update(t.Context(), json.RawMessage(`1`)), g.Resume(t.Context()), g.Drain(t.Context())}
	})
	if reads > 3*4 {
		t.Errorf("%d reads", reads)
	}
}

// The watch shows the mark of Drain after the program has resumed. Nobody else set that mark.
func TestMarkShownLate(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, _ *naming.Client) {
		c := naming.New(&late{picky: p, lag: time.Second}, quiet)
		defer c.Close()
		g := register(t, c, "svc", "a:1", nil)
		for n := range 3 {
			time.Sleep(time.Minute)
			metadata := fmt.Sprint(n)
			for _, err := range []error{
				g.Drain(t.Context()), sleepFor(100 * time.Millisecond), g.Update(t.Context(), json.RawMessage(metadata)),
				sleepFor(100 * time.Millisecond), g.Resume(t.Context()), g.Update(t.Context(), json.RawMessage("true")),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Minute)
			listed(t, p, "svc", "a:1 a:1 true")
			marked(t, g, false, false)
		}
	})
}

func sleepFor(d time.Duration) error {
	time.Sleep(d)
	return nil
}

// A program that died while it drained left a mark. The watch shows the old entry after the
// first put of the next program. The next program does not adopt the mark.
func TestMarkOfPredecessor(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, _ *naming.Client) {
		c := naming.New(&late{picky: p, lag: 100 * time.Millisecond}, quiet)
		defer c.Close()
		put(t, p.Store, "svc", "a:1")
		mark(t, p.Store, true)
		during(p, func() { time.Sleep(50 * time.Millisecond) })
		g := register(t, c, "svc", "a:1 a:1 1", nil)
		time.Sleep(time.Minute)
		listed(t, p, "svc", "a:1 a:1 1")
		marked(t, g, false, false)
	})
}

// An older Registration of the Client does not adopt the mark of a newer one.
func TestMarkOfNewer(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, _ *naming.Client) {
		s := &late{picky: p}
		c := naming.New(s, quiet)
		defer c.Close()
		older := register(t, c, "svc", "a:1", nil)
		time.Sleep(time.Minute)
		var newer *naming.Registration
		before := func() { // the older one reads the entry
			p.set(func() { s.before = nil })
			if err := p.Mark(t.Context(), "svc", "a:1", false); err != nil {
				t.Error(err)
			}
			newer = register(t, c, "svc", "a:1", nil)
			if err := newer.Drain(t.Context()); err != nil {
				t.Error(err)
			}
		}
		p.set(func() { s.before = before })
		mark(t, p.Store, true)
		time.Sleep(time.Minute)
		if err := newer.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		listed(t, p, "svc", "a:1")
		marked(t, older, false, false)
	})
}

// The mark of a successor, which has another address, is the successor's.
func TestMarkOfSuccessor(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		g := register(t, c, "svc", "a:1 a:1", nil)
		time.Sleep(time.Minute)
		l, err := s.Grant(t.Context(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Apply(t.Context(), "svc", naming.Change{Endpoint: naming.Endpoint{ID: "a:1", Addr: "a:2", Draining: true}, Lease: l}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if st := g.Status(); st.Draining || st.MarkedByOther {
			t.Errorf("status %+v after a successor was marked", st)
		}
		s.Expire(l)
		time.Sleep(time.Minute)
		listed(t, s, "svc", "a:1")
	})
}

// The store of a Registration may write no marks, although another program marked the entry.
func TestMarkRefused(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, c *naming.Client) {
		g := register(t, c, "svc", "a:1", nil)
		time.Sleep(time.Minute)
		p.set(func() { p.refuse = noMark })
		mark(t, p.Store, true)
		marked(t, g, true, true)
		p.ExpireAll()
		time.Sleep(backWithin)
		listed(t, p, "svc", "a:1")
		marked(t, g, false, false)
	})
}

// A Registration whose reads fail for a while adopts the mark later. It does not read at each
// change of the service.
func TestMarkUnreadable(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		g := register(t, c, "svc", "a:1", nil)
		time.Sleep(time.Minute)
		var reads atomic.Int32
		s.RefuseFunc(func(method, _ string) error {
			if method == "Watch" {
				reads.Add(1)
				return errors.New("refused")
			}
			return nil
		})
		if err := s.Mark(t.Context(), "svc", "a:1", true); err != nil {
			t.Fatal(err)
		}
		for n := range 60 {
			put(t, s, "svc", fmt.Sprintf("b:%d", n))
			time.Sleep(time.Second)
		}
		marked(t, g, false, false)
		if n := reads.Load(); n > 20 {
			t.Errorf("%d reads in a minute, want at most one in three seconds", n)
		}
		s.Up()
		time.Sleep(time.Minute)
		marked(t, g, true, true)
	})
}

// summary is a Store whose watches show the set a second after a change, without the states in
// between.
type summary struct{ *picky }

func (s summary) Watch(ctx context.Context, service string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) {
		first := true
		for b, err := range s.picky.Watch(ctx, service) {
			if err == nil && !first {
				time.Sleep(time.Second)
				for b, err = range s.picky.Watch(ctx, service) {
					break
				}
			}
			first = false
			if !yield(b, err) {
				return
			}
		}
	}
}

// The watch does not show the mark that the program removed, nor the mark that it set, because
// an operator does the opposite at once. The Registration notices.
func TestMarkNotShown(t *testing.T) {
	inPicky(t, nil, func(t *testing.T, p *picky, _ *naming.Client) {
		c := naming.New(summary{p}, quiet)
		defer c.Close()
		g := register(t, c, "svc", "a:1", nil)
		time.Sleep(time.Minute)
		if err := g.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		mark(t, p.Store, false)
		time.Sleep(time.Minute)
		listed(t, p, "svc", "a:1 draining")
		if err := g.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		mark(t, p.Store, true)
		time.Sleep(time.Minute)
		listed(t, p, "svc", "a:1 draining")
		marked(t, g, true, true)
	})
}

// hostile is a Store whose server answers with control characters.
type hostile struct{ *memory.Store }

func (hostile) Mark(context.Context, string, string, bool) error {
	return fmt.Errorf("%w: \x1b[2J", naming.ErrPermission)
}

func TestMarkHostileAnswer(t *testing.T) {
	c := naming.New(hostile{new(memory.Store)}, quiet)
	defer c.Close()
	err := c.Mark(t.Context(), "svc", "a\x1b:1", true)
	if !errors.Is(err, naming.ErrPermission) || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("got error %q, want ErrPermission without control characters", err)
	}
}

// plain is a Store that is not a Marker.
type plain struct{ naming.Store }

func TestMarkErrors(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		put(t, s, "svc", "a:1")
		s.PutMalformed("svc", "bad", errors.New("no JSON"))
		without := naming.New(plain{s}, quiet)
		defer without.Close()
		closed := naming.New(s, quiet)
		closed.Close()
		done, cancel := context.WithCancel(t.Context())
		cancel()
		for what, x := range map[string]struct {
			c           *naming.Client
			ctx         context.Context
			service, id string
			want        error
		}{
			"no entry":          {c, t.Context(), "svc", "b:1", naming.ErrNotFound},
			"no service":        {c, t.Context(), "other", "a:1", naming.ErrNotFound},
			"an empty ID":       {c, t.Context(), "svc", "", naming.ErrInvalid},
			"an empty service":  {c, t.Context(), "", "a:1", naming.ErrInvalid},
			"a malformed entry": {c, t.Context(), "svc", "bad", naming.ErrInvalid},
			"not a Marker":      {without, t.Context(), "svc", "a:1", naming.ErrInvalid},
			"a closed Client":   {closed, t.Context(), "svc", "a:1", naming.ErrClientClosed},
			"a done context":    {c, done, "svc", "a:1", context.Canceled},
		} {
			if err := x.c.Mark(x.ctx, x.service, x.id, true); !errors.Is(err, x.want) {
				t.Errorf("%s: Mark returned %v, want %v", what, err, x.want)
			}
		}
		listed(t, s, "svc", "a:1")
	})
}
