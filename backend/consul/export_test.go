package consul

import "github.com/naming-go/naming"

// Held returns the service IDs of what a lease holds.
func Held(l naming.Lease) (ids []string) {
	for _, h := range l.(*lease).holdings() {
		ids = append(ids, h.registration.ID)
	}
	return ids
}
