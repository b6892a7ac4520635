package naming_test

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutants plants typical bugs in the watch, one at a time, and expects a test to fail
// for each.
func TestMutants(t *testing.T) {
	mutant.Run(t, ".", 3, []mutant.Mutant{
		{
			Name: "keeps endpoints that a snapshot does not have",
			File: "set.go",
			Old:  "		if entries[id] == nil {\n			changes = append(changes, change{old: old})",
			New:  "		if entries[id] == nil {\n			entries[id] = old",
			Test: "TestHistories|TestOutage",
		}, {
			Name: "forgets the state that a reader has",
			File: "entry.go",
			Old:  "			c.old = before.old\n",
			New:  "			_ = before\n",
			Test: "TestHistories",
		}, {
			Name: "starts over with short waits after every failure",
			File: "staleness.go",
			Old:  "		if lived >= healthyAfter {\n",
			New:  "		if lived >= 0 {\n",
			Test: "TestBackoff",
		}, {
			Name: "publishes changes without effect",
			File: "set.go",
			Old:  "if old := s.entries[e.ID]; !sameEntry(old, e) {",
			New:  "if old := s.entries[e.ID]; old == nil || e != nil {",
			Test: "TestHistories",
		}, {
			Name: "deletes endpoints that are not in the set",
			File: "set.go",
			Old:  "		if old := s.entries[id]; old != nil {\n",
			New:  "		old := s.entries[id]\n		if old == nil {\n			old = &entry{Endpoint: &Endpoint{ID: id}}\n		}\n		{\n",
			Test: "TestHistories",
		}, {
			Name: "empties the set when the watch fails",
			File: "staleness.go",
			Old:  "	wakes, delay := s.publishFailure(err, err.Error())\n",
			New:  "	wakes, delay := s.publishFailure(err, err.Error())\n	for id := range s.set.entries {\n		_ = s.apply(Batch{Deleted: []string{id}}, false, time.Time{})\n	}\n",
			Test: "TestOutage",
		}, {
			Name: "gives up when the store breaks its contract",
			File: "watch.go",
			Old:  "		if err == errResyncDue {\n			continue",
			New:  "		if err == errSilentEnd {\n			return\n		}\n		if err == errResyncDue {\n			continue",
			Test: "TestHistories",
		}, {
			Name: "takes a change for a snapshot",
			File: "watch.go",
			Old:  "		if first && !b.Snapshot {\n			return errNoSnapshot\n		}\n",
			New:  "",
			Test: "TestHistories|TestCarelessStore",
		}, {
			Name: "loses changes for a slow reader",
			File: "follower.go",
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
			Name: "ignores Retry",
			File: "retry.go",
			Old:  "		case <-hurry:\n			hurry = nil\n",
			New:  "		case <-hurry:\n			hurry = nil\n			continue\n",
			Test: "TestRetry",
		}, {
			Name: "retries as often as readers call Retry",
			File: "retry.go",
			Old:  "	hurryInterval = time.Second\n",
			New:  "	hurryInterval = time.Millisecond\n",
			Test: "TestRetry",
		}, {
			Name: "makes a view from an old order",
			File: "set.go",
			Old:  "	case s.orderAt != tail:",
			New:  "	case s.withheld < 0:",
			Test: "TestHistories",
		}, {
			Name: "keeps in the list what was withheld meanwhile",
			File: "set.go",
			Old:  "s.listsAt != nil && s.withheld == 0 && len",
			New:  "s.listsAt != nil && len",
			Test: "TestHistories",
		}, {
			Name: "watches once more for every reader",
			File: "client.go",
			Old:  "	if s == nil {\n		s = c.newShared(sub)",
			New:  "	if s == nil || s.usage.readers > 0 {\n		s = c.newShared(sub)",
			Test: "TestOneWatch",
		}, {
			Name: "never says that it is fresh again",
			File: "staleness.go",
			Old:  "s.status = Status{Synced: true, AsOf: time.Now()}",
			New:  "s.status.Synced, s.status.AsOf = true, time.Now()",
			Test: "TestOutage",
		}, {
			Name: "takes a snapshot for a recovery",
			File: "staleness.go",
			Old:  "time.Since(h.readAt) >= h.row.proof()",
			New:  "true",
			Test: "TestFieldR1",
		}, {
			Name: "dates the reads of an unproved watch",
			File: "watch.go",
			Old:  "	if !was.Synced || !was.Stale() {\n",
			New:  "	if true {\n",
			Test: "TestFieldR1",
		}, {
			Name: "does not wake watches when a call succeeds",
			File: "retry.go",
			Old:  "		case <-back:\n			back = nil\n",
			New:  "		case <-back:\n			back = nil\n			continue\n",
			Test: "TestFieldR1",
		}, {
			Name: "wakes watches that keep failing at the same pace",
			File: "retry.go",
			Old:  "			if t.advance(row.woken) {",
			New:  "			if t.advance(0) {",
			Test: "TestFieldR1",
		}, {
			Name: "ends the watch with its last reader",
			File: "client.go",
			Old:  "	if c.idleGrace < 0 {",
			New:  "	if c.idleGrace != 0 {",
			Test: "TestOneWatch",
		}, {
			Name: "does not report a withheld endpoint to a Watcher",
			File: "former.go",
			Old:  "		if n = n.usable(); !n.empty() {",
			New:  "		if !n.empty() {",
			Test: "TestFieldW1",
		}, {
			Name: "has no event when only the reason changed",
			File: "entry.go",
			Old:  "a.Reason == b.Reason && a.Detail",
			New:  "a.Detail",
			Test: "TestFieldW1",
		}, {
			Name: "accepts an endpoint without an ID",
			File: "batch.go",
			Old:  "	if e.ID == \"\" && e.Addr != \"\" {",
			New:  "	if e.ID == \"\" && e.Addr == \"\" && e.Metadata == nil {",
			Test: "TestFieldR7",
		}, {
			Name: "accepts the deletion of an empty ID",
			File: "set.go",
			Old:  "b.Deleted[0] == \"\" && s.entries[\"\"] == nil",
			New:  "b.Deleted[0] == \"\" && s.entries[\"\"] != nil",
			Test: "TestFieldR7",
		}, {
			Name: "lets List and Update wait after Close",
			File: "client.go",
			Old:  "cancel(ErrClientClosed) })",
			New:  "_ = cancel })",
			Test: "TestClientClosed",
		}, {
			Name: "lets calls begin while Close waits",
			File: "client.go",
			Old:  "	if c.isClosed() {\n",
			New:  "	if c.ctx.Err() != nil {\n",
			Test: "TestClientClosed",
		}, {
			Name: "says of a closed Client that the Registration was closed",
			File: "registration.go",
			Old:  "errors.Is(err, ErrRegistrationClosed) && g.client.isClosed()",
			New:  "errors.Is(err, ErrRegistrationClosed) && g.client.ctx.Err() != nil",
			Test: "TestClientClosed",
		},
	})
}

