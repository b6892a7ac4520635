package naming_test

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutants plants the bugs of this field in the watch, one at a time, and
// expects the tests to notice.
func TestMutants(t *testing.T) {
	mutant.Run(t, ".", 3, []mutant.Mutant{
		{
			Name: "keeps what a snapshot does not have",
			File: "watch.go",
			Old:  "		if set[id] == nil {\n			changes = append(changes, change{old: old})",
			New:  "		if set[id] == nil {\n			set[id] = old",
			Test: "TestHistories|TestOutage",
		}, {
			Name: "forgets what a reader was told",
			File: "watch.go",
			Old:  "			c.old = before.old\n",
			New:  "			_ = before\n",
			Test: "TestHistories",
		}, {
			Name: "starts over with short waits after every failure",
			File: "watch.go",
			Old:  "lived >= healthyAfter",
			New:  "lived >= 0",
			Test: "TestBackoff",
		}, {
			Name: "tells of changes that are none",
			File: "watch.go",
			Old:  "if old := s.set[e.ID]; !sameEntry(old, e) {",
			New:  "if old := s.set[e.ID]; e != nil {",
			Test: "TestHistories",
		}, {
			Name: "deletes the unknown",
			File: "watch.go",
			Old:  "		if old := s.set[id]; old != nil {\n",
			New:  "		old := s.set[id]\n		if old == nil {\n			old = &entry{Endpoint: Endpoint{ID: id}}\n		}\n		{\n",
			Test: "TestHistories",
		}, {
			Name: "empties the set when the watch fails",
			File: "watch.go",
			Old:  "	size := len(s.set)\n	if again {",
			New:  "	size := len(s.set)\n	for _, e := range s.set {\n		defer s.apply(Batch{Deleted: []string{e.ID}})\n	}\n	if again {",
			Test: "TestOutage",
		}, {
			Name: "gives up when the store breaks its contract",
			File: "watch.go",
			Old:  "		if err == errReread {\n			continue",
			New:  "		if err == errSilentEnd {\n			return\n		}\n		if err == errReread {\n			continue",
			Test: "TestHistories",
		}, {
			Name: "takes a change for a snapshot",
			File: "watch.go",
			Old:  "			if !b.Snapshot {\n				return 0, errNoSnapshot\n			}\n",
			New:  "",
			Test: "TestHistories|TestCarelessStore",
		}, {
			Name: "loses what a slow reader missed",
			File: "watcher.go",
			Old:  "			c.behind.add(c.at.changes)\n",
			New:  "",
			Test: "TestHistories|TestSlowReaders",
		}, {
			Name: "keeps the chain for a slow reader",
			File: "watch.go",
			Old:  "		c.catchUp()\n",
			New:  "		_ = c\n",
			Test: "TestSlowReaders",
		}, {
			Name: "makes a view anew from a stale order",
			File: "watch.go",
			Old:  "	case s.orderAt != s.tail:",
			New:  "	case s.length < 0:",
			Test: "TestHistories",
		}, {
			Name: "watches once more for every reader",
			File: "registry.go",
			Old:  "	if s == nil {\n		s = r.newShared(sub)",
			New:  "	if s == nil || s.readers > 0 {\n		s = r.newShared(sub)",
			Test: "TestOneWatch",
		}, {
			Name: "never says that it is fresh again",
			File: "watch.go",
			Old:  "s.status = Status{Synced: true, AsOf: time.Now()}",
			New:  "s.status.Synced, s.status.AsOf = true, time.Now()",
			Test: "TestOutage",
		}, {
			Name: "ends the watch with its last reader",
			File: "registry.go",
			Old:  "	if r.grace < 0 {",
			New:  "	if r.grace != 0 {",
			Test: "TestOneWatch",
		},
	})
}
