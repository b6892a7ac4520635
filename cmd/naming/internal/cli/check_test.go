package cli

import (
	"errors"
	"testing"

	"github.com/naming-go/naming/conformance"
)

// A command that nobody reads ends without a message, unless it leaves something.
func TestEndedEarly(t *testing.T) {
	if err := endedEarly(errNoReader, new(conformance.Result)); !errors.Is(err, errNoReader) {
		t.Errorf("got %v", err)
	}
	err := endedEarly(errNoReader, &conformance.Result{Name: "Check", Left: errors.New("down \x1b")})
	const want = `the output has no reader; what the check Check put may be left: down \x1b`
	if errors.Is(err, errNoReader) || err.Error() != want || statusOf(err) != statusNo {
		t.Errorf("got %v with the status %d", err, statusOf(err))
	}
}
