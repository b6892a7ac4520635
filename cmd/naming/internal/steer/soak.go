package steer

import (
	"context"
	"time"
)

// Verdict is whether something has held for long enough.
type Verdict int

// The verdicts.
const (
	Waiting Verdict = iota
	Held            // for the whole time
	Broken          // for longer than an interruption may last
)

// Soak decides whether something holds for a time. A short interruption does not count: a
// server that restarts is in one registry before it is in the other one.
type Soak struct {
	// For is how long it must hold. 0 means once.
	For time.Duration
	// Settle is how long an interruption may last.
	Settle time.Duration

	begun  bool
	since  time.Time // of the first time that it held
	broken time.Time // since when it does not hold; zero while it holds
}

// Add adds what was seen at a time. firm says that more patience cannot help.
func (s *Soak) Add(at time.Time, holds, firm bool) Verdict {
	if !holds {
		if s.broken.IsZero() {
			s.broken = at
		}
		if firm || at.Sub(s.broken) >= s.Settle {
			return Broken
		}
		return Waiting
	}
	s.broken = time.Time{}
	if !s.begun {
		s.begun, s.since = true, at
	}
	if at.Sub(s.since) >= s.For {
		return Held
	}
	return Waiting
}

// closedEvery bounds the time between two looks at a gate that is closed. Two interruptions
// that are each seen in one look would otherwise count as one that lasts.
const closedEvery = 500 * time.Millisecond

// Watch looks at gates again and again until all have been open for the time of the Soak, or
// one stays closed. It returns the last gates, and how long they were open. between is the
// time between two looks, or more if a look takes longer. While a gate is closed, Watch looks
// more often. each, if not nil, is called after each look with the gates and the time that
// passed.
func Watch(ctx context.Context, s Soak, between time.Duration, look func(context.Context) ([]Gate, error), each func([]Gate, time.Duration)) ([]Gate, time.Duration, error) {
	begin := time.Now()
	for {
		looked := time.Now()
		gates, err := look(ctx)
		if err != nil {
			return nil, 0, err
		}
		passed := time.Since(begin)
		if each != nil {
			each(gates, passed)
		}
		holds, firm := true, false
		for i := range gates {
			holds = holds && gates[i].Open
			firm = firm || !gates[i].Open && !gates[i].Passing()
		}
		if s.Add(time.Now(), holds, firm) != Waiting {
			if !holds {
				return gates, 0, nil
			}
			return gates, time.Since(s.since), nil
		}
		pause := between
		if !holds {
			pause = min(pause, closedEvery)
		}
		select {
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-time.After(max(pause, time.Since(looked))):
		}
	}
}
