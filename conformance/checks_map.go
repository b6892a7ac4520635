package conformance

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/naming-go/naming"
)

// mapAgrees puts endpoints and compares what a list has of them with what Map said of
// them before. It is skipped for a Store that is not a naming.Mapper.
func mapAgrees(e *env) error {
	m, ok := e.store.(naming.Mapper)
	if !ok {
		return skip("the store is not a naming.Mapper, so that nobody can list what its format loses")
	}
	leases, err := e.grants(1)
	if err != nil {
		return err
	}
	said, err := e.mapAll(m, "greeter", tricky())
	if err != nil {
		return err
	}
	want := make(set)
	var puts []naming.Change
	for _, s := range said {
		change := add(leases[0], s.ep)
		if s.err == nil {
			puts = append(puts, change...)
			want.put(s.as)
			continue
		}
		what := fmt.Sprintf("%s, which Map refuses (%v),", show(s.ep), s.err)
		if err := e.refused(what, e.prefix+"greeter", change...); err != nil {
			return err
		}
	}
	if len(want) != len(puts) {
		return fmt.Errorf("got %d different IDs from Map for %d endpoints", len(want), len(puts))
	}
	if err := e.chunks("greeter", puts); err != nil {
		return fmt.Errorf("an Apply failed of endpoints that Map does not refuse: %w", err)
	}
	got, err := e.list("greeter")
	if err != nil {
		return err
	}
	return asSaid(got, want)
}

// mapped is what Map said of an endpoint.
type mapped struct {
	ep, as naming.Endpoint
	err    error
}

// mapAll calls Map with each endpoint. The only error of Map is ErrInvalid.
func (e *env) mapAll(m naming.Mapper, service string, eps []naming.Endpoint) (said []mapped, err error) {
	before := 0
	if e.has["Calls"] {
		defer e.pauseRenewers()()
		before = e.calls()
	}
	for _, ep := range eps {
		s := mapped{ep: ep}
		if err := guard(patience, "Map", func() error {
			s.as, s.err = m.Map(e.prefix+service, ep)
			return nil
		}); err != nil {
			return nil, err
		}
		if s.err != nil && !errors.Is(s.err, naming.ErrInvalid) {
			return nil, kind("Map of "+show(ep), s.err, naming.ErrInvalid)
		}
		said = append(said, s)
	}
	if e.has["Calls"] && e.calls() != before {
		return nil, fmt.Errorf("%d calls of Map made %d requests, want none", len(said), e.calls()-before)
	}
	return said, nil
}

// asSaid returns an error if a list is not what Map said.
func asSaid(got, want set) error {
	if !got.equal(want) {
		return fmt.Errorf("a list is not what Map said: %s", diff(got, want))
	}
	for id, w := range want {
		if g := got[id]; g.NoDrainingMark != w.NoDrainingMark || g.Unleased != w.Unleased {
			return fmt.Errorf("a list has %s with NoDrainingMark %v and Unleased %v, and Map said %v and %v", show(w), g.NoDrainingMark, g.Unleased, w.NoDrainingMark, w.Unleased)
		}
	}
	return nil
}

// tricky returns endpoints that some format changes or refuses, all with different IDs.
func tricky() []naming.Endpoint {
	var eps []naming.Endpoint
	for i, addr := range addresses {
		eps = append(eps, ep("", addr, ""), ep("address-"+strconv.Itoa(i), addr, `{"weight":1,"zone":"a"}`))
	}
	for _, id := range nastyNames() {
		eps = append(eps, ep(id, "10.0.0.1:80", ""))
	}
	for i, metadata := range values() {
		eps = append(eps, ep("value-"+strconv.Itoa(i), "10.0.0.2:80", metadata))
	}
	eps = append(eps, ep("~old~10.0.0.3:80", "10.0.0.3:80", `{"naming-copy":{"origin":"old"},"weight":1.5}`), ep("nowhere", "", ""), ep("nowhere-2", "", `{"weight":1}`))
	for i, metadata := range []string{``, `"text"`, `{"weight":3,"tags":["x"]}`, `{"draining":true}`} {
		marked := draining(ep("draining-"+strconv.Itoa(i), "10.0.0.4:80", metadata))
		eps = append(eps, marked, ep("undrained-"+strconv.Itoa(i), "10.0.0.5:80", metadata))
	}
	// What every Store refuses.
	return append(eps, ep("", "", ""), ep("bad-1", "host\x00:1", ""), ep("bad-2", "10.0.0.6:80", "{"), ep("bad-3", "10.0.0.6:80", nested(naming.MaxDepth+1)))
}
