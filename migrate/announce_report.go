package migrate

import (
	"cmp"
	"errors"

	"github.com/naming-go/naming"
)

// reported is what the hooks and OnChange got last.
type reported struct {
	onChange func(naming.RegistrationStatus) // may be nil
	status   naming.RegistrationStatus

	listed bool      // the last call of the two hooks was one of Registered, and not one of Lost
	by     sideIndex // the registry that has the endpoint since; noSide: no registry of this program
	again  bool      // Registered was called before
}

// reading is the status of an announcement at one time.
type reading struct {
	status   naming.RegistrationStatus
	endpoint naming.Endpoint
	counting sideIndex
	parts    [2]naming.RegistrationStatus // zero: not registered there
	replaced bool                         // a newer announcement owns the endpoint
	closing  bool
}

// errNotListed is the error of a loss that has no other reason.
var errNotListed = errors.New("the endpoint is not in the registry")

// report calls the hooks, and OnChange if the status has changed.
func (a *announcement) report(now reading) {
	r := &a.reported
	was := r.status
	r.status = now.status
	if !now.closing { // the removal is not a loss
		a.callHooks(was, now)
	}
	if r.onChange != nil && !sameRegistrationStatus(was, now.status) {
		r.onChange(now.status)
	}
}

// callHooks calls the hooks of the joined Client.
//
// Registered is called when the endpoint came to be in the registry that counts. Lost is
// called when that registry lost the endpoint. If another registry begins to count, the
// endpoint stays in the former one until it is in the other one, so that the endpoint is not
// lost. The former one is the registry to watch until then, and the hooks are not called if
// the endpoint is in both for a moment. So a program that counts Registered as 1 and Lost as
// -1 always has 0 or 1.
func (a *announcement) callHooks(was naming.RegistrationStatus, now reading) {
	r, h, is := &a.reported, a.joined.Hooks(), now.status
	switch {
	case is.Registered:
		r.by = now.counting
		if r.listed {
			return
		}
		r.listed = true
		if h.Registered != nil {
			h.Registered(naming.RegisteredInfo{Service: a.service, Endpoint: now.endpoint, Again: r.again})
		}
		r.again = true
	case r.listed && now.lost(r.by):
		r.listed = false
		if h.Lost != nil {
			h.Lost(naming.LostInfo{Service: a.service, Endpoint: now.endpoint, Err: now.lossOf(r.by)})
		}
	case is.Err != nil && is.FailedAttempts > 0 && is.FailedAttempts != was.FailedAttempts:
		if h.RegisterFailed != nil {
			h.RegisterFailed(naming.RegisterFailedInfo{Service: a.service, Endpoint: now.endpoint, Err: is.Err})
		}
	}
}

// lost reports whether registry i, which had the endpoint, has lost it. The registry that
// counts does not have the endpoint.
func (n *reading) lost(i sideIndex) bool {
	return n.replaced || i == n.counting || i != noSide && !n.parts[i].Registered
}

// lossOf returns why registry i has lost the endpoint.
func (n *reading) lossOf(i sideIndex) error {
	if !n.replaced && i != n.counting && n.parts[i].Err != nil {
		return n.parts[i].Err
	}
	return cmp.Or(n.status.Err, errNotListed)
}

// reportWithdrawn calls the hook about the end of an announcement.
func (a *announcement) reportWithdrawn(err error) {
	if f := a.joined.Hooks().Withdrawn; f != nil {
		e, _ := a.state.wantedEndpoint()
		f(naming.WithdrawnInfo{Service: a.service, Endpoint: e, Err: err})
	}
}

// sameRegistrationStatus reports whether two statuses are equal for a program. Since
// changes with Registered, and Closed is what the program itself did.
func sameRegistrationStatus(a, b naming.RegistrationStatus) bool {
	return a.Registered == b.Registered && a.FailedAttempts == b.FailedAttempts && a.Withheld == b.Withheld &&
		a.Draining == b.Draining && a.MarkedByOther == b.MarkedByOther && errText(a.Err) == errText(b.Err)
}
