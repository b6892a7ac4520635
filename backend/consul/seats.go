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

// By default an agent accepts 200 connections from one address, for all programs there.
// When it refuses one more, registrations and renewals have priority: the Store
// abandons the blocking queries of half of its watches, which join the watches that
// share three, and asks again. So the programs on one host make room for each other, as
// senders do on a congested line: a program that is refused gives up half, and then
// takes more one by one.
//
// A larger refusalTries, or a longer refusalPause, survives a longer rush of programs
// and reports a lasting refusal later. A shorter seatRegain gives watches their own
// queries back sooner and is refused more often.
const (
	refusedAgain = time.Second      // a refusal this soon after another one has the same cause
	refusedLong  = 30 * time.Second // for how long after a refusal a broken connection may be a refusal
	seatRegain   = 10 * time.Second // after a refusal, the time until there is one seat more, and again
	refusalTries = 7
	refusalPause = 100 * time.Millisecond // before the second try; doubled before each further try
)

var errShed = errors.New("the watch has abandoned its blocking query, because the agent refuses connections")

// seats are the watches with a blocking query of their own. The zero value has room for
// all watches that gates.own admits. This is not a semaphore: its limit depends on when
// the agent last refused a connection, and a seat can be taken away.
type seats struct {
	// mu guards the fields below.
	mu      sync.Mutex
	taken   map[*seat]bool
	limit   int       // at the last refusal
	refused time.Time // when the agent last refused a connection; zero: never
}

// seat is a watch with a blocking query of its own.
type seat struct{ abandon context.CancelCauseFunc }

// sitDown returns a seat for a watch, and the context of the watch's query. It returns
// nil if no seat is free.
func (s *seats) sitDown(ctx context.Context) (*seat, context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.refused.IsZero() && len(s.taken) >= s.limit+int(time.Since(s.refused)/seatRegain) {
		return nil, nil
	}
	t := new(seat)
	ctx, t.abandon = context.WithCancelCause(ctx)
	if s.taken == nil {
		s.taken = make(map[*seat]bool)
	}
	s.taken[t] = true
	return t, ctx
}

func (s *seats) getUp(t *seat) {
	t.abandon(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.taken, t)
}

// halve takes away half of the seats. The queries of their watches end with errShed.
func (s *seats) halve() {
	for _, t := range s.removeHalf() {
		t.abandon(errShed)
	}
}

// removeHalf removes half of the seats, and returns them. It removes none if it did so
// within refusedAgain.
func (s *seats) removeHalf() (removed []*seat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if !s.refused.IsZero() && now.Sub(s.refused) < refusedAgain {
		return nil
	}
	s.limit, s.refused = len(s.taken)/2, now
	for t := range s.taken {
		if len(s.taken) <= s.limit {
			break
		}
		delete(s.taken, t)
		removed = append(removed, t)
	}
	return removed
}

// refusedRecently reports whether the agent has refused a connection within
// refusedLong.
func (s *seats) refusedRecently() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.refused.IsZero() && time.Since(s.refused) < refusedLong
}

// refused reports whether an error says that the agent refuses further connections, and
// makes room if so. The agent answers and closes the connection without reading the
// request, so the answer may get lost. So for some time after a refusal, a broken
// connection counts as a refusal too.
func (s *Store) refused(err error) bool {
	if err == nil {
		return false
	}
	e, ok := errors.AsType[api.StatusError](err)
	switch {
	case ok && e.Code == http.StatusTooManyRequests && strings.Contains(e.Body, "too many concurrent connections"):
	case !ok && s.seats.refusedRecently() && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)):
	default:
		return false
	}
	s.seats.halve()
	return true
}

// insist makes a request, and repeats it if the agent refused the connection: then the
// agent has not read the request. All requests that do not wait for a change are made
// through insist.
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
