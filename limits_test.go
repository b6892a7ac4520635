package naming_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/naming-go/naming"
)

// nested returns metadata of n levels.
func nested(n int) []byte {
	return []byte(strings.Repeat(`{"a":`, n-1) + "{}" + strings.Repeat("}", n-1))
}

// TestLimits asserts each limit: CheckEndpoint and Normalize accept a value at the limit
// and refuse a value that exceeds it by one.
func TestLimits(t *testing.T) {
	text := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct {
		name string
		most int
		make func(n int) naming.Endpoint
	}{
		{"ID", naming.MaxID, func(n int) naming.Endpoint { return naming.Endpoint{ID: text(n), Addr: "a:1"} }},
		{"Addr", naming.MaxAddr, func(n int) naming.Endpoint { return naming.Endpoint{ID: "a", Addr: text(n)} }},
		{"Metadata", naming.MaxMetadata, func(n int) naming.Endpoint {
			return naming.Endpoint{Addr: "a:1", Metadata: []byte(`"` + text(n-2) + `"`)}
		}},
		{"depth", naming.MaxDepth, func(n int) naming.Endpoint { return naming.Endpoint{Addr: "a:1", Metadata: nested(n)} }},
		{"depth of a list", naming.MaxDepth, func(n int) naming.Endpoint {
			return naming.Endpoint{Addr: "a:1", Metadata: []byte(strings.Repeat("[", n) + strings.Repeat("]", n))}
		}},
		{"depth after strings with brackets", naming.MaxDepth, func(n int) naming.Endpoint {
			return naming.Endpoint{Addr: "a:1", Metadata: []byte(`["[[\"[\\",` + strings.Repeat("[", n-1) + strings.Repeat("]", n))}
		}},
	} {
		for _, over := range []int{0, 1} {
			e := c.make(c.most + over)
			check := naming.CheckEndpoint(e)
			_, normalize := naming.Normalize("s", []naming.Change{{Endpoint: e}})
			if (check != nil) != (over > 0) || errors.Is(normalize, naming.ErrInvalid) != (over > 0) {
				t.Errorf("%s of %d: CheckEndpoint %v, Normalize %v", c.name, c.most+over, check, normalize)
			}
			if normalize != nil && len(normalize.Error()) > 2*naming.MaxText {
				t.Errorf("%s of %d: an error of %d bytes", c.name, c.most+over, len(normalize.Error()))
			}
		}
	}
	if err := naming.CheckService(text(naming.MaxServiceName)); err != nil {
		t.Error(err)
	}
	if err := naming.CheckService(text(naming.MaxServiceName + 1)); !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("a name that is too long: %v", err)
	}
}

// TestFieldR12Addresses asserts that an address which would steer a terminal, a log or a
// parser is refused, on writing and on reading.
func TestFieldR12Addresses(t *testing.T) {
	for _, addr := range []string{"h\x00ost:1", "unix:\x1b/x", "a\n:1", "a\r:1", "a\x7f:1", "a\u0085:1", "a\u202e:1", "a\u200b:1", "a\u00a0:1", "a\xff:1", "\ufeffa:1"} {
		if naming.CheckEndpoint(naming.Endpoint{ID: "a", Addr: addr}) == nil {
			t.Errorf("CheckEndpoint accepts address %q", addr)
		}
		if err := naming.CheckAddress(addr); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("CheckAddress(%q) = %v", addr, err)
		}
	}
	for _, addr := range []string{"", "a:1", "[::1]:80", "unix:/a b", "é.example:80", "anything an old program stores"} {
		if err := naming.CheckEndpoint(naming.Endpoint{ID: "a", Addr: addr}); err != nil {
			t.Errorf("CheckEndpoint refuses address %q: %v", addr, err)
		}
	}
}

// TestFieldR13Text asserts that SafeText and SafeError cut and escape text from outside.
func TestFieldR13Text(t *testing.T) {
	const more = len("... (1000000 bytes more)")
	for _, s := range []string{
		"", "plain", "é世界", "\x1b[31mred\nline", strings.Repeat("x", naming.MaxText), strings.Repeat("x", naming.MaxText+1),
		strings.Repeat("\x00", 200_000), strings.Repeat("é", 200_000), strings.Repeat("\xff", 3000), strings.Repeat("世", naming.MaxText), "a\u202eb", "\ufffd",
	} {
		safe := naming.SafeText(s)
		if len(safe) > naming.MaxText+more {
			t.Errorf("%.20q: %d bytes", s, len(safe))
		}
		if !utf8.ValidString(safe) {
			t.Errorf("%.20q: not UTF-8: %q", s, safe)
		}
		for _, r := range safe {
			if !unicode.IsPrint(r) {
				t.Errorf("%.20q: has %U", s, r)
				break
			}
		}
	}
	if got := naming.SafeText("a\n\x1bé"); got != `a\n\x1bé` {
		t.Errorf("escapes: %s", got)
	}

	cause := &naming.MalformedError{Service: "s", Key: "k", Err: io.ErrUnexpectedEOF}
	long := fmt.Errorf("%s\x1b: %w", strings.Repeat("x", 200_000), cause)
	err := naming.SafeError(long)
	var m *naming.MalformedError
	if !errors.Is(err, io.ErrUnexpectedEOF) || !errors.As(err, &m) || m != cause {
		t.Errorf("the causes are lost: %v", err)
	}
	if len(err.Error()) > naming.MaxText+more || strings.ContainsRune(err.Error(), '\x1b') {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
	if again := naming.SafeError(err); again != err {
		t.Error("a safe error is wrapped again")
	}
	if plain := io.EOF; naming.SafeError(plain) != plain || naming.SafeError(nil) != nil {
		t.Error("an error that is safe is wrapped")
	}

	bad := &naming.MalformedError{Service: strings.Repeat("\x00", 1e6), Key: strings.Repeat("k\n", 1e6), Err: errors.New(strings.Repeat("1", 1e6))}
	if n := len(bad.Error()); n > 10*naming.MaxText || strings.ContainsAny(bad.Error(), "\x00\n") {
		t.Errorf("a MalformedError of %d bytes", n)
	}
}
