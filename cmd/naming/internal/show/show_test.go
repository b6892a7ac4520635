package show

import "testing"

func TestCount(t *testing.T) {
	for _, x := range []struct {
		n    int
		noun string
		want string
	}{
		{0, "service", "0 services"}, {1, "service", "1 service"}, {2, "service", "2 services"},
		{1, "copy", "1 copy"}, {2, "copy", "2 copies"}, {3, "key", "3 keys"}, {2, "address", "2 addresses"},
	} {
		if got := Count(x.n, x.noun); got != x.want {
			t.Errorf("Count(%d, %q): got %q, want %q", x.n, x.noun, got, x.want)
		}
	}
}