// TestMarkMutants does the same for marks that somebody else sets.
func TestMarkMutants(t *testing.T) { mutant.Run(t, ".", 2, markMutants) }

var markMutants = []mutant.Mutant{
	{
		Name: "undoes the mark at the next put",
		File: "adopt.go",
		Old:  "	want.Draining = draining\n	i.setWant(want)\n",
		New:  "	i.setWant(want)\n	i.status.Draining = draining\n",
		Test: "TestMarkIsKept",
	}, {
		Name: "reads the entry after each own mark",
		File: "keeper.go",
		Old:  "		k.inspected.excuse(before) //",
		New:  "		_ = before //",
		Test: "TestMarkCostsNothing",
	}, {
		Name: "reads the entry after an own mark if an older put has left it as it was",
		File: "keeper.go",
		Old:  "before.Draining == k.last.endpoint.Draining {\n",
		New:  "before.Draining == k.last.endpoint.Draining && before != k.inspected.entry {\n",
		Test: "TestMarkAfterEqualPut",
	}, {
		Name: "takes an own mark for that of others",
		File: "adopt.go",
		Old:  " && time.Since(k.marked) >= confirmAfter",
		New:  "",
		Test: "TestMarkShownLate",
	}, {
		Name: "takes what the watch shows for the present state",
		File: "adopt.go",
		Old:  "	case found.Draining != k.last.endpoint.Draining:\n",
		New:  "	case e.Draining != k.last.endpoint.Draining:\n",
		Test: "TestMarkOfPredecessor|TestMarkDuringUpdate",
	}, {
		Name: "writes the entry to adopt the mark",
		File: "adopt.go",
		Old:  "	if stored && !pending {\n",
		New:  "	if !stored && !pending {\n",
		Test: "TestMarkIsKept",
	}, {
		Name: "keeps the mark after it was removed",
		File: "adopt.go",
		Old:  "	case !draining && !i.status.MarkedByOther:\n",
		New:  "	case !draining:\n",
		Test: "TestMarkIsKept",
	}, {
		Name: "lets others remove the mark of Drain",
		File: "adopt.go",
		Old:  "		i.version++\n		return false\n",
		New:  "		return false\n",
		Test: "TestMarkOfTheProgram",
	}, {
		Name: "does not put again a mark that its put undid",
		File: "adopt.go",
		Old:  "time.Since(k.last.ended) < confirmAfter &&",
		New:  "time.Since(k.last.ended) < 0 &&",
		Test: "TestMarkDuringUpdate",
	}, {
		Name: "adopts the mark of a predecessor's entry",
		File: "adopt.go",
		Old:  "time.Since(k.owned) >= confirmAfter &&",
		New:  "k.owned.IsZero() == false &&",
		Test: "TestMarkOfPredecessor",
	}, {
		Name: "adopts the mark of a newer Registration",
		File: "adopt.go",
		Old:  "	case !k.g.claim.isOwner(k.g):\n",
		New:  "	case k.g.claim == nil:\n",
		Test: "TestMarkOfNewer",
	}, {
		Name: "adopts the mark of a successor at another address",
		File: "adopt.go",
		Old:  "	case found == nil || found.Addr != k.g.addr || k",
		New:  "	case found == nil || k",
		Test: "TestMarkOfSuccessor",
	}, {
		Name: "retries an adopted mark that the store refuses",
		File: "intent.go",
		Old:  "	case put.Draining && i.status.MarkedByOther && i",
		New:  "	case put.Draining && i.status.MarkedByOther && i.final && i",
		Test: "TestMarkRefused",
	}, {
		Name: "gives up when it cannot read the entry",
		File: "adopt.go",
		Old:  "		return // the keeper inspects the entry again\n",
		New:  "		k.inspected.rest = time.Hour\n		return\n",
		Test: "TestMarkUnreadable",
	}, {
		Name: "does not look at what the watch has shown and shows no more",
		File: "adopt.go",
		Old:  "		if passed != nil && ",
		New:  "		if false && ",
		Test: "TestMarkDuringUpdate",
	}, {
		Name: "shows control characters of an answer to Mark",
		File: "marker.go",
		Old:  "	return SafeError(err)\n",
		New:  "	return err\n",
		Test: "TestMarkHostileAnswer",
	}, {
		Name: "overrules an operator who removes the mark at once",
		File: "adopt.go",
		Old:  "		!sameButMark(*marked, *now)\n",
		New:  "		now != nil\n",
		Test: "TestMarkRemovedAtOnce",
	}, {
		Name: "inspects a state once",
		File: "adopt.go",
		Old:  "	if rest := k.inspected.due(e); rest > 0 {\n",
		New:  "	if rest := k.inspected.due(e); e == k.inspected.entry {\n",
		Test: "TestMarkNotShown",
	}, {
		Name: "reads at each change of the service while it cannot read",
		File: "adopt.go",
		Old:  "	return i.rest - time.Since(i.at)\n",
		New:  "	return 0\n",
		Test: "TestMarkUnreadable",
	}, {
		Name: "gives up the mark for an Update that the store refuses",
		File: "intent.go",
		Old:  " && sameButMark(put, *i.accepted):\n",
		New:  ":\n",
		Test: "TestMarkAndRefusedUpdate",
	}, {
		Name: "forgets an adopted mark that an Update was to replace",
		File: "adopt.go",
		Old:  "	if stored && i.accepted != nil {\n",
		New:  "	if stored && !pending {\n",
		Test: "TestMarkBeforeRefusedUpdate",
	}, {
		Name: "does not hear what the program says of the mark",
		File: "intent.go",
		Old:  "i.status.MarkedByOther && (mark || !want.Draining)\n",
		New:  "i.status.MarkedByOther && (mark && !want.Draining)\n",
		Test: "TestMarkOfTheProgram",
	},
}

