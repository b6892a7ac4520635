package pick

import (
	"cmp"
	"slices"
)

// Subset chooses the endpoints that a client of a large fleet connects to. Every client has
// an order of all endpoints, and uses the first ones of its order. An endpoint that fails
// is replaced by the next in the order.
//
// By name, the order is that of a hash of the client's name and the endpoint's ID
// (rendezvous hashing). An endpoint that comes or goes changes at most one place of a
// subset. The number of clients that an endpoint gets varies as in a random choice.
//
// By number, the endpoints form a ring, in the order of a hash of their IDs, and the client
// with number i begins at the point i * golden ratio of the ring. Any clients with
// successive numbers are spread evenly over the ring, and so over the endpoints. An endpoint
// that comes or goes changes at most two places of a subset. The ring is the idea of
// "Reinventing backend subsetting at Google" (ACM Queue, 2022). Why a random choice is
// uneven: https://sre.google/sre-book/load-balancing-datacenter/.
type Subset struct {
	// Client is the name of the client, for a choice by name.
	Client string
	// Number is the number of the client, for a choice by number.
	Number uint64
	// ByNumber says that Number counts, and not Client.
	ByNumber bool
}

// SubsetOf returns the choice of a client with this number, or with this name if number is nil.
func SubsetOf(client string, number *int) Subset {
	if number != nil {
		return Subset{ByNumber: true, Number: uint64(*number)}
	}
	return Subset{Client: client}
}

// Order returns the indices of ids in the order of the client. IDs must differ.
func (s *Subset) Order(ids []string) []int32 {
	start := uint64(offset64)
	if !s.ByNumber {
		start = hash(hash(start, s.Client), "\x00")
	}
	type ranked struct {
		hash  uint64
		index int32
	}
	all := make([]ranked, len(ids))
	for i, id := range ids {
		all[i] = ranked{mix(hash(start, id)), int32(i)}
	}
	slices.SortFunc(all, func(a, b ranked) int {
		if c := cmp.Compare(a.hash, b.hash); c != 0 {
			return c
		}
		return cmp.Compare(ids[a.index], ids[b.index])
	})
	first := 0
	if s.ByNumber {
		first = scaled(s.Number*golden, len(ids))
	}
	order := make([]int32, 0, len(ids))
	for _, r := range all[first:] {
		order = append(order, r.index)
	}
	for _, r := range all[:first] {
		order = append(order, r.index)
	}
	return order
}

// First returns how many endpoints of an order a client needs for a subset of size: so many
// that size of them have not failed, or all.
func First(order []int32, size int, failed func(i int32) bool) int {
	for n, i := range order {
		if size == 0 {
			return n
		}
		if !failed(i) {
			size--
		}
	}
	return len(order)
}

const (
	offset64 = 14695981039346656037
	prime64  = 1099511628211
)

// hash continues the hash h (FNV-1a, 64 bits) with s.
func hash(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * prime64
	}
	return h
}
