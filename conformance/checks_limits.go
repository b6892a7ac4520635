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

// nested is metadata with arrays and objects nested n deep.
func nested(n int) string {
	return strings.Repeat("[", n-1) + "{}" + strings.Repeat("]", n-1)
}

// text is metadata of n bytes.
func text(n int) string { return `"` + strings.Repeat("x", n-2) + `"` }

func limitsAreRefused(e *env) error {
	s := e.scene("greeter")
	good, fresh := ep("good", "10.0.0.1:80", `{"weight":1}`), ep("fresh", "10.0.0.2:80", "")
	if err := s.apply(add(nil, good)...); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	refused := func(what, service string, changes ...naming.Change) error {
		err := guard(patience, what, func() error { return e.store.Apply(e.ctx, service, changes...) })
		return kind("Apply with "+what, err, naming.ErrInvalid)
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
		{"an address with a mark that turns text around", ep("x", "host\u202e:1", "")},
	} {
		for _, changes := range [][]naming.Change{
			add(nil, over.ep),
			add(nil, fresh, over.ep),
			append(del(good), add(nil, over.ep)...),
		} {
			if err := refused(over.what, e.prefix+s.service, changes...); err != nil {
				return err
			}
		}
	}
	long := strings.Repeat("x", naming.MaxServiceName+1)
	if err := refused("a service name longer than MaxServiceName", long, add(nil, fresh)...); err != nil {
		return err
	}
	w := follow(e, e.ctx, "a watch of a service whose name is longer than MaxServiceName", func(ctx context.Context) iter.Seq2[naming.Batch, error] {
		return e.store.Watch(ctx, long)
	}, func(naming.Batch) error {
		return fmt.Errorf("it yielded a batch, want an error that is %q", naming.ErrInvalid)
	})
	end, fault := w.ended(patience)
	if fault != nil {
		return fault
	}
	if err := kind(w.what, end, naming.ErrInvalid); err != nil {
		return err
	}
	if err := s.flush(); err != nil {
		return fmt.Errorf("after everything was refused: %w", err)
	}
	return nil
}

func atTheLimits(e *env) error {
	s := e.scene("greeter")
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
		before := s.now
		err := s.step(s.now.with(at.ep), func() error { return e.apply(s.service, add(nil, at.ep)...) })
		if errors.Is(err, naming.ErrInvalid) { // a limit of the backend's own
			s.now = before
			for _, r := range s.readers {
				if err := r.settled(patience, before); err != nil {
					return fmt.Errorf("%s was refused: %w", at.what, err)
				}
			}
			err = e.listed(s.service, before)
		} else if err == nil {
			if err = e.listed(s.service, s.now); err == nil {
				err = s.apply(del(at.ep)...)
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", at.what, err)
		}
	}
	if e.prefix != "" {
		return s.flush()
	}
	long := e.scene(strings.Repeat("x", naming.MaxServiceName))
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

func drainingRoundTrip(e *env) error {
	s := e.scene("greeter")
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
	marked := func(ep naming.Endpoint) naming.Endpoint { ep.Draining = true; return ep }
	before := 0
	if e.has["Calls"] {
		before = e.calls()
	}
	for _, r := range s.readers {
		r.allow(s.now.with(marked(a)))
	}
	err = e.call("Apply", func(ctx context.Context) error {
		return e.store.Apply(ctx, e.prefix+s.service, add(l, marked(a))...)
	})
	if errors.Is(err, naming.ErrInvalid) {
		if e.has["Calls"] {
			if got := e.calls() - before; got > 0 {
				return fmt.Errorf("an Add of a draining endpoint was refused after %d requests, want none", got)
			}
		}
		for _, changes := range [][]naming.Change{
			add(l, marked(b)), add(nil, marked(c)), add(nil, marked(ep("d", "10.0.0.4:80", ""))),
			append(add(nil, ep("fresh", "10.0.0.5:80", "")), add(l, marked(b))...),
			append(del(a), add(l, marked(b))...),
		} {
			err := guard(patience, "Apply", func() error { return e.store.Apply(e.ctx, e.prefix+s.service, changes...) })
			if err := kind("Apply with a draining endpoint, which was refused before", err, naming.ErrInvalid); err != nil {
				return err
			}
		}
		if err := s.apply(del(marked(c))...); err != nil { // only the ID counts
			return err
		}
		return s.flush()
	}
	if err != nil {
		return err
	}
	if err := s.step(s.now.with(marked(a)), func() error { return nil }); err != nil {
		return err
	}
	for _, changes := range [][]naming.Change{
		add(l, marked(b)),
		add(nil, marked(c), marked(ep("d", "10.0.0.4:80", `{"draining":false}`))),
		add(l, a), // and not draining again
		slices.Concat(add(l, marked(a)), add(nil, c), del(marked(b))),
		add(nil, ep("e", "10.0.0.5:80", `{"draining":true}`)), // a member of the caller's is the caller's
	} {
		if err := s.apply(changes...); err != nil {
			return err
		}
		if err := e.listed(s.service, s.now); err != nil {
			return err
		}
	}
	if err := s.watch(); err != nil {
		return err
	}
	return s.flush()
}

func beyondLimitsIsMalformed(e *env) error {
	s := e.scene("greeter")
	if err := s.apply(add(nil, around...)...); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	// One that is new, and one that replaces a good value.
	for _, id := range []string{"b", "c"} {
		var key string
		if err := s.step(s.now.without(id), func() error { key = e.beyond(s.service, id); return nil }); err != nil {
			return fmt.Errorf("an entry that exceeds a limit: %w", err)
		}
		if err := e.eventually(func() error {
			for _, m := range e.reported() {
				if m.Key == key && m.Service == e.prefix+s.service && m.Err != nil {
					return nil
				}
			}
			return fmt.Errorf("the entry %q, which exceeds a limit, was not reported: got %+v", key, e.reported())
		}); err != nil {
			return err
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
