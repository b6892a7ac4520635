package migrate

import (
	"testing"
	"time"
)

// TestReaderHurries: servers leave one registry because they are in the other, which was
// down for long. The reader knows the other one's endpoints within two seconds, and not
// only when its next attempt is due by itself.
func TestReaderHurries(t *testing.T) {
	for _, phase := range []Phase{Union, NewRead, Done} {
		onSite(t, Old, noHold(), func(s *site) {
			s.put(int(oldSide), "a:1", "b:1")
			s.stores[newSide].Down(errReaderDown)
			f := s.follow()
			s.phases.set(phase)
			s.expect(f, "a:1 b:1")
			time.Sleep(10 * time.Minute)
			s.stores[newSide].Up()
			s.put(int(newSide), "a:1", "b:1")
			s.remove(int(oldSide), "a:1")
			time.Sleep(2 * time.Second)
			s.expect(f, "a:1 b:1")
		})
	}
}
