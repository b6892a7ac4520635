package cli

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestCalm: of many records with one message, few are logged, and the last one says so.
func TestCalm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := slog.New(newCalm(slog.NewTextHandler(&out, nil)))
		count := func(want int, what string) {
			t.Helper()
			if got := strings.Count(out.String(), "\n"); got != want {
				t.Fatalf("%d records are logged, want %d %s: %s", got, want, what, &out)
			}
			out.Reset()
		}
		for range 5000 {
			l.With("service", "a").Warn("failed")
		}
		l.Warn("other")
		if !strings.Contains(out.String(), "--verbose") {
			t.Fatalf("no record says that others are left out: %s", &out)
		}
		count(calmRecords+1, "and another message")
		l.Warn("failed")
		count(0, "in the same minute")
		time.Sleep(calmWindow + time.Second)
		l.Warn("failed")
		count(1, "in another minute")
	})
}
