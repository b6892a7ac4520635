package conformance_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/conformance"
)

// This is what the author of a backend writes, as a test of its own. Each
// further field of the harness brings more checks.
func ExampleRun() {
	// In a file that ends in _test.go:
	_ = func(t *testing.T) {
		conformance.Run(t, conformance.Harness{
			New:    func(t *testing.T) naming.Store { return new(memory.Store) },
			Calls:  func(s naming.Store) int { return s.(*memory.Store).Calls() },
			Bubble: true,
		})
	}
}

func ExampleCheck() {
	var store memory.Store // or that of a live registry
	o := &conformance.Options{TTL: 100 * time.Millisecond, Quiet: 10 * time.Millisecond}
	for r := range conformance.Check(context.Background(), &store, o) {
		if r.Err != nil {
			fmt.Printf("FAIL %s: %v\n     %s\n", r.Name, r.Err, r.Rule)
		}
		if r.Name == "PutIsSeen" {
			break // an example is short
		}
	}
	fmt.Println("done")
	// Output: done
}
