package conformance

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
)

var errNoAnswer = errors.New("the connection was lost")

// lateStore makes a write a while after it got the request, also if its caller has given up.
type lateStore struct {
	*shared
	late   time.Duration
	writes atomic.Int64   // how many have begun
	begun  func(int)      // called when a write begins; may be nil
	loses  func(int) bool // which writes get no answer but an error at once; may be nil
}

func (s *lateStore) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	n := int(s.writes.Add(1))
	if s.begun != nil {
		s.begun(n)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		time.Sleep(s.late)
		done <- s.shared.Apply(context.WithoutCancel(ctx), service, changes...)
	}()
	if s.loses != nil && s.loses(n) {
		return errNoAnswer
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// untouchedForGood expects that nothing is left, and that nothing comes later.
func (s *lateStore) untouchedForGood(t *testing.T) {
	t.Helper()
	s.untouched(t)
	time.Sleep(time.Minute)
	s.untouched(t)
}

// An interrupt during any of the writes of a check leaves nothing, however late the write
// takes effect.
func TestInterruptedCheckLeavesNothing(t *testing.T) {
	for write := 1; write <= 40; write++ {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s := &lateStore{shared: newShared(t), late: 5 * time.Second}
			s.begun = func(n int) {
				if n == write {
					time.AfterFunc(time.Second, cancel)
				}
			}
			for r := range Check(ctx, s, checkOptions()) {
				if ctx.Err() != nil {
					if r.Left != nil {
						t.Errorf("%s was interrupted in write %d, and %v is left", r.Name, write, r.Left)
					}
					break
				}
			}
			if ctx.Err() == nil {
				t.Fatalf("the checks ended before write %d", write)
			}
			s.untouchedForGood(t)
		})
	}
}

// A write without an answer leaves nothing, although it takes effect after the check has failed.
func TestLateWriteLeavesNothing(t *testing.T) {
	for write := 1; write <= 40; write++ {
		synctest.Test(t, func(t *testing.T) {
			s := &lateStore{shared: newShared(t), late: 700 * time.Millisecond}
			s.loses = func(n int) bool { return n == write }
			for r := range Check(t.Context(), s, checkOptions()) {
				if r.Left != nil {
					t.Errorf("%s got no answer to write %d, and %v is left", r.Name, write, r.Left)
				}
				if int(s.writes.Load()) >= write {
					break
				}
			}
			s.untouchedForGood(t)
		})
	}
}

// A service that a store refuses to read, although it took a write, may have something left.
func TestLeftUnread(t *testing.T) {
	s := &wrong{Store: &newShared(t).Store}
	s.watch = func(context.Context, string) watchSeq {
		return func(yield func(naming.Batch, error) bool) { yield(naming.Batch{}, naming.ErrInvalid) }
	}
	for r := range Check(t.Context(), s, checkOptions()) {
		if r.Name == "ApplyIsStored" {
			if !errors.Is(r.Left, naming.ErrInvalid) {
				t.Errorf("Left is %v", r.Left)
			}
			break
		}
	}
}

// A result says that endpoints of the check may be left, unless a later removal worked.
func TestLeft(t *testing.T) {
	for _, fails := range []int{1, 1000} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s := &lateStore{shared: newShared(t), late: 5 * time.Second}
			s.begun = func(int) { cancel() } // what follows the first write cleans up
			s.loses = func(n int) bool { return n > 1 && n <= 1+fails }
			for r := range Check(ctx, s, checkOptions()) {
				if left := errors.Is(r.Left, errNoAnswer); left != (fails > 1) {
					t.Errorf("after %d removals without an answer, %s: Left is %v", fails, r.Name, r.Left)
				}
				if r.Left != nil && !errors.Is(r.Err, r.Left) {
					t.Errorf("%s: the error %v does not wrap %v", r.Name, r.Err, r.Left)
				}
				break
			}
			time.Sleep(time.Minute) // until the writes have ended
		})
	}
}
