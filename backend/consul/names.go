package consul

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Consul takes any name for a service, but tells some of them from the path of
// a URL, where a server refuses what is not printable and cleans away empty
// segments and dots. Those names are escaped; all others, and so all that are
// ordinary, are the same in Consul as here.
//
// The two functions are each other's inverse: the escaped form of a name is
// nobody's plain name, as a name that looks like one is escaped as well.

// toConsul returns Consul's name of a service.
func toConsul(name string) string {
	if plain(name) && !isEscaped(name) {
		return name
	}
	return escape(name)
}

// fromConsul returns the name of Consul's service.
func fromConsul(name string) string {
	if isEscaped(name) {
		s, _ := unescape(name)
		return s
	}
	return name
}

// plain reports whether a name passes through a URL's path.
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

// escape puts ~XX in the place of every byte that is not a letter, a digit, '-'
// or '_'.
func escape(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if letterOrDigit(c) || c == '-' || c == '_' {
			b.WriteByte(c)
		} else {
			b.WriteByte('~')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		}
	}
	return b.String()
}

func letterOrDigit(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// unescape undoes escape, and reports whether there was something to undo.
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
