package migrate_test

import (
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/migrate"
)

// TestChangesAfterAnOutage: a reader shows what changes after both registries were down as
// soon as they can be read, as a Client on one registry does. The registries need not have
// proved themselves.
func TestChangesAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := new(memory.Store), new(memory.Store)
		j, err := migrate.Join(old, next, migrate.Fixed(migrate.State{Phase: migrate.Union}), &migrate.Options{Client: naming.Options{Logger: slog.New(slog.DiscardHandler)}})
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		put := func(addr string) {
			t.Helper()
			if err := old.Apply(t.Context(), "svc", naming.Change{Endpoint: naming.Endpoint{Addr: addr}}); err != nil {
				t.Fatal(err)
			}
		}
		put("a:1")
		f, err := j.Follow("svc", func() {})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, s := range []*memory.Store{old, next} {
			s.Down(io.ErrUnexpectedEOF)
		}
		time.Sleep(10 * time.Minute)
		for _, s := range []*memory.Store{old, next} {
			s.Up()
		}
		f.Retry()
		time.Sleep(2 * time.Second)
		put("b:1")
		synctest.Wait()
		v, _, _ := f.Current()
		if len(v.Endpoints) != 2 {
			t.Errorf("two seconds after an outage the reader has %v", v.Endpoints)
		}
	})
}
