package conformance

import (
	"bytes"
	"context"
	"fmt"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// scopeLabel is the profiler label of the goroutines of one check. A goroutine inherits
// the labels of the goroutine that starts it.
const scopeLabel = "naming-conformance"

var scopes atomic.Int64

// scoped calls f in a new scope. The goroutines that f starts belong to the scope, and so
// do the goroutines that they start.
func scoped(ctx context.Context, f func(ctx context.Context, scope string)) {
	scope := strconv.FormatInt(scopes.Add(1), 10)
	pprof.Do(ctx, pprof.Labels(scopeLabel, scope), func(ctx context.Context) { f(ctx, scope) })
}

// goroutines returns how many goroutines of a scope run each function. Goroutines that
// other tests of the process start are in other scopes. The empty scope has all
// goroutines of the process, without those of the runtime and of package testing, which
// come and go by themselves.
func goroutines(scope string) map[string]int {
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		panic(err) // a write to a Buffer cannot fail
	}
	label := fmt.Sprintf("%q:%q", scopeLabel, scope)
	count := make(map[string]int)
	// The goroutines with the same stack and labels are one paragraph: their number, the
	// labels if there are any, and a line for each frame.
	for group := range strings.SplitSeq(profile.String(), "\n\n") {
		group = strings.TrimSpace(group)
		if _, after, ok := strings.Cut(group, "goroutine profile: total "); ok {
			_, group, _ = strings.Cut(after, "\n")
		}
		number, _, _ := strings.Cut(group, " @")
		n, err := strconv.Atoi(number)
		if err != nil {
			continue
		}
		if scope != "" && !strings.Contains(group, label) {
			continue
		}
		frame := strings.Split(group[strings.LastIndexByte(group, '\n')+1:], "\t")
		if len(frame) < 3 {
			continue
		}
		runs := frame[2]
		if at := strings.LastIndexByte(runs, '+'); at > 0 {
			runs = runs[:at]
		}
		if !strings.HasPrefix(runs, "runtime.") && !strings.HasPrefix(runs, "testing.") {
			count[runs] += n
		}
	}
	return count
}

// leaks calls act n times, and returns an error if at least n goroutines are left. A
// single goroutine may belong to a connection that the client keeps.
func (e *env) leaks(n int, what string, act func() error) error {
	if err := act(); err != nil { // the first call may dial
		return err
	}
	before := goroutines(e.scope)
	for range n {
		if err := act(); err != nil {
			return err
		}
	}
	// A goroutine may take time to end, or to start another.
	wait := 10 * time.Millisecond
	for deadline := time.Now().Add(patience); ; {
		e.pause(wait)
		wait = min(2*wait, time.Second) // a goroutine profile stops the world
		var leak error
		for runs, count := range goroutines(e.scope) {
			if more := count - before[runs]; more >= n {
				leak = fmt.Errorf("%s, %d times, left %d goroutines that run %s", what, n, more, runs)
			}
		}
		if leak == nil || time.Now().After(deadline) || e.ctx.Err() != nil {
			return leak
		}
	}
}
