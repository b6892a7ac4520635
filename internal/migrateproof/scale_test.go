package migrateproof

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestScale: a bridge fills a registry within its limits. At full length there are 10,000
// services with 50,000 endpoints.
func TestScale(t *testing.T) {
	services, consulServices := 500, 20
	if mutant.Full() {
		services, consulServices = 10_000, 300
	}
	s, err := ScaleEtcd(t.Context(), t, services)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("etcd: %v", s)
	// The bounds are generous: a service has up to four goroutines here, and 30 KiB.
	if most := 1000 + 5*services; s.Peak.Goroutines > most {
		t.Errorf("%d goroutines, want at most %d", s.Peak.Goroutines, most)
	}
	if most := uint64(64<<20 + services*60<<10); s.Peak.Heap > most {
		t.Errorf("%d bytes, want at most %d", s.Peak.Heap, most)
	}
	if most := float64(s.Rate)*s.Took.Seconds() + float64(s.Rate); float64(s.Calls) > most {
		t.Errorf("%d calls in %v, want at most %d in a second", s.Calls, s.Took, s.Rate)
	}
	if s, err = ScaleConsul(t.Context(), t, consulServices); err != nil {
		t.Fatal(err)
	}
	t.Logf("consul: %v", s)
}
