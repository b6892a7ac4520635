package consul

import (
	"fmt"
	"io"

	"github.com/naming-go/naming"
)

// body is the body of an answer up to a limit. Nobody reads it concurrently.
type body struct {
	io.ReadCloser
	left int64
	over error // what Read returns beyond the limit

	count  bool  // whether to count values of JSON
	err    error // what Read returns from now on
	values int   // commas outside of strings
	top    int   // the commas among them of the outermost list or object
	depth  int   // lists and objects that are open
	run    int   // bytes since a comma, a bracket, or an end of a string
	quoted bool  // within a string
	escape bool  // after a backslash
}

// Read implements [io.Reader].
func (b *body) Read(p []byte) (n int, err error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.left <= 0 {
		// A body of exactly the limit is allowed, so the end decides.
		if n, err := b.ReadCloser.Read(make([]byte, 1)); n == 0 {
			return 0, err
		}
		b.err = b.over
		return 0, b.err
	}
	n, err = b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if b.count {
		if b.scan(p[:n]); b.values > maxValues || b.top >= naming.MaxEndpoints || b.run > maxRun || b.depth > maxNested {
			b.err = fmt.Errorf("%w: more than %d values, %d in its list, %d levels, or %d bytes in a value", errAnswer, maxValues, naming.MaxEndpoints, maxNested, maxRun)
			return 0, b.err
		}
	}
	return n, err
}

// scan counts values. Text that is not JSON is left to the decoder, which reports it.
func (b *body) scan(p []byte) {
	for _, c := range p {
		b.run++
		switch {
		case b.escape:
			b.escape = false
			continue
		case b.quoted:
			b.quoted, b.escape = c != '"', c == '\\'
			if b.quoted {
				continue
			}
		case c == '"':
			b.quoted = true
		case c == ',':
			b.values++
			if b.depth == 1 {
				b.top++
			}
		case c == '[' || c == '{':
			b.depth++
		case c == ']' || c == '}':
			b.depth--
		default:
			continue
		}
		b.run = 0
	}
}
