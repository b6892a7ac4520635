package consul

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/naming-go/naming/backend/consul/internal/wire"
)

// Consul accepts any name for a service. But it reads the name from the path of a URL,
// where it refuses characters that are not printable and removes empty segments and
// dots. Names that this changes are escaped. All other names, so all ordinary ones, are
// the same in Consul and in this framework.
//
// toConsul and fromConsul are each other's inverse: a plain name that looks like an
// escaped name is escaped as well.

// toConsul returns Consul's name of a service.
func toConsul(name string) string {
	if plain(name) && !isEscaped(name) {
		return name
	}
	return escape(name)
}

// fromConsul returns the name of a service of which Consul's name is given.
func fromConsul(name string) string {
	if isEscaped(name) {
		s, _ := unescape(name)
		return s
	}
	return name
}

// plain reports whether a name passes through the path of a URL unchanged.
func plain(name string) bool {
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	for segment := range strings.SplitSeq(name, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

// isEscaped reports whether toConsul has made name by escaping another.
func isEscaped(name string) bool {
	s, ok := unescape(name)
	return ok && escape(s) == name && (!plain(s) || isEscaped(s))
}

const hexDigits = "0123456789ABCDEF"

// escape replaces every byte that is not a letter, a digit, '-' or '_' by ~XX.
func escape(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if wire.LetterOrDigit(c) || c == '-' || c == '_' {
			b.WriteByte(c)
		} else {
			b.WriteByte('~')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		}
	}
	return b.String()
}

// unescape reverses escape, and reports whether name can be a result of escape.
func unescape(name string) (string, bool) {
	if !strings.Contains(name, "~") {
		return "", false
	}
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] != '~' {
			b.WriteByte(name[i])
			continue
		}
		if i+2 >= len(name) {
			return "", false
		}
		hi, lo := strings.IndexByte(hexDigits, name[i+1]), strings.IndexByte(hexDigits, name[i+2])
		if hi < 0 || lo < 0 {
			return "", false
		}
		b.WriteByte(byte(hi<<4 | lo))
		i += 2
	}
	return b.String(), utf8.ValidString(b.String())
}
