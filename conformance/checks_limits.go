package conformance

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/naming-go/naming"
)

// nested returns metadata whose arrays and objects are nested n deep.
func nested(n int) string {
	return strings.Repeat("[", n-1) + "{}" + strings.Repeat("]", n-1)
}

// text returns metadata of n bytes.
func text(n int) string { return `"` + strings.Repeat("x", n-2) + `"` }

func limitsAreRefused(e *env) error {
	s := e.newScene("greeter")
	good, fresh := ep("good", "10.0.0.1:80", `{"weight":1}`), ep("fresh", "10.0.0.2:80", "")
	if err := s.apply(add(nil, good)...); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	for _, over := range []struct {
		what string
		ep   naming.Endpoint
	}{
		{"an ID longer than MaxID", ep(strings.Repeat("x", naming.MaxID+1), "10.0.0.3:80", "")},
		{"an address longer than MaxAddr", ep("x", strings.Repeat("x", naming.MaxAddr)+":", "")},
		{"metadata larger than MaxMetadata", ep("x", "10.0.0.3:80", text(naming.MaxMetadata+1))},
		{"metadata nested deeper than MaxDepth", ep("x", "10.0.0.3:80", nested(naming.MaxDepth+1))},
		{"an address with a NUL", ep("x", "h\x00ost:1", "")},
		{"an address with a line feed", ep("x", "host:1\n", "")},
		{"an address with an escape", ep("x", "unix:\x1b/x", "")},
		{"an address with a mark that reverses text", ep("x", "host\u202e:1", "")},
	} {
		for _, changes := range [][]naming.Change{
			add(nil, over.ep),
			add(nil, fresh, over.ep),
			append(del(good), add(nil, over.ep)...),
		} {
			if err := e.refused(over.what, e.prefix+s.service, changes...); err != nil {
				return err
			}
		}
	}
	long := strings.Repeat("x", naming.MaxServiceName+1)
	if err := e.refused("a service name longer than MaxServiceName", long, add(nil, fresh)...); err != nil {
		return err
	}
	if err := e.watchRefused("a watch of a service whose name is longer than MaxServiceName", long); err != nil {
		return err
	}
	if err := s.flush(); err != nil {
		return fmt.Errorf("after everything was refused: %w", err)
	}
	return nil
}

// refused returns an error unless Apply returns ErrInvalid. service is the whole name,
// with the prefix.
func (e *env) refused(what, service string, changes ...naming.Change) error {
	err := guard(patience, what, func() error { return e.write(e.ctx, service, changes...) })
	return kind("Apply with "+what, err, naming.ErrInvalid)
}

// watchRefused returns an error unless a watch of a service yields ErrInvalid and
// nothing else. service is the whole name, with the prefix.
func (e *env) watchRefused(what, service string) error {
	w := startLoop(e, e.ctx, what, func(ctx context.Context) iter.Seq2[naming.Batch, error] {
		return e.store.Watch(ctx, service)
	}, func(b naming.Batch) error {
		return fmt.Errorf("it yielded %+v, want an error that is %q", b, naming.ErrInvalid)
	})
	end, fault := w.ended(patience)
	if fault != nil {
		return fault
	}
	return kind(what, end, naming.ErrInvalid)
}

func atTheLimits(e *env) error {
	s := e.newScene("greeter")
	good := ep("good", "10.0.0.1:80", `{"weight":1}`)
	if err := s.apply(add(nil, good)...); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	for _, at := range []struct {
		what string
		ep   naming.Endpoint
	}{
		{"an ID of MaxID", ep(strings.Repeat("x", naming.MaxID), "10.0.0.2:80", "")},
		{"an address of MaxAddr", ep("addr", strings.Repeat("x", naming.MaxAddr-3)+":80", "")},
		{"metadata of MaxMetadata", ep("metadata", "10.0.0.2:80", text(naming.MaxMetadata))},
		{"metadata nested MaxDepth deep", ep("depth", "10.0.0.2:80", nested(naming.MaxDepth))},
	} {
		if err := s.storedOrRefused(at.ep); err != nil {
			return fmt.Errorf("%s: %w", at.what, err)
		}
	}
	if e.prefix != "" {
		return s.flush()
	}
	long := e.newScene(strings.Repeat("x", naming.MaxServiceName))
	err := long.apply(add(nil, good)...)
	if err == nil {
		err = long.flush()
	} else if errors.Is(err, naming.ErrInvalid) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("a service name of MaxServiceName: %w", err)
	}
	return s.flush()
}

