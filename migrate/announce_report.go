package migrate

import (
	"errors"

	"github.com/naming-go/naming"
)

// reported is the status that the hooks and OnChange got last.
type reported struct {
	onChange   func(naming.RegistrationStatus) // may be nil
	status     naming.RegistrationStatus
	registered bool // Registered was true before
}

// errNotCounting is the error of a loss that has no other reason: the endpoint is not yet
// in the registry that the phase made the one that counts.
var errNotCounting = errors.New("not yet in the registry that counts in this phase")

// report calls the hooks and OnChange if the status has changed.
func (a *announcement) report(is naming.RegistrationStatus, e naming.Endpoint) {
	r := &a.reported
	was := r.status
	if sameRegistrationStatus(was, is) {
		return
	}
	r.status = is
	a.callHooks(was, is, e)
	r.registered = r.registered || is.Registered
	if r.onChange != nil {
		r.onChange(is)
	}
}

// callHooks calls the hooks of the joined Client.
func (a *announcement) callHooks(was, is naming.RegistrationStatus, e naming.Endpoint) {
	h := a.joined.Hooks()
	switch {
	case is.Registered && !was.Registered:
		if h.Registered != nil {
			h.Registered(naming.RegisteredInfo{Service: a.service, Endpoint: e, Again: a.reported.registered})
		}
	case was.Registered && !is.Registered:
		err := is.Err
		if err == nil {
			err = errNotCounting
		}
		if h.Lost != nil {
			h.Lost(naming.LostInfo{Service: a.service, Endpoint: e, Err: err})
		}
	case is.Err != nil && is.FailedAttempts > 0 && is.FailedAttempts != was.FailedAttempts:
		if h.RegisterFailed != nil {
			h.RegisterFailed(naming.RegisterFailedInfo{Service: a.service, Endpoint: e, Err: is.Err})
		}
	}
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
		a.Draining == b.Draining && errText(a.Err) == errText(b.Err)
}
