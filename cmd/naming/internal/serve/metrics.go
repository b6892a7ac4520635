package serve

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/naming-go/naming/cmd/naming/internal/hub"
)

// collector shows the numbers of a Hub. No label has a text of the registry.
type collector struct{ hub *hub.Hub }

var (
	servicesDesc  = prometheus.NewDesc("naming_hub_services", "Services in the list of services.", nil, nil)
	staleDesc     = prometheus.NewDesc("naming_hub_stale_services", "Services for which the registry does not vouch now.", nil, nil)
	waitingDesc   = prometheus.NewDesc("naming_hub_waiting_services", "Services for which the registry has not answered.", nil, nil)
	ageDesc       = prometheus.NewDesc("naming_hub_age_seconds", "Time for which the registry has not vouched for everything.", nil, nil)
	endpointsDesc = prometheus.NewDesc("naming_hub_endpoints", "Endpoints by state.", []string{"state"}, nil)
	watchersDesc  = prometheus.NewDesc("naming_hub_watches", "Watches of clients that are open.", nil, nil)
	resyncsDesc   = prometheus.NewDesc("naming_hub_watch_resyncs_total", "Snapshots to clients that were too slow for the changes.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{servicesDesc, staleDesc, waitingDesc, ageDesc, endpointsDesc, watchersDesc, resyncsDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	snap := c.hub.Snapshot()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	var total hub.Document
	for i := range snap.Services {
		d := snap.Services[i].Summary()
		total.Serving += d.Serving
		total.Draining += d.Draining
		total.Withheld += d.Withheld
		total.Held += d.Held
	}
	gauge(servicesDesc, float64(snap.Status.Services))
	gauge(staleDesc, float64(snap.Status.Stale))
	gauge(waitingDesc, float64(snap.Status.Waiting))
	gauge(ageDesc, snap.Status.Age(time.Now()).Seconds())
	for i, n := range []int{total.Serving, total.Draining, total.Withheld, total.Held} {
		gauge(endpointsDesc, float64(n), states[i])
	}
	counts := c.hub.Counts()
	gauge(watchersDesc, float64(counts.Subscribers))
	ch <- prometheus.MustNewConstMetric(resyncsDesc, prometheus.CounterValue, float64(counts.Resyncs))
}
