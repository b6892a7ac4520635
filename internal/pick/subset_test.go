package pick

import (
	"fmt"
	"slices"
	"testing"
)

func names(prefix string, n int) []string {
	s := make([]string, n)
	for i := range s {
		s[i] = fmt.Sprintf("%s-%d", prefix, i)
	}
	return s
}

// clients returns a Subset for each of n clients.
func clients(byNumber bool, n int) []Subset {
	s := make([]Subset, n)
	for i := range s {
		s[i] = Subset{Client: fmt.Sprintf("client-%d", i), Number: uint64(i), ByNumber: byNumber}
	}
	return s
}

// first returns the first n IDs of the order of a client.
func first(s Subset, ids []string, n int) []string {
	var got []string
	for _, i := range s.Order(ids)[:n] {
		got = append(got, ids[i])
	}
	return got
}

// TestSubsetSpread checks how many of the clients each endpoint has.
func TestSubsetSpread(t *testing.T) {
	for _, tt := range []struct{ clients, endpoints, size int }{
		{1000, 100, 10}, {100, 100, 20}, {300, 1000, 20}, {37, 50, 7}, {1000, 5, 3}, {3, 1000, 20},
	} {
		for _, byNumber := range []bool{false, true} {
			counts := make([]int, tt.endpoints)
			ids := names("server", tt.endpoints)
			for _, c := range clients(byNumber, tt.clients) {
				order := c.Order(ids)
				if sorted := slices.Sorted(slices.Values(order)); len(sorted) != tt.endpoints || sorted[0] != 0 || len(slices.Compact(sorted)) != tt.endpoints {
					t.Fatalf("%+v: the order is not one of all endpoints", c)
				}
				for _, i := range order[:tt.size] {
					counts[i]++
				}
			}
			mean := float64(tt.clients*tt.size) / float64(tt.endpoints)
			low, high := slices.Min(counts), slices.Max(counts)
			t.Logf("%+v, by number %v: %d to %d clients, %.1f on average", tt, byNumber, low, high, mean)
			if byNumber && high-low > 4 {
				t.Errorf("%+v: by number: %d to %d clients", tt, low, high)
			}
			if !byNumber && mean > 20 && (float64(low) < mean/2 || float64(high) > mean*2) {
				t.Errorf("%+v: by name: %d to %d clients", tt, low, high)
			}
		}
	}
}

// TestSubsetDisruption checks that an endpoint that goes or comes changes little.
func TestSubsetDisruption(t *testing.T) {
	const size = 20
	ids := names("server", 200)
	for _, byNumber := range []bool{false, true} {
		most, total := 1, 0
		if byNumber {
			most = 2
		}
		for _, c := range clients(byNumber, 50) {
			before := first(c, ids, size)
			for gone := range ids {
				after := first(c, slices.Delete(slices.Clone(ids), gone, gone+1), size)
				changed := 0
				for _, id := range after {
					if !slices.Contains(before, id) {
						changed++
					}
				}
				total += changed
				if changed > most || changed == 0 && slices.Contains(before, ids[gone]) {
					t.Fatalf("%+v: without %s, %d endpoints are new", c, ids[gone], changed)
				}
			}
		}
		t.Logf("by number %v: %.2f changes for each endpoint that goes, at least %.2f", byNumber, float64(total)/50/200, float64(size)/200)
	}
}

// TestSubsetOfAnyOrder checks that the order of the endpoints has no effect.
func TestSubsetOfAnyOrder(t *testing.T) {
	ids := names("server", 100)
	other := slices.Clone(ids)
	slices.Reverse(other)
	for _, byNumber := range []bool{false, true} {
		for _, c := range clients(byNumber, 20) {
			if a, b := first(c, ids, 100), first(c, other, 100); !slices.Equal(a, b) {
				t.Fatalf("%+v: %v and %v", c, a, b)
			}
		}
	}
}

func TestFirst(t *testing.T) {
	order := []int32{3, 1, 0, 2}
	for _, tt := range []struct {
		size   int
		failed []int32
		want   int
	}{
		{2, nil, 2}, {4, nil, 4}, {5, nil, 4}, {0, nil, 0},
		{2, []int32{3}, 3}, {2, []int32{3, 1}, 4}, {2, []int32{0, 2}, 2}, {2, []int32{1, 0, 2}, 4}, {1, []int32{0, 1, 2, 3}, 4},
	} {
		if got := First(order, tt.size, func(i int32) bool { return slices.Contains(tt.failed, i) }); got != tt.want {
			t.Errorf("size %d, failed %v: %d, want %d", tt.size, tt.failed, got, tt.want)
		}
	}
}
