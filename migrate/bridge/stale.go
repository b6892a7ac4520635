package bridge

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/naming-go/naming"
)

// staleness counts the services whose sets a registry does not vouch for. A registry that
// is down is one report, and not one for each service.
type staleness struct{ services [2]atomic.Int64 }

// noteStale notes that the set of a service became stale or fresh.
func (t *term) noteStale(s *tracked, side int, status naming.Status) {
	if stale := status.Stale(); stale != s.stale[side] {
		s.stale[side] = stale
		t.countStale(s.name, side, stale, status.Err)
	}
}

// forgetStale notes that a service was dropped.
func (t *term) forgetStale(s *tracked) {
	for side, stale := range s.stale {
		if stale {
			t.countStale(s.name, side, false, nil)
		}
	}
}

// countStale reports the first service of a side that became stale, and the last one that
// became fresh.
func (t *term) countStale(service string, side int, stale bool, err error) {
	registry := t.opts.SourceName
	if side == targetSide {
		registry = t.opts.TargetName
	}
	switch {
	case stale && t.staleness.services[side].Add(1) == 1:
		t.opts.Logger.Warn("bridge: a registry's watches fail, nothing is deleted for their services", t.b.attr(),
			slog.String("registry", registry), slog.String("service", naming.SafeText(service)), slog.Any("err", naming.SafeError(err)))
	case !stale && t.staleness.services[side].Add(-1) == 0:
		t.opts.Logger.Info("bridge: all watches of a registry are fresh again", t.b.attr(), slog.String("registry", registry))
	}
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
