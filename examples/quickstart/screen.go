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

// screen prints lines, and on a terminal a table below them that is drawn again
// and again.
type screen struct {
	mu       sync.Mutex
	w        io.Writer
	terminal bool
	drawn    int // lines of the table that are there
}

func newScreen(w io.Writer) *screen {
	s := &screen{w: w}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		s.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
	}
	return s
}

// show draws the table until ctx is done, on a terminal.
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

// erase removes the table. s.mu is held.
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
