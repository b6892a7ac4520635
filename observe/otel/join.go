package otelnaming

import "github.com/naming-go/naming"

// JoinHooks returns hooks that call those given, one after the other in their
// order. A function that none of them has is nil, and so may be a pointer among
// them. They are read now: changing them later has no effect.
func JoinHooks(hooks ...*naming.Hooks) *naming.Hooks {
	joined := new(naming.Hooks)
	for _, h := range hooks {
		if h == nil {
			continue
		}
		join3(&joined.Registered, h.Registered)
		join3(&joined.Lost, h.Lost)
		join3(&joined.Withdrawn, h.Withdrawn)
		join2(&joined.WatchFailed, h.WatchFailed)
		join2(&joined.Stale, h.Stale)
		join2(&joined.Resynced, h.Resynced)
		join2(&joined.Held, h.Held)
		join3(&joined.Released, h.Released)
		join2(&joined.Published, h.Published)
	}
	return joined
}

// join2 makes *to a function that calls what it was, and then next.
func join2[A, B any](to *func(A, B), next func(A, B)) {
	switch first := *to; {
	case next == nil:
	case first == nil:
		*to = next
	default:
		*to = func(a A, b B) { first(a, b); next(a, b) }
	}
}

// join3 is join2 for functions of three arguments.
func join3[A, B, C any](to *func(A, B, C), next func(A, B, C)) {
	switch first := *to; {
	case next == nil:
	case first == nil:
		*to = next
	default:
		*to = func(a A, b B, c C) { first(a, b, c); next(a, b, c) }
	}
}
