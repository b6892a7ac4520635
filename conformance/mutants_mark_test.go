package conformance

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/naming-go/naming"
)

// markMutants are stores whose Mark has one defect each.
var markMutants = []claim{
	{"marks nothing", "MarkIsInPlace", "is not marked", func(w *wrong) {
		w.marking = func(context.Context, string, string, bool) error { return nil }
	}},
	{"marks later", "MarkIsInPlace", "after Mark had returned nil", func(w *wrong) {
		w.marking = func(ctx context.Context, service, id string, draining bool) error {
			time.AfterFunc(10*time.Millisecond, func() { _ = w.Store.Mark(context.WithoutCancel(ctx), service, id, draining) })
			return nil
		}
	}},
	{"drops the metadata of what it marks", "MarkIsInPlace", "is not marked", func(w *wrong) {
		w.marks(func(e naming.Endpoint, draining bool) naming.Endpoint {
			e.Draining, e.Metadata = draining, nil
			return e
		})
	}},
	{"ends the lease of what it marks", "MarkIsInPlace", "after its lease was revoked", func(w *wrong) {
		w.marks(func(e naming.Endpoint, draining bool) naming.Endpoint {
			e.Draining = draining
			return e
		})
	}},
	{"deletes before it marks", "MarkIsInPlace", "shows", func(w *wrong) {
		w.marking = func(ctx context.Context, service, id string, draining bool) error {
			for _, e := range w.list(ctx, service) {
				if e.ID == id {
					e.Draining = draining
					return errors.Join(w.good(ctx, service, naming.Change{Op: naming.Delete, Endpoint: e}),
						sleep(ctx, time.Second), w.good(ctx, service, naming.Change{Endpoint: e}))
				}
			}
			return naming.ErrNotFound
		}
	}},
	{"stores something although it refuses the mark", "MarkIsInPlace", "has stored something", func(w *wrong) {
		w.marking = func(ctx context.Context, service, id string, draining bool) error {
			return errors.Join(naming.ErrInvalid, w.Store.Mark(ctx, service, id, draining))
		}
	}},
	{"makes what it marks", "MarkOfNothing", "got error <nil>", func(w *wrong) {
		w.marks(func(e naming.Endpoint, draining bool) naming.Endpoint {
			if e.Addr == "" {
				e.Addr = "10.0.0.9:80"
			}
			e.Draining = draining
			return e
		})
	}},
	{"finds every entry", "MarkOfNothing", "got error <nil>", func(w *wrong) {
		w.marking = func(ctx context.Context, service, id string, draining bool) error {
			if err := w.Store.Mark(ctx, service, id, draining); !errors.Is(err, naming.ErrNotFound) {
				return err
			}
			return nil
		}
	}},
	{"stores something for a mark of nothing", "MarkOfNothing", "unwanted", func(w *wrong) {
		w.marking = func(ctx context.Context, service, id string, draining bool) error {
			err := w.Store.Mark(ctx, service, id, draining)
			if errors.Is(err, naming.ErrNotFound) {
				return errors.Join(err, w.good(ctx, service, naming.Change{Endpoint: naming.Endpoint{ID: id, Addr: "10.0.0.9:80"}}))
			}
			return err
		}
	}},
	{"accepts an empty ID", "MarkOfNothing", "invalid argument", func(w *wrong) {
		w.marking = func(ctx context.Context, service, id string, draining bool) error {
			if id == "" {
				return naming.ErrNotFound
			}
			return w.Store.Mark(ctx, service, id, draining)
		}
	}},
	{"writes what is so already", "MarkAgain", "made a watch yield", func(w *wrong) {
		w.marks(func(e naming.Endpoint, draining bool) naming.Endpoint {
			e.Draining = draining
			return e
		})
	}},
	{"returns an error for what is so already", "MarkAgain", "is so already", func(w *wrong) {
		w.marking = func(ctx context.Context, service, id string, draining bool) error {
			for _, e := range w.list(ctx, service) {
				if e.ID == id && e.Draining == draining {
					return errors.New("it is marked")
				}
			}
			return w.Store.Mark(ctx, service, id, draining)
		}
	}},
	{"replaces a malformed entry", "MarkOfMalformed", "cannot be understood", func(w *wrong) {
		w.marks(func(e naming.Endpoint, draining bool) naming.Endpoint {
			if e.Addr == "" {
				e.Addr = "10.0.0.9:80"
			}
			e.Draining = draining
			return e
		})
	}},
	{"puts what it has read before", "MarkRace", "at the same time, got", func(w *wrong) {
		w.marking = func(ctx context.Context, service, id string, draining bool) error {
			for _, e := range w.list(ctx, service) {
				if e.ID == id {
					e.Draining = draining
					return errors.Join(sleep(ctx, time.Millisecond), w.good(ctx, service, naming.Change{Endpoint: e}))
				}
			}
			return naming.ErrNotFound
		}
	}},
	{"brings back what was deleted", "MarkRace", "after a removal and Marks", func(w *wrong) {
		w.marking = func(ctx context.Context, service, id string, draining bool) error {
			for _, e := range w.list(ctx, service) {
				if e.ID == id {
					err := errors.Join(sleep(ctx, time.Millisecond), w.Store.Mark(ctx, service, id, draining))
					if errors.Is(err, naming.ErrNotFound) {
						e.Draining = draining
						return w.good(ctx, service, naming.Change{Endpoint: e})
					}
					return err
				}
			}
			return naming.ErrNotFound
		}
	}},
}

// sleep waits for d, or until ctx is done.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A Store that is not a naming.Marker keeps the contract. The checks of Mark are skipped.
func TestNoMarker(t *testing.T) {
	h := harness(nil)
	inner := h.New
	h.New = func(t *testing.T) naming.Store { return struct{ naming.Store }{inner(t)} }
	h.Calls, h.Malformed = nil, nil
	for _, name := range []string{"MarkIsInPlace", "MarkOfNothing", "MarkAgain", "MarkRace"} {
		if err := h.run(t, find(t, name)); !isSkip(err) || !strings.Contains(err.Error(), "naming.Marker") {
			t.Errorf("%s: got %v, want a skip that names naming.Marker", name, err)
		}
	}
}

// A Store may refuse marks. The checks of Mark are skipped.
func TestMarkRefused(t *testing.T) {
	h := harness(func(w *wrong) {
		w.marking = func(context.Context, string, string, bool) error { return naming.ErrInvalid }
	})
	for _, name := range []string{"MarkIsInPlace", "MarkOfNothing", "MarkAgain", "MarkOfMalformed", "MarkRace"} {
		if err := h.run(t, find(t, name)); !isSkip(err) {
			t.Errorf("%s: got %v, want a skip", name, err)
		}
	}
}
