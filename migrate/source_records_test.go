package migrate_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/migrate"
)

var errDown = errors.New("the registry is down")

// registries are two registries in memory, and a Source of their records.
type registries struct {
	t         *testing.T
	old, next *memory.Store
	source    migrate.Source
	calls     *atomic.Int64
	log       logLines
}

// inBubble runs f with two empty registries and no source, in a bubble.
func inBubble(t *testing.T, f func(t *testing.T, r *registries)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(t, &registries{t: t, old: new(memory.Store), next: new(memory.Store)})
	})
}

// open begins to read the records, and waits until all goroutines wait. The calls until
// then do not count, as the first may be made before counter registers its function.
func (r *registries) open() {
	r.t.Helper()
	source, err := migrate.Records(r.old, r.next, &migrate.RecordsOptions{Logger: r.log.logger()})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(source.Close)
	r.source, r.calls = source, counter(r.t, source)
	synctest.Wait()
	r.calls.Store(0)
}

// reopen replaces the source, as a restart of the program does.
func (r *registries) reopen() {
	r.t.Helper()
	r.source.Close()
	r.open()
}

// put puts a record into one registry, with the metadata as they are.
func (r *registries) put(store naming.Store, service, metadata string) {
	r.t.Helper()
	e := naming.Endpoint{ID: service, Metadata: json.RawMessage(metadata)}
	if err := store.Apply(context.Background(), migrate.RecordService, naming.Change{Endpoint: e}); err != nil {
		r.t.Fatal(err)
	}
	synctest.Wait()
}

// seq puts a record with a phase and a seq into one registry.
func (r *registries) seq(store naming.Store, service string, phase migrate.Phase, seq uint64) {
	r.t.Helper()
	r.put(store, service, fmt.Sprintf(`{"phase":%d,"seq":%d}`, phase, seq))
}

// want fails the test unless a service has a phase with a seq.
func (r *registries) want(service string, phase migrate.Phase, seq uint64) {
	r.t.Helper()
	wantState(r.t, r.source, service, migrate.State{Phase: phase, Seq: seq})
}

// wantErr fails the test unless the source has an error with all of the texts, or none
// without texts.
func (r *registries) wantErr(texts ...string) {
	r.t.Helper()
	wantTexts(r.t, r.source.Err(), texts...)
}

// wantTexts fails t unless an error has all of the texts, or is nil without texts.
func wantTexts(t *testing.T, err error, texts ...string) {
	t.Helper()
	if len(texts) == 0 && err != nil {
		t.Errorf("the error is %v", err)
	}
	for _, text := range texts {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("the error is %v, want %q in it", err, text)
		}
	}
}

// TestRecords: a record that either registry has counts, its changes are seen, and the
// service's own record has precedence over the record of "*".
func TestRecords(t *testing.T) {
	inBubble(t, func(t *testing.T, r *registries) {
		r.open()
		wantUnknown(t, r.source, "greeter") // both are empty: that is not the phase Old
		r.wantErr()
		r.put(r.old, "*", `{"phase":"dual-write","share":0.5,"seq":1,"by":"ada","format":1,"later":[1]}`)
		wantState(t, r.source, "greeter", migrate.State{Phase: migrate.DualWrite, Share: 0.5, Seq: 1, By: "ada"})
		r.seq(r.next, "greeter", migrate.Union, 1)
		r.want("greeter", migrate.Union, 1)
		r.seq(r.old, "greeter", migrate.Shadow, 2)
		r.want("greeter", migrate.Shadow, 2)
		wantCalls(t, r.calls, 3)
		r.put(r.old, "sparse", `{"phase":7}`)
		r.want("sparse", migrate.Done, 0)
		wantCalls(t, r.calls, 1)
		services := slices.Sorted(maps.Keys(r.source.Services()))
		if want := []string{"*", "greeter", "sparse"}; !slices.Equal(services, want) {
			t.Errorf("the services are %v, want %v", services, want)
		}
		r.seq(r.next, "greeter", migrate.Shadow, 2) // both registries have the same
		wantCalls(t, r.calls, 0)
		r.log.want(t)
	})
}

