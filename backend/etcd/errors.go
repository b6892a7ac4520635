package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/naming-go/naming"
)

var (
	errSilent   = errors.New("no answer from etcd within the bound of silence")
	errReplaced = errors.New("the registry was replaced by another, or restored from a backup")
	errClosed   = errors.New("the watch was closed, probably because the client was")
	errBehind   = fmt.Errorf("the watch is too slow: more than %d changes are waiting", maxBehind)
	errAnswer   = errors.New("an answer from etcd that makes no sense")
	errLimit    = errors.New("an answer from etcd that exceeds a limit")
	errOlder    = errors.New("the state that a member of etcd has is older than what was seen")

	errDisconnected = errors.New("no connection to etcd")

	errEndpoints = fmt.Errorf("%w: more than %d endpoints in a service", errLimit, naming.MaxEndpoints)
	errServices  = fmt.Errorf("%w: more than %d services", errLimit, naming.MaxServices)
)

// describe makes an error of the client one that errors.Is finds: it adds the context's
// error, and the error of package naming that it amounts to. ctx is the caller's.
func describe(ctx context.Context, err error) error {
	err = typed(err)
	var kind error
	switch {
	case refused(err):
		kind = naming.ErrPermission
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		kind = naming.ErrLeaseLost
	case errors.Is(err, rpctypes.ErrRequestTooLarge), errors.Is(err, rpctypes.ErrLeaseTTLTooLarge):
		kind = naming.ErrInvalid
	}
	if kind != nil {
		err = fmt.Errorf("%w: %w", kind, err)
	}
	if c := ctx.Err(); c != nil && !errors.Is(err, c) {
		err = fmt.Errorf("%w: %w", c, err)
	}
	return naming.SafeError(err)
}

// wrap adds the service, and a missing right, to the error of a watch.
func (s *Store) wrap(ctx context.Context, service string, err error) error {
	return fmt.Errorf("etcd: watch %q: %w", service, s.describe(ctx, needs(err, "read", "the keys that begin with %q", s.layout.dir(service))))
}

// describe wraps err as the function describe does. If err is a timeout or a silence, and
// the client has no connection, describe adds why the connection failed. The client's own
// error does not say so: the client only waits.
func (s *Store) describe(ctx context.Context, err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errSilent) {
		if why := disconnected(s.client.ActiveConnection()); why != nil {
			err = fmt.Errorf("%w; no connection: %w", err, why)
		}
	}
	return describe(ctx, err)
}

// needs adds the right that is missing to an error with which etcd denied permission.
// etcd does not say which right.
func needs(err error, right, keys string, args ...any) error {
	if err == nil || !errors.Is(typed(err), rpctypes.ErrPermissionDenied) {
		return err
	}
	return fmt.Errorf("%w; this takes the right to %s %s", err, right, fmt.Sprintf(keys, args...))
}

// typed returns the etcd error that err is, or whose text err has: the server sends the
// reason of a canceled watch as text.
func typed(err error) error {
	if e := rpctypes.Error(err); e != err {
		return e
	}
	if _, desc, ok := strings.Cut(err.Error(), "desc = "); ok {
		plain := errors.New(desc)
		if e := rpctypes.Error(plain); e != plain {
			return e
		}
	}
	return err
}

// refused reports whether the registry refused credentials.
func refused(err error) bool {
	for _, e := range []error{
		rpctypes.ErrPermissionDenied, rpctypes.ErrInvalidAuthToken, rpctypes.ErrAuthOldRevision,
		rpctypes.ErrAuthFailed, rpctypes.ErrUserEmpty, rpctypes.ErrUserNotFound,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) {
		c := s.GRPCStatus().Code()
		return c == codes.PermissionDenied || c == codes.Unauthenticated
	}
	return false
}

// unknownToken reports whether a server does not know the token of a request.
func unknownToken(err error) bool {
	if err == nil {
		return false
	}
	err = typed(err)
	return errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrAuthOldRevision)
}

// wait waits before the next try with another token, and reports whether to try: at most
// 6 times, after 5, 10, ... 160 ms. A member that lags does not know a token yet that
// another member has just issued. The client itself retries requests, but not streams.
func wait(ctx context.Context, try int) bool {
	const tries = 6
	if try >= tries {
		return false
	}
	t := time.NewTimer(5 * time.Millisecond << try)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
