package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// screen prints lines. On a terminal it also draws a table below the lines, and
// redraws the table.
type screen struct {
	terminal bool // set once, by newScreen

	mu    sync.Mutex
	w     io.Writer // guarded by mu
	drawn int       // the number of the table's lines on the terminal; guarded by mu
}

func newScreen(w io.Writer) *screen {
	s := &screen{w: w}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		s.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
	}
	return s
}

// show redraws the table until ctx is done. It does nothing unless w is a terminal.
func (s *screen) show(ctx context.Context, table func() string) {
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
func (s *screen) erase() {
	if s.drawn > 0 {
		fmt.Fprintf(s.w, "\x1b[%dA\x1b[J", s.drawn)
		s.drawn = 0
	}
}

// Write prints lines above the table, such as those of the log.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	return s.w.Write(p)
}

func (s *screen) line(text string) { fmt.Fprintln(s, text) }
