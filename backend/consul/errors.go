package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
)

var (
	errSilent    = errors.New("no answer from Consul within the bound of silence")
	errFiltered  = errors.New("entries were left out that the token may not read: the token needs service:read for the service and node:read for the nodes")
	errNodeRead  = errors.New("the token may write the service, but not read it afterwards: the token needs node:read for the agent's node")
	errNotSynced = errors.New("the agent has not sent the change to the servers yet")
)

// unknown reports whether an error says that the agent does not know a service or a
// check.
func unknown(err error) bool {
	e, ok := errors.AsType[api.StatusError](err)
	return ok && (e.Code == http.StatusNotFound ||
		strings.Contains(e.Body, "does not have associated TTL") || strings.Contains(e.Body, "Unknown check"))
}

// describe wraps an error of the client in the errors of this framework that it stands
// for, and in the error of ctx if ctx is done, so that errors.Is finds them. ctx is the
// context of the caller.
func describe(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	var kind error
	switch e, _ := errors.AsType[api.StatusError](err); {
	case e.Code == http.StatusForbidden, e.Code == http.StatusUnauthorized, errors.Is(err, errFiltered), errors.Is(err, errNodeRead),
		e.Code == http.StatusInternalServerError && (strings.Contains(e.Body, "Permission denied") || strings.Contains(e.Body, "ACL not found")):
		kind = naming.ErrPermission
	case e.Code == http.StatusBadRequest, e.Code == http.StatusRequestEntityTooLarge:
		kind = naming.ErrInvalid
	}
	if kind != nil && !errors.Is(err, kind) {
		err = fmt.Errorf("%w: %w", kind, err)
	}
	if c := ctx.Err(); c != nil && !errors.Is(err, c) {
		err = fmt.Errorf("%w: %w", c, err)
	}
	// The text has the body of an answer in it, which may be of any size and content.
	return naming.SafeError(err)
}
