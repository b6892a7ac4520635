package prometheusnaming

import (
	"cmp"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/naming-go/naming/migrate"
	"github.com/prometheus/client_golang/prometheus"
)

// labelSide is the label of the metrics of one registry of a [Migration]. It is empty for
// the metrics of the joined Client.
const labelSide = "side"

// Migration is a prometheus.Collector with the metrics of one [migrate.Joined]: those of
// its Client, those of both registries, and those of the migration itself.
//
//	m, err := prometheusnaming.NewMigration("", "", nil)
//	prometheus.MustRegister(m)
//	j, err := migrate.Join(old, next, phases, &migrate.Options{
//		Client:   naming.Options{Hooks: m.Joined.Hooks()},
//		OldHooks: m.Old.Hooks(),
//		NewHooks: m.New.Hooks(),
//		Hooks:    m.Hooks(),
//	})
//
// A process has either a Migration or a [Metrics] in one prometheus.Registerer: the series
// of a Migration have one label more. All methods may be called concurrently.
type Migration struct {
	// Joined are the metrics of the joined Client, which have an empty label side. Old
	// and New are the metrics of the registries, which have the name in the label. A sum
	// over one of these metrics has to select one of the three. Register the Migration, and
	// none of the three.
	Joined, Old, New *Metrics

	closed      atomic.Bool
	dropService bool
	gauges      migrationGauges
	state       struct {
		mu       sync.Mutex
		services map[string]*migration // by name
	}
}

var _ prometheus.Collector = (*Migration)(nil)

type migrationGauges struct {
	phase, fallback, narrowed, missing, extra, mismatch *prometheus.Desc
}

func (g *migrationGauges) all() []*prometheus.Desc {
	return []*prometheus.Desc{g.phase, g.fallback, g.narrowed, g.missing, g.extra, g.mismatch}
}

// migration is the state of one service, or of several together. It is guarded by
// Migration.state.mu, unless it is a copy.
type migration struct {
	phase                    int // -1: not known
	fallback                 int
	narrowed                 map[string]int // by the registry that the reader prefers
	compared                 bool           // a difference was reported
	missing, extra, mismatch int
}

// NewMigration returns metrics that the caller registers with a prometheus.Registerer. The
// names of the registries are those of [migrate.Options]: empty means "old" and "new". It
// returns an error as [New] does, and also for a constant label "side" and for two
// registries of one name.
func NewMigration(oldName, newName string, opts *Options) (*Migration, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if _, ok := o.ConstLabels[labelSide]; ok {
		return nil, fmt.Errorf("prometheusnaming: the constant label %q is a label of the metrics", labelSide)
	}
	oldName, newName = cmp.Or(oldName, "old"), cmp.Or(newName, "new")
	if oldName == newName {
		return nil, fmt.Errorf("prometheusnaming: both registries have the name %q", oldName)
	}
	m := &Migration{dropService: o.DropService, gauges: newMigrationGauges(&o)}
	m.state.services = make(map[string]*migration)
	for _, side := range []struct {
		metrics **Metrics
		name    string
	}{{&m.Joined, ""}, {&m.Old, oldName}, {&m.New, newName}} {
		var err error
		if *side.metrics, err = New(o.ofSide(side.name)); err != nil {
			return nil, err
		}
	}
	if err := prometheus.NewRegistry().Register(m); err != nil {
		return nil, fmt.Errorf("prometheusnaming: %w", err)
	}
	return m, nil
}

// ofSide returns the options of the metrics of one registry.
func (o Options) ofSide(name string) *Options {
	o.ConstLabels = maps.Clone(o.ConstLabels)
	if o.ConstLabels == nil {
		o.ConstLabels = make(prometheus.Labels)
	}
	o.ConstLabels[labelSide] = name
	return &o
}

func newMigrationGauges(o *Options) migrationGauges {
	constant := maps.Clone(o.ConstLabels)
	gauge := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("naming_migration_"+name, help, o.labels(labels...), constant)
	}
	return migrationGauges{
		phase:    gauge("phase", "Phase of a service, from 0 (old) to 7 (done), and -1 while it is not known."),
		fallback: gauge("fallback", "Services that need both registries in a phase that uses one."),
		narrowed: gauge("narrowed", "Services whose endpoints come from one registry alone.", labelSide),
		missing:  gauge("missing", "Endpoints that only the old registry has."),
		extra:    gauge("extra", "Endpoints that only the new registry has."),
		mismatch: gauge("mismatch", "Endpoints that both registries have with different data."),
	}
}

