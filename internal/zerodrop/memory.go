package zerodrop

import (
	"errors"
	"time"

	"github.com/naming-go/naming/backend/memory"
)

// Memory returns a new registry in memory.
func Memory() Backend {
	s := new(memory.Store)
	verb := func(f func()) func() error {
		return func() error { f(); return nil }
	}
	down, broken := errors.New("no route to registry"), errors.New("connection reset")
	return Backend{
		Name:    "memory",
		Servers: s,
		Clients: s,
		Verbs: Verbs{
			Down:         verb(func() { s.Down(down) }),
			Up:           verb(s.Up),
			Silence:      verb(s.Silence),
			Speak:        verb(s.Speak),
			Delay:        func(d time.Duration) error { s.Delay(d); return nil },
			Wipe:         verb(s.Wipe),
			ExpireLeases: verb(s.ExpireAll),
			BreakWatches: verb(func() { s.Break(broken) }),
		},
	}
}
