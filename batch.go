package naming

import (
	"fmt"
	"slices"
	"strings"
)

// The errors of a Store that breaks its contract. The watch is retried, as after any
// other failure.
var (
	errNoSnapshot = errBroken("a watch began without a snapshot")
	errSilentEnd  = errBroken("a watch ended without an error")
)

// errBroken returns the error of a watch whose store broke a rule of its contract.
func errBroken(format string, args ...any) error {
	return fmt.Errorf("the store broke its contract: "+format, args...)
}

func errTooMany(what string, n, most int) error {
	return fmt.Errorf("%d %s; at most %d are allowed", n, what, most)
}

// check sorts the lists of a batch by ID. It returns an error that names the rule
// if the batch breaks the contract (see [Batch]) or exceeds a limit that is cheap
// to check. Metadata that is null becomes nil. Lists that are sorted already cost
// O(n).
func (b *Batch) check() error {
	if n := len(b.Put) + len(b.Withheld); n > MaxEndpoints {
		return errTooMany("endpoints", n, MaxEndpoints)
	}
	if b.Snapshot && len(b.Deleted) > 0 {
		return errBroken("a snapshot with a deletion, of %q", SafeText(b.Deleted[0]))
	}
	for i := range b.Put {
		if err := b.Put[i].check(); err != nil {
			return err
		}
	}
	for i := range b.Withheld {
		w := &b.Withheld[i]
		if err := w.Endpoint.check(); err != nil {
			return err
		}
		if !isSafe(w.Detail) || len(w.Detail) > MaxText+len("... (1000000000 bytes more)") {
			w.Detail = SafeText(w.Detail)
		}
	}
	sortByID(b.Put, func(e Endpoint) string { return e.ID })
	sortByID(b.Withheld, func(w Withheld) string { return w.Endpoint.ID })
	sortByID(b.Deleted, func(id string) string { return id })
	if id, twice := b.repeated(); twice {
		return errBroken("a batch with the ID %q twice", SafeText(id))
	}
	return nil
}

// repeated returns an ID that occurs twice in the sorted lists of b.
func (b *Batch) repeated() (id string, twice bool) {
	put := func(i int) string { return b.Put[i].ID }
	withheld := func(i int) string { return b.Withheld[i].Endpoint.ID }
	deleted := func(i int) string { return b.Deleted[i] }
	if id, twice = common(len(b.Put), len(b.Withheld), put, withheld); twice {
		return id, true
	}
	if id, twice = common(len(b.Put), len(b.Deleted), put, deleted); twice {
		return id, true
	}
	return common(len(b.Withheld), len(b.Deleted), withheld, deleted)
}

// find returns the endpoint with an ID, withheld or not, or nil.
func (b *Batch) find(id string) *Endpoint {
	for i := range b.Put {
		if b.Put[i].ID == id {
			return &b.Put[i]
		}
	}
	for i := range b.Withheld {
		if b.Withheld[i].Endpoint.ID == id {
			return &b.Withheld[i].Endpoint
		}
	}
	return nil
}

func sortByID[T any](list []T, id func(T) string) {
	compare := func(a, b T) int { return strings.Compare(id(a), id(b)) }
	if !slices.IsSortedFunc(list, compare) {
		slices.SortFunc(list, compare)
	}
}

// common returns an ID that two sorted lists of n and m IDs have in common, or that one
// list has twice.
func common(n, m int, a, b func(int) string) (id string, twice bool) {
	for i, j := 0, 0; i < n || j < m; {
		switch {
		case i+1 < n && a(i) == a(i+1):
			return a(i), true
		case j+1 < m && b(j) == b(j+1):
			return b(j), true
		case i == n:
			j++
		case j == m:
			i++
		default:
			switch c := strings.Compare(a(i), b(j)); {
			case c == 0:
				return a(i), true
			case c < 0:
				i++
			default:
				j++
			}
		}
	}
	return "", false
}

// check is Batch.check for one endpoint.
func (e *Endpoint) check() error {
	if e.ID == "" && e.Addr != "" {
		return errBroken("an endpoint with an empty ID and the address %q", SafeText(e.Addr))
	}
	if err := e.checkSizes(); err != nil {
		return errBroken("%w", err)
	}
	if e.Metadata != nil && isNull(e.Metadata) {
		e.Metadata = nil
	}
	return nil
}

// checkServices returns an error that names the rule if a list of services breaks the
// contract or exceeds a limit.
func checkServices(names []string) error {
	if len(names) > MaxServices {
		return errTooMany("services", len(names), MaxServices)
	}
	for i, name := range names {
		switch {
		case name == "":
			return errBroken("a list of services with an empty name")
		case len(name) > MaxServiceName:
			return errBroken("a service name of %d bytes; at most %d are allowed", len(name), MaxServiceName)
		case i > 0 && names[i-1] == name:
			return errBroken("a list of services with %q twice", SafeText(name))
		case i > 0 && names[i-1] > name:
			return errBroken("a list of services that is not sorted, with %q after %q", SafeText(name), SafeText(names[i-1]))
		}
	}
	return nil
}
