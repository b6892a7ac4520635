package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

// write writes a record, and fails the test with an error.
func (r *registries) write(service string, s migrate.State) migrate.State {
	r.t.Helper()
	got, err := migrate.WriteRecord(context.Background(), r.old, r.next, service, s)
	if err != nil {
		r.t.Fatal(err)
	}
	synctest.Wait()
	return got
}

// records reads the records of both registries.
func (r *registries) records() migrate.BothRecords {
	return migrate.ReadRecords(context.Background(), r.old, r.next)
}

// TestWriteRecord: a record is in both registries, with the next seq, and a source that
// reads either of them has it.
func TestWriteRecord(t *testing.T) {
	inBubble(t, func(t *testing.T, r *registries) {
		r.open()
		want := migrate.State{Phase: migrate.PreferNew, Share: 0.1, By: "ada"}
		got := r.write("greeter", want)
		want.Seq = 1
		if got != want {
			t.Errorf("wrote %+v, want %+v", got, want)
		}
		wantState(t, r.source, "greeter", want)
		both := r.records()
		for name, side := range map[string]migrate.RegistryRecords{"old": both.Old, "new": both.New} {
			if len(side.States) != 1 || side.States["greeter"] != want || side.Err != nil || len(side.Malformed) > 0 {
				t.Errorf("the %s registry has %+v", name, side)
			}
		}
		if got := r.write("*", migrate.State{Phase: migrate.Old}); got.Seq != 1 {
			t.Errorf("the first seq of another service is %d", got.Seq)
		}
		r.seq(r.old, "greeter", migrate.Union, 7)
		r.seq(r.next, "greeter", migrate.Union, 9)
		if got := r.records().Different(); !slices.Equal(got, []string{"greeter"}) {
			t.Errorf("different are %v", got)
		}
		if got := r.write("greeter", migrate.State{Phase: migrate.Shadow, Seq: 3}); got.Seq != 10 {
			t.Errorf("the seq is %d, want 10", got.Seq)
		}
		if got := r.records().Different(); len(got) > 0 {
			t.Errorf("different are %v", got)
		}
		r.want("greeter", migrate.Shadow, 10)
	})
}

// TestWriteRecordOneDown: a record that reaches one registry counts, the error says which
// registry does not have it, and to write it again repairs that registry.
func TestWriteRecordOneDown(t *testing.T) {
	for _, silent := range []bool{false, true} {
		inBubble(t, func(t *testing.T, r *registries) {
			r.write("greeter", migrate.State{Phase: migrate.Union})
			r.seq(r.next, "greeter", migrate.PreferNew, 3) // old was not reached twice
			r.open()
			if silent {
				r.next.Silence()
			} else {
				r.next.Down(errDown)
			}
			begin := time.Now()
			got, err := migrate.WriteRecord(t.Context(), r.old, r.next, "greeter", migrate.State{Phase: migrate.Shadow})
			var failed *migrate.RecordError
			if !errors.As(err, &failed) || failed.Old != nil || failed.New == nil || !failed.Counts {
				t.Fatalf("error %v, want that of the new registry", err)
			}
			wantTexts(t, err, `service "greeter": the new registry`, "counts from now on")
			if !silent && !errors.Is(err, errDown) {
				t.Errorf("the error %v does not wrap its cause", err)
			}
			if took := time.Since(begin); took > 15*time.Second {
				t.Errorf("it took %v", took)
			}
			synctest.Wait()
			r.want("greeter", migrate.Shadow, got.Seq) // also over seq 3, which could not be read
			r.next.Speak()
			r.next.Up()
			time.Sleep(time.Minute)
			synctest.Wait()
			r.want("greeter", migrate.Shadow, got.Seq)
			again := r.write("greeter", got)
			if again.Seq != got.Seq+1 || len(r.records().Different()) > 0 {
				t.Errorf("written again with seq %d after %d, different are %v", again.Seq, got.Seq, r.records().Different())
			}
		})
	}
}

// With both registries down nothing is known, and nothing counts.
func TestWriteRecordBothDown(t *testing.T) {
	inBubble(t, func(t *testing.T, r *registries) {
		r.old.Down(errDown)
		r.next.Silence()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		got, err := migrate.WriteRecord(ctx, r.old, r.next, "greeter", migrate.State{Phase: migrate.Shadow})
		var failed *migrate.RecordError
		if !errors.As(err, &failed) || failed.Counts || got != (migrate.State{}) || !errors.Is(err, errDown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wrote %+v, error %v", got, err)
		}
		wantTexts(t, err, "the old registry: ", "the new registry: ")
		wantTexts(t, migrate.ReadRecords(ctx, r.old, r.next).Err(), "the old registry: ", "the new registry: ")
		r.next.Speak()
	})
}

