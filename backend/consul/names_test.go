package consul

import (
	"strings"
	"testing"

	"github.com/naming-go/naming"
)

func TestNames(t *testing.T) {
	plainly := []string{"a", "greeter", "my.pkg.Greeter", "a/b", "a b", "é", "%2F", "a?b#c", "~", "a~b", "a~2", "a~2fb", "~zz", "a~2Fb", strings.Repeat("x", 500)}
	for _, name := range plainly {
		if got := toConsul(name); got != name {
			t.Errorf("%q is %q in Consul", name, got)
		}
		if got := fromConsul(name); got != name {
			t.Errorf("Consul's %q is %q", name, got)
		}
	}
	seen := make(map[string]string)
	for _, name := range append(plainly, "/", "//", "/a", "a/", "a//b", ".", "..", "a/./b", "../a", "\x00", "a\nb", "\u200b", "~2E", "~7E2E", "~2Fa") {
		c := toConsul(name)
		if other, ok := seen[c]; ok {
			t.Errorf("%q and %q are both %q", name, other, c)
		}
		seen[c] = name
		if got := fromConsul(c); got != name || !plain(c) {
			t.Errorf("%q is %q in Consul, and that %q", name, c, got)
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, name := range []string{"a", "a/b", "/", "~2F", "~7E2F", "a~00", "é", "\u200b"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if naming.CheckService(name) != nil {
			return
		}
		c := toConsul(name)
		if got := fromConsul(c); got != name || !plain(c) {
			t.Errorf("%q is %q in Consul, and that %q", name, c, got)
		}
		// The other way round: a name in Consul leads back to itself.
		if got := toConsul(fromConsul(name)); plain(name) && got != name {
			t.Errorf("Consul's %q is looked for at %q", name, got)
		}
	})
}
