package gokitnaming_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kit/kit/endpoint"
	"github.com/go-kit/kit/sd"
	"github.com/go-kit/log"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	gokitnaming "github.com/naming-go/naming/contrib/gokit"
	"github.com/naming-go/naming/resolver"
)

var (
	quiet   = slog.New(slog.DiscardHandler)
	errDown = errors.New("down")
)

// bubble is a Client on a registry in memory, in a bubble of synctest.
type bubble struct {
	*testing.T
	store  *memory.Store
	client *naming.Client
	log    bytes.Buffer // of the Registrars
}

func inBubble(t *testing.T, test func(*bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{T: t, store: new(memory.Store)}
		b.client = naming.New(b.store, &naming.Options{Logger: quiet})
		defer b.client.Close()
		test(b)
	})
}

// registrar returns a Registrar of an endpoint of the service "greeter".
func (b *bubble) registrar(addr string, opts *naming.RegisterOptions) *gokitnaming.Registrar {
	return gokitnaming.NewRegistrar(b.client, "greeter", naming.Endpoint{Addr: addr},
		&gokitnaming.RegistrarOptions{Register: opts, Logger: slog.New(slog.NewTextHandler(&b.log, nil))})
}

func (b *bubble) instancer(opts *resolver.Options) *gokitnaming.Instancer {
	i := gokitnaming.NewInstancer(b.client, "greeter", opts)
	b.Cleanup(i.Stop)
	return i
}

// settle waits until the watches show what was registered.
func (b *bubble) settle() {
	time.Sleep(time.Second)
	synctest.Wait()
}

// listed compares what the registry has.
func (b *bubble) listed(want ...string) {
	b.Helper()
	view, err := b.client.List(b.Context(), "greeter")
	if err != nil {
		b.Fatal(err)
	}
	var got []string
	for _, e := range view.Endpoints {
		s := e.Addr
		if e.Draining {
			s += " draining"
		}
		got = append(got, s)
	}
	if !slices.Equal(got, want) {
		b.Errorf("the registry has %q, want %q", got, want)
	}
}

// events are the events that a channel has received.
type events struct {
	ch  chan sd.Event
	all chan string
}

// receive registers a channel that is read at once.
func (b *bubble) receive(i *gokitnaming.Instancer) events {
	e := events{make(chan sd.Event), make(chan string, 100)}
	go func() {
		for event := range e.ch {
			s := strings.Join(event.Instances, " ")
			if event.Err != nil {
				s = "error"
			}
			e.all <- s
			slices.Reverse(event.Instances) // each event belongs to its receiver
		}
	}()
	i.Register(e.ch)
	b.Cleanup(func() {
		i.Deregister(e.ch)
		close(e.ch)
	})
	return e
}

// want waits a second, and compares the new events.
func (b *bubble) want(e events, want ...string) {
	b.Helper()
	time.Sleep(time.Second)
	synctest.Wait()
	var got []string
	for len(e.all) > 0 {
		got = append(got, <-e.all)
	}
	if !slices.Equal(got, want) {
		b.Errorf("got the events %q, want %q", got, want)
	}
}

func TestRegistrar(t *testing.T) {
	inBubble(t, func(b *bubble) {
		r := b.registrar("10.0.0.1:9000", &naming.RegisterOptions{DrainDelay: 3 * time.Second, Wait: true})
		r.Deregister() // it is not registered
		r.Register()
		b.listed("10.0.0.1:9000")
		r.Register() // it is registered
		go func() {
			time.Sleep(2 * time.Second)
			b.listed("10.0.0.1:9000 draining")
		}()
		begin := time.Now()
		r.Deregister()
		if d := time.Since(begin); d < 3*time.Second || d > 4*time.Second {
			b.Errorf("Deregister took %v, and the drain delay is 3 s", d)
		}
		r.Deregister()
		time.Sleep(time.Minute)
		b.listed()

		b.store.Down(errDown)
		begin = time.Now()
		r.Register()
		if d := time.Since(begin); d != 2*time.Second {
			b.Errorf("Register took %v while the registry was down", d)
		}
		time.Sleep(time.Hour)
		b.store.Up()
		time.Sleep(time.Minute)
		b.listed("10.0.0.1:9000")
		if b.log.Len() > 0 {
			b.Errorf("logged: %s", b.log.String())
		}
	})
}

func TestRegistrarLogs(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.registrar("0.0.0.0:9000", nil).Register()
		if got := b.log.String(); !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "0.0.0.0:9000") {
			b.Errorf("logged %q", got)
		}
		b.listed()
		gokitnaming.NewRegistrar(nil, "greeter", naming.Endpoint{Addr: "10.0.0.1:9000"}, &gokitnaming.RegistrarOptions{Logger: quiet}).Register()
	})
}