// TestRecordsSeq: the highest seq counts, and the lower phase of an equal seq, in every
// order.
func TestRecordsSeq(t *testing.T) {
	inBubble(t, func(t *testing.T, r *registries) {
		r.open()
		r.seq(r.old, "greeter", migrate.Union, 5)
		for _, lower := range []uint64{4, 0} {
			r.seq(r.old, "greeter", migrate.Done, lower)
			r.want("greeter", migrate.Union, 5)
			r.wantErr(`"greeter": seq ` + fmt.Sprint(lower) + ", and the state has seq 5")
		}
		r.seq(r.next, "greeter", migrate.Old, 4)
		r.want("greeter", migrate.Union, 5)
		r.seq(r.next, "greeter", migrate.PreferNew, 5)
		r.want("greeter", migrate.Union, 5)
		r.seq(r.next, "greeter", migrate.Shadow, 5)
		r.want("greeter", migrate.Shadow, 5)
		r.wantErr()
		r.seq(r.old, "greeter", migrate.NewRead, 6)
		r.want("greeter", migrate.NewRead, 6)
	})
}

// TestRecordsKept: no loss of records changes a state while the program runs: a registry
// that is wiped, down, silent, lagging, or both of them, and a record that is deleted.
func TestRecordsKept(t *testing.T) {
	for name, lose := range map[string]func(r *registries){
		"one wiped":  func(r *registries) { r.next.Wipe() },
		"both wiped": func(r *registries) { r.old.Wipe(); r.next.Wipe() },
		"one down":   func(r *registries) { r.next.Down(errDown) },
		"both down":  func(r *registries) { r.old.Down(errDown); r.next.Down(errDown) },
		"both silent": func(r *registries) {
			r.old.Silence()
			r.next.Silence()
		},
		"deleted": func(r *registries) {
			for _, s := range []*memory.Store{r.old, r.next} {
				_ = s.Apply(context.Background(), migrate.RecordService, naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: "greeter"}})
			}
		},
		"restored": func(r *registries) {
			for _, s := range []*memory.Store{r.old, r.next} {
				s.Wipe()
				r.seq(s, "greeter", migrate.Old, 3)
			}
		},
		"malformed": func(r *registries) {
			r.put(r.old, "greeter", `{"phase":9,"seq":100}`)
			r.put(r.next, "greeter", `"x"`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *registries) {
				r.seq(r.old, "greeter", migrate.NewRead, 12)
				r.seq(r.next, "greeter", migrate.NewRead, 12)
				r.open()
				lose(r)
				time.Sleep(time.Hour)
				synctest.Wait()
				r.want("greeter", migrate.NewRead, 12)
				wantCalls(t, r.calls, 0)
				r.old.Speak()
				r.next.Speak()
			})
		})
	}
}

// TestRecordsBack: what was written to the other registry during an outage counts, and so
// does what the registry has when it is back.
func TestRecordsBack(t *testing.T) {
	inBubble(t, func(t *testing.T, r *registries) {
		r.seq(r.old, "greeter", migrate.Union, 1)
		r.open()
		r.old.Down(errDown)
		synctest.Wait()
		r.wantErr("registry old: ", errDown.Error())
		if !errors.Is(r.source.Err(), errDown) {
			t.Errorf("the error %v does not wrap its cause", r.source.Err())
		}
		r.seq(r.next, "greeter", migrate.PreferNew, 2)
		r.want("greeter", migrate.PreferNew, 2)
		r.old.Up()
		time.Sleep(time.Minute)
		synctest.Wait()
		r.want("greeter", migrate.PreferNew, 2) // old has the older record
		r.wantErr()
		r.reopen()
		r.want("greeter", migrate.PreferNew, 2)
		r.next.Wipe()
		synctest.Wait()
		r.want("greeter", migrate.PreferNew, 2)
		r.wantErr("greeter") // the record that is left would be older after a restart
		r.reopen()
		r.want("greeter", migrate.Union, 1)
		r.wantErr()
	})
}

