package consul

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"
)

// serviceLocks are locks of services. A service has a lock while somebody holds it or
// waits for it. The zero value is ready to use.
type serviceLocks struct {
	mu     sync.Mutex
	byName map[string]*serviceLock // by Consul's name of a service
}

// serviceLock is a mutex that one can wait for with a context.
type serviceLock struct {
	sem  *semaphore.Weighted // of one place
	refs int                 // who holds it or waits for it; guarded by serviceLocks.mu
}

// acquire waits for the changes that other calls make to a service. name is Consul's.
func (s *serviceLocks) acquire(ctx context.Context, name string) (release func(), err error) {
	l := s.ref(name)
	if err := l.sem.Acquire(ctx, 1); err != nil {
		s.unref(name, l)
		return nil, err
	}
	return func() {
		l.sem.Release(1)
		s.unref(name, l)
	}, nil
}

func (s *serviceLocks) ref(name string) *serviceLock {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.byName[name]
	if l == nil {
		l = &serviceLock{sem: semaphore.NewWeighted(1)}
		if s.byName == nil {
			s.byName = make(map[string]*serviceLock)
		}
		s.byName[name] = l
	}
	l.refs++
	return l
}

func (s *serviceLocks) unref(name string, l *serviceLock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.refs--; l.refs == 0 {
		delete(s.byName, name)
	}
}