// storedOrRefused puts an endpoint that is within the limits of package naming. The
// endpoint is stored and shown unchanged, or a limit of the backend refuses it and
// nothing is stored.
func (s *scene) storedOrRefused(ep naming.Endpoint) error {
	before := s.now
	err := s.advance(s.now.with(ep), func() error { return s.e.apply(s.service, add(nil, ep)...) })
	if errors.Is(err, naming.ErrInvalid) {
		s.now = before
		for _, r := range s.readers {
			if err := r.settled(patience, before); err != nil {
				return fmt.Errorf("it was refused: %w", err)
			}
		}
		return s.e.listed(s.service, before)
	}
	if err != nil {
		return err
	}
	if err := s.e.listed(s.service, s.now); err != nil {
		return err
	}
	return s.apply(del(ep)...)
}

// draining returns an endpoint with the draining mark.
func draining(ep naming.Endpoint) naming.Endpoint {
	ep.Draining = true
	return ep
}

func drainingRoundTrip(e *env) error {
	s := e.newScene("greeter")
	leases, err := e.grants(1)
	if err != nil {
		return err
	}
	l := leases[0]
	a, b, c := ep("a", "10.0.0.1:80", ""), ep("b", "10.0.0.2:80", `{"weight":1,"tags":["x"]}`), ep("c", "10.0.0.3:80", `"text"`)
	if err := s.apply(append(add(l, a, b), add(nil, c)...)...); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	before := 0
	if e.has["Calls"] {
		before = e.calls()
	}
	for _, r := range s.readers {
		r.allow(s.now.with(draining(a)))
	}
	err = e.apply(s.service, add(l, draining(a))...)
	if errors.Is(err, naming.ErrInvalid) {
		if e.has["Calls"] {
			if got := e.calls() - before; got > 0 {
				return fmt.Errorf("an Add of a draining endpoint was refused after %d requests, want none", got)
			}
		}
		return s.drainingIsRefused(l, a, b, c)
	}
	if err != nil {
		return err
	}
	if err := s.advance(s.now.with(draining(a)), func() error { return nil }); err != nil {
		return err
	}
	return s.drainingIsStored(l, a, b, c)
}

// drainingIsRefused: a Store that refused one Add with the mark refuses every one.
func (s *scene) drainingIsRefused(l naming.Lease, a, b, c naming.Endpoint) error {
	for _, changes := range [][]naming.Change{
		add(l, draining(b)), add(nil, draining(c)), add(nil, draining(ep("d", "10.0.0.4:80", ""))),
		append(add(nil, ep("fresh", "10.0.0.5:80", "")), add(l, draining(b))...),
		append(del(a), add(l, draining(b))...),
	} {
		if err := s.e.refused("a draining endpoint, which was refused before", s.e.prefix+s.service, changes...); err != nil {
			return err
		}
	}
	if err := s.apply(del(draining(c))...); err != nil { // a Delete uses the ID only
		return err
	}
	return s.flush()
}

// drainingIsStored: the mark comes and goes as the rest of an endpoint does.
func (s *scene) drainingIsStored(l naming.Lease, a, b, c naming.Endpoint) error {
	for _, changes := range [][]naming.Change{
		add(l, draining(b)),
		add(nil, draining(c), draining(ep("d", "10.0.0.4:80", `{"draining":false}`))),
		add(l, a), // without the mark again
		slices.Concat(add(l, draining(a)), add(nil, c), del(draining(b))),
		add(nil, ep("e", "10.0.0.5:80", `{"draining":true}`)), // a member of the caller's metadata is not the mark
	} {
		if err := s.apply(changes...); err != nil {
			return err
		}
		if err := s.e.listed(s.service, s.now); err != nil {
			return err
		}
	}
	if err := s.watch(); err != nil {
		return err
	}
	return s.flush()
}

func beyondLimitsIsMalformed(e *env) error {
	s := e.newScene("greeter")
	if err := s.apply(add(nil, around...)...); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	// b is a new entry. c replaces a good value.
	for _, id := range []string{"b", "c"} {
		var key string
		if err := s.advance(s.now.without(id), func() error { key = e.beyond(s.service, id); return nil }); err != nil {
			return fmt.Errorf("an entry that exceeds a limit: %w", err)
		}
		if err := e.awaitReport(s.service, key); err != nil {
			return fmt.Errorf("an entry that exceeds a limit: %w", err)
		}
		if err := e.listed(s.service, s.now); err != nil {
			return err
		}
		if err := s.watch(); err != nil {
			return err
		}
	}
	if err := s.apply(add(nil, around[1])...); err != nil {
		return err
	}
	return s.flush()
}
