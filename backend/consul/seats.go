package consul

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"
)

// An agent takes 200 connections from one address by default, for all programs
// there. When it refuses one more, registrations and renewals come first: the Store
// gives up the blocking queries of half of its watches, which join those that share
// some, and asks again. Programs on one host so make room for each other, as senders
// do on one line: each that is refused takes half, and asks for more one by one.
const (
	refusedAgain = time.Second      // after a refusal, what follows so soon has the same cause
	refusedLong  = 30 * time.Second // for how long a connection that breaks may have been refused
	seatBack     = 10 * time.Second // after a refusal, until there is one seat more, and again
	refusalTries = 7
	refusalPause = 100 * time.Millisecond // before the second try; doubled before each other
)

var errShed = errors.New("the watch has given up its blocking query, as the agent refuses connections")

// seats are the watches with a blocking query of their own. The zero value has room
// for all that Store.direct has.
type seats struct {
	mu      sync.Mutex
	taken   map[*seat]bool
	limit   int       // when refused
	refused time.Time // when that was last; zero: never
}

// seat is a watch with a blocking query of its own.
type seat struct{ giveUp context.CancelCauseFunc }

// take takes a seat for a watch, whose query has the returned context. It returns
// nil if no seat is free.
func (s *seats) take(ctx context.Context) (*seat, context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.refused.IsZero() && len(s.taken) >= s.limit+int(time.Since(s.refused)/seatBack) {
		return nil, nil
	}
	t := new(seat)
	ctx, t.giveUp = context.WithCancelCause(ctx)
	if s.taken == nil {
		s.taken = make(map[*seat]bool)
	}
	s.taken[t] = true
	return t, ctx
}

func (s *seats) leave(t *seat) {
	t.giveUp(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.taken, t)
}

// halve lets half of those who have a seat give it up.
func (s *seats) halve() {
	s.mu.Lock()
	var up []*seat
	if now := time.Now(); s.refused.IsZero() || now.Sub(s.refused) >= refusedAgain {
		s.limit, s.refused = len(s.taken)/2, now
		for t := range s.taken {
			if len(s.taken) <= s.limit {
				break
			}
			delete(s.taken, t)
			up = append(up, t)
		}
	}
	s.mu.Unlock()
	for _, t := range up {
		t.giveUp(errShed)
	}
}

// recently reports whether the agent has refused connections of late.
func (s *seats) recently() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.refused.IsZero() && time.Since(s.refused) < refusedLong
}

// refused reports whether an error says that the agent takes no more connections,
// and makes room if so. The agent answers and closes the connection without having
// read what was asked, so that the answer may not arrive.
func (s *Store) refused(err error) bool {
	if err == nil {
		return false
	}
	e, ok := errors.AsType[api.StatusError](err)
	switch {
	case ok && e.Code == http.StatusTooManyRequests && strings.Contains(e.Body, "too many concurrent connections"):
	case !ok && s.seats.recently() && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)):
	default:
		return false
	}
	s.seats.halve()
	return true
}

// insist makes a request, and makes it again if the agent has refused the
// connection: it has not read the request then. All requests but those that wait
// for a change are made so.
func (s *Store) insist(ctx context.Context, request func() error) error {
	pause := refusalPause
	for try := 1; ; try++ {
		err := request()
		if !s.refused(err) || try == refusalTries || sleep(ctx, pause/2+rand.N(pause/2)) != nil {
			return err
		}
		pause *= 2
	}
}
