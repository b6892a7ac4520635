package cli

import (
	"bytes"
	"strings"
	"testing"
)

// TestProgress: a terminal gets one bar, and anything else gets whole lines without escape
// sequences.
func TestProgress(t *testing.T) {
	var out bytes.Buffer
	p := (&app{Env: Env{Err: &out, Terminal: true}}).progress()
	p.show(1, 2, "greeter")
	p.show(2, 2, "greeter")
	p.end()
	p.end()
	if s := out.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, "["+strings.Repeat("#", barWidth)+"] 2 of 2  greeter\n") || !strings.Contains(s, strings.Repeat(".", barWidth/2)+"] 1 of 2") {
		t.Errorf("a terminal got %q", s)
	}
	out.Reset()
	p = (&app{Env: Env{Err: &out}}).progress()
	for i := range 1000 {
		p.show(i+1, 1000, "greeter")
	}
	p.end()
	if s := out.String(); !strings.HasSuffix(s, "1000 of 1000  greeter\n") || strings.Contains(s, "\x1b") || strings.Contains(s, "\r") {
		t.Errorf("a pipe got %q", s)
	}
}
