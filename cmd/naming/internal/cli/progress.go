package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// progress shows how far long work is: a bar on a terminal, and otherwise lines, at most one
// in a second.
type progress struct {
	w     io.Writer
	bar   bool
	last  time.Time
	drawn bool
}

// progress returns a progress on standard error.
func (a *app) progress() *progress {
	bar := a.Terminal
	if f, ok := a.Err.(*os.File); ok {
		bar = bar && term.IsTerminal(int(f.Fd()))
	}
	return &progress{w: a.Err, bar: bar}
}

const barWidth = 30

// show shows that done of total is done. what must be safe to print.
func (p *progress) show(done, total int, what string) {
	if !p.bar {
		if done == total || time.Since(p.last) >= time.Second {
			p.last = time.Now()
			fmt.Fprintf(p.w, "%d of %d  %s\n", done, total, what)
		}
		return
	}
	full := barWidth * done / max(total, 1)
	const erase = "\r\x1b[K"
	fmt.Fprintf(p.w, "%s[%s%s] %d of %d  %.40s", erase, strings.Repeat("#", full), strings.Repeat(".", barWidth-full), done, total, what)
	p.drawn = true
}

// end ends the bar.
func (p *progress) end() {
	if p.drawn {
		fmt.Fprintln(p.w)
		p.drawn = false
	}
}
