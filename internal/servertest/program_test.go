package servertest

import (
	"strings"
	"testing"
)

// A program that fails calls its cleanups in reverse order, and Run reports false.
func TestProgram(t *testing.T) {
	for _, tt := range []struct {
		name string
		f    func(p *Program) bool
		want bool
	}{
		{"true", func(*Program) bool { return true }, true},
		{"false", func(*Program) bool { return false }, false},
		{"error", func(p *Program) bool { p.Error("no"); return true }, false},
		{"fatal", func(p *Program) bool { p.Fatalf("n%s", "o"); return true }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, order strings.Builder
			p := NewProgram("test", &out)
			ok := p.Run(func() bool {
				p.Cleanup(func() { order.WriteString("first") })
				p.Cleanup(func() { order.WriteString("second ") })
				return tt.f(p)
			})
			if ok != tt.want || p.Failed() && out.String() != "no\n" {
				t.Errorf("Run = %v, want %v; output %q", ok, tt.want, out.String())
			}
			if order.String() != "second first" {
				t.Errorf("cleanups ran in the order %q", order.String())
			}
		})
	}
}
