package consul_test

import (
	"strings"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/internal/consultest"
)

// TestCheckRemoved: an operator removes a check and leaves the service. If the lease
// assumed that the service is gone, or that the check is there, the endpoint would stay
// for ever.
func TestCheckRemoved(t *testing.T) {
	t.Parallel()
	r := newRig(t, consultest.Start(t, nil), nil)
	l, err := r.Grant(t.Context(), time.Minute)
	must(t, err)
	must(t, r.Apply(t.Context(), "svc", add(l, naming.Endpoint{Addr: "a:1"})...))
	own := func() (checks []string, services int) {
		cs, err := r.admin.Agent().Checks()
		must(t, err)
		for id, c := range cs {
			if strings.HasPrefix(c.ServiceName, r.prefix) {
				checks = append(checks, id)
			}
		}
		ss, err := r.admin.Agent().Services()
		must(t, err)
		return checks, len(ss)
	}
	checks, _ := own()
	if len(checks) != 1 {
		t.Fatalf("%d checks were registered, want 1", len(checks))
	}
	must(t, r.admin.Agent().CheckDeregister(checks[0]))
	must(t, l.Renew(t.Context()))
	if checks, services := own(); len(checks) != 1 || services != 1 {
		t.Errorf("after a renewal there are %d checks and %d services, want 1 and 1", len(checks), services)
	}
	must(t, l.Renew(t.Context()))
	must(t, l.Revoke(t.Context()))
	if checks, services := own(); len(checks) != 0 || services != 0 {
		t.Errorf("after the lease there are %d checks and %d services", len(checks), services)
	}
}
