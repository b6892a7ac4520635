package prometheusnaming

import (
	"context"
	"errors"

	"github.com/naming-go/naming"
)

// ErrorType returns the class of an error that a hook was given:
//
//	lease_lost         naming.ErrLeaseLost
//	deleted            naming.ErrDeleted
//	permission_denied  naming.ErrPermission
//	invalid_argument   naming.ErrInvalid
//	client_closed      naming.ErrClientClosed
//	timeout            context.DeadlineExceeded, or an error whose method Timeout returns true
//	canceled           context.Canceled
//	_OTHER             any other
//
// If the error wraps several of them, the first in this order counts. A program that
// knows its backend can set a function of its own in [Options]. With etcd, for
// example, such a function can return status.Code.
func ErrorType(err error) string {
	for _, c := range errorTypes {
		if errors.Is(err, c.err) {
			return c.name
		}
	}
	var t interface{ Timeout() bool }
	if errors.As(err, &t) && t.Timeout() {
		return "timeout"
	}
	return "_OTHER"
}

var errorTypes = []struct {
	err  error
	name string
}{
	{naming.ErrLeaseLost, "lease_lost"},
	{naming.ErrDeleted, "deleted"},
	{naming.ErrPermission, "permission_denied"},
	{naming.ErrInvalid, "invalid_argument"},
	{naming.ErrClientClosed, "client_closed"},
	{context.DeadlineExceeded, "timeout"},
	{context.Canceled, "canceled"},
}
