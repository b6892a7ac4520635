package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"maps"
	"net"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/naming-go/naming"
)

func TestMutants(t *testing.T) {
	for _, m := range slices.Concat(mutants, fieldMutants, markMutants) {
		t.Run(m.name, func(t *testing.T) {
			c, h := find(t, m.check), harness(m.defect)
			for i := range runs() {
				h.Seed = uint64(i + 1)
				err := h.run(t, c)
				if err == nil {
					t.Fatalf("run %d: %s passed", i, m.check)
				}
				if !strings.Contains(err.Error(), m.says) {
					t.Fatalf("run %d: %s failed for another reason: got %q, want %q in it", i, m.check, err, m.says)
				}
				if i == 0 {
					t.Logf("%s: %v", m.check, err)
				}
			}
		})
	}
}

func TestEveryCheckHasAMutant(t *testing.T) {
	for _, c := range checks {
		if !slices.ContainsFunc(slices.Concat(mutants, fieldMutants, markMutants), func(m claim) bool { return m.check == c.name }) {
			t.Errorf("no mutant tests check %q", c.name)
		}
	}
}

// claim is a defect, the check that must find it, and a text in the failure. A check that
// fails without the text fails for another reason.
type claim struct {
	name, check, says string
	defect            func(w *wrong)
}

