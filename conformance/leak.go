package conformance

import (
	"fmt"
	"runtime"
	"strings"
	"time"
)

// goroutines counts the goroutines by the function that started them. Those of
// the runtime and of package testing come and go by themselves.
func goroutines() map[string]int {
	buf := make([]byte, 1<<20)
	n := runtime.Stack(buf, true)
	for n == len(buf) {
		buf = make([]byte, 2*len(buf))
		n = runtime.Stack(buf, true)
	}
	count := make(map[string]int)
	for stack := range strings.SplitSeq(string(buf[:n]), "\n\n") {
		_, by, ok := strings.Cut(stack, "\ncreated by ")
		if !ok || strings.HasPrefix(by, "runtime.") || strings.HasPrefix(by, "testing.") {
			continue
		}
		by, _, _ = strings.Cut(by, "\n")
		by, _, _ = strings.Cut(by, " in goroutine ")
		count[by]++
	}
	return count
}

// leaks does something n times, and fails if each time left a goroutine. One
// that stays for all of them may be a connection, which is kept for the next.
func (e *env) leaks(n int, what string, act func() error) error {
	if err := act(); err != nil { // the first may dial
		return err
	}
	before := goroutines()
	for range n {
		if err := act(); err != nil {
			return err
		}
	}
	// A goroutine that is about to end may take its time.
	wait := 10 * time.Millisecond
	for deadline := time.Now().Add(patience); ; e.pause(wait) {
		wait = min(2*wait, time.Second) // to look stops the world
		var leak error
		for by, count := range goroutines() {
			if more := count - before[by]; more >= n {
				leak = fmt.Errorf("%s, %d times, left %d goroutines that were started by %s", what, n, more, by)
			}
		}
		if leak == nil || time.Now().After(deadline) || e.ctx.Err() != nil {
			return leak
		}
	}
}
