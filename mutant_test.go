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
			New:  "		old := s.set[id]\n		if old == nil {\n			old = &entry{Endpoint: &Endpoint{ID: id}}\n		}\n		{\n",
			Test: "TestHistories",
		}, {
			Name: "empties the set when the watch fails",
			File: "watch.go",
			Old:  "len(s.set)\n	if again {",
			New:  "len(s.set)\n	for _, e := range s.set {\n		defer s.apply(Batch{Deleted: []string{e.ID}}, false)\n	}\n	if again {",
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
			Name: "lets a reader in a hurry wait",
			File: "watch.go",
			Old:  "		case <-hurry:\n			hurry = nil\n",
			New:  "		case <-hurry:\n			hurry = nil\n			continue\n",
			Test: "TestRetry",
		}, {
			Name: "asks as often as readers are in a hurry",
			File: "watch.go",
			Old:  "	hurryInterval = time.Second\n",
			New:  "	hurryInterval = time.Millisecond\n",
			Test: "TestRetry",
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
			Old:  "s.status = Status{Synced: true, AsOf: time.Now(), Held: was.Held}",
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

// TestRegistrationMutants does the same to the registrations and the hold.
func TestRegistrationMutants(t *testing.T) {
	mutant.Run(t, ".", 3, []mutant.Mutant{
		{
			Name: "gives up after a few attempts",
			File: "registration.go",
			Old:  "				g.note(err, missing || overdue)\n",
			New:  "				g.note(err, missing || overdue)\n				if g.State().Attempts > 8 {\n					return\n				}\n",
			Test: "TestRegistrationHeals|TestRegistrationOutage",
		}, {
			Name: "does not look at the lease while a change fails",
			File: "registration.go",
			Old:  "				lost, overdue := g.leaseEnded()\n",
			New:  "				lost, overdue := false, false\n",
			Test: "TestUpdateInOutage",
		}, {
			Name: "takes the endpoint from its successor",
			File: "registration.go",
			Old:  "g.put(ctx, !putAt.IsZero())",
			New:  "g.put(ctx, false)",
			Test: "TestSuccessor",
		}, {
			Name: "removes its successor",
			File: "registration.go",
			Old:  "Addr: g.endpoint.Addr}, Lease: l.lease})",
			New:  "Addr: g.endpoint.Addr}})",
			Test: "TestSuccessor",
		}, {
			Name: "does not see that the endpoint was deleted",
			File: "registration.go",
			Old:  "			if g.deleted() {",
			New:  "			if g.deleted() && ctx.Err() != nil {",
			Test: "TestDeleted$",
		}, {
			Name: "takes a first set for the last word",
			File: "registration.go",
			Old:  "			case !there:\n",
			New:  "			case !there && !known:\n",
			Test: "TestDeletedBeforeWatch",
		}, {
			Name: "does not wait before it removes",
			File: "registration.go",
			Old:  "	if marked {\n		sleep(ctx, g.opts.Propagation)",
			New:  "	if !marked {\n		sleep(ctx, g.opts.Propagation)",
			Test: "TestRegister$",
		}, {
			Name: "does not say that it drains",
			File: "registration.go",
			Old:  "	marked := g.mark(ctx)\n",
			New:  "	marked := true\n",
			Test: "TestRegister$|TestRegistryCloseWithdraws",
		}, {
			Name: "leaves an orphan on a lease that others renew",
			File: "registration.go",
			Old:  "		l.orphan(g.service, g.endpoint.ID)\n",
			New:  "",
			Test: "TestCloseWhileDown",
		}, {
			Name: "removes as an orphan what was registered again",
			File: "lease.go",
			Old:  "		delete(l.orphans, o)\n		removed := l.removed\n",
			New:  "		removed := l.removed\n",
			Test: "TestOrphanRegisteredAgain",
		}, {
			Name: "does not wait for the removal of an orphan",
			File: "lease.go",
			Old:  "		busy := removed != nil && l.removing == o\n",
			New:  "		busy := false\n",
			Test: "TestOrphanRegisteredAgain",
		}, {
			Name: "renews a lease too late",
			File: "lease.go",
			Old:  "				wait = min(wait, ttl/6)\n",
			New:  "				wait = min(wait, ttl-time.Since(renewed))\n",
			Test: "TestRenewBeforeTheEnd",
		}, {
			Name: "has a lease for every endpoint",
			File: "lease.go",
			Old:  "l.members < leaseLoad",
			New:  "l.members < 1",
			Test: "TestSharedLeases",
		}, {
			Name: "puts everything on one lease",
			File: "lease.go",
			Old:  "l.members < leaseLoad",
			New:  "l.members > 0",
			Test: "TestSharedLeases",
		}, {
			Name: "renews a lease that holds nothing",
			File: "lease.go",
			Old:  "	l.drop()\n	l.cancel()\n	return true\n",
			New:  "	return true\n",
			Test: "TestSharedLeases|TestRegistrationLeaks",
		}, {
			Name: "says that it is registered when it is not",
			File: "lease.go",
			Old:  "				l.setOverdue(fmt.Errorf(\"not renewed for longer than its time to live of %v: %w\", ttl, err))\n",
			New:  "				_ = fmt.Errorf(\"%w\", err)\n",
			Test: "TestRegistrationOutage",
		}, {
			Name: "holds nothing",
			File: "hold.go",
			Old:  "	for id, l := range h.lost {\n",
			New:  "	for id, l := range h.lost {\n		continue\n",
			Test: "TestHold",
		}, {
			Name: "holds what said that it would go",
			File: "hold.go",
			Old:  "		case c.old.Info().Draining:",
			New:  "		case c.old.Info().Draining && c.new != nil:",
			Test: "TestHold",
		}, {
			Name: "holds a single one",
			File: "hold.go",
			Old:  "shrunk < 2 && len(s.set) > 0",
			New:  "false",
			Test: "TestHold/a_single_one|TestHold/slowly",
		}, {
			Name: "never lets go",
			File: "hold.go",
			Old:  "		h.timer = time.AfterFunc(opts.For, s.expire)\n",
			New:  "		_ = s.expire\n",
			Test: "TestHold",
		}, {
			Name: "holds more and more",
			File: "hold.go",
			Old:  "	if len(m) <= 2*n+64 {",
			New:  "	if len(m) <= 2*n+6400000 {",
			Test: "TestHoldBounded",
		},
	})
}
