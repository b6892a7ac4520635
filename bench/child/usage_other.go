//go:build !linux

package child

import (
	"time"

	"github.com/naming-go/naming/bench/peer"
)

// The bench runs on Linux; elsewhere it builds.

// ProcessorTime is what this process has used since it began, 0 where that is not
// known.
func ProcessorTime() time.Duration { return 0 }

func connections(peer.Servers) int { return 0 }
