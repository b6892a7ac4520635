package consul

import "github.com/naming-go/naming"

// Held returns the service IDs of the registrations under a lease.
func Held(l naming.Lease) (ids []string) {
	for _, r := range l.(*lease).all() {
		ids = append(ids, r.service.ID)
	}
	return ids
}
