package devetcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newLogger returns a logger for etcd that writes to log. What ends the process is an error. The
// rest is for people who look for a fault, because etcd warns of each slow disk.
func newLogger(log *slog.Logger, f *fatal) *zap.Logger {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return zap.New(core{log: log, fatal: f}, zap.WithFatalHook(f), zap.WithPanicHook(f))
}

// fatal is the hook of entries that end the process. While etcd starts, such an entry is an error
// of the start instead.
type fatal struct {
	err     chan error // gets the first of the errors
	started atomic.Bool
}

func newFatal() *fatal { return &fatal{err: make(chan error, 1)} }

// OnWrite implements zapcore.CheckWriteHook.
func (f *fatal) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	if f.started.Load() {
		os.Exit(1) // the entry is logged
	}
	err := errors.New("etcd: " + e.Message)
	for _, field := range fields {
		if cause, ok := field.Interface.(error); ok {
			err = fmt.Errorf("etcd: %s: %w", e.Message, cause)
		}
	}
	select {
	case f.err <- err:
	default:
	}
	select {} // the deferred calls of etcd would panic if the goroutine ended
}

// core is a zapcore.Core on a slog.Logger.
type core struct {
	log    *slog.Logger
	fatal  *fatal
	fields []zapcore.Field
}

func levelOf(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.DPanicLevel:
		return slog.LevelError
	case l >= zapcore.WarnLevel:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

func (c core) Enabled(l zapcore.Level) bool { return c.log.Enabled(context.Background(), levelOf(l)) }

func (c core) With(fields []zapcore.Field) zapcore.Core {
	c.fields = append(c.fields[:len(c.fields):len(c.fields)], fields...)
	return c
}

func (c core) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) && (c.fatal.started.Load() || e.Level < zapcore.DPanicLevel) {
		return checked.AddCore(e, c)
	}
	return checked
}

func (c core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(c.fields[:len(c.fields):len(c.fields)], fields...) {
		f.AddTo(enc)
	}
	var attrs []slog.Attr
	for name, v := range enc.Fields {
		attrs = append(attrs, slog.Any(name, v))
	}
	c.log.LogAttrs(context.Background(), levelOf(e.Level), "etcd: "+e.Message, attrs...)
	return nil
}

func (core) Sync() error { return nil }
