package naming

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The limits of data from outside: the answers of a registry, the entries of other
// writers, the files of a cache. No other file states limits. [Normalize]
// refuses a change that exceeds a limit: the error is [ErrInvalid]. A Store leaves out
// an entry that exceeds a limit, and reports it as a [MalformedError]. A set that
// exceeds a limit ends the watch with an error, and readers keep the last good set.
// SECURITY.md says who is trusted with what.
const (
	// MaxServiceName is the longest name of a service, in bytes.
	MaxServiceName = 1 << 10
	// MaxID is the longest ID of an endpoint, in bytes.
	MaxID = 4 << 10
	// MaxAddr is the longest address of an endpoint, in bytes.
	MaxAddr = 1 << 10
	// MaxMetadata is the largest metadata of an endpoint, in bytes of JSON. It
	// leaves room in a request to etcd, which takes 1.5 MiB by default.
	MaxMetadata = 1 << 20
	// MaxDepth is how deep arrays and objects may be nested in metadata.
	// encoding/json refuses more than 10,000 levels, and the libraries of
	// other languages refuse far fewer.
	MaxDepth = 200
	// MaxEndpoints is the largest number of endpoints of one service, usable
	// and withheld together.
	MaxEndpoints = 200_000
	// MaxServices is the largest number of services in a list of services.
	MaxServices = 200_000
	// MaxText is the longest text from outside that is logged or returned in
	// an error, in bytes. [SafeText] cuts what is longer.
	MaxText = 1 << 10
)

// cut returns the first [MaxText] bytes of s, or all of it, for %q.
func cut(s string) string { return s[:min(len(s), MaxText)] }

// SafeText returns a text from outside in a form that can be logged and shown: cut to
// [MaxText] bytes, with the number of bytes left out, and with characters that do not
// print, and bytes that are not UTF-8, escaped as in a Go string.
func SafeText(s string) string {
	left := 0 // bytes left out
	if len(s) > MaxText {
		end := MaxText
		for end > MaxText-utf8.UTFMax && !utf8.RuneStart(s[end]) {
			end--
		}
		s, left = s[:end], len(s)-end
	}
	if !isSafe(s) {
		if s = escape(s); len(s) > MaxText {
			// Escapes are ASCII: cutting one in two leaves text that prints.
			end := MaxText
			for !utf8.RuneStart(s[end]) {
				end--
			}
			s, left = s[:end], left+len(s)-end
		}
	}
	if left > 0 {
		s += fmt.Sprintf("... (%d bytes more)", left)
	}
	return s
}

// escape escapes the characters of s that do not print, and bytes that are not UTF-8.
func escape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || !unicode.IsPrint(r) {
			q := strconv.Quote(s[i : i+n])
			b.WriteString(q[1 : len(q)-1])
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// isSafe reports whether all characters of s print.
func isSafe(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// SafeError returns err with a text that can be logged and shown, in the form of
// [SafeText]. The result wraps err, so that errors.Is and errors.As find its causes. If
// the text of err is safe, the result is err itself. For nil it is nil.
func SafeError(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if len(text) <= MaxText && isSafe(text) {
		return err
	}
	if safe := new(safeError); errors.As(err, &safe) && safe == err {
		return err
	}
	return &safeError{text: SafeText(text), cause: err}
}

// safeError is an error with a safe text and the original error as its cause.
type safeError struct {
	text  string
	cause error
}

func (e *safeError) Error() string { return e.text }

// Unwrap returns the original error, with its full text.
func (e *safeError) Unwrap() error { return e.cause }
