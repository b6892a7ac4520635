package main

import "github.com/naming-go/naming/bench/report"

// targets returns the targets of this library. Ratios are to the floor of the same run.
func targets() []report.Target {
	const resolver, follow, consul = "ours-etcd", "ours-etcd-follow", "ours-consul"
	const noise = 1.1 // two runs of the floor differ by as much
	var list []report.Target
	ratio := func(scenario, name, backend, peer, metric string, most float64) {
		list = append(list, report.Target{Scenario: scenario, Case: name, Backend: backend, Peer: peer, Metric: metric, Ratio: true, Max: most})
	}
	value := func(scenario, name, backend, peer, metric string, most float64) {
		list = append(list, report.Target{Scenario: scenario, Case: name, Backend: backend, Peer: peer, Metric: metric, Max: most})
	}
	ratio("S1", "", "etcd", resolver, "p50", 1.02)
	ratio("S1", "", "etcd", resolver, "p99", noise)
	ratio("S1", "", "etcd", resolver, "registration p50", 1.7)
	ratio("S1", "", "consul", consul, "p50", 1)
	ratio("S1", "", "consul", consul, "p99", noise)

	const most, atOnce = "W = 5,000", "1,000 built at once"
	ratio("S2", most, "etcd", resolver, "last", 2.5)
	ratio("S2", most, "etcd", follow, "last", 2.5)
	value("S2", most, "etcd", follow, "memory per consumer", 1)
	value("S2", most, "etcd", resolver, "memory per consumer", 3)
	value("S2", most, "etcd", follow, "goroutines per consumer", 0.001)
	value("S2", most, "etcd", resolver, "goroutines per consumer", 1)
	value("S2", most, "etcd", resolver, "watchers", 1)
	value("S2", atOnce, "etcd", resolver, "watchers", 1)
	value("S2", atOnce, "etcd", follow, "watchers", 1)

	const large = "N = 50,000"
	ratio("S3", large, "etcd", resolver, "first", 1.2)
	ratio("S3", large, "etcd", resolver, "first, allocated", 1.5)
	ratio("S3", large, "etcd", resolver, "change", 1.5)
	value("S3", large, "etcd", resolver, "change, allocated", 2000)
	value("S3", large, "etcd", follow, "of that at N = 100", 1.1)
	ratio("S3", "", "consul", consul, "first", 1.2)
	ratio("S3", "", "consul", consul, "first, allocated", 1.5)
	ratio("S3", "", "consul", consul, "change", 1)
	ratio("S3", "", "consul", consul, "change, allocated", 1)

	value("S4", "2,000 changes of 1,000", "etcd", resolver, "UpdateStates", 200)
	ratio("S4", "2,000 changes of 1,000", "etcd", resolver, "CPU", 1.2)
	value("S4", "2,000 changes of 1,000", "etcd", resolver, "last write to right state", 10)

	for _, s := range []struct {
		scenario, backend, peer string
		resolved                float64
	}{{"S5", "etcd", resolver, 0.4}, {"S5", "consul", consul, 0.9}} {
		value(s.scenario, "", s.backend, s.peer, "resolved", s.resolved)
		value(s.scenario, "", s.backend, s.peer, "goroutines per service", 2)
		value(s.scenario, "", s.backend, s.peer, "memory per service", 10)
	}
	value("S5", "", "etcd", resolver, "streams", 1)
	value("S5", "", "consul", consul, "connections", 200)
	value("S5", "", "consul", consul, "other programs refused", 0)
	return list
}