// Close removes the gauges from what is collected, as [Metrics.Close] does.
func (m *Migration) Close() {
	for _, metrics := range []*Metrics{m.Joined, m.Old, m.New} {
		metrics.Close()
	}
	m.closed.Store(true)
}

// Describe implements prometheus.Collector.
func (m *Migration) Describe(ch chan<- *prometheus.Desc) {
	for _, metrics := range []*Metrics{m.Joined, m.Old, m.New} {
		metrics.Describe(ch)
	}
	for _, desc := range m.gauges.all() {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (m *Migration) Collect(ch chan<- prometheus.Metric) {
	for _, metrics := range []*Metrics{m.Joined, m.Old, m.New} {
		metrics.Collect(ch)
	}
	if m.closed.Load() {
		return
	}
	gauge := func(desc *prometheus.Desc, value int, labels []string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value), labels...)
	}
	for name, s := range m.read() {
		service := m.Joined.labelValues(name)
		gauge(m.gauges.phase, s.phase, service)
		gauge(m.gauges.fallback, s.fallback, service)
		for registry, n := range s.narrowed {
			gauge(m.gauges.narrowed, n, m.Joined.labelValues(name, registry))
		}
		if s.compared {
			gauge(m.gauges.missing, s.missing, service)
			gauge(m.gauges.extra, s.extra, service)
			gauge(m.gauges.mismatch, s.mismatch, service)
		}
	}
}

// Hooks returns the hooks that record the metrics of the migration itself.
func (m *Migration) Hooks() *migrate.Hooks {
	return &migrate.Hooks{
		PhaseChanged: m.onPhaseChanged,
		Narrowed:     m.onNarrowed,
		Fallback:     m.onFallback,
		Parity:       m.onParity,
	}
}

func (m *Migration) onPhaseChanged(info migrate.PhaseChangedInfo) {
	m.update(info.Service, func(s *migration) {
		s.phase = -1
		if info.Known {
			s.phase = int(info.To.Phase)
		}
	})
}

func (m *Migration) onNarrowed(info migrate.NarrowedInfo) {
	m.update(info.Service, func(s *migration) {
		s.narrowed = map[string]int{info.Registry: 0}
		if info.Narrow {
			s.narrowed[info.Registry] = 1
		}
	})
}

func (m *Migration) onFallback(info migrate.FallbackInfo) {
	m.update(info.Service, func(s *migration) {
		s.fallback = 1
		if info.Since.IsZero() {
			s.fallback = 0
		}
	})
}

func (m *Migration) onParity(info migrate.ParityInfo) {
	m.update(info.Service, func(s *migration) {
		r := info.Report
		s.compared = r.Known
		s.missing, s.extra, s.mismatch = len(r.Missing), len(r.Extra), len(r.Mismatch)
	})
}

// update calls f with the service that has the name. f must not block.
func (m *Migration) update(name string, f func(*migration)) {
	m.state.mu.Lock()
	defer m.state.mu.Unlock()
	s := m.state.services[name]
	if s == nil {
		s = &migration{phase: -1}
		m.state.services[name] = s
	}
	f(s)
}

// read returns a copy of the state, of all services together if the label service is
// dropped. Nothing is delivered under the lock: a slow collector must not delay hooks.
func (m *Migration) read() map[string]*migration {
	m.state.mu.Lock()
	defer m.state.mu.Unlock()
	readings := make(map[string]*migration, len(m.state.services))
	for name, s := range m.state.services {
		if m.dropService {
			name = ""
		}
		r := readings[name]
		if r == nil {
			r = &migration{phase: s.phase, narrowed: make(map[string]int)}
			readings[name] = r
		}
		r.add(s)
	}
	return readings
}

// add adds a service to r. The phase of several services is the lowest.
func (r *migration) add(s *migration) {
	r.phase = min(r.phase, s.phase)
	r.fallback += s.fallback
	for registry, n := range s.narrowed {
		r.narrowed[registry] += n
	}
	r.compared = r.compared || s.compared
	r.missing += s.missing
	r.extra += s.extra
	r.mismatch += s.mismatch
}
