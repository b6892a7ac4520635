package otelnaming_test

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	otelnaming "github.com/naming-go/naming/observe/otel"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

var quiet = slog.New(slog.DiscardHandler)

// A server registers itself, and its metrics are collected. A real program has a
// reader that exports the metrics, to Prometheus or over OTLP.
func Example() {
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	metrics, err := otelnaming.New(&otelnaming.Options{MeterProvider: provider})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer metrics.Close()

	c := naming.New(new(memory.Store), &naming.Options{Hooks: metrics.Hooks(), Logger: quiet})
	defer c.Close()
	ctx := context.Background()
	_, err = c.Register(ctx, "greeter", naming.Endpoint{Addr: "10.0.0.7:9000"}, &naming.RegisterOptions{Wait: true, DrainDelay: -1})
	if err != nil {
		fmt.Println(err)
		return
	}

	var all metricdata.ResourceMetrics
	if err := reader.Collect(ctx, &all); err != nil {
		fmt.Println(err)
		return
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			for _, p := range m.Data.(metricdata.Sum[int64]).DataPoints {
				fmt.Println(m.Name, p.Attributes.Encoded(attribute.DefaultEncoder()), p.Value, m.Unit)
			}
		}
	}
	// Unordered output:
	// naming.endpoint.registrations naming.registration.again=false,naming.service.name=greeter 1 {registration}
	// naming.endpoint.registered naming.service.name=greeter 1 {endpoint}
	// naming.watch.stale  0 {watch}
}

// A program counts the events of its Client and logs some of them.
func ExampleMetrics_Hooks_joined() {
	metrics, err := otelnaming.New(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer metrics.Close()
	own := &naming.Hooks{
		Registered: func(info naming.RegisteredInfo) {
			fmt.Println("registered:", info.Service, info.Endpoint.ID, info.Again)
		},
	}

	c := naming.New(new(memory.Store), &naming.Options{Hooks: naming.JoinHooks(metrics.Hooks(), own), Logger: quiet})
	defer c.Close()
	_, err = c.Register(context.Background(), "greeter", naming.Endpoint{Addr: "10.0.0.7:9000"}, &naming.RegisterOptions{Wait: true, DrainDelay: -1})
	if err != nil {
		fmt.Println(err)
	}
	// Output: registered: greeter 10.0.0.7:9000 false
}
