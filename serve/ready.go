package serve

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/naming-go/naming"
)

// ReadyHandler returns a handler for readiness probes. It answers GET and HEAD with status
// 200 while all registrations are ready (see [naming.Registration.Ready]), and with 503
// otherwise: if one of them is not registered, draining, withheld or closed, or if there
// are no registrations. A nil registration counts as not ready. The slice is copied.
//
// The body is JSON, {"ready":false,"registrations":[...]}, with the
// [naming.RegistrationStatus] of each and why it is not ready. The handler sends no
// request to the registry.
//
// For a server that [Run] serves, use [Options.Readiness].
func ReadyHandler(registrations ...*naming.Registration) http.Handler {
	return &Readiness{registrations: slices.Clone(registrations)}
}

// registrationReport is what the answer to a probe says of one registration.
type registrationReport struct {
	Ready  bool                      `json:"ready"`
	Why    string                    `json:"why,omitempty"`
	Status naming.RegistrationStatus `json:"status"`
}

// ServeHTTP implements [http.Handler].
func (r *Readiness) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	r.isLoop(req.Context())
	registrations := r.current()
	body := struct {
		Ready         bool                 `json:"ready"`
		Registrations []registrationReport `json:"registrations"`
	}{len(registrations) > 0, []registrationReport{}}
	for _, g := range registrations {
		if g == nil {
			body.Ready = false
			continue
		}
		report := registrationReport{Ready: true, Status: g.Status()}
		if err := g.Ready(); err != nil {
			body.Ready, report.Ready, report.Why = false, false, naming.SafeText(err.Error())
		}
		body.Registrations = append(body.Registrations, report)
	}
	text, err := json.Marshal(body)
	if err != nil {
		http.Error(w, "the state cannot be marshaled", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !body.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(append(text, '\n'))
}