// TestRecordsStart: all states are unknown until both registries have answered, or two
// seconds after the first answer.
func TestRecordsStart(t *testing.T) {
	inBubble(t, func(t *testing.T, r *registries) {
		r.seq(r.old, "greeter", migrate.Old, 3)
		r.seq(r.next, "greeter", migrate.Done, 4)
		r.next.Delay(time.Second)
		r.open()
		wantUnknown(t, r.source, "greeter")
		r.wantErr("registry new has not answered")
		time.Sleep(time.Second)
		synctest.Wait()
		r.want("greeter", migrate.Done, 4)
		wantCalls(t, r.calls, 1)
		r.wantErr()
	})
	inBubble(t, func(t *testing.T, r *registries) {
		r.seq(r.old, "greeter", migrate.Old, 3)
		r.seq(r.next, "greeter", migrate.Done, 4)
		r.old.Down(errDown)
		r.next.Down(errDown)
		r.open()
		time.Sleep(time.Minute)
		wantUnknown(t, r.source, "greeter") // no registry has answered
		r.wantErr("registry old", "registry new")
		r.old.Up()
		time.Sleep(31 * time.Second) // until the old one has answered, and FirstWait
		synctest.Wait()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		r.want("greeter", migrate.Old, 3)
		wantCalls(t, r.calls, 1)
		r.next.Up()
		time.Sleep(time.Minute)
		synctest.Wait()
		r.want("greeter", migrate.Done, 4)
		wantCalls(t, r.calls, 1)
	})
}

// TestRecordsFirstWait: the time that a state stays unknown is that of the options.
func TestRecordsFirstWait(t *testing.T) {
	for option, want := range map[time.Duration]time.Duration{
		0: 2 * time.Second, 5 * time.Second: 5 * time.Second, time.Hour: time.Minute, -1: 0,
	} {
		inBubble(t, func(t *testing.T, r *registries) {
			r.seq(r.next, "greeter", migrate.Done, 4)
			r.old.Down(errDown)
			s, err := migrate.Records(r.old, r.next, &migrate.RecordsOptions{FirstWait: option, Logger: r.log.logger()})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if synctest.Wait(); want > 0 {
				time.Sleep(want - 1)
				synctest.Wait()
				wantUnknown(t, s, "greeter")
				time.Sleep(time.Nanosecond)
				synctest.Wait()
			}
			wantState(t, s, "greeter", migrate.State{Phase: migrate.Done, Seq: 4})
		})
	}
}

// TestRecordsMalformed: a record that cannot be used counts as missing, hides no other
// record, and is named by Err and in the log.
func TestRecordsMalformed(t *testing.T) {
	large := `{"phase":1,"seq":9,"x":"` + strings.Repeat("x", migrate.MaxRecord) + `"}`
	for metadata, want := range map[string]string{
		`{}`:                                     "the phase is missing",
		`{"seq":9}`:                              "the phase is missing",
		`{"phase":8,"seq":9}`:                    "not a phase",
		`{"phase":4,"share":2}`:                  "share 2 is not between 0 and 1",
		`{"phase":1,"seq":-1}`:                   "the seq is not a whole number",
		`{"phase":1,"seq":1.5}`:                  "the seq is not a whole number",
		`{"phase":1,"seq":18446744073709551615}`: "the seq is not a whole number from 0 to 9007199254740991",
		`{"phase":1,"seq":9,"format":2}`:         "a format that this version does not know: format 2",
		`{"phase":1,"format":"1"}`:               "the format is not a number",
		`{"phase":1,"format":0}`:                 "the format is not a number of 1 or more",
		`{"phase":1,"phase":7}`:                  "occurs twice",
		`[1]`:                                    "not an object",
		large:                                    "bytes; at most 4096 are allowed",
	} {
		inBubble(t, func(t *testing.T, r *registries) {
			r.seq(r.next, "good", migrate.Union, 1)
			r.put(r.old, "greeter", metadata)
			r.open()
			wantUnknown(t, r.source, "greeter")
			r.want("good", migrate.Union, 1)
			r.wantErr(`registry old: 1 records cannot be used, such as that of service "greeter": `, want)
			r.log.want(t, want)
			r.seq(r.old, "greeter", migrate.Shadow, 1)
			r.want("greeter", migrate.Shadow, 1)
			r.wantErr()
		})
	}
	inBubble(t, func(t *testing.T, r *registries) {
		e := naming.Endpoint{ID: "greeter", Addr: "a:1", Metadata: json.RawMessage(`{"phase":1}`)}
		if err := r.old.Apply(t.Context(), migrate.RecordService, naming.Change{Endpoint: e}); err != nil {
			t.Fatal(err)
		}
		r.put(r.old, strings.Repeat("x", naming.MaxServiceName+1), `{"phase":1}`)
		r.put(r.old, migrate.CopyID("old", "greeter"), `{"phase":1}`) // a bridge's copy of a record
		r.open()
		r.wantErr("2 records cannot be used", "a record has no address")
		if got := r.source.Services(); len(got) > 0 {
			t.Errorf("the services are %v", got)
		}
	})
	if n, problem := migrate.PublishLimited(); n != 1 || !strings.Contains(problem, "more than 1 services") {
		t.Errorf("a source with one place has %d states, and the problem %q", n, problem)
	}
}

