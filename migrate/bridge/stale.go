package bridge

import (
	"context"
	"log/slog"
	"sync"

	"github.com/naming-go/naming"
)

// staleness counts the sets that a registry does not vouch for. A registry that is down is
// one report, and not one for each service.
type staleness struct {
	mu       sync.Mutex
	services [2]int
	lists    [2]bool // the list of services is stale
}

// add counts a set of a side that became stale or fresh: of a service, or the list of
// services. It reports whether all other sets of the side are fresh.
func (s *staleness) add(side int, list, stale bool) (alone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case list && s.lists[side] == stale:
		return false
	case list:
		s.lists[side] = stale
		return s.services[side] == 0
	case stale:
		s.services[side]++
		return s.services[side] == 1 && !s.lists[side]
	}
	s.services[side]--
	return s.services[side] == 0 && !s.lists[side]
}

// of returns how many services of a side are stale.
func (s *staleness) of(side int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.services[side]
}

// noteStale notes that the set of a service became stale or fresh.
func (t *term) noteStale(s *tracked, side int, status naming.Status) {
	if stale := status.Stale(); stale != s.stale[side] {
		s.stale[side] = stale
		t.reportStale(s.name, side, stale, status.Err)
	}
}

// forgetStale notes that a service was dropped.
func (t *term) forgetStale(s *tracked) {
	for side, stale := range s.stale {
		if stale {
			t.reportStale(s.name, side, false, nil)
		}
	}
}

// noteListStale returns a hook that notes that the list of services of a side became stale
// or fresh.
func (t *term) noteListStale(side int) func(naming.StaleInfo) {
	return func(i naming.StaleInfo) {
		if i.Service == "" {
			t.reportStale("", side, !i.Since.IsZero(), nil)
		}
	}
}

// reportStale reports the first set of a side that became stale, and the last set that
// became fresh. The list of services has no name.
func (t *term) reportStale(service string, side int, stale bool, err error) {
	if !t.staleness.add(side, service == "", stale) {
		return
	}
	registry := slog.String("registry", t.opts.SourceName)
	if side == targetSide {
		registry = slog.String("registry", t.opts.TargetName)
	}
	if stale {
		t.opts.Logger.Warn("bridge: a registry's watches fail, nothing is deleted for their services", t.b.attr(),
			registry, slog.String("service", naming.SafeText(service)), slog.Any("err", naming.SafeError(err)))
		return
	}
	t.opts.Logger.Info("bridge: all watches of a registry are fresh again", t.b.attr(), registry)
}

// demoted is a handler that lowers every record to the level debug: a Client reports each
// service, and the Bridge reports for all services together.
type demoted struct{ slog.Handler }

func (d demoted) Enabled(ctx context.Context, _ slog.Level) bool {
	return d.Handler.Enabled(ctx, slog.LevelDebug)
}

func (d demoted) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return d.Handler.Handle(ctx, r)
}

func (d demoted) WithAttrs(attrs []slog.Attr) slog.Handler {
	return demoted{d.Handler.WithAttrs(attrs)}
}

func (d demoted) WithGroup(name string) slog.Handler { return demoted{d.Handler.WithGroup(name)} }
