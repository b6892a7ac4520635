package otelnaming

import (
	"context"

	"github.com/naming-go/naming"
	"go.opentelemetry.io/otel/metric"
)

// Hooks returns the hooks that record the metrics, for the options of one Client.
// [naming.JoinHooks] joins them with others.
func (m *Metrics) Hooks() *naming.Hooks {
	return &naming.Hooks{
		Registered:     m.onRegistered,
		Lost:           m.onLost,
		RegisterFailed: m.onRegisterFailed,
		Withdrawn:      m.onWithdrawn,
		WatchFailed:    m.onWatchFailed,
		Stale:          m.onStale,
		Resynced:       m.onResynced,
		Held:           m.onHeld,
		Released:       m.onReleased,
		Withheld:       m.onWithheld,
		Published:      m.onPublished,
	}
}

// Malformed counts an entry of the registry that could not be understood. It is for
// the option OnMalformed of a backend, or of package backend/open. The counter grows
// each time that the backend reports an entry. A backend reports an entry when a watch
// reads it, so a new watch reports it again. Malformed logs nothing: package
// backend/open logs such entries only if OnMalformed is nil. Malformed may be called
// concurrently.
func (m *Metrics) Malformed(e *naming.MalformedError) {
	add(m.malformed, 1, m.with(e.Service))
}

func (m *Metrics) onRegistered(info naming.RegisteredInfo) {
	m.note(info.Service, func(s *service) { s.register(info.Endpoint.ID) })
	add(m.registrations, 1, m.with(info.Service, RegistrationAgainKey.Bool(info.Again)))
}

func (m *Metrics) onLost(info naming.LostInfo) {
	m.note(info.Service, func(s *service) { s.unregister(info.Endpoint.ID) })
	add(m.losses, 1, m.withError(info.Service, info.Err))
}

func (m *Metrics) onRegisterFailed(info naming.RegisterFailedInfo) {
	add(m.attempts, 1, m.withError(info.Service, info.Err))
}

func (m *Metrics) onWithdrawn(info naming.WithdrawnInfo) {
	m.note(info.Service, func(s *service) { s.unregister(info.Endpoint.ID) })
	add(m.withdrawals, 1, m.withError(info.Service, info.Err))
}

func (m *Metrics) onWatchFailed(info naming.WatchFailedInfo) {
	add(m.failures, 1, m.withError(info.Service, info.Err))
}

func (m *Metrics) onStale(info naming.StaleInfo) {
	m.note(info.Service, func(s *service) { s.staleSince = info.Since })
}

func (m *Metrics) onResynced(info naming.ResyncedInfo) {
	o := m.with(info.Service)
	add(m.resyncs, 1, o)
	add(m.changes, info.Changed, o)
}

func (m *Metrics) onHeld(info naming.HeldInfo) {
	n := len(info.Endpoints)
	o := m.note(info.Service, func(s *service) {
		s.holds = true
		s.held += int64(n)
	})
	add(m.holds, n, o)
}

func (m *Metrics) onReleased(info naming.ReleasedInfo) {
	n := len(info.Endpoints)
	reason := "expired" // also if the watch ended: the hook does not distinguish them
	if info.Back {
		reason = "back"
	}
	m.note(info.Service, func(s *service) { s.held -= int64(n) })
	add(m.releases, n, m.with(info.Service, ReleaseReasonKey.String(reason)))
}

func (m *Metrics) onWithheld(info naming.WithheldInfo) {
	m.note(info.Service, func(s *service) {
		for _, w := range info.Began {
			m.countWithheld(info.Service, s, w.Reason, 1)
		}
		for _, w := range info.Ceased {
			m.countWithheld(info.Service, s, w.Reason, -1)
		}
	})
}

func (m *Metrics) onPublished(info naming.PublishedInfo) {
	o := m.note(info.Service, func(s *service) {
		s.publishes = true
		s.addresses = int64(info.Addresses)
	})
	add(m.updates, 1, o)
}

// add adds n to a counter. Hooks have no context.
func add(c metric.Int64Counter, n int, o metric.MeasurementOption) {
	c.Add(context.Background(), int64(n), o)
}
