//go:build !linux

package child

import (
	"time"

	"github.com/naming-go/naming/bench/peer"
)

// The bench runs on Linux; elsewhere it builds.
func cpu() time.Duration { return 0 }

func connections(peer.Servers) int { return 0 }