// TestRegistrationMutants does the same for registrations and the hold.
func TestRegistrationMutants(t *testing.T) {
	mutant.Run(t, ".", 3, []mutant.Mutant{
		{
			Name: "gives up after a few attempts",
			File: "keeper.go",
			Old:  "	k.report(err, k.missing || overdue)\n",
			New:  "	k.report(err, k.missing || overdue)\n	if k.g.Status().FailedAttempts > 8 {\n		k.g.cancel()\n	}\n",
			Test: "TestRegistrationHeals|TestRegistrationOutage",
		}, {
			Name: "does not look at the lease while a change fails",
			File: "keeper.go",
			Old:  "	lost, overdue := k.checkLease()\n",
			New:  "	lost, overdue := false, false\n",
			Test: "TestUpdateInOutage",
		}, {
			Name: "takes the endpoint from its successor",
			File: "keeper.go",
			Old:  "k.put(ctx, want, k.gentle)",
			New:  "k.put(ctx, want, false)",
			Test: "TestSuccessor",
		}, {
			Name: "reports an entry that a put left alone as its own",
			File: "keeper.go",
			Old:  "	k.last.listed = !k.missing || !k.gentle\n",
			New:  "	k.last.listed = true\n",
			Test: "TestFieldR1OwnOldEntry",
		}, {
			Name: "removes its successor",
			File: "withdraw.go",
			Old:  "Addr: g.addr}, Lease: l.lease, Reclaim: g.keeper.mayReclaim()})",
			New:  "Addr: g.addr}})",
			Test: "TestSuccessor",
		}, {
			Name: "does not see that the endpoint was deleted",
			File: "keeper.go",
			Old:  "		if last.shown || newer {",
			New:  "		if newer {",
			Test: "TestDeleted$",
		}, {
			Name: "ignores that a new watch does not show the endpoint",
			File: "keeper.go",
			Old:  "		if last.shown || newer {",
			New:  "		if last.shown {",
			Test: "TestDeletedBeforeWatch",
		}, {
			Name: "does not wait before it removes",
			File: "withdraw.go",
			Old:  "	if marked && !g.linger(",
			New:  "	if !marked && !g.linger(",
			Test: "TestRegister$",
		}, {
			Name: "does not say that it drains",
			File: "withdraw.go",
			Old:  "drainDelay > 0 && g.markDraining(ctx, patience)\n",
			New:  "drainDelay > 0\n",
			Test: "TestRegister$|TestRegistryCloseWithdraws",
		}, {
			Name: "leaves an orphan on a lease that others renew",
			File: "claims.go",
			Old:  "	l.addOrphan(g.service, g.id)\n	return true\n",
			New:  "	return true\n",
			Test: "TestCloseWhileDown",
		}, {
			Name: "leaves an endpoint of a failed put on a lease that others renew",
			File: "put.go",
			Old:  "	if k.g.intent.isListed() {\n		k.g.claim.addOrphan(k.g, l)\n",
			New:  "	if k.g.intent.isListed() {\n",
			Test: "TestRefusedAfterAPutThatFailed",
		}, {
			Name: "tries to remove the entry of a newer registration until the time is up",
			File: "withdraw.go",
			Old:  "		if !g.linger(ctx, b.delay()) {\n			return ErrReplaced\n		}\n",
			New:  "		if !sleep(ctx, b.delay()) {\n			return err\n		}\n",
			Test: "TestSuccessorOfFailedWithdraw",
		}, {
			Name: "marks an endpoint that is withdrawn",
			File: "announcer.go",
			Old:  "return g.close(ctx, 0, 0)",
			New:  "return g.close(ctx, closeMargin, closeMargin/5)",
			Test: "TestWithdraw$",
		}, {
			Name: "removes an orphan by its address as well",
			File: "lease.go",
			Old:  "Endpoint: Endpoint{ID: o.id}, Lease",
			New:  "Endpoint: Endpoint{ID: o.id, Addr: o.id}, Lease",
			Test: "TestOrphanOfAnyID",
		}, {
			Name: "reads the entry of a successor for ever",
			File: "keeper.go",
			Old:  "		k.last.shown = true // the watch agrees",
			New:  "		// the watch agrees",
			Test: "TestLeftToSuccessorIsProvedOnce",
		}, {
			Name: "removes an orphan that was registered again",
			File: "lease.go",
			Old:  "	delete(l.orphans, o)\n	if l.removed != nil && l",
			New:  "	if l.removed != nil && l",
			Test: "TestOrphanRegisteredAgain",
		}, {
			Name: "does not wait for the removal of an orphan",
			File: "lease.go",
			Old:  "	if l.removed != nil && l.removing == o {\n",
			New:  "	if false {\n",
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
			Old:  "	l.leavePool()\n	l.cancel()\n	return true\n",
			New:  "	return true\n",
			Test: "TestSharedLeases|TestRegistrationLeaks",
		}, {
			Name: "says that it is registered when it is not",
			File: "lease.go",
			Old:  "				l.setOverdue(fmt.Errorf(\"not renewed for longer than its time to live of %v: %w\", ttl, err))\n",
			New:  "				_ = fmt.Errorf(\"%w\", err)\n",
			Test: "TestRegistrationOutage",
		}, {
			Name: "marks as draining without waiting for clients",
			File: "withdraw.go",
			Old:  "	marked := drainDelay > 0 && g.markDraining(",
			New:  "	marked := g.markDraining(",
			Test: "TestFieldI1",
		}, {
			Name: "keeps draining in a format without a place for the mark",
			File: "intent.go",
			Old:  "		want.Draining = false\n",
			New:  "		_ = want.Draining\n",
			Test: "TestFieldI4",
		}, {
			Name: "retries refused content",
			File: "keeper.go",
			Old:  "	refusedInterval = 10 * time.Minute",
			New:  "	refusedInterval = time.Second",
			Test: "TestFieldR9",
		}, {
			Name: "keeps a change that was refused",
			File: "intent.go",
			Old:  "		want, v = *i.accepted, changeUndone\n",
			New:  "		v = changeUndone\n",
			Test: "TestFieldR9",
		}, {
			Name: "lets an older registration write",
			File: "put.go",
			Old:  "	if !g.claim.isOwner(g) {\n		return ErrReplaced\n	}\n	if c.Op == Delete {",
			New:  "	if c.Op == Delete {",
			Test: "TestFieldR2",
		}, {
			Name: "loses the lease of an older registration",
			File: "claims.go",
			Old:  "	c.inherited = append(c.inherited, leases...)\n",
			New:  "	_ = leases\n",
			Test: "TestFieldR2",
		}, {
			Name: "accepts every time to live",
			File: "lease.go",
			Old:  "	if ttl < minTTL {",
			New:  "	if ttl < minTTL-24*time.Hour {",
			Test: "TestFieldR6",
		}, {
			Name: "takes a deletion for an overload",
			File: "keeper.go",
			Old:  "deletions: backoff{most: maxReturn}",
			New:  "deletions: backoff{}",
			Test: "TestFieldR11",
		}, {
			Name: "takes an old snapshot for a deletion",
			File: "keeper.go",
			Old:  "		if last.shown || newer {",
			New:  "		if p.known || newer {",
			Test: "TestFieldR2Old",
		}, {
			Name: "leaves an entry without a lease",
			File: "keeper.go",
			Old:  "p.endpoint != last.before) {\n		return errUnleased\n",
			New:  "p.endpoint != last.before) {\n		return nil\n",
			Test: "TestFieldR8EditedByHand",
		}, {
			Name: "takes an edit that came with the put for one before it",
			File: "keeper.go",
			Old:  "(newer || p.endpoint != last.before)",
			New:  "(newer || !same)",
			Test: "TestFieldR8EditedDuring",
		}, {
			Name: "takes an edit that a new watch shows for one before the put",
			File: "keeper.go",
			Old:  "(newer || p.endpoint != last.before)",
			New:  "p.endpoint != last.before",
			Test: "TestFieldR8EditedDuring",
		}, {
			Name: "takes an entry without a lease for the put",
			File: "keeper.go",
			Old:  "newer || !unleased && (",
			New:  "newer || (",
			Test: "TestFieldR8EditedDuring",
		}, {
			Name: "reads the entry and ignores its lease",
			File: "keeper.go",
			Old:  "	case k.isUnleased(e):\n",
			New:  "	case false:\n",
			Test: "TestFieldR8EditedDuring",
		}, {
			Name: "leaves an entry without a lease behind",
			File: "withdraw.go",
			Old:  "Lease: l.lease, Reclaim: g.keeper.mayReclaim()})",
			New:  "Lease: l.lease})",
			Test: "TestFieldR8",
		}, {
			Name: "takes the entry of another address",
			File: "put.go",
			Old:  "	return p.endpoint == nil || p.endpoint.Addr == k.g.addr\n",
			New:  "	return p.endpoint == nil || p.endpoint != nil\n",
			Test: "TestFieldR8",
		}, {
			Name: "puts a withheld endpoint again",
			File: "keeper.go",
			Old:  "	if p.endpoint == nil {\n		if last.shown",
			New:  "	if p.endpoint == nil || p.withheld != nil {\n		if last.shown",
			Test: "TestFieldW2",
		}, {
			Name: "holds nothing",
			File: "hold.go",
			Old:  "			h.lost.add(was, now)\n",
			New:  "",
			Test: "TestHold",
		}, {
			Name: "holds an endpoint that was draining",
			File: "hold.go",
			Old:  "|| e.Info().Draining\n",
			New:  "\n",
			Test: "TestHold",
		}, {
			Name: "holds a single one",
			File: "hold.go",
			Old:  "	single := shrunk < 2 && size > 0\n",
			New:  "	single := false\n",
			Test: "TestHold/a_single_one|TestHold/slowly",
		}, {
			Name: "never releases",
			File: "hold.go",
			Old:  "		h.timer = time.AfterFunc(opts.MaxDuration, s.expireHeld)\n",
			New:  "		_ = s.expireHeld\n",
			Test: "TestHold",
		}, {
			Name: "holds more and more",
			File: "losslist.go",
			Old:  "	if l.len() <= 2*n+64 {",
			New:  "	if l.len() <= 2*n+6400000 {",
			Test: "TestHoldBounded",
		}, {
			Name: "takes a withheld endpoint for a loss",
			File: "hold.go",
			Old:  "		case c.new != nil || opts.explained(was):",
			New:  "		case opts.explained(was):",
			Test: "TestFieldW1",
		}, {
			Name: "keeps holding an endpoint that is withheld now",
			File: "hold.go",
			Old:  "		if c.new != nil {\n			h.lost",
			New:  "		if is != nil {\n			h.lost",
			Test: "TestFieldW1HoldNeverApplies",
		}, {
			Name: "holds endpoints without a place for the mark",
			File: "hold.go",
			Old:  "e.NoDrainingMark && !h.IncludeNoDrainingMark ||",
			New:  "",
			Test: "TestFieldI2NoDrain",
		}, {
			Name: "holds an endpoint whose address is in the set",
			File: "hold.go",
			Old:  "		if x.entry.Addr == \"\" || h.addrs[x.entry.Addr] == 0 {\n",
			New:  "		if h.addrs != nil {\n",
			Test: "TestFieldI2AddressReused",
		}, {
			Name: "makes the list of held endpoints anew after every loss",
			File: "losslist.go",
			Old:  "	if l.shown != nil {\n		l.shown = append(l.shown, *e.Endpoint)\n	}\n",
			New:  "	l.shown = nil\n",
			Test: "TestFieldR5CostOfHeld",
		}, {
			Name: "takes a share that is not a number",
			File: "hold.go",
			Old:  "	if !(h.Share > 0) {",
			New:  "	if h.Share <= 0 {",
			Test: "TestFieldR14",
		},
	})
}
