// Package demo has what the demonstrations share that has nothing to do with naming: a
// screen, calls that are counted, and a log to read.
package demo

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// Screen prints lines. On a terminal it also draws a table below the lines, and
// redraws the table.
type Screen struct {
	terminal bool // set once, by NewScreen

	mu    sync.Mutex
	w     io.Writer // guarded by mu
	drawn int       // the number of the table's lines on the terminal; guarded by mu
}

// NewScreen returns a screen on w. Only a file that is a terminal gets a table.
func NewScreen(w io.Writer) *Screen {
	s := &Screen{w: w}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		s.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
	}
	return s
}

// Show redraws the table until ctx is done. It does nothing unless w is a terminal.
func (s *Screen) Show(ctx context.Context, table func() string) {
	if !s.terminal {
		return
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		text := table()
		s.mu.Lock()
		s.erase()
		fmt.Fprint(s.w, text)
		s.drawn = strings.Count(text, "\n")
		s.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.mu.Lock()
			s.erase()
			s.mu.Unlock()
			return
		}
	}
}

// erase removes the table. The caller holds s.mu.
func (s *Screen) erase() {
	if s.drawn > 0 {
		fmt.Fprintf(s.w, "\x1b[%dA\x1b[J", s.drawn)
		s.drawn = 0
	}
}

// Write prints lines above the table, such as those of the log.
func (s *Screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	return s.w.Write(p)
}

// Line prints a line above the table.
func (s *Screen) Line(text string) { fmt.Fprintln(s, text) }

// NewLogger returns a logger that writes records of a level, and above, to w. They have
// no time.
func NewLogger(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
}
