package resolver

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc/attributes"
	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/naming-go/naming"
)

// state is what is delivered to ClientConns: endpoints, or the reason why the service has
// no endpoints. It is never modified after dispatcher.publish, which sets number and
// urgent.
type state struct {
	number     uint64 // counts the states of a target
	endpoints  []grpcresolver.Endpoint
	addresses  []grpcresolver.Address // of the endpoints, if Options.WithAddresses is set
	attributes *attributes.Attributes // nil, or those of a cached set
	err        error
	urgent     bool // no rests: calls wait for it, fail without it, or go where the registry says not to call
}

// endpointsState returns the state of a list.
func endpointsState(list []grpcresolver.Endpoint, addresses bool) *state {
	s := &state{endpoints: list}
	if addresses {
		s.addresses = make([]grpcresolver.Address, len(list))
		for i, e := range list {
			s.addresses[i] = e.Addresses[0]
			//lint:ignore SA1019 an Address outside of an Endpoint still needs the field
			s.addresses[i].BalancerAttributes = e.Attributes
		}
	}
	return s
}

// equal reports whether either of two states can be delivered in place of the other.
func (s *state) equal(o *state) bool {
	return s.err == nil && o.err == nil && s.attributes == o.attributes && equalEndpoints(s.endpoints, o.endpoints)
}

// cachedKey is the key of an attribute of a State: the time.Time of a cached set.
type cachedKey struct{}

// CachedAt returns when the registry last vouched for a State from the cache, for load
// balancing policies. It reports false for a State from the registry. A State is from
// the cache ([Options.CacheDir]) only until the registry has answered.
func CachedAt(s grpcresolver.State) (time.Time, bool) {
	at, ok := s.Attributes.Value(cachedKey{}).(time.Time)
	return at, ok
}

// maxServiceText is how much of the name of a service is in an error, in bytes. The
// rest of [naming.MaxText] is for the cause.
const maxServiceText = 200

// serviceError returns an error that names the service. It has the text of its cause
// and does not wrap the cause: gRPC would take a status that a registry's client wraps
// for the status of the call, and end calls that wait for ready. The text reaches the
// callers of RPCs and their logs, so it has the form of [naming.SafeText].
func serviceError(service, format string, args ...any) error {
	service = service[:min(len(service), maxServiceText)]
	return errors.New(naming.SafeText(fmt.Sprintf("naming: service %q ", service) + fmt.Sprintf(format, args...)))
}

// lookupError is why there are no endpoints, while the registry has not answered. Its
// text is made when it is needed, because a method of the cause is code of others and
// must not run under a lock. It does not wrap its cause, see serviceError.
type lookupError struct {
	service string
	cause   error         // nil: the registry has been silent
	silence time.Duration // for how long
}

func (e *lookupError) Error() string {
	if e.cause != nil {
		return serviceError(e.service, "cannot be looked up: %v", e.cause).Error()
	}
	return serviceError(e.service, "cannot be looked up: no answer from the registry in %v", e.silence).Error()
}

// safeValue is an error for a log. Its text is made when the line is logged.
type safeValue struct{ err error }

// LogValue implements [slog.LogValuer].
func (v safeValue) LogValue() slog.Value { return slog.AnyValue(naming.SafeError(v.err)) }
