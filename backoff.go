package naming

import (
	"math/rand/v2"
	"time"
)

const (
	// minBackoff and maxBackoff bound the wait before a failed watch or registration
	// is retried.
	minBackoff = 100 * time.Millisecond
	maxBackoff = 30 * time.Second

	// healthyAfter is how long a watch or registration must work until the next wait
	// is short again. A registry that accepts every request and then fails at once
	// must not cause a storm.
	healthyAfter = 30 * time.Second
)

// backoff is exponential with full jitter: each delay is drawn evenly from zero to a
// bound that doubles. Many clients that lost a registry in one moment then do not come
// back in one moment. The zero value is ready to use.
type backoff struct {
	failures int
	most     time.Duration // the largest bound; 0 means maxBackoff
}

// delay returns the next delay.
func (b *backoff) delay() time.Duration {
	bound := maxBackoff
	if b.most > 0 {
		bound = b.most
	}
	if b.failures < 16 {
		bound = min(bound, minBackoff<<b.failures)
		b.failures++
	}
	return rand.N(bound) + 1
}

// reset makes the next delay short again.
func (b *backoff) reset() { b.failures = 0 }

// jitter returns a period drawn evenly from [0.9d, 1.1d). It returns 0 if d is not
// positive, and treats a d of more than a century as a century.
func jitter(d time.Duration) time.Duration {
	const century = 100 * 365 * 24 * time.Hour
	d = min(max(d, 0), century)
	return d - d/10 + rand.N(d/5+1)
}
