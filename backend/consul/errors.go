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
	errFiltered  = errors.New("entries were left out that the token may not read: that takes service:read for the service and node:read for the nodes")
	errNodeRead  = errors.New("the token may write the service, but not read it afterwards: that takes node:read for the agent's node")
	errNotSynced = errors.New("the agent has not told the servers yet")
)

// unknown reports whether an agent said that it does not know a service or a
// check.
func unknown(err error) bool {
	e, ok := errors.AsType[api.StatusError](err)
	return ok && (e.Code == http.StatusNotFound ||
		strings.Contains(e.Body, "does not have associated TTL") || strings.Contains(e.Body, "Unknown check"))
}

// describe adds to an error of the client what it does not say in a form that
// errors.Is finds: the context's error, and which of this framework's it is. ctx
// is the caller's.
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
	// The body of an answer is part of the text.
	return naming.SafeError(err)
}
