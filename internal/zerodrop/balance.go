package zerodrop

import (
	"sync"
	"time"
)

// mostProgress is the most that one call adds to the progress of a client. A client that
// the machine kept waiting did not neglect a server.
const mostProgress = 20 * time.Millisecond

// reach notes that a call of an address succeeded.
func (c *client) reach(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if !c.last.IsZero() {
		c.progress += min(now.Sub(c.last), mostProgress)
	}
	c.last = now
	if c.reached == nil {
		c.reached = make(map[string]time.Duration)
	}
	c.reached[addr] = c.progress
}

// neglected returns for how much of its progress a client has not called an address. The
// first call of neglected counts as a call of the address.
func (c *client) neglected(addr string) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reached == nil {
		c.reached = make(map[string]time.Duration)
	}
	at, ok := c.reached[addr]
	if !ok {
		at = c.progress
		c.reached[addr] = at
	}
	return c.progress - at
}

// forget forgets an address, which another server may get.
func (c *client) forget(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.reached, addr)
}

// monitor checks the balance from time to time. Only its goroutine uses it.
type monitor struct {
	reported map[*Server]bool
}

// startMonitor starts the monitor, if the site has a balance check. The function that it
// returns ends the monitor, and waits.
func (r *Play) startMonitor() (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	if r.site.Balance > 0 {
		r.monitor.reported = make(map[*Server]bool)
		wg.Go(func() { r.watchBalance(done) })
	}
	return func() {
		close(done)
		wg.Wait()
	}
}

func (r *Play) watchBalance(done <-chan struct{}) {
	tick := time.NewTicker(r.site.Balance / 20)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.checkBalance()
		case <-done:
			return
		}
	}
}

// checkBalance compares the calls of each client that balances with the servers that
// accept and do not leave.
func (r *Play) checkBalance() {
	for _, s := range r.fleet.all() {
		if s.leaving.Load() || !r.fleet.anyLive([]string{s.addr}) || r.monitor.reported[s] {
			continue
		}
		for _, c := range r.clients {
			if d := c.neglected(s.addr); c.balances && d > r.site.Balance {
				r.monitor.reported[s] = true
				r.Broken("%s has not called %s for %v", c.name, s.addr, d.Round(time.Millisecond))
			}
		}
	}
}