func TestEvents(t *testing.T) {
	inBubble(t, func(b *bubble) {
		i := b.instancer(nil)
		first := b.receive(i)
		b.want(first, "error") // why there are no instances
		one, two := b.registrar("10.0.0.1:9000", nil), b.registrar("10.0.0.2:9000", nil)
		one.Register()
		b.want(first, "10.0.0.1:9000")
		two.Register()
		b.want(first, "10.0.0.1:9000 10.0.0.2:9000")
		second := b.receive(i)
		b.want(second, "10.0.0.1:9000 10.0.0.2:9000")
		one.Deregister()
		for _, e := range []events{first, second} {
			b.want(e, "10.0.0.2:9000")
		}
		i.Deregister(second.ch)
		i.Deregister(second.ch)
		two.Deregister()
		b.want(first, "")
		b.want(second)
		two.Register()
		b.want(first, "10.0.0.2:9000")
		i.Stop()
		i.Stop()
		one.Register()
		b.want(first)
		i.Register(first.ch) // the last event
		b.want(first, "10.0.0.2:9000")
	})
}

func TestOutage(t *testing.T) {
	inBubble(t, func(b *bubble) {
		for _, addr := range []string{"10.0.0.1:9000", "10.0.0.2:9000"} {
			b.registrar(addr, nil).Register()
		}
		b.settle()
		e := b.receive(b.instancer(nil))
		b.want(e, "10.0.0.1:9000 10.0.0.2:9000")
		b.store.Down(errDown)
		time.Sleep(time.Hour)
		b.want(e)
		b.store.ExpireAll()
		b.store.Up()
		time.Sleep(time.Minute)
		b.store.Wipe()
		time.Sleep(time.Minute)
		// A server may be back before the other, and then the other is missing for a moment.
		last := ""
		for len(e.all) > 0 {
			if last = <-e.all; last == "" || last == "error" {
				b.Errorf("got the event %q", last)
			}
		}
		if last != "" && last != "10.0.0.1:9000 10.0.0.2:9000" {
			b.Errorf("the last event is %q", last)
		}
		b.client.Close()
		time.Sleep(time.Minute)
		for len(e.all) > 0 {
			if last = <-e.all; last == "error" {
				b.Error("the Client was closed, and the instances are forgotten")
			}
		}
	})
}

func TestStartWhileDown(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.store.Silence()
		begin := time.Now()
		e := b.receive(b.instancer(&resolver.Options{FirstAnswerTimeout: 3 * time.Second, Logger: quiet}))
		if d := time.Since(begin); d != 3*time.Second {
			b.Errorf("Register took %v, and FirstAnswerTimeout is 3 s", d)
		}
		b.want(e, "error")
		b.store.Speak()
		b.registrar("10.0.0.1:9000", nil).Register()
		time.Sleep(time.Minute)
		for len(e.all) > 1 { // other reasons
			if got := <-e.all; got != "error" {
				b.Errorf("got %q", got)
			}
		}
		b.want(e, "10.0.0.1:9000")

		none := b.receive(gokitnaming.NewInstancer(b.client, "", nil))
		b.want(none, "error")
	})
}

// A receiver that is slow, or does not read at all, delays nobody.
func TestSlowReceiver(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.registrar("10.0.0.1:9000", nil).Register()
		b.settle()
		i := b.instancer(nil)
		never := make(chan sd.Event)
		go i.Register(never)
		slow := make(chan sd.Event, 1)
		i.Register(slow)
		e := b.receive(i)
		b.want(e, "10.0.0.1:9000")
		for _, addr := range []string{"10.0.0.2:9000", "10.0.0.3:9000", "10.0.0.4:9000"} {
			b.registrar(addr, nil).Register()
			time.Sleep(time.Second)
		}
		b.want(e, "10.0.0.1:9000 10.0.0.2:9000", "10.0.0.1:9000 10.0.0.2:9000 10.0.0.3:9000",
			"10.0.0.1:9000 10.0.0.2:9000 10.0.0.3:9000 10.0.0.4:9000")
		if n := len((<-slow).Instances); n != 1 {
			b.Errorf("the first event has %d instances, want 1", n)
		}
		if n := len((<-slow).Instances); n != 4 {
			b.Errorf("the next event has %d instances, want the newest, 4", n)
		}
		i.Deregister(never)
		close(never)
		i.Register(slow) // again
		if n := len((<-slow).Instances); n != 4 {
			b.Errorf("the event has %d instances, want 4", n)
		}
	})
}

