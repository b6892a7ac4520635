package cli

import (
	"testing"
	"time"
)

// A delay of 0 turns the draining mark off. The library reads 0 as its default.
func TestNoDrainDelay(t *testing.T) {
	for flag, want := range map[time.Duration]bool{0: false, time.Second: true} {
		f := endpointFlags{drainDelay: flag}
		if got := f.options().DrainDelay; got > 0 != want || got == 0 {
			t.Errorf("--drain-delay %v is %v for the library", flag, got)
		}
	}
}
