package memory_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/conformance"
)

// registry is a store that keeps the reports of malformed entries.
type registry struct {
	memory.Store

	mu       sync.Mutex
	reported []naming.MalformedError
}

// refusal represents an error of a registry's client library.
type refusal struct{ why string }

func (r *refusal) Error() string { return r.why }

func TestConformance(t *testing.T) {
	conformance.Run(t, conformance.Harness{
		New: func(t *testing.T) naming.Store {
			r := new(registry)
			r.OnMalformed = func(m *naming.MalformedError) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.reported = append(r.reported, *m)
			}
			return r
		},
		Interrupt: func(t *testing.T, s naming.Store) {
			s.(*registry).Break(errors.New("interrupted"))
		},
		Silence: func(t *testing.T, s naming.Store) func() {
			s.(*registry).Silence()
			return s.(*registry).Speak
		},
		SilenceBound: memory.SilenceBound,
		Down: func(t *testing.T, s naming.Store) func() {
			s.(*registry).Down(errors.New("down"))
			return s.(*registry).Up
		},
		Deny: func(t *testing.T, s naming.Store) func() {
			s.(*registry).Refuse(fmt.Errorf("%w: %w", naming.ErrPermission, &refusal{"no such user"}))
			return s.(*registry).Up
		},
		Cause: func(err error) bool {
			var r *refusal
			return errors.As(err, &r)
		},
		Calls: func(s naming.Store) int { return s.(*registry).Calls() },
		Malformed: func(t *testing.T, s naming.Store, service, id string) string {
			s.(*registry).PutMalformed(service, id, errors.New("gibberish"))
			return id
		},
		Reported: func(s naming.Store) []naming.MalformedError {
			r := s.(*registry)
			r.mu.Lock()
			defer r.mu.Unlock()
			return append([]naming.MalformedError(nil), r.reported...)
		},
		// A store in memory has no format of its own. The entry is reported with
		// the error that another store finds.
		Beyond: func(t *testing.T, s naming.Store, service, id string) string {
			deep := strings.Repeat("[", naming.MaxDepth+1) + strings.Repeat("]", naming.MaxDepth+1)
			s.(*registry).PutMalformed(service, id, naming.CheckEndpoint(naming.Endpoint{ID: id, Metadata: []byte(deep)}))
			return id
		},
		Withhold: func(t *testing.T, s naming.Store, service, id string, reason naming.Reason) func() {
			s.(*registry).Withhold(service, id, reason, "because")
			return func() { s.(*registry).Unwithhold(service, id) }
		},
		Lose:   func(t *testing.T, s naming.Store, l naming.Lease) { s.(*registry).Expire(l) },
		Bubble: true,
		TTL:    time.Minute,
		Quiet:  time.Hour,
	})
}
