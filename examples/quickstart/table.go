package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

// row is a server in the table.
type row struct {
	server string
	addr   string // of its last start
	entry  string // its state in the registry
	calls  int    // since its first start
}

// rows returns a row for each server.
func (s *story) rows() []row {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries := make(map[string]string)
	for _, e := range s.view.Held {
		entries[e.Addr] = "held"
	}
	for _, e := range s.view.Endpoints {
		entries[e.Addr] = "listed"
		if e.Info().Draining {
			entries[e.Addr] = "draining"
		}
	}
	calls := s.traffic.Count()
	var rows []row
	for _, server := range s.servers {
		i := slices.IndexFunc(rows, func(r row) bool { return r.server == server.name })
		if i < 0 {
			i = len(rows)
			rows = append(rows, row{server: server.name})
		}
		r := &rows[i]
		r.addr, r.entry = server.addr, "-"
		if entry := entries[server.addr]; entry != "" {
			r.entry = entry
		}
		r.calls += calls[server.addr]
	}
	return rows
}

// table returns the present state, for the screen.
func (s *story) table() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "server\taddress\tin the registry\tcalls")
	for _, row := range s.rows() {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\n", row.server, row.addr, row.entry, row.calls)
	}
	_ = w.Flush() // to memory
	failed, _ := s.traffic.Failed()
	fmt.Fprintf(&b, "failed calls: %d; the registry is %s\n", failed, s.registryState())
	return b.String()
}

// summary returns the present state in one line.
func (s *story) summary() string {
	var b strings.Builder
	for _, row := range s.rows() {
		fmt.Fprintf(&b, "  %s %d", row.server, row.calls)
	}
	failed, _ := s.traffic.Failed()
	return fmt.Sprintf("  calls:%s, failed: %d; the registry is %s", b.String(), failed, s.registryState())
}

// result returns the state after the end.
func (s *story) result() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "\nserver\taddress\tcalls")
	for _, row := range s.rows() {
		fmt.Fprintf(w, "%s\t%s\t%d\n", row.server, row.addr, row.calls)
	}
	_ = w.Flush() // to memory
	failed, err := s.traffic.Failed()
	if err != nil {
		fmt.Fprintf(&b, "the first call that failed: %v\n", err)
	}
	fmt.Fprintf(&b, "failed calls: %d\n", failed)
	return b.String()
}

func (s *story) registryState() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view.Stale() {
		return fmt.Sprintf("unavailable: %v", s.view.Err)
	}
	return "available"
}
