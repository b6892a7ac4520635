package prometheusnaming

import (
	"github.com/naming-go/naming"
	"github.com/prometheus/client_golang/prometheus"
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
// backend/open logs such entries only if OnMalformed is nil.
func (m *Metrics) Malformed(e *naming.MalformedError) {
	m.add(m.counters.malformed, 1, e.Service)
}

func (m *Metrics) onRegistered(info naming.RegisteredInfo) {
	reason := "first"
	if info.Again {
		reason = "again"
	}
	m.state.update(info.Service, func(s *service) { s.register(info.Endpoint.ID) })
	m.add(m.counters.registrations, 1, info.Service, reason)
}

func (m *Metrics) onLost(info naming.LostInfo) {
	m.state.update(info.Service, func(s *service) { s.unregister(info.Endpoint.ID) })
	m.addError(m.counters.losses, info.Service, info.Err)
}

func (m *Metrics) onRegisterFailed(info naming.RegisterFailedInfo) {
	m.addError(m.counters.attempts, info.Service, info.Err)
}

func (m *Metrics) onWithdrawn(info naming.WithdrawnInfo) {
	m.state.update(info.Service, func(s *service) { s.unregister(info.Endpoint.ID) })
	m.addError(m.counters.withdrawals, info.Service, info.Err)
}

func (m *Metrics) onWatchFailed(info naming.WatchFailedInfo) {
	m.addError(m.counters.failures, info.Service, info.Err)
}

func (m *Metrics) onStale(info naming.StaleInfo) {
	m.state.update(info.Service, func(s *service) { s.staleSince = info.Since })
}

func (m *Metrics) onResynced(info naming.ResyncedInfo) {
	m.add(m.counters.resyncs, 1, info.Service)
	m.add(m.counters.changes, info.Changed, info.Service)
}

func (m *Metrics) onHeld(info naming.HeldInfo) {
	n := len(info.Endpoints)
	m.state.update(info.Service, func(s *service) {
		s.holds = true
		s.held += int64(n)
	})
	m.add(m.counters.holds, n, info.Service)
}

func (m *Metrics) onReleased(info naming.ReleasedInfo) {
	n := len(info.Endpoints)
	reason := "expired" // also if the watch ended: the hook does not distinguish them
	if info.Back {
		reason = "back"
	}
	m.state.update(info.Service, func(s *service) { s.held -= int64(n) })
	m.add(m.counters.releases, n, info.Service, reason)
}

func (m *Metrics) onWithheld(info naming.WithheldInfo) {
	m.state.update(info.Service, func(s *service) {
		for _, w := range info.Began {
			s.countWithheld(w.Reason, 1)
		}
		for _, w := range info.Ceased {
			s.countWithheld(w.Reason, -1)
		}
	})
}

func (m *Metrics) onPublished(info naming.PublishedInfo) {
	m.state.update(info.Service, func(s *service) {
		s.publishes = true
		s.addresses = int64(info.Addresses)
	})
	m.add(m.counters.updates, 1, info.Service)
}

// add adds n to the counter of a service whose other label has the value more.
func (m *Metrics) add(c *prometheus.CounterVec, n int, service string, more ...string) {
	c.WithLabelValues(m.labelValues(service, more...)...).Add(float64(n))
}

// addError adds 1 to the counter of a service and of the class of err. The class of
// nil is the empty string.
func (m *Metrics) addError(c *prometheus.CounterVec, service string, err error) {
	class := ""
	if err != nil {
		class = m.errorType(err)
	}
	m.add(c, 1, service, class)
}
