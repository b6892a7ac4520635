package cli

import (
	"fmt"
	"strings"
	"time"
)

// progress shows how far long work is: a bar on a terminal, and otherwise lines, at most one
// in a second.
type progress struct {
	app   *app
	last  time.Time
	drawn bool
}

func (a *app) progress() *progress { return &progress{app: a} }

const barWidth = 30

// show shows that done of total is done. what must be safe to print.
func (p *progress) show(done, total int, what string) {
	if !p.app.Terminal {
		if done == total || time.Since(p.last) >= time.Second {
			p.last = time.Now()
			fmt.Fprintf(p.app.Err, "%d of %d  %s\n", done, total, what)
		}
		return
	}
	full := barWidth * done / max(total, 1)
	const erase = "\r\x1b[K"
	fmt.Fprintf(p.app.Err, "%s[%s%s] %d of %d  %.40s", erase, strings.Repeat("#", full), strings.Repeat(".", barWidth-full), done, total, what)
	p.drawn = true
}

// end ends the bar.
func (p *progress) end() {
	if p.drawn {
		fmt.Fprintln(p.app.Err)
		p.drawn = false
	}
}
