package consul_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/mutant"
	"github.com/naming-go/naming/internal/servertest"
)

// TestFieldC10ManyPrograms: six programs with 40 services each share one agent, which
// accepts 200 connections. Each program registers all of its services and loses none.
func TestFieldC10ManyPrograms(t *testing.T) {
	const programs, services = 6, 40
	stay := 12 * time.Second
	if mutant.Full() {
		stay = 3 * time.Minute
	}
	agent := consultest.Start(t, nil)
	var mu sync.Mutex
	var regs []*naming.Registration
	var wg sync.WaitGroup
	for p := range programs {
		config := agent.Config()
		t.Cleanup(config.Transport.CloseIdleConnections)
		client, err := consul.NewClient(config)
		if err != nil {
			t.Fatal(err)
		}
		registry := naming.New(consul.New(client, &consul.Options{Wait: 10 * time.Second}), nil)
		t.Cleanup(func() { registry.Close() })
		for i := range services {
			wg.Go(func() {
				service := fmt.Sprintf("program%d-service%d", p, i)
				reg, err := registry.Register(t.Context(), service, naming.Endpoint{Addr: fmt.Sprintf("10.0.0.%d:%d", p+1, 1000+i)},
					&naming.RegisterOptions{TTL: 15 * time.Second, DrainDelay: -1})
				if err != nil {
					t.Errorf("%s: %v", service, err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				regs = append(regs, reg)
			})
		}
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	missing := func() error {
		n, last := 0, error(nil)
		for _, reg := range regs {
			if s := reg.Status(); !s.Registered {
				n, last = n+1, s.Err
			}
		}
		if n > 0 {
			return fmt.Errorf("%d of %d are not registered: %v", n, len(regs), last)
		}
		return nil
	}
	servertest.Poll(t, "the programs do not register", missing)
	// This takes the time of several renewals.
	servertest.Throughout(t, "a registration was lost", stay, missing)
	servertest.Poll(t, "the catalogue has not all services", func() error {
		tags, _, err := agent.Client(t).Catalog().Services(nil)
		if err == nil && len(tags) != programs*services+1 {
			err = fmt.Errorf("%d services, want %d and Consul itself", len(tags), programs*services)
		}
		return err
	})
	// A program that starts now gets a connection and sees the service.
	config := agent.Config()
	t.Cleanup(config.Transport.CloseIdleConnections)
	client, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	late := naming.New(consul.New(client, nil), nil)
	t.Cleanup(func() { late.Close() })
	for v, err := range late.Watch(t.Context(), "program0-service0") {
		if err != nil {
			t.Fatal(err)
		}
		if v.Synced && len(v.Endpoints) == 1 {
			break
		}
	}
}
