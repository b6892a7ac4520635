package balancer_test

import (
	"testing"

	"github.com/naming-go/naming/balancer"
)

func TestWeights(t *testing.T) {
	w := newWorld(t, 3)
	w.put(w.servers[0], `{"weight":1}`)
	w.put(w.servers[1], `{"weight":2}`)
	w.put(w.servers[2], `{"weight":7}`)
	conn := w.dial(balancer.Config{})
	w.until(conn, 1000, like(1, 2, 7))

	// The weights change, and the connections stay.
	w.put(w.servers[0], `{"weight":0.5}`)
	w.put(w.servers[1], "")
	w.put(w.servers[2], `{"weight":0.5,"zone":"a"}`)
	w.until(conn, 1000, like(1, 2, 1))
	for i, s := range w.servers {
		if n := s.accepts.Load(); n != 1 {
			t.Errorf("server %d accepted %d connections, want 1", i, n)
		}
	}
}
