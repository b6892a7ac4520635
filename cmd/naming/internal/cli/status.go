package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/naming-go/naming"
)

// The exit statuses. Scripts depend on them.
const (
	statusOK       = 0
	statusNo       = 1 // the answer is no, or something failed that is not the registry
	statusUsage    = 2 // the arguments can never work
	statusRegistry = 3 // a registry cannot be reached, or refuses
)

// statusError is an error that has an exit status.
type statusError struct {
	status int
	err    error // nil: everything was said
}

func (e *statusError) Error() string {
	if e.err == nil {
		return fmt.Sprint("exit status ", e.status)
	}
	return e.err.Error()
}

func (e *statusError) Unwrap() error { return e.err }

// usage returns an error for arguments that can never work.
func usage(format string, args ...any) error {
	return &statusError{statusUsage, fmt.Errorf(format, args...)}
}

// no returns an error for an answer that is no.
func no(format string, args ...any) error {
	return &statusError{statusNo, fmt.Errorf(format, args...)}
}

// registryError returns an error of the registry with a name. The end of the command is not an
// error of the registry.
func registryError(name string, err error) error {
	switch {
	case err == nil || errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, naming.ErrInvalid):
		return &statusError{statusUsage, err}
	}
	return &statusError{statusRegistry, fmt.Errorf("%s: %s", name, message(err))}
}

// statusOf returns the exit status of an error that a command returned.
func statusOf(err error) int {
	var s *statusError
	switch {
	case err == nil:
		return statusOK
	case errors.As(err, &s):
		return s.status
	case errors.Is(err, naming.ErrInvalid):
		return statusUsage
	}
	return statusNo
}
