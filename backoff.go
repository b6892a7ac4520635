package naming

import (
	"math/rand/v2"
	"time"
)

// The bounds of the wait before a failed watch or registration is tried again,
// and how long it must have gone well for the next wait to be short again: a
// registry that accepts everybody and fails at once must not be met by a storm.
const (
	minBackoff   = 100 * time.Millisecond
	maxBackoff   = 30 * time.Second
	healthyAfter = 30 * time.Second
)

// backoff is exponential with full jitter: each delay is drawn evenly from
// zero to a bound that doubles, so that many clients which lost a registry in
// one moment do not come back in one. The zero value is ready to use.
type backoff struct {
	failures int
	most     time.Duration // the largest bound; 0 means maxBackoff
}

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

func (b *backoff) reset() { b.failures = 0 }

// jitter spreads a period of d evenly over [0.9d, 1.1d). It returns 0 for a period
// that is not positive, and treats one of more than a century as a century.
func jitter(d time.Duration) time.Duration {
	const century = 100 * 365 * 24 * time.Hour
	d = min(max(d, 0), century)
	return d - d/10 + rand.N(d/5+1)
}