// TestRecordsStorm: a writer that changes a malformed record at a high rate causes a log
// line in ten seconds.
func TestRecordsStorm(t *testing.T) {
	inBubble(t, func(t *testing.T, r *registries) {
		r.open()
		for i := range 1000 {
			r.put(r.old, "greeter", []string{`{"phase":8}`, `{"phase":9}`, `{"phase":1}`}[i%3])
			time.Sleep(100 * time.Millisecond)
		}
		if n := len(r.log.take()); n < 9 || n > 11 {
			t.Errorf("logged %d lines in 100 seconds, want about 10", n)
		}
		r.put(r.old, "greeter", `{"phase":0,"seq":1}`)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		lines := r.log.take()
		if len(lines) > 1 || len(lines) == 1 && !strings.Contains(lines[0], "can be used again") {
			t.Errorf("logged %q when all was good", lines)
		}
	})
}

// TestRecordsWithheld: a record whose endpoint the registry withholds is a record.
func TestRecordsWithheld(t *testing.T) {
	inBubble(t, func(t *testing.T, r *registries) {
		r.old.Withhold(migrate.RecordService, "greeter", naming.FailedCheck, "the agent is gone")
		r.seq(r.old, "greeter", migrate.Union, 1)
		r.open()
		r.want("greeter", migrate.Union, 1)
		r.seq(r.old, "greeter", migrate.PreferNew, 2)
		r.want("greeter", migrate.PreferNew, 2)
		if got := migrate.ReadRecords(t.Context(), r.old, r.next).States(); got["greeter"].Seq != 2 {
			t.Errorf("read %v", got)
		}
	})
}

// TestRecordsArguments: what Records refuses. One store suffices if a registry cannot be
// written.
func TestRecordsArguments(t *testing.T) {
	store := new(memory.Store)
	for _, stores := range [][2]naming.Store{{nil, nil}, {store, store}} {
		if _, err := migrate.Records(stores[0], stores[1], nil); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("error %v, want ErrInvalid", err)
		}
		if _, err := migrate.WriteRecord(t.Context(), stores[0], stores[1], "a", migrate.State{}); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("write: error %v, want ErrInvalid", err)
		}
	}
	for _, first := range []bool{true, false} {
		inBubble(t, func(t *testing.T, r *registries) {
			var old, next naming.Store = r.old, nil
			if !first {
				old, next = nil, r.next
			}
			s, err := migrate.Records(old, next, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			want, err := migrate.WriteRecord(t.Context(), old, next, "greeter", migrate.State{Phase: migrate.Union})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			wantState(t, s, "greeter", want)
			if err := s.Err(); err != nil {
				t.Error(err)
			}
		})
	}
}

// After Close nothing is called, and the states remain.
func TestRecordsClose(t *testing.T) {
	inBubble(t, func(t *testing.T, r *registries) {
		r.seq(r.old, "greeter", migrate.Union, 1)
		r.open()
		r.source.Close()
		r.source.Close()
		requests := r.old.Calls()
		r.seq(r.old, "greeter", migrate.Shadow, 2)
		time.Sleep(time.Hour)
		wantCalls(t, r.calls, 0)
		r.want("greeter", migrate.Union, 1)
		if n := r.old.Calls() - requests; n != 1 {
			t.Errorf("%d requests after Close, want that of the put", n)
		}
	})
}
