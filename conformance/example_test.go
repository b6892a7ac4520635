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

// The author of a backend writes this test. Each further field of the harness brings
// more checks.
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
	var store memory.Store // or a store of a live registry
	o := &conformance.Options{TTL: 100 * time.Millisecond, Quiet: 10 * time.Millisecond}
	for r := range conformance.Check(context.Background(), &store, o) {
		if r.Err != nil {
			fmt.Printf("FAIL %s: %v\n     %s\n", r.Name, r.Err, r.Rule)
		}
		if r.Name == "PutIsSeen" {
			break // the example runs only the first checks
		}
	}
	fmt.Println("done")
	// Output: done
}