// mutants are stores with one defect each. A suite that fails no wrong store proves
// nothing about a good one.
var mutants = []claim{
	{"yields changes first", "FirstBatchIsSnapshot", "not a snapshot", func(w *wrong) {
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			b.Snapshot = false
			return []naming.Batch{b}
		})
	}},
	{"waits for the first endpoint", "FirstBatchIsSnapshot", "no answer within", func(w *wrong) {
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			if len(b.Put) == 0 && b.Snapshot {
				return nil
			}
			return []naming.Batch{b}
		})
	}},
	{"yields a partial snapshot", "SnapshotIsWhole", "missing", func(w *wrong) {
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			if b.Snapshot && len(b.Put) > 100 {
				b.Put = b.Put[:100]
			}
			return []naming.Batch{b}
		})
	}},
	{"yields a snapshot page by page", "SnapshotIsWhole", "missing", func(w *wrong) {
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			if !b.Snapshot || len(b.Put) <= 50 {
				return []naming.Batch{b}
			}
			return []naming.Batch{{Snapshot: true, Put: b.Put[:50]}, {Put: b.Put[50:]}}
		})
	}},
	{"reads twice for a list", "ListIsOneRead", "made 2 requests", func(w *wrong) {
		w.watch = func(ctx context.Context, service string) watchSeq {
			return func(yield func(naming.Batch, error) bool) {
				w.list(ctx, service)
				w.Store.Watch(ctx, service)(yield)
			}
		}
	}},

	{"returns before it has stored", "ApplyIsStored", "after Apply has returned nil", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			if _, err := naming.Normalize(service, changes); err != nil {
				return err
			}
			time.AfterFunc(10*time.Millisecond, func() { w.good(context.WithoutCancel(ctx), service, changes...) })
			return nil
		}
	}},
	{"returns an error for a repeated put", "ApplyAgain", "exists", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			for _, c := range changes {
				if c.Op == naming.Add && slices.ContainsFunc(w.list(ctx, service), c.Endpoint.Equal) {
					return errors.New("it exists")
				}
			}
			return w.good(ctx, service, changes...)
		}
	}},
	{"keeps the slice of changes", "ApplyKeepsNothing", "unwanted \"scribbled", func(w *wrong) {
		var last []naming.Change
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			w.mu.Lock()
			again := last
			last = changes
			w.mu.Unlock()
			return w.good(ctx, service, append(slices.Clone(again), changes...)...)
		}
	}},
	{"keeps the first of several changes of one ID", "OneIDTwice", "several changes of one ID", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			var firsts []naming.Change
			for _, c := range changes {
				if !slices.ContainsFunc(firsts, func(f naming.Change) bool { return f.Endpoint.ID == c.Endpoint.ID }) {
					firsts = append(firsts, c)
				}
			}
			return w.good(ctx, service, firsts...)
		}
	}},
	{"refuses several changes of one ID", "OneIDTwice", "duplicate", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			for i, c := range changes {
				if slices.ContainsFunc(changes[:i], func(f naming.Change) bool { return f.Endpoint.ID == c.Endpoint.ID }) {
					return errors.New("duplicate key")
				}
			}
			return w.good(ctx, service, changes...)
		}
	}},
	{"returns an error for a delete of nothing", "DeleteOfNothing", "not found", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			for _, c := range changes {
				if c.Op == naming.Delete && !slices.ContainsFunc(w.list(ctx, service), func(e naming.Endpoint) bool { return e.ID == c.Endpoint.ID }) {
					return errors.New("not found")
				}
			}
			return w.good(ctx, service, changes...)
		}
	}},
	{"drops metadata that is not JSON", "InvalidIsRefused", "got no error", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			changes = slices.Clone(changes)
			for i, c := range changes {
				if !json.Valid(c.Endpoint.Metadata) {
					changes[i].Endpoint.Metadata = nil
				}
			}
			return w.good(ctx, service, changes...)
		}
	}},
	{"stores the changes before an invalid one", "InvalidIsRefused", "after everything was refused", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			for _, c := range changes {
				if err := w.good(ctx, service, c); err != nil {
					return err
				}
			}
			return nil
		}
	}},
	{"returns an unavailable error for invalid changes", "InvalidIsRefused", "does not wrap", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			if err := w.good(ctx, service, changes...); err != nil {
				return errors.New(err.Error())
			}
			return nil
		}
	}},
	{"watches a service without a name", "InvalidIsRefused", "it yielded", func(w *wrong) {
		w.watch = func(ctx context.Context, service string) watchSeq {
			if naming.CheckService(service) != nil {
				service = "unknown"
			}
			return w.Store.Watch(ctx, service)
		}
	}},
	{"ignores the lease of another store", "ForeignLeaseIsRefused", "got no error", func(w *wrong) {
		w.changes(func(c naming.Change) naming.Change {
			if _, ok := c.Lease.(foreignLease); ok {
				c.Lease = nil
			}
			return c
		})
	}},

	{"shows only the puts after its start", "PutIsSeen", "does not have", func(w *wrong) {
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			if b.Snapshot {
				b.Put = nil
			}
			return []naming.Batch{b}
		})
	}},
	{"drops every 7th delta", "EveryChangeArrives", "does not show the wanted state", func(w *wrong) {
		w.batches(func(string) func(naming.Batch) []naming.Batch {
			n := 0
			return func(b naming.Batch) []naming.Batch {
				if n++; n%8 == 0 {
					return nil
				}
				return []naming.Batch{b}
			}
		})
	}},
	{"loses a change of metadata", "PutReplaces", "does not show the wanted state", func(w *wrong) {
		w.batches(func(string) func(naming.Batch) []naming.Batch {
			state, applyBatch := known()
			return func(b naming.Batch) []naming.Batch {
				before := clone(state)
				applyBatch(b)
				if !b.Snapshot {
					b.Put = slices.DeleteFunc(b.Put, func(e naming.Endpoint) bool {
						old, ok := before[e.ID]
						return ok && old.Addr == e.Addr
					})
				}
				return only(b)
			}
		})
	}},
	{"loses a change of address", "AddressChange", "does not show the wanted state", func(w *wrong) {
		w.batches(func(string) func(naming.Batch) []naming.Batch {
			state, applyBatch := known()
			return func(b naming.Batch) []naming.Batch {
				for i, e := range b.Put {
					if old, ok := state[e.ID]; ok && !b.Snapshot {
						b.Put[i].Addr = old.Addr
					}
				}
				applyBatch(b)
				return only(b)
			}
		})
	}},
	{"shows the old address too", "AddressChange", "a state that the service does not have", func(w *wrong) {
		w.batches(func(string) func(naming.Batch) []naming.Batch {
			state, applyBatch := known()
			return func(b naming.Batch) []naming.Batch {
				for _, e := range b.Put {
					if old, ok := state[e.ID]; ok && old.Addr != e.Addr {
						old.ID += " " + old.Addr
						b.Put = append(b.Put, old)
					}
				}
				applyBatch(b)
				return only(b)
			}
		})
	}},
	{"merges endpoints of one address", "EqualAddresses", "missing", func(w *wrong) {
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			seen := make(map[string]bool)
			b.Put = slices.DeleteFunc(b.Put, func(e naming.Endpoint) bool {
				defer func() { seen[e.Addr] = true }()
				return seen[e.Addr]
			})
			return only(b)
		})
	}},
	{"shows a delete as a put", "DeleteRemoves", "does not show the wanted state", func(w *wrong) {
		w.batches(func(string) func(naming.Batch) []naming.Batch {
			state, applyBatch := known()
			return func(b naming.Batch) []naming.Batch {
				for _, id := range b.Deleted {
					if e, ok := state[id]; ok {
						b.Put = append(b.Put, e)
					}
				}
				applyBatch(b)
				b.Deleted = nil
				return only(b)
			}
		})
	}},
	{"makes changes one by one", "AtomicBatch", "a state that the service does not have", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			for _, c := range changes {
				if err := w.good(ctx, service, c); err != nil {
					return err
				}
				time.Sleep(time.Millisecond)
			}
			return nil
		}
	}},
	{"yields deletions before additions", "AtomicBatch", "a state that the service does not have", func(w *wrong) {
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			if len(b.Put) > 0 && len(b.Deleted) > 0 {
				return []naming.Batch{{Deleted: b.Deleted}, {Put: b.Put}}
			}
			return []naming.Batch{b}
		})
	}},
	{"forgets deletions in a batch that also adds", "AtomicBatch", "a state that the service does not have", func(w *wrong) {
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			if len(b.Put) > 0 {
				b.Deleted = nil
			}
			return []naming.Batch{b}
		})
	}},
	{"begins a second watch from an older state", "SnapshotIsNotOlder", "after another watch has shown the newer state", func(w *wrong) {
		before := make(map[string][]naming.Endpoint)
		watches := 0
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			eps := w.list(ctx, service)
			w.mu.Lock()
			before[service] = eps
			w.mu.Unlock()
			return w.good(ctx, service, changes...)
		}
		w.watch = func(ctx context.Context, service string) watchSeq {
			return func(yield func(naming.Batch, error) bool) {
				w.mu.Lock()
				watches++
				lag, old := watches > 1, slices.Clone(before[service])
				w.mu.Unlock()
				defer func() { w.mu.Lock(); defer w.mu.Unlock(); watches-- }()
				if lag && !yield(naming.Batch{Snapshot: true, Put: old}, nil) {
					return
				}
				w.Store.Watch(ctx, service)(yield)
			}
		}
	}},
	{"makes Apply wait for slow loops", "SlowReader", "while the loop of another watch is slow", func(w *wrong) {
		yielding := 0
		add := func(n int) int {
			w.mu.Lock()
			defer w.mu.Unlock()
			yielding += n
			return yielding
		}
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			for add(0) > 0 && ctx.Err() == nil {
				time.Sleep(10 * time.Millisecond)
			}
			return w.good(ctx, service, changes...)
		}
		w.watch = func(ctx context.Context, service string) watchSeq {
			return func(yield func(naming.Batch, error) bool) {
				for b, err := range w.Store.Watch(ctx, service) {
					add(1)
					more := yield(b, err)
					add(-1)
					if !more {
						return
					}
				}
			}
		}
	}},
	{"reuses the slices of its batches", "BatchIsTheReceivers", "when it was yielded", func(w *wrong) {
		w.batches(func(string) func(naming.Batch) []naming.Batch {
			buf := make([]naming.Endpoint, 0, 100)
			return func(b naming.Batch) []naming.Batch {
				buf = append(buf[:0], b.Put...)
				b.Put = buf
				return []naming.Batch{b}
			}
		})
	}},
	{"shares its own state with its batches", "BatchIsTheReceivers", "scribbled", func(w *wrong) {
		w.batches(func(string) func(naming.Batch) []naming.Batch {
			var state []naming.Endpoint
			return func(b naming.Batch) []naming.Batch {
				if b.Snapshot {
					state = b.Put
					return []naming.Batch{b}
				}
				changed := func(e naming.Endpoint) bool {
					return slices.Contains(b.Deleted, e.ID) || slices.ContainsFunc(b.Put, func(p naming.Endpoint) bool { return p.ID == e.ID })
				}
				state = append(slices.DeleteFunc(slices.Clone(state), changed), b.Put...)
				return []naming.Batch{{Snapshot: true, Put: state}}
			}
		})
	}},

	{"confuses names with a common prefix", "ServicesAreApart", "", func(w *wrong) {
		names := make(map[string]bool)
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			w.mu.Lock()
			names[service] = true
			w.mu.Unlock()
			return w.good(ctx, service, changes...)
		}
		w.each(func(service string, b naming.Batch) []naming.Batch {
			w.mu.Lock()
			others := slices.Sorted(maps.Keys(names))
			w.mu.Unlock()
			for _, other := range others {
				if b.Snapshot && other != service && strings.HasPrefix(other, service) {
					for _, e := range w.list(context.Background(), other) {
						e.ID = strings.TrimPrefix(other, service) + e.ID
						b.Put = append(b.Put, e)
					}
				}
			}
			return []naming.Batch{b}
		})
	}},
	{"treats an ID with a slash as part of the name", "ServicesAreApart", "", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			changes, err := naming.Normalize(service, changes)
			if err != nil {
				return err
			}
			for _, c := range changes {
				name, id := service, c.Endpoint.ID
				if i := strings.LastIndexByte(id, '/'); i > 0 && service == "a" {
					name, c.Endpoint.ID = service+"/"+id[:i], id[i+1:]
				}
				if err := w.good(ctx, name, c); err != nil {
					return err
				}
			}
			return nil
		}
	}},
	{"folds the case of names", "ServicesAreApart", "", func(w *wrong) { w.names(strings.ToLower) }},
	{"folds the case of names beyond ASCII", "ServicesAreApart", "", func(w *wrong) {
		w.names(func(s string) string { return strings.ReplaceAll(s, "\u212a", "K") })
	}},
	{"cleans names as paths", "ServicesAreApart", "", func(w *wrong) { w.names(path.Clean) }},
	{"cuts names at a NUL", "ServicesAreApart", "", func(w *wrong) {
		w.names(func(s string) string {
			if before, _, ok := strings.Cut(s, "\x00"); ok && before != "" {
				return before
			}
			return s
		})
	}},
	{"trims names", "ServicesAreApart", "", func(w *wrong) {
		w.names(func(s string) string { return strings.TrimSuffix(s, " ") + "." })
	}},
	{"unescapes names", "ServicesAreApart", "", func(w *wrong) {
		w.names(func(s string) string {
			if u, err := url.PathUnescape(s); err == nil {
				return u
			}
			return s
		})
	}},
	{"cuts long names", "ServicesAreApart", "", func(w *wrong) {
		w.names(func(s string) string { return s[:min(len(s), 255)] })
	}},
	{"unescapes IDs", "IDsRoundTrip", "", func(w *wrong) {
		w.changes(func(c naming.Change) naming.Change {
			if u, err := url.PathUnescape(c.Endpoint.ID); err == nil {
				c.Endpoint.ID = u
			}
			return c
		})
	}},
	{"keeps only the last element of an ID", "IDsRoundTrip", "", func(w *wrong) {
		w.changes(func(c naming.Change) naming.Change {
			if base := path.Base(c.Endpoint.ID); base != "/" {
				c.Endpoint.ID = base
			}
			return c
		})
	}},
	{"splits and joins IPv6 addresses", "AddressesRoundTrip", "", func(w *wrong) {
		w.changes(func(c naming.Change) naming.Change {
			if host, port, err := net.SplitHostPort(c.Endpoint.Addr); err == nil {
				c.Endpoint.Addr = host + ":" + port
			}
			return c
		})
	}},
	{"cuts the scheme off unix addresses", "AddressesRoundTrip", "", func(w *wrong) {
		w.changes(func(c naming.Change) naming.Change {
			c.Endpoint.Addr = strings.Replace(c.Endpoint.Addr, "unix:///", "unix:/", 1)
			return c
		})
	}},
	{"decodes numbers as float64", "MetadataRoundTrip", "", func(w *wrong) {
		w.metadata(func(m json.RawMessage) json.RawMessage {
			var v any
			if json.Unmarshal(m, &v) != nil {
				return m
			}
			m, _ = json.Marshal(v)
			return m
		})
	}},
	{"rounds large numbers", "MetadataRoundTrip", "12345678901234567890", func(w *wrong) {
		w.metadata(func(m json.RawMessage) json.RawMessage {
			return bytes.ReplaceAll(m, []byte("12345678901234567890"), []byte("12345678901234567000"))
		})
	}},
	{"escapes for HTML", "MetadataRoundTrip", "", func(w *wrong) {
		w.metadata(func(m json.RawMessage) json.RawMessage {
			if bytes.ContainsAny(m, "<>") {
				return json.RawMessage(strings.ReplaceAll(html.EscapeString(string(m)), "&#34;", `"`))
			}
			return m
		})
	}},
	{"treats empty metadata as none", "MetadataRoundTrip", "", func(w *wrong) {
		w.metadata(func(m json.RawMessage) json.RawMessage {
			if slices.Contains([]string{`{}`, `[]`, `""`, `0`, `false`}, string(m)) {
				return nil
			}
			return m
		})
	}},
	{"cuts long metadata", "MetadataRoundTrip", "", func(w *wrong) {
		w.metadata(func(m json.RawMessage) json.RawMessage {
			if len(m) > 4096 && m[0] == '"' {
				return append(m[:512:512], '"')
			}
			return m
		})
	}},
	{"turns the members of metadata into strings", "MetadataRoundTrip", "", func(w *wrong) {
		w.metadata(func(m json.RawMessage) json.RawMessage {
			var o map[string]any
			if json.Unmarshal(m, &o) != nil {
				return m
			}
			for k, v := range o {
				o[k] = fmt.Sprint(v)
			}
			m, _ = json.Marshal(o)
			return m
		})
	}},

	{"maps to the endpoint that was put, and not to what is read", "MapAgrees", "not what Map said", func(w *wrong) {
		w.changes(func(c naming.Change) naming.Change {
			if path, ok := strings.CutPrefix(c.Endpoint.Addr, "unix:///"); ok {
				c.Endpoint.Addr = "unix:/" + path
			}
			return c
		})
	}},
	{"maps to metadata without the reserved members", "MapAgrees", "not what Map said", func(w *wrong) {
		w.maps(func(e naming.Endpoint) naming.Endpoint {
			if bytes.Contains(e.Metadata, []byte("weight")) {
				e.Metadata = nil
			}
			return e
		})
	}},
	{"maps to an endpoint without its draining mark", "MapAgrees", "not what Map said", func(w *wrong) {
		w.maps(func(e naming.Endpoint) naming.Endpoint { e.Draining = false; return e })
	}},
	{"maps to an endpoint whose writer has no draining mark", "MapAgrees", "and Map said true", func(w *wrong) {
		w.maps(func(e naming.Endpoint) naming.Endpoint { e.NoDrainingMark = true; return e })
	}},
	{"maps an empty ID to an empty ID", "MapAgrees", "different IDs", func(w *wrong) {
		w.mapping = func(service string, e naming.Endpoint) (naming.Endpoint, error) {
			got, err := w.Store.Map(service, e)
			if e.ID == "" {
				got.ID, got.Addr = "", ""
			}
			return got, err
		}
	}},
	{"maps what Apply refuses", "MapAgrees", "an Apply failed of endpoints that Map does not refuse", func(w *wrong) {
		w.mapping = func(_ string, e naming.Endpoint) (naming.Endpoint, error) {
			if e.ID == "" {
				e.ID = e.Addr
			}
			return e, nil
		}
	}},
	{"refuses to map what Apply stores", "MapAgrees", "which Map refuses", func(w *wrong) {
		w.mapping = func(service string, e naming.Endpoint) (naming.Endpoint, error) {
			if e.Draining {
				return e, naming.ErrInvalid
			}
			return w.Store.Map(service, e)
		}
	}},
	{"maps nothing while it is unavailable", "MapAgrees", "does not wrap", func(w *wrong) {
		w.mapping = func(string, naming.Endpoint) (naming.Endpoint, error) {
			return naming.Endpoint{}, errors.New("unavailable")
		}
	}},
	{"asks the registry to map", "MapAgrees", "requests, want none", func(w *wrong) {
		w.mapping = func(service string, e naming.Endpoint) (naming.Endpoint, error) {
			w.list(context.Background(), service)
			return w.Store.Map(service, e)
		}
	}},

	{"does not sort the services", "ServicesLists", "not sorted", func(w *wrong) {
		w.lists(func(names []string) []string { slices.Reverse(names); return names })
	}},
	{"lists a service once per endpoint", "ServicesLists", "twice", func(w *wrong) {
		w.lists(func(names []string) []string {
			if i := slices.Index(names, "z"); i >= 0 {
				names = slices.Insert(names, i, "z")
			}
			return names
		})
	}},
	{"keeps services that have no endpoints", "ServicesLists", "got services", func(w *wrong) {
		seen := make(map[string]bool)
		w.lists(func(names []string) []string {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, name := range names {
				seen[name] = true
			}
			return slices.Sorted(maps.Keys(seen))
		})
	}},
	{"lists the services only once", "ServicesLists", "got services", func(w *wrong) {
		w.services = func(ctx context.Context) namesSeq {
			return func(yield func([]string, error) bool) {
				first := true
				for names, err := range w.Store.Services(ctx) {
					if (first || err != nil) && !yield(names, err) {
						return
					}
					first = false
				}
			}
		}
	}},
	{"yields only the new services", "ServicesLists", "got services", func(w *wrong) {
		w.services = func(ctx context.Context) namesSeq {
			return func(yield func([]string, error) bool) {
				var last []string
				for names, err := range w.Store.Services(ctx) {
					fresh := slices.DeleteFunc(slices.Clone(names), func(s string) bool { return slices.Contains(last, s) })
					last = slices.Clone(names)
					if err != nil {
						fresh = nil
					}
					if !yield(fresh, err) {
						return
					}
				}
			}
		}
	}},
	{"shares its own state with its lists of services", "ServicesLists", "scribbled", func(w *wrong) {
		w.services = func(ctx context.Context) namesSeq {
			return func(yield func([]string, error) bool) {
				var last []string
				for names, err := range w.Store.Services(ctx) {
					if err == nil && len(names) == len(last)+1 {
						for _, name := range names {
							if !slices.Contains(last, name) {
								last = append(slices.Clone(last), name)
							}
						}
						names = last
					}
					last = names
					if !yield(names, err) {
						return
					}
				}
			}
		}
	}},
	{"keeps services whose endpoints expired", "ServicesFollowLeases", "got services", func(w *wrong) {
		seen := make(map[string]bool)
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			w.mu.Lock()
			for _, c := range changes {
				seen[service] = c.Op == naming.Add
			}
			w.mu.Unlock()
			return w.good(ctx, service, changes...)
		}
		w.lists(func(names []string) []string {
			w.mu.Lock()
			defer w.mu.Unlock()
			for name, ok := range seen {
				if ok && !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
			slices.Sort(names)
			return names
		})
	}},

	{"returns the remaining time as TTL", "LeaseReturnsTTL", "after Renew", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			left := l.Lease.TTL() + time.Second
			l.ttl = func() time.Duration { left--; return left }
		})
	}},
	{"returns a TTL of zero", "LeaseReturnsTTL", "has a TTL of 0s", func(w *wrong) {
		w.leases(func(l *wrongLease) { l.ttl = func() time.Duration { return 0 } })
	}},
	{"does nothing to revoke", "RevokeRemoves", "does not show the wanted state", func(w *wrong) {
		w.leases(func(l *wrongLease) { l.revoke = func(context.Context) error { return nil } })
	}},
	{"puts endpoints back after a revoke", "RevokeRemoves", "a state that the service does not have", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			l.revoke = func(ctx context.Context) error {
				if err := l.Lease.Revoke(ctx); err != nil {
					return err
				}
				time.AfterFunc(time.Second, func() {
					for _, h := range l.all() {
						w.good(context.Background(), h.service, add(nil, h.endpoint)...)
					}
				})
				return nil
			}
		})
	}},
	{"removes a whole service when a lease is revoked", "RevokeRemoves", "does not show the wanted state", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			l.revoke = func(ctx context.Context) error {
				for _, h := range l.all() {
					w.good(ctx, h.service, del(w.list(ctx, h.service)...)...)
				}
				return l.Lease.Revoke(ctx)
			}
		})
	}},
	{"cannot revoke a revoked lease", "RevokeAgain", "a lease that was revoked", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			var once sync.Once
			l.revoke = func(ctx context.Context) error {
				err := naming.ErrLeaseLost
				once.Do(func() { err = l.Lease.Revoke(ctx) })
				return err
			}
		})
	}},
	{"cannot revoke an expired lease", "RevokeAgain", "a lease that expired", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			end := time.Now().Add(l.Lease.TTL())
			l.revoke = func(ctx context.Context) error {
				if !time.Now().Before(end) {
					return errors.New("requested lease not found")
				}
				return l.Lease.Revoke(ctx)
			}
		})
	}},
	{"keeps leases alive by itself", "LeaseExpires", "that is not renewed", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			var renew func()
			renew = func() {
				if l.Lease.Renew(context.Background()) == nil {
					time.AfterFunc(l.Lease.TTL()/3, renew)
				}
			}
			renew()
		})
	}},
	{"ends leases early", "LeaseExpires", "ended after", func(w *wrong) {
		w.grant = func(ctx context.Context, ttl time.Duration) (naming.Lease, error) {
			inner, err := w.Store.Grant(ctx, ttl-ttl/10)
			if err != nil {
				return nil, err
			}
			return &wrongLease{Lease: inner, ttl: func() time.Duration { return ttl }}, nil
		}
	}},
	{"does nothing to renew", "RenewKeeps", "", func(w *wrong) {
		w.leases(func(l *wrongLease) { l.renew = func(context.Context) error { return nil } })
	}},
	{"returns nil when it renews an expired lease", "RenewAfterEnd", "after Renew has returned nil", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			l.renew = func(ctx context.Context) error {
				if err := l.Lease.Renew(ctx); !errors.Is(err, naming.ErrLeaseLost) {
					return err
				}
				return nil
			}
		})
	}},
	{"restores only a part of the endpoints of a lease", "RenewAfterEnd", "after Renew has returned nil", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			l.renew = func(ctx context.Context) error {
				err := l.Lease.Renew(ctx)
				if errors.Is(err, naming.ErrLeaseLost) && len(l.all()) > 0 {
					h := l.all()[0]
					return w.good(ctx, h.service, add(nil, h.endpoint)...)
				}
				return err
			}
		})
	}},
	{"hides that a lease is lost", "RenewAfterEnd", "does not wrap", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			l.renew = func(ctx context.Context) error {
				if err := l.Lease.Renew(ctx); errors.Is(err, naming.ErrLeaseLost) {
					return errors.New("requested lease not found")
				} else if err != nil {
					return err
				}
				return nil
			}
		})
	}},
	{"puts every endpoint again that was ever under a lease when it renews the lease", "RenewBringsNothingBack", "after Renew", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			l.renew = func(ctx context.Context) error {
				if err := l.Lease.Renew(ctx); err != nil {
					return err
				}
				for _, h := range l.all() {
					if err := w.good(ctx, h.service, add(l, h.endpoint)...); err != nil {
						return err
					}
				}
				return nil
			}
		})
	}},
	{"removes by ID when a lease is revoked", "ReplacedLeaseIsRevoked", "does not show the wanted state", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			l.revoke = func(ctx context.Context) error {
				for _, h := range l.all() {
					if err := w.good(ctx, h.service, del(h.endpoint)...); err != nil {
						return err
					}
				}
				return l.Lease.Revoke(ctx)
			}
		})
	}},
	{"leaves an endpoint under its first lease", "ReplacedLeaseIsRevoked", "does not show the wanted state", func(w *wrong) {
		first := make(map[string]naming.Lease)
		w.changes(func(c naming.Change) naming.Change {
			w.mu.Lock()
			defer w.mu.Unlock()
			if c.Op == naming.Add && c.Lease != nil && first[c.Endpoint.ID] == nil {
				first[c.Endpoint.ID] = c.Lease
			}
			if c.Op == naming.Add && c.Lease != nil {
				c.Lease = first[c.Endpoint.ID]
			}
			return c
		})
	}},
	{"removes by ID when a lease expires", "ReplacedLeaseExpires", `missing "now under another lease"`, func(w *wrong) {
		w.leases(func(l *wrongLease) {
			time.AfterFunc(l.Lease.TTL(), func() {
				for _, h := range l.all() {
					w.good(context.Background(), h.service, del(h.endpoint)...)
				}
			})
		})
	}},
	{"puts an endpoint of a lost lease under no lease", "ApplyUnderLostLease", "got no error", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			err := w.good(ctx, service, changes...)
			if errors.Is(err, naming.ErrLeaseLost) {
				changes = slices.Clone(changes)
				for i := range changes {
					changes[i].Lease = nil
				}
				return w.good(ctx, service, changes...)
			}
			return err
		}
	}},
	{"stores an endpoint of a lost lease and returns ErrLeaseLost", "ApplyUnderLostLease", "", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			err := w.good(ctx, service, changes...)
			if errors.Is(err, naming.ErrLeaseLost) {
				for _, c := range changes {
					c.Lease = nil
					w.good(ctx, service, c)
				}
			}
			return err
		}
	}},
	{"removes one service of a lease", "SharedLease", "does not show the wanted state", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			l.revoke = func(ctx context.Context) error {
				for _, h := range l.all() {
					if h.service == l.all()[0].service {
						if err := w.good(ctx, h.service, del(h.endpoint)...); err != nil {
							return err
						}
					}
				}
				return nil
			}
		})
	}},
	{"ignores the condition of a delete", "DeleteOnlyUnderLease", "", func(w *wrong) {
		w.changes(func(c naming.Change) naming.Change {
			if c.Op == naming.Delete {
				c.Lease = nil
			}
			return c
		})
	}},
	{"returns an error for a Delete whose condition does not hold", "DeleteOnlyUnderLease", "condition", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			before := len(w.list(ctx, service))
			err := w.good(ctx, service, changes...)
			if len(changes) == 1 && changes[0].Op == naming.Delete && len(w.list(ctx, service)) == before {
				return errors.New("condition does not hold")
			}
			return err
		}
	}},
	{"ignores Reclaim", "Reclaim", "", func(w *wrong) {
		w.changes(func(c naming.Change) naming.Change { c.Reclaim = false; return c })
	}},
	{"reclaims an endpoint that is under another lease", "Reclaim", "", func(w *wrong) {
		w.changes(func(c naming.Change) naming.Change { c.IfFree = c.IfFree && !c.Reclaim; c.Reclaim = false; return c })
	}},
	{"removes an endpoint that is under another lease", "Reclaim", "", func(w *wrong) {
		w.changes(func(c naming.Change) naming.Change {
			if c.Op == naming.Delete && c.Reclaim {
				c.Lease, c.Reclaim = nil, false
			}
			return c
		})
	}},
	{"ignores that a put is conditional", "PutOnlyIfFree", "", func(w *wrong) {
		w.changes(func(c naming.Change) naming.Change { c.IfFree = false; return c })
	}},
	{"skips a put of an endpoint that is under the lease already", "PutOnlyIfFree", "does not show the wanted state", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			there := w.list(ctx, service)
			return w.good(ctx, service, slices.DeleteFunc(slices.Clone(changes), func(c naming.Change) bool {
				return c.IfFree && slices.ContainsFunc(there, func(e naming.Endpoint) bool { return e.ID == c.Endpoint.ID })
			})...)
		}
	}},
	{"returns an error for an Add whose condition does not hold", "PutOnlyIfFree", "not free", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			before := sets(w.list(ctx, service)...)
			err := w.good(ctx, service, changes...)
			for _, c := range changes {
				if c.IfFree && err == nil && sets(w.list(ctx, service)...).equal(before) && !before[c.Endpoint.ID].Equal(c.Endpoint) {
					return errors.New("not free")
				}
			}
			return err
		}
	}},

	{"ends without an error", "CancelEnds", "ended without an error", func(w *wrong) {
		w.ends(func(context.Context, error, func(naming.Batch, error) bool) {})
	}},
	{"hides the error of its context at the end", "CancelEnds", "does not wrap", func(w *wrong) {
		w.ends(func(_ context.Context, err error, yield func(naming.Batch, error) bool) {
			yield(naming.Batch{}, errors.New(err.Error()))
		})
	}},
	{"ends with the cause of its context", "CancelEnds", "with a cause", func(w *wrong) {
		w.ends(func(ctx context.Context, _ error, yield func(naming.Batch, error) bool) {
			yield(naming.Batch{}, context.Cause(ctx))
		})
	}},
	{"calls a deadline a cancellation", "CancelEnds", "a context with a deadline", func(w *wrong) {
		w.ends(func(_ context.Context, _ error, yield func(naming.Batch, error) bool) {
			yield(naming.Batch{}, context.Canceled)
		})
	}},
	{"continues after its error", "CancelEnds", "continued after its error", func(w *wrong) {
		w.ends(func(_ context.Context, err error, yield func(naming.Batch, error) bool) {
			if yield(naming.Batch{}, err) {
				yield(naming.Batch{}, err)
			}
		})
	}},
	{"yields a batch with its error", "CancelEnds", "want the zero value", func(w *wrong) {
		w.ends(func(_ context.Context, err error, yield func(naming.Batch, error) bool) {
			yield(naming.Batch{Snapshot: true}, err)
		})
	}},
	{"answers after its context", "CancelEnds", "cancelled before", func(w *wrong) {
		w.watch = func(ctx context.Context, service string) watchSeq {
			return func(yield func(naming.Batch, error) bool) {
				if ctx.Err() != nil {
					if !yield(naming.Batch{Snapshot: true, Put: w.list(context.WithoutCancel(ctx), service)}, nil) {
						return
					}
				}
				w.Store.Watch(ctx, service)(yield)
			}
		}
	}},
	{"does not notice that it was cancelled", "CancelEnds", "did not end", func(w *wrong) {
		w.watch = func(ctx context.Context, service string) watchSeq {
			return func(yield func(naming.Batch, error) bool) {
				inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
				defer cancel()
				go func() { <-w.released; cancel() }()
				w.Store.Watch(inner, service)(yield)
			}
		}
	}},
	{"does not notice that a list of services was cancelled", "CancelEnds", "Services", func(w *wrong) {
		w.services = func(ctx context.Context) namesSeq {
			return func(yield func([]string, error) bool) {
				w.Store.Services(context.WithoutCancel(ctx))(yield)
			}
		}
	}},
	{"makes changes after its context", "ContextIsHonoured", "Apply", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			return w.good(context.WithoutCancel(ctx), service, changes...)
		}
	}},
	{"blocks for ever in Renew", "ContextIsHonoured", "Renew did not return", func(w *wrong) {
		w.leases(func(l *wrongLease) { l.renew = func(context.Context) error { <-w.released; return nil } })
	}},
	{"hides that the context ended", "ContextIsHonoured", "does not wrap", func(w *wrong) {
		w.grant = func(ctx context.Context, ttl time.Duration) (naming.Lease, error) {
			l, err := w.Store.Grant(ctx, ttl)
			if err != nil {
				err = errors.New(err.Error())
			}
			return l, err
		}
	}},
	{"blocks after its loop was left", "BreakReleases", "did not return", func(w *wrong) {
		w.watch = func(ctx context.Context, service string) watchSeq {
			return func(yield func(naming.Batch, error) bool) {
				for b, err := range w.Store.Watch(ctx, service) {
					if !yield(b, err) {
						<-w.released
						return
					}
				}
			}
		}
	}},
	{"yields after its loop was left", "BreakReleases", "panicked", func(w *wrong) {
		w.watch = func(ctx context.Context, service string) watchSeq {
			return func(yield func(naming.Batch, error) bool) {
				for b, err := range w.Store.Watch(ctx, service) {
					if !yield(b, err) && err == nil {
						yield(naming.Batch{}, context.Canceled)
					}
				}
			}
		}
	}},
	{"continues where its loop was left", "RangedAgain", "", func(w *wrong) {
		w.watch = func(ctx context.Context, service string) watchSeq {
			ranged := false
			return func(yield func(naming.Batch, error) bool) {
				w.mu.Lock()
				again := ranged
				ranged = true
				w.mu.Unlock()
				for b, err := range w.Store.Watch(ctx, service) {
					b.Snapshot = b.Snapshot && !again
					if !yield(b, err) {
						return
					}
				}
			}
		}
	}},
	{"can be ranged over once", "RangedAgain", "ended", func(w *wrong) {
		w.services = func(ctx context.Context) namesSeq {
			var once sync.Once
			return func(yield func([]string, error) bool) {
				once.Do(func() { w.Store.Services(ctx)(yield) })
			}
		}
	}},
	{"makes a request before it is ranged over", "NothingBeforeRange", "made 11 requests", func(w *wrong) {
		w.watch = func(ctx context.Context, service string) watchSeq {
			w.list(ctx, service)
			return w.Store.Watch(ctx, service)
		}
	}},
	{"starts a goroutine before it is ranged over", "NothingBeforeRange", "left 10 goroutines", func(w *wrong) {
		w.services = func(ctx context.Context) namesSeq {
			go func() { <-w.released }()
			return w.Store.Services(ctx)
		}
	}},
	{"leaves a goroutine behind", "NothingIsLeft", "left 10 goroutines", func(w *wrong) {
		w.watch = func(ctx context.Context, service string) watchSeq {
			return func(yield func(naming.Batch, error) bool) {
				go func() { <-w.released }()
				w.Store.Watch(ctx, service)(yield)
			}
		}
	}},
	{"leaves a goroutine behind when it is cancelled", "NothingIsLeft", "that was cancelled, 10 times", func(w *wrong) {
		w.ends(func(_ context.Context, err error, yield func(naming.Batch, error) bool) {
			go func() { <-w.released }()
			yield(naming.Batch{}, err)
		})
	}},
	{"leaves a goroutine behind for a lease", "NothingIsLeft", "a lease that was revoked", func(w *wrong) {
		w.leases(func(*wrongLease) { go func() { <-w.released }() })
	}},
	{"repeats itself when nothing happens", "Idle", "in which nothing changed", func(w *wrong) {
		w.idles(func(_ context.Context, _ string, last naming.Batch) []naming.Batch { return []naming.Batch{last} })
	}},
	{"yields empty batches when nothing happens", "Idle", "in which nothing changed", func(w *wrong) {
		w.idles(func(context.Context, string, naming.Batch) []naming.Batch { return []naming.Batch{{}} })
	}},
	{"repeats itself without end", "Idle", "repeats itself without end", func(w *wrong) {
		w.watch = func(ctx context.Context, service string) watchSeq {
			return func(yield func(naming.Batch, error) bool) {
				for ctx.Err() == nil {
					if !yield(naming.Batch{Snapshot: true, Put: w.list(ctx, service)}, nil) {
						return
					}
				}
				yield(naming.Batch{}, ctx.Err())
			}
		}
	}},
	{"polls when nothing happens", "IdleAsksNothing", "in which nothing changed", func(w *wrong) {
		w.idles(func(ctx context.Context, service string, _ naming.Batch) []naming.Batch {
			w.list(ctx, service)
			return nil
		})
	}},

	{"retries a watch", "InterruptEnds", "did not end", func(w *wrong) {
		w.watch = func(ctx context.Context, service string) watchSeq {
			return func(yield func(naming.Batch, error) bool) {
				for {
					for b, err := range w.Store.Watch(ctx, service) {
						if err != nil && ctx.Err() == nil {
							time.Sleep(100 * time.Millisecond)
							break
						}
						if !yield(b, err) || err != nil {
							return
						}
					}
				}
			}
		}
	}},
	{"calls an interruption a cancellation", "InterruptEnds", "it was not cancelled", func(w *wrong) {
		w.ends(func(_ context.Context, _ error, yield func(naming.Batch, error) bool) {
			yield(naming.Batch{}, context.Canceled)
		})
	}},
	{"stops listing services after an interruption", "InterruptEnds", "Services", func(w *wrong) {
		w.services = func(ctx context.Context) namesSeq {
			return func(yield func([]string, error) bool) {
				for names, err := range w.Store.Services(ctx) {
					if err != nil {
						<-ctx.Done()
						err = ctx.Err()
					}
					if !yield(names, err) {
						return
					}
				}
			}
		}
	}},
	{"begins after an interruption with its old state", "Recovers", "the first list after an interruption", func(w *wrong) {
		last := make(map[string]naming.Batch)
		w.watch = func(ctx context.Context, service string) watchSeq {
			return func(yield func(naming.Batch, error) bool) {
				w.mu.Lock()
				kept, ok := last[service]
				w.mu.Unlock()
				if ok && !yield(kept, nil) {
					return
				}
				state, applyBatch := known()
				for b, err := range w.Store.Watch(ctx, service) {
					if err != nil && ctx.Err() == nil {
						w.mu.Lock()
						last[service] = naming.Batch{Snapshot: true, Put: slices.Collect(maps.Values(state))}
						w.mu.Unlock()
					}
					applyBatch(b)
					if !yield(b, err) {
						return
					}
				}
			}
		}
	}},
	{"removes nothing after an interruption", "Recovers", "the first list after an interruption", func(w *wrong) {
		seen := make(set)
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			w.mu.Lock()
			defer w.mu.Unlock()
			if b.Snapshot {
				seen.put(b.Put...)
				b.Put = slices.Collect(maps.Values(seen))
			}
			return []naming.Batch{b}
		})
	}},
	{"never notices a silence", "SilenceEnds", "did not end", func(w *wrong) {
		w.ends(func(ctx context.Context, err error, yield func(naming.Batch, error) bool) {
			w.mu.Lock()
			silent := w.silent
			w.mu.Unlock()
			if silent {
				<-ctx.Done()
				err = ctx.Err()
			}
			yield(naming.Batch{}, err)
		})
	}},
	{"ignores its context in a silence", "ContextEndsSilence", "Apply", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return w.good(context.WithoutCancel(ctx), service, changes...)
		}
	}},
	{"yields an empty snapshot for a read that failed", "FailedReadIsAnError", "a batch of 0 endpoints", func(w *wrong) {
		w.watch = func(ctx context.Context, service string) watchSeq {
			return func(yield func(naming.Batch, error) bool) {
				first := true
				for b, err := range w.Store.Watch(ctx, service) {
					if first && err != nil && ctx.Err() == nil && !yield(naming.Batch{Snapshot: true}, nil) {
						return
					}
					first = false
					if !yield(b, err) {
						return
					}
				}
			}
		}
	}},
	{"yields an empty snapshot when a watch fails", "FailedReadIsAnError", "a state that the service does not have", func(w *wrong) {
		w.watch = func(ctx context.Context, service string) watchSeq {
			return func(yield func(naming.Batch, error) bool) {
				n := 0
				for b, err := range w.Store.Watch(ctx, service) {
					if n > 0 && err != nil && ctx.Err() == nil && !yield(naming.Batch{Snapshot: true}, nil) {
						return
					}
					n++
					if !yield(b, err) {
						return
					}
				}
			}
		}
	}},
	{"yields no services for a list that failed", "FailedReadIsAnError", "Services yielded", func(w *wrong) {
		w.services = func(ctx context.Context) namesSeq {
			return func(yield func([]string, error) bool) {
				for names, err := range w.Store.Services(ctx) {
					if err != nil && ctx.Err() == nil && !yield(nil, nil) {
						return
					}
					if !yield(names, err) {
						return
					}
				}
			}
		}
	}},
	{"returns ErrLeaseLost for an unavailable registry", "UnavailableIsAnError", "also wraps", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			l.renew = func(ctx context.Context) error {
				if err := l.Lease.Renew(ctx); err != nil {
					return fmt.Errorf("%w: %w", naming.ErrLeaseLost, err)
				}
				return nil
			}
		})
	}},
	{"returns ErrPermission for an unavailable registry", "UnavailableIsAnError", "also wraps", func(w *wrong) {
		w.errors(func(err error) error { return fmt.Errorf("%w: %w", naming.ErrPermission, err) })
	}},
	{"returns an unavailable error for refused credentials", "PermissionIsAnError", "does not wrap", func(w *wrong) {
		w.errors(func(err error) error {
			if errors.Is(err, naming.ErrPermission) {
				return errors.New(err.Error())
			}
			return err
		})
	}},
	{"hides the cause of an error", "ErrorsKeepCause", "wraps no error of the client library", func(w *wrong) {
		w.errors(func(err error) error {
			for _, kind := range append(kinds, context.Canceled, context.DeadlineExceeded) {
				if errors.Is(err, kind) {
					return fmt.Errorf("%w: %v", kind, err)
				}
			}
			return errors.New(err.Error())
		})
	}},

	{"hides the entries after a malformed one", "MalformedHidesNothing", "", func(w *wrong) {
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			w.mu.Lock()
			defer w.mu.Unlock()
			for id := range w.bad {
				b.Put = slices.DeleteFunc(b.Put, func(e naming.Endpoint) bool { return e.ID > id })
			}
			return []naming.Batch{b}
		})
	}},
	{"ends at a malformed entry", "MalformedHidesNothing", "gibberish", func(w *wrong) {
		w.watch = func(ctx context.Context, service string) watchSeq {
			return func(yield func(naming.Batch, error) bool) {
				for b, err := range w.Store.Watch(ctx, service) {
					w.mu.Lock()
					met := len(w.bad) > 0
					w.mu.Unlock()
					if met {
						yield(naming.Batch{}, errors.New("gibberish"))
						return
					}
					if !yield(b, err) {
						return
					}
				}
			}
		}
	}},
	{"shows a malformed entry as an endpoint", "MalformedHidesNothing", "unwanted", func(w *wrong) {
		w.each(func(service string, b naming.Batch) []naming.Batch {
			w.mu.Lock()
			defer w.mu.Unlock()
			for id := range w.bad {
				b.Put = append(b.Put, naming.Endpoint{ID: id})
				b.Deleted = slices.DeleteFunc(b.Deleted, func(d string) bool { return d == id })
			}
			return []naming.Batch{b}
		})
	}},
	{"does not report malformed entries", "MalformedIsReported", "was not reported", func(w *wrong) {
		w.report = func(*naming.MalformedError) {}
	}},
	{"reports malformed entries without their key", "MalformedIsReported", "was not reported", func(w *wrong) {
		w.report = func(m *naming.MalformedError) {
			w.reported = append(w.reported, naming.MalformedError{Service: m.Service, Err: m.Err})
		}
	}},
	{"reports malformed entries without their service", "MalformedIsReported", "want service", func(w *wrong) {
		w.report = func(m *naming.MalformedError) {
			w.reported = append(w.reported, naming.MalformedError{Key: m.Key, Err: m.Err})
		}
	}},
	{"keeps the good value that a malformed one replaced", "MalformedEndsGoodValue", "does not show the wanted state", func(w *wrong) {
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			w.mu.Lock()
			defer w.mu.Unlock()
			b.Deleted = slices.DeleteFunc(b.Deleted, func(id string) bool { return w.bad[id] })
			return only(b)
		})
	}},
	{"never shows an endpoint again whose entry was malformed", "MalformedIsPutRight", "does not show the wanted state", func(w *wrong) {
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			w.mu.Lock()
			defer w.mu.Unlock()
			b.Put = slices.DeleteFunc(b.Put, func(e naming.Endpoint) bool { return w.bad[e.ID] })
			return only(b)
		})
	}},

	{"splits a batch now and then", "AtomicStorm", "never had", func(w *wrong) {
		w.batches(func(string) func(naming.Batch) []naming.Batch {
			n := 0
			return func(b naming.Batch) []naming.Batch {
				if n++; n%9 == 0 && len(b.Put) > 1 {
					return []naming.Batch{{Snapshot: b.Snapshot, Put: b.Put[:1]}, {Put: b.Put[1:], Deleted: b.Deleted}}
				}
				return []naming.Batch{b}
			}
		})
	}},
	{"repeats an older state now and then", "NeverGoesBack", "after state", func(w *wrong) {
		w.batches(func(string) func(naming.Batch) []naming.Batch {
			n := 0
			state, applyBatch := known()
			return func(b naming.Batch) []naming.Batch {
				before := clone(state)
				applyBatch(b)
				if n++; n%9 == 0 && len(before) > 0 {
					old := naming.Batch{Snapshot: true, Put: slices.Collect(maps.Values(before))}
					now := naming.Batch{Snapshot: true, Put: slices.Collect(maps.Values(state))}
					return []naming.Batch{b, old, now}
				}
				return []naming.Batch{b}
			}
		})
	}},
	{"begins every 10th watch from an older state", "NeverGoesBack", "after state", func(w *wrong) {
		n := 0
		var older []naming.Batch
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			if !b.Snapshot {
				return []naming.Batch{b}
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			older = append(older, naming.Batch{Snapshot: true, Put: slices.Clone(b.Put)})
			if n++; n%10 == 0 {
				return []naming.Batch{older[len(older)-6], b}
			}
			return []naming.Batch{b}
		})
	}},
	{"loses a change that is made at the same time as another", "Converges", "does not show the wanted state", func(w *wrong) {
		n := 0
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			w.mu.Lock()
			n++
			lost := n > 1
			w.mu.Unlock()
			defer func() { w.mu.Lock(); defer w.mu.Unlock(); n-- }()
			time.Sleep(time.Millisecond)
			if lost {
				return nil
			}
			return w.good(ctx, service, changes...)
		}
	}},
	{"refuses concurrent calls", "AllAtOnce", "busy", func(w *wrong) {
		busy := false
		w.leases(func(l *wrongLease) {
			l.renew = func(ctx context.Context) error {
				w.mu.Lock()
				was := busy
				busy = true
				w.mu.Unlock()
				defer func() { w.mu.Lock(); defer w.mu.Unlock(); busy = was }()
				time.Sleep(time.Millisecond)
				if was {
					return errors.New("busy")
				}
				return l.Lease.Renew(ctx)
			}
		})
	}},
	{"yields the first thousand endpoints", "ManyEndpoints", "missing", func(w *wrong) {
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			b.Put = b.Put[:min(len(b.Put), 1000)]
			return []naming.Batch{b}
		})
	}},
}
