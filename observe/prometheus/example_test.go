package prometheusnaming_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	prometheusnaming "github.com/naming-go/naming/observe/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// A server registers itself, and its metrics are collected. A real program serves the
// registry with promhttp.HandlerFor.
func Example() {
	metrics, err := prometheusnaming.New(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer metrics.Close()
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics)

	store := &memory.Store{OnMalformed: metrics.Malformed}
	c := naming.New(store, &naming.Options{Hooks: metrics.Hooks(), Logger: slog.New(slog.DiscardHandler)})
	defer c.Close()
	_, err = c.Register(context.Background(), "greeter", naming.Endpoint{Addr: "10.0.0.7:9000"}, &naming.RegisterOptions{Wait: true, DrainDelay: -1})
	if err != nil {
		fmt.Println(err)
		return
	}

	families, err := registry.Gather()
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(os.Stdout, f); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// # HELP naming_endpoint_registered Endpoints of this process that are in the registry.
	// # TYPE naming_endpoint_registered gauge
	// naming_endpoint_registered{service="greeter"} 1
	// # HELP naming_endpoint_registrations_total Endpoints of this process that were put into the registry.
	// # TYPE naming_endpoint_registrations_total counter
	// naming_endpoint_registrations_total{reason="first",service="greeter"} 1
	// # HELP naming_watch_stale Services whose endpoints are stale.
	// # TYPE naming_watch_stale gauge
	// naming_watch_stale 0
}
