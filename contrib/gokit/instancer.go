package gokitnaming

import (
	"context"
	"slices"
	"sync"

	"github.com/go-kit/kit/sd"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/resolver"
)

// Instancer is an sd.Instancer of go-kit: it sends the instances of a service that a
// client should call. Draining and withheld instances are left out, and held ones are
// sent if nothing else is usable. All methods may be called concurrently.
type Instancer struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when the watch has ended

	state     state
	receivers receivers
}

var _ sd.Instancer = (*Instancer)(nil)

// NewInstancer returns an Instancer of a service. The caller stops it. NewInstancer does not
// wait for the registry, and all Instancers of a service on one Client share one watch.
//
// The options are for the discovery: the cache and the panic threshold. The options that
// concern gRPC's ClientConns have no effect.
func NewInstancer(c *naming.Client, service string, opts *resolver.Options) *Instancer {
	ctx, cancel := context.WithCancel(context.Background())
	i := &Instancer{
		cancel:    cancel,
		done:      make(chan struct{}),
		state:     state{changed: make(chan struct{})},
		receivers: receivers{open: make(map[chan<- sd.Event]*receiver)},
	}
	go i.watch(ctx, resolver.NewBuilder(c, opts), service)
	return i
}

// watch keeps the state until ctx is done or the Client was closed.
//
// An error after a set would make an Endpointer with sd.InvalidateOnError drop endpoints
// that work. So errors count only while no set is known.
func (i *Instancer) watch(ctx context.Context, b *resolver.Builder, service string) {
	defer close(i.done)
	defer i.state.end()
	known := false
	for set, err := range b.Watch(ctx, service) {
		switch {
		case err != nil && known:
		case err != nil:
			i.state.set(sd.Event{Err: err})
		case len(set.Endpoints) == 0 && !known:
			i.state.set(sd.Event{Err: set.Err})
		default:
			known = true
			i.state.set(sd.Event{Instances: instances(set.Endpoints)})
		}
	}
}

// instances returns the sorted instances of endpoints, each once.
func instances(endpoints []naming.Endpoint) []string {
	list := make([]string, len(endpoints))
	for i, e := range endpoints {
		list[i] = toInstance(e)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Register implements sd.Instancer. It returns when ch has received the present event, and
// ch receives an event after each change until Deregister or Stop is called. Register
// waits until something is known: the instances, or why they are not, which takes
// FirstAnswerTimeout of the options at most. A channel that is registered already
// receives the present event again.
//
// An event has an error while no instances are known, because the service has none or
// because the registry fails. After that, every event has instances. An empty list means
// that the registry has no instances, or withholds all of them. An outage of the registry
// changes nothing.
//
// A slow receiver gets the newest event and skips the events between. It does not delay
// other receivers. Each event belongs to its receiver.
func (i *Instancer) Register(ch chan<- sd.Event) {
	r := &receiver{ch: ch, quit: make(chan struct{}), first: make(chan struct{}), ended: make(chan struct{})}
	if old := i.receivers.replace(ch, r); old != nil {
		old.stop()
	}
	go r.send(&i.state)
	select {
	case <-r.first:
	case <-r.ended:
	}
}

// Deregister implements sd.Instancer. After it has returned, ch receives nothing more and
// may be closed. It does not wait for the receiver.
func (i *Instancer) Deregister(ch chan<- sd.Event) {
	if r := i.receivers.replace(ch, nil); r != nil {
		r.stop()
	}
}

// Stop implements sd.Instancer. It ends the watch and all events, and returns after they
// have ended. It may be called more than once.
func (i *Instancer) Stop() {
	i.cancel()
	<-i.done
	for _, r := range i.receivers.all() {
		r.stop()
	}
}

// state is the present event.
type state struct {
	mu      sync.Mutex
	event   sd.Event      // guarded by mu; its list is never modified
	number  int           // guarded by mu; counts the events, 0: nothing is known
	changed chan struct{} // guarded by mu; closed at the next event, nil: none follows
}

// set makes e the present event if it differs from the last one.
func (s *state) set(e sd.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.number > 0 && e.Err == nil && s.event.Err == nil && slices.Equal(e.Instances, s.event.Instances) {
		return
	}
	s.event = e
	s.number++
	close(s.changed)
	s.changed = make(chan struct{})
}

// end says that no event follows.
func (s *state) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = nil
}

// get returns the present event, its number, and a channel that is closed at the next
// one.
func (s *state) get() (sd.Event, int, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.event, s.number, s.changed
}

// receivers are the channels that were registered.
type receivers struct {
	mu   sync.Mutex
	open map[chan<- sd.Event]*receiver // guarded by mu
}

// replace stores the receiver of a channel, none if r is nil. It returns the one before,
// or nil.
func (rs *receivers) replace(ch chan<- sd.Event, r *receiver) (old *receiver) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	old = rs.open[ch]
	if r == nil {
		delete(rs.open, ch)
	} else {
		rs.open[ch] = r
	}
	return old
}

// all returns the receivers, and forgets them.
func (rs *receivers) all() []*receiver {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	var list []*receiver
	for ch, r := range rs.open {
		list = append(list, r)
		delete(rs.open, ch)
	}
	return list
}

// receiver sends events to a channel, from a goroutine of its own: the owner of the channel
// may be slow.
type receiver struct {
	ch    chan<- sd.Event
	quit  chan struct{} // closed by stop, once, by the caller that took the receiver out of receivers
	first chan struct{} // closed when the first event was received
	ended chan struct{} // closed when nothing more is sent
}

// send sends the present event and every newer one, until quit is closed or no event
// follows.
func (r *receiver) send(s *state) {
	defer close(r.ended)
	for sent := 0; ; {
		event, number, changed := s.get()
		if number == sent {
			if changed == nil {
				return
			}
			select {
			case <-changed:
				continue
			case <-r.quit:
				return
			}
		}
		// Receivers sort the list.
		event.Instances = slices.Clone(event.Instances)
		select {
		case r.ch <- event:
		case <-changed: // a nil channel never proceeds
			continue
		case <-r.quit:
			return
		}
		if sent == 0 {
			close(r.first)
		}
		sent = number
	}
}

// stop ends the receiver, and returns when nothing more is sent.
func (r *receiver) stop() {
	close(r.quit)
	<-r.ended
}
