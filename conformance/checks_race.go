package conformance

import (
	"errors"
	"fmt"
	"time"

	"github.com/naming-go/naming"
)

// ifFree returns changes that put endpoints under a lease if their IDs are free.
func ifFree(l naming.Lease, eps ...naming.Endpoint) []naming.Change {
	changes := add(l, eps...)
	for i := range changes {
		changes[i].IfFree = true
	}
	return changes
}

// contend makes one Add with IfFree under each of the leases at once, of one ID and
// with different addresses. It returns the index of the lease whose Add was not
// skipped.
func (e *env) contend(service, id string, leases []naming.Lease) (winner int, err error) {
	seen := make([]string, len(leases))
	addr := func(i int) string { return fmt.Sprintf("10.0.0.%d:80", i+1) }
	var fs []func() error
	for i, l := range leases {
		fs = append(fs, func() error {
			if err := e.apply(service, ifFree(l, ep(id, addr(i), ""))...); err != nil {
				return err
			}
			// After Apply has returned, the ID is not free.
			got, err := e.list(service)
			seen[i] = got[id].Addr
			return err
		})
	}
	if err := together(fs...); err != nil {
		return 0, err
	}
	got, err := e.list(service)
	if err != nil {
		return 0, err
	}
	for i, s := range seen {
		if s != got[id].Addr {
			return 0, fmt.Errorf("%d Adds with IfFree at once: when the Add of %s had returned, the address was %s, and in the end it is %q: more than one was put",
				len(leases), addr(i), brief(s), got[id].Addr)
		}
		if addr(i) == got[id].Addr {
			winner = i
		}
	}
	if got[id].Addr == "" {
		return 0, fmt.Errorf("%d Adds with IfFree at once: none was put", len(leases))
	}
	return winner, nil
}

func ifFreeRace(e *env) error {
	leases, err := e.grants(3)
	if err != nil {
		return err
	}
	shown := make(map[string]string) // guarded by the watch's mu
	r := e.watch("greeter", nil, func(s set) error {
		for id, ep := range s {
			if was, ok := shown[id]; ok && was != ep.Addr {
				return fmt.Errorf("several Adds with IfFree at once: endpoint %q was put with %s and then with %s", id, was, ep.Addr)
			}
			shown[id] = ep.Addr
		}
		return nil
	})
	if err := r.begun(); err != nil {
		return err
	}
	for round := range 20 {
		if _, err := e.contend("greeter", fmt.Sprintf("id-%02d", round), leases); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
	}
	return r.until(patience, func() string {
		if len(r.state) != 20 {
			return fmt.Sprintf("it shows %d endpoints, want 20", len(r.state))
		}
		return ""
	})
}

func loserStaysAway(e *env) error {
	gone := make(map[string]bool) // guarded by the watch's mu
	r := e.watch("greeter", nil, func(s set) error {
		for id := range s {
			if gone[id] {
				return fmt.Errorf("endpoint %q is back, though its lease was revoked: an Add with IfFree was made later that had to be skipped", id)
			}
		}
		return nil
	})
	if err := r.begun(); err != nil {
		return err
	}
	var losers []naming.Lease
	for round := range 8 {
		id := fmt.Sprintf("id-%02d", round)
		leases, err := e.grants(3)
		if err != nil {
			return err
		}
		winner, err := e.contend("greeter", id, leases)
		if err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if err := r.until(patience, func() string {
			if _, ok := r.state[id]; !ok {
				return "it does not show " + id
			}
			return ""
		}); err != nil {
			return err
		}
		if err := e.revoke(leases[winner]); err != nil {
			return err
		}
		if err := r.until(patience, func() string {
			if ep, ok := r.state[id]; ok {
				return "it still shows " + show(ep) + ", though its lease was revoked"
			}
			gone[id] = true
			return ""
		}); err != nil {
			return err
		}
		losers = append(append(losers, leases[:winner]...), leases[winner+1:]...)
	}
	for _, l := range losers {
		if err := e.renew(l); err != nil {
			return err
		}
	}
	if err := r.during(e.quiet); err != nil {
		return err
	}
	return e.listed("greeter", set{})
}

func revokeRace(e *env) error {
	const rounds = 50
	first, err := e.grant(long)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := e.apply("greeter", add(first, ep("first", "10.0.0.1:80", ""))...); err != nil {
		return err
	}
	took, rnd := max(time.Since(begin), time.Millisecond), e.rand(0)
	if err := e.revoke(first); err != nil {
		return err
	}
	for round := range rounds {
		l, err := e.grant(long)
		if err != nil {
			return err
		}
		if err := e.apply("greeter", add(l, ep(fmt.Sprintf("early-%02d", round), "10.0.0.1:80", ""))...); err != nil {
			return err
		}
		put := func(name string, n int) func() error {
			return func() error {
				eps := some(n, "")
				for i := range eps {
					eps[i].ID = fmt.Sprintf("%s-%02d-%d", name, round, i)
				}
				if err := e.apply("greeter", add(l, eps...)...); err != nil && !errors.Is(err, naming.ErrLeaseLost) {
					return fmt.Errorf("at the same time as the lease is revoked: %w", err)
				}
				return nil
			}
		}
		wait := time.Duration(rnd.Int64N(int64(took) * 3 / 2))
		if err := together(put("one", 1), put("three", 3), func() error {
			e.pause(wait)
			return e.revoke(l)
		}); err != nil {
			return e.seeded(fmt.Errorf("round %d: %w", round, err))
		}
	}
	// Each round has its own IDs, so that an endpoint that a round left is still
	// there.
	if err := e.eventually(func() error { return e.listed("greeter", set{}) }); err != nil {
		return e.seeded(fmt.Errorf("after %d leases were revoked while endpoints were put under them: %w", rounds, err))
	}
	e.pause(e.quiet)
	return e.seeded(e.listed("greeter", set{}))
}
