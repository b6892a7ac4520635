//go:build !linux

package child

import (
	"time"

	"github.com/naming-go/naming/bench/peer"
)

// The bench runs on Linux. On other systems it only builds.

// ProcessorTime returns the processor time of this process since it began. It returns 0
// where the time is not known.
func ProcessorTime() time.Duration { return 0 }

func connections(peer.Servers) int { return 0 }