// URLs survive the round trip, and other metadata beside them.
func TestURLs(t *testing.T) {
	inBubble(t, func(b *bubble) {
		for _, e := range []naming.Endpoint{
			{Addr: "http://10.0.0.1:8080/base"},
			{Addr: "https://10.0.0.2:8080", Metadata: []byte(`{"weight":3,"url":"x"}`)},
			{Addr: "http://10.0.0.3:8080", Metadata: []byte(`[1]`)},
			{Addr: "10.0.0.4:8080", Metadata: []byte(`{"url":"http://10.0.0.9:8080"}`)}, // of another address
			{Addr: "10.0.0.5:8080", Metadata: []byte(`{"url":7}`)},
			{Addr: "unix:/run/greeter"},
		} {
			gokitnaming.NewRegistrar(b.client, "greeter", e, nil).Register()
		}
		b.settle()
		e := b.receive(b.instancer(nil))
		b.want(e, "10.0.0.3:8080 10.0.0.4:8080 10.0.0.5:8080 http://10.0.0.1:8080/base https://10.0.0.2:8080 unix:/run/greeter")
		view, err := b.client.List(b.Context(), "greeter")
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range view.Endpoints {
			if e.Addr == "10.0.0.2:8080" && e.Info().Weight != 3 {
				b.Errorf("the weight is lost: %s", e.Metadata)
			}
		}
	})
}

// connection is an io.Closer whose calls fail after it was closed, as those of a
// grpc.ClientConn do.
type connection struct{ ctx, release context.Context }

func (c connection) call(context.Context, any) (any, error) {
	select {
	case <-c.ctx.Done():
		return nil, errors.New("closed")
	case <-c.release.Done():
		return nil, nil
	}
}

func TestFinishCalls(t *testing.T) {
	inBubble(t, func(b *bubble) {
		open, closeNow := context.WithCancel(b.Context())
		release, end := context.WithCancel(b.Context())
		c := connection{open, release}
		factory := gokitnaming.FinishCalls(func(string) (endpoint.Endpoint, io.Closer, error) {
			return c.call, closer(closeNow), nil
		})
		r := b.registrar("10.0.0.1:9000", nil)
		r.Register()
		b.settle()
		endpointer := sd.NewEndpointer(b.instancer(nil), factory, log.NewNopLogger())
		defer endpointer.Close()
		synctest.Wait()
		list, err := endpointer.Endpoints()
		if err != nil || len(list) != 1 {
			b.Fatal(list, err)
		}
		results := make(chan error, 2)
		call := func() {
			_, err := list[0](b.Context(), nil)
			results <- err
		}
		go call()
		r.Deregister()
		synctest.Wait()
		if list, _ := endpointer.Endpoints(); len(list) != 0 {
			b.Fatal("the instance is still there")
		}
		go call() // it had the endpoint before
		time.Sleep(time.Hour)
		end()
		if err := errors.Join(<-results, <-results); err != nil {
			b.Errorf("calls in progress: %v", err)
		}
		synctest.Wait()
		if open.Err() == nil {
			b.Error("the instance was not closed after its last call")
		}
	})
}

// Without calls, an instance is closed after a second, once.
func TestFinishCallsIdle(t *testing.T) {
	inBubble(t, func(b *bubble) {
		var closed atomic.Int32
		nop := func(context.Context, any) (any, error) { return nil, nil }
		factory := gokitnaming.FinishCalls(func(instance string) (endpoint.Endpoint, io.Closer, error) {
			switch instance {
			case "error":
				return nil, nil, errDown
			case "nothing to close":
				return nop, nil, nil
			}
			return nop, closer(func() { closed.Add(1) }), nil
		})
		if _, _, err := factory("error"); !errors.Is(err, errDown) {
			b.Errorf("got %v", err)
		}
		if _, c, err := factory("nothing to close"); c != nil || err != nil {
			b.Errorf("got %v, %v", c, err)
		}
		e, c, err := factory("10.0.0.1:9000")
		if err != nil {
			b.Fatal(err)
		}
		for range 2 {
			if err := c.Close(); err != nil {
				b.Error(err)
			}
		}
		e(b.Context(), nil) // late
		synctest.Wait()
		if closed.Load() != 0 {
			b.Error("closed at once")
		}
		time.Sleep(time.Minute)
		e(b.Context(), nil)
		if n := closed.Load(); n != 1 {
			b.Errorf("closed %d times, want once", n)
		}
	})
}

type closer func()

func (c closer) Close() error {
	c()
	return nil
}
