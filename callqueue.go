package naming

import "sync"

// callQueue calls functions of the program, such as hooks and loggers, in the order in
// which they were added, one at a time and without a lock held. A function is added
// under a lock, and run is called after the lock was released. The zero value is ready
// to use.
type callQueue struct {
	mu      sync.Mutex    // guards all fields; may be taken while another lock is held
	calls   []func()      // to be called
	running bool          // a goroutine is in run
	idle    chan struct{} // nil, or closed when running ends
}

// add adds a call. It calls nothing.
func (q *callQueue) add(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.calls = append(q.calls, f)
}

// run makes the calls. If another goroutine is in run, the other one makes them, and
// run returns at once.
func (q *callQueue) run() {
	if !q.begin() {
		return
	}
	ended := false
	defer func() {
		if !ended { // a call panicked, and the program may recover
			q.end()
		}
	}()
	for {
		f := q.next()
		if f == nil {
			ended = true
			return
		}
		f()
	}
}

// begin reports whether the caller has to make the calls.
func (q *callQueue) begin() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.running || len(q.calls) == 0 {
		return false
	}
	q.running = true
	return true
}

// next returns the next call. If the queue is empty, it returns nil and run has ended.
func (q *callQueue) next() func() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.calls) == 0 {
		q.calls = nil
		q.setIdle()
		return nil
	}
	f := q.calls[0]
	q.calls = q.calls[1:]
	return f
}

func (q *callQueue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.setIdle()
}

// setIdle says that no goroutine is in run. mu is held.
func (q *callQueue) setIdle() {
	q.running = false
	if q.idle != nil {
		close(q.idle)
		q.idle = nil
	}
}

// whenIdle returns a channel that is closed when no goroutine is in run. It has one
// caller at a time.
func (q *callQueue) whenIdle() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	idle := make(chan struct{})
	if q.running {
		q.idle = idle
	} else {
		close(idle)
	}
	return idle
}
