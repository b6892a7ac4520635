package tui

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Key is what services are sorted by.
type Key string

// The keys. The first service of each is what an operator looks for: the one with the most,
// or the one that changed last.
const (
	ByName     Key = "name"
	BySize     Key = "size"
	ByChurn    Key = "churn"
	ByAge      Key = "age"   // of the last change
	ByStale    Key = "stale" // the longest first
	ByWithheld Key = "withheld"
	ByHeld     Key = "held"
)

// Keys are all keys.
var Keys = []Key{ByName, BySize, ByChurn, ByAge, ByStale, ByWithheld, ByHeld}

// ParseKey returns the Key with a name.
func ParseKey(s string) (Key, error) {
	if k := Key(s); slices.Contains(Keys, k) {
		return k, nil
	}
	names := make([]string, len(Keys))
	for i, k := range Keys {
		names[i] = string(k)
	}
	return "", fmt.Errorf("%q is not one of %s", s, strings.Join(names, ", "))
}

// Sort sorts services by a key. Services that are equal are sorted by name.
func Sort(rows []*Row, key Key, reverse bool, now time.Time) {
	type weighed struct {
		row    *Row
		weight int64 // the largest is first
	}
	list := make([]weighed, len(rows))
	for i, r := range rows {
		list[i] = weighed{r, r.weight(key, now)}
	}
	sign := -1
	if reverse {
		sign = 1
	}
	slices.SortFunc(list, func(a, b weighed) int {
		c := sign * cmp.Compare(a.weight, b.weight)
		if key == ByName {
			c = -sign * strings.Compare(a.row.Service, b.row.Service)
		}
		return cmp.Or(c, strings.Compare(a.row.Service, b.row.Service))
	})
	for i, w := range list {
		rows[i] = w.row
	}
}

// weight returns the number by which Sort sorts.
func (r *Row) weight(key Key, now time.Time) int64 {
	switch key {
	case BySize:
		return int64(r.Size())
	case ByChurn:
		return int64(r.Churn(now))
	case ByAge:
		if r.Changed.IsZero() {
			return 0
		}
		return r.Changed.UnixNano()
	case ByStale:
		return int64(r.staleness(now))
	case ByWithheld:
		return int64(r.Withheld)
	case ByHeld:
		return int64(r.Held)
	}
	return 0
}

// staleness returns for how long a service is stale, and 0 if the service is fresh.
func (r *Row) staleness(now time.Time) time.Duration {
	if !r.Status.Stale() {
		return 0
	}
	return max(now.Sub(r.Status.StaleSince), 1)
}

// Filter finds the services and endpoints that contain a text. Upper and lower case are the
// same. The zero value finds all.
type Filter struct {
	text  string           // in lower case
	known map[*Row][]*Line // what Lines has found in the present rows
	next  map[*Row][]*Line // of known, what Rows has seen in the present call
}

// NewFilter returns a Filter for a text.
func NewFilter(text string) *Filter {
	return &Filter{text: strings.ToLower(text), known: make(map[*Row][]*Line)}
}

// Rows returns the services whose name, or one of whose endpoints, contains the text. The
// result is in the order of rows. A Row that was in the call before costs nothing.
func (f *Filter) Rows(rows []*Row) []*Row {
	if f.text == "" {
		return rows
	}
	f.next = make(map[*Row][]*Line, len(rows))
	rows = slices.DeleteFunc(slices.Clone(rows), func(r *Row) bool {
		lines := f.find(r)
		f.next[r] = lines
		return len(lines) == 0 && !contains(r.Service, f.text)
	})
	f.known, f.next = f.next, nil
	return rows
}

// Lines returns the endpoints of a service that contain the text: all endpoints if the name of
// the service does.
func (f *Filter) Lines(r *Row) []*Line {
	if f.text == "" {
		return r.Lines
	}
	return f.find(r)
}

func (f *Filter) find(r *Row) []*Line {
	if lines, ok := f.known[r]; ok {
		return lines
	}
	if contains(r.Service, f.text) {
		return r.Lines
	}
	var lines []*Line
	for _, l := range r.Lines {
		if l.matches(f.text) {
			lines = append(lines, l)
		}
	}
	return lines
}

// matches reports whether an endpoint contains a text, which is in lower case.
func (l *Line) matches(text string) bool {
	e := &l.Endpoint
	return contains(e.Addr, text) || contains(e.ID, text) || contains(e.State, text) || contains(e.Reason, text) ||
		contains(e.Zone, text) || contains(e.Version, text) || slices.ContainsFunc(e.Tags, func(tag string) bool { return contains(tag, text) })
}

func contains(s, lower string) bool { return strings.Contains(strings.ToLower(s), lower) }
