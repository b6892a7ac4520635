package main

import (
	"fmt"
	"slices"
	"strings"
)

// row is what happened in a step so far.
type row struct {
	phase         string
	listed        [2]int // the endpoints of the old registry, and of the new one
	reads         string
	calls, failed int
	connections   int64 // since the phase changed
	restarts      int64 // the part of it since the restarts began
	restarting    bool
}

const header = "                    servers in    clients                     connections for\n" +
	"phase                old   new    read           calls failed    phase  restarts"

func (r row) String() string {
	return fmt.Sprintf("%-19s%5d%6d    %-14s%6d%7d%9d%10d",
		r.phase, r.listed[0], r.listed[1], r.reads, r.calls, r.failed, r.connections-r.restarts, r.restarts)
}

// begin begins a step.
func (s *story) begin(next step) {
	calls, failed, _ := s.total()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.row = row{
		phase: fmt.Sprintf("%d %v%s", next.phase, next.phase, next.note),
		calls: calls, failed: failed, connections: s.accepted.Load(),
	}
}

// beginRestarts notes that connections are made because of restarts from now on.
func (s *story) beginRestarts() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.row.restarts, s.row.restarting = s.accepted.Load(), true
}

// present returns the row of the present step.
func (s *story) present() row {
	calls, failed, _ := s.total()
	reads := s.reads()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.row
	r.listed, r.reads = s.listed, reads
	r.calls, r.failed = calls-r.calls, failed-r.failed
	accepted := s.accepted.Load()
	r.connections = accepted - r.connections
	if r.restarting {
		r.restarts = accepted - r.restarts
	}
	return r
}

// reads returns how many clients read which registries, such as "2 both, 2 new".
func (s *story) reads() string {
	var list []string
	for _, c := range s.clientList() {
		list = append(list, c.reads())
	}
	var parts []string
	for _, which := range []string{"none", "old", "both", "new"} {
		if n := len(slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s != which })); n > 0 {
			parts = append(parts, fmt.Sprint(n, " ", which))
		}
	}
	return strings.Join(parts, ", ")
}

// total returns how many calls the clients made, and the first error.
func (s *story) total() (calls, failed int, first error) {
	for _, c := range s.clientList() {
		n, err := c.traffic.Failed()
		if first == nil {
			first = err
		}
		calls, failed = calls+c.traffic.Total(), failed+n
	}
	return calls, failed, first
}

// table returns the present step, for the screen.
func (s *story) table() string { return s.present().String() + "\n" }

// result returns the state after the end.
func (s *story) result() string {
	var b strings.Builder
	calls, failed, err := s.total()
	fmt.Fprintf(&b, "calls: %d\n", calls)
	if err != nil {
		fmt.Fprintf(&b, "the first call that failed: %v\n", err)
	}
	fmt.Fprintf(&b, "failed calls: %d\n", failed)
	return b.String()
}
