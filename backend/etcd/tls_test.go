package etcd_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/faultproxy"
	"github.com/naming-go/naming/internal/servertest"
)

// fails waits until the readers and the registrations report an error that contains the
// text.
func (f *fleet) fails(t *testing.T, text string) {
	t.Helper()
	servertest.Poll(t, "the error is not reported", func() error {
		f.mu.Lock()
		view := f.view
		f.mu.Unlock()
		if !view.Stale() || !strings.Contains(view.Err.Error(), text) {
			return fmt.Errorf("the View has the error %v", view.Err)
		}
		for _, g := range f.regs {
			if s := g.Status(); s.Registered || s.Err == nil || !strings.Contains(s.Err.Error(), text) {
				return fmt.Errorf("the status of a registration is %+v", s)
			}
		}
		return nil
	})
}

// TestCertificates replaces the certificates of servers and clients, and lets them expire,
// while endpoints are registered and watched.
func TestCertificates(t *testing.T) {
	for _, release := range releases {
		t.Run(string(release), func(t *testing.T) {
			t.Parallel()
			cluster := etcdtest.Start(t, &etcdtest.Options{Release: release, TLS: true})
			// The client gets its certificate anew at every handshake.
			var mine atomic.Pointer[tls.Certificate]
			issue := func(valid time.Duration) {
				pem := cluster.CA().Issue(t, "app", valid)
				cert, err := tls.X509KeyPair(pem, pem)
				must(t, err)
				mine.Store(&cert)
			}
			issue(time.Hour)
			f := newFleet(t, cluster, func(cfg *clientv3.Config) {
				cfg.TLS.Certificates = nil
				cfg.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return mine.Load(), nil }
			})
			check := func(t *testing.T) {
				t.Helper()
				f.back(t, 0)
				f.converge(t)
			}
			for _, c := range []struct {
				name  string
				fault func(t *testing.T)
			}{
				{"the server's is rotated", func(t *testing.T) {
					cluster.RotateCertificate(t, time.Hour)
					f.everyLink((*faultproxy.Proxy).Reset)
				}},
				{"the server's is rotated, restart", func(t *testing.T) {
					cluster.RotateCertificate(t, time.Hour)
					cluster.Restart(t)
				}},
				{"the server's has expired", func(t *testing.T) {
					cluster.RotateCertificate(t, -time.Hour)
					f.everyLink((*faultproxy.Proxy).Reset)
					f.fails(t, "expired")
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					if err := f.Apply(ctx, "svc", add("", "a:9")); err == nil || !strings.Contains(err.Error(), "expired") {
						t.Errorf("Apply: %v", err)
					}
					cluster.RotateCertificate(t, time.Hour)
				}},
				{"the client's is rotated", func(t *testing.T) {
					issue(time.Hour)
					f.everyLink((*faultproxy.Proxy).Reset)
				}},
				{"the client's has expired", func(t *testing.T) {
					issue(-time.Hour)
					f.everyLink((*faultproxy.Proxy).Reset)
					f.overdue(t)
					servertest.Poll(t, "the reader does not become stale", func() error {
						f.mu.Lock()
						defer f.mu.Unlock()
						if !f.view.Stale() {
							return errors.New("the View is fresh")
						}
						return nil
					})
					issue(time.Hour)
				}},
			} {
				t.Run(c.name, func(t *testing.T) {
					for range max(1, rounds(1)/10) {
						c.fault(t)
						check(t)
					}
				})
			}
			f.stay(t, 2*fleetTTL)
			f.converge(t)
		})
	}
}