// TestWriteRecordAfterLoss: records of both registries were lost. A program that runs
// ignores the next record and says so, and accepts a record above the seq that it names.
func TestWriteRecordAfterLoss(t *testing.T) {
	inBubble(t, func(t *testing.T, r *registries) {
		r.seq(r.old, "greeter", migrate.Union, 12)
		r.open()
		r.old.Wipe()
		r.next.Wipe()
		r.write("greeter", migrate.State{Phase: migrate.PreferNew})
		r.want("greeter", migrate.Union, 12)
		r.wantErr(`"greeter": seq 1, and the state has seq 12`)
		r.log.want(t, "seq 12")
		r.write("greeter", migrate.State{Phase: migrate.PreferNew, Seq: 12})
		r.want("greeter", migrate.PreferNew, 13)
		r.wantErr()
	})
}

// TestWriteRecordRefuses: nothing is written that a source would not read.
func TestWriteRecordRefuses(t *testing.T) {
	inBubble(t, func(t *testing.T, r *registries) {
		for service, s := range map[string]migrate.State{
			"":                                {},
			"a":                               {Phase: 8},
			"b":                               {Share: 1.5},
			"c":                               {By: strings.Repeat("x", 257)},
			"d":                               {Seq: migrate.MaxSeq},
			migrate.CopyID("old", "e"):        {},
			strings.Repeat("f", naming.MaxID): {},
		} {
			if _, err := migrate.WriteRecord(t.Context(), r.old, r.next, service, s); !errors.Is(err, naming.ErrInvalid) {
				t.Errorf("%.10q: error %v, want ErrInvalid", service, err)
			}
		}
		r.put(r.old, "later", `{"phase":1,"format":2}`)
		_, err := migrate.WriteRecord(t.Context(), r.old, r.next, "later", migrate.State{})
		wantTexts(t, err, "a format that this version does not know")
		r.put(r.old, "broken", `{"phase":77}`)
		if got := r.write("broken", migrate.State{}); got.Seq <= 1 {
			t.Errorf("seq %d replaces a record with an unknown seq", got.Seq)
		}
		if got := r.records().Old.States; len(got) != 1 {
			t.Errorf("the old registry has %v", got)
		}
	})
}

// bare is a store in a format without metadata.
type bare struct{ naming.Store }

func (b bare) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	return fmt.Errorf("%w: the format has no metadata", naming.ErrInvalid)
}

func TestWriteRecordFormat(t *testing.T) {
	inBubble(t, func(t *testing.T, r *registries) {
		_, err := migrate.WriteRecord(t.Context(), bare{r.old}, r.next, "greeter", migrate.State{})
		wantTexts(t, err, "the old registry: ", "the format has no metadata", "in the default format of its backend", "counts")
		if !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("error %v, want ErrInvalid", err)
		}
	})
}

// TestWriteRecordRandom: writers, faults and sources at random. A source never goes back
// to a lower seq, and when all is quiet, all sources have the state that counts.
func TestWriteRecordRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	inBubble(t, func(t *testing.T, r *registries) {
		var sources []migrate.Source
		for range 3 {
			r.open()
			watchSeq(t, r.source)
			sources = append(sources, r.source)
		}
		var wg sync.WaitGroup
		for i := range 2 {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			wg.Go(func() { r.writeAtRandom(random) })
		}
		wg.Wait()
		r.old.Up()
		r.next.Up()
		time.Sleep(time.Minute)
		want := r.write("greeter", sources[0].Services()["greeter"])
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, s := range sources {
			wantState(t, s, "greeter", want)
			if got := s.Services(); !maps.Equal(got, r.records().States()) {
				t.Errorf("seed %d: a source has %v, and the registries %v", seed, got, r.records().States())
			}
		}
	})
}

// writeAtRandom writes records while registries fail.
func (r *registries) writeAtRandom(random *rand.Rand) {
	for range 200 {
		store := r.old
		if random.IntN(2) == 0 {
			store = r.next
		}
		switch random.IntN(8) {
		case 0:
			store.Down(errDown)
		case 1, 2:
			store.Up()
		case 3:
			store.Break(errDown)
		default:
			_, _ = migrate.WriteRecord(context.Background(), r.old, r.next, "greeter", migrate.State{Phase: migrate.Phase(random.IntN(8))})
		}
		time.Sleep(time.Duration(random.IntN(int(3 * time.Second))))
	}
}

// watchSeq fails t when a source goes back to a state that counts less.
func watchSeq(t *testing.T, s migrate.Source) {
	var mu sync.Mutex
	var last migrate.State
	t.Cleanup(s.Notify(func() {
		mu.Lock()
		defer mu.Unlock()
		now, _ := s.State("greeter")
		if !migrate.Supersedes(now, last) {
			t.Errorf("%+v follows %+v", now, last)
		}
		last = now
	}))
}
