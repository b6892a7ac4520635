package conformance

// The rules, numbered as in the contract. The doc comments of naming.Store and
// naming.Lease are the law; these are what a failure says.
const (
	ruleSnapshot = "1. The first batch of a watch is a snapshot, empty for a service without endpoints; a service that has none does not differ from one that never was."
	ruleList     = "1. A list is the first batch of a watch whose loop is then left, and costs no more requests than reading the set once takes, which the backend documents."
	ruleWhole    = "2. A snapshot is complete or is not yielded: a read that failed, or failed in part, is an error and never a smaller set."
	ruleAtomic   = "3. Changes that the registry made at once are in one batch. Apply makes all of its changes or none where the registry can, in their order where it cannot."
	ruleOrder    = "4. An older state of an endpoint never follows a newer one, also across two watches of one Store. Repeats are allowed."
	ruleLasting  = "4. States that did not last may be left out of a watch; a state that lasts is yielded."
	ruleEnd      = "5. A sequence ends with an error, always, and with one only: the zero value and ctx.Err() if ctx is done, or what went wrong."
	ruleRange    = "5. Nothing is asked, held or started before a sequence is ranged over, and nothing is left when the loop has ended. Each range over it is a new watch."
	ruleThin     = "6. A Store does not retry and keeps no goroutine beyond the loop; what fails is told to the caller, who tries again."
	ruleSilence  = "7. A watch ends with an error, within a bound that the backend documents, when the registry or the link to it fell silent without a word."
	ruleIdle     = "8. While nothing changes, an idle watch yields nothing and asks the registry nothing."
	ruleLease    = "9. An endpoint put under a lease goes when the lease is revoked or was not renewed for its time to live, and not before."
	ruleReplaced = "9. A lease that an endpoint is not under any more, because it was put again under another lease or under none, neither removes it nor brings it back."
	ruleRenew    = "9. Once the lease has ended, Renew either restores all that the lease held or returns ErrLeaseLost; it never returns nil while the endpoints are gone."
	ruleLost     = "9. An Add under a lease that has ended is ErrLeaseLost, and stores nothing that outlives it."
	ruleRevoke   = "9. Revoke returns nil if, afterwards, the lease has ended, whatever ended it."
	ruleDelete   = "9. A Delete that names a lease removes the endpoint only if it is still under that lease, and leaves it alone without an error if it is not."
	ruleIfFree   = "9. An Add with IfFree puts the endpoint only if there is none with its ID, or it is under that lease already, and leaves it alone without an error if it is not."
	ruleReclaim  = "9. Reclaim widens the condition of an Add with IfFree and of a Delete with a lease: it also holds for an endpoint that is under no lease at all, and for no other."
	ruleOneWins  = "9. Of several Adds of one ID at once, all with IfFree and each under another lease, at most one puts."
	ruleFence    = "9. No Apply under a lease, also one that runs at the same time as Revoke, stores what outlives the lease."
	ruleVerdict  = "9. ErrLeaseLost vouches that nothing put under the lease is in the registry, nor will be. It is not returned when the registry could not be asked, and an outage of any length ends with Renew restoring the lease or returning it."
	ruleOutlives = "9. A lease outlives its TTL: a link that is down for less than TTL since the last Renew does not end it."
	ruleGone     = "9. A lease that was not renewed because the registry could not be asked lasts no longer than until it can be, and one renewal or removal more."
	ruleGrows    = "9. What a lease costs depends on the endpoints that are under it, not on how often they were put."
	ruleWithheld = "An endpoint that the registry has and says not to use is in Withheld, with the reason, and in no other list of the batch; it is not deleted, and is in Put when it may be used again."
	ruleLeftBe   = "A withheld endpoint is put, renewed, leased and deleted as any other, and stays withheld."
	ruleOperator = "What an operator decided stays when the endpoint is put again, also under another lease."
	ruleDrain    = "An endpoint keeps its mark Draining beside its metadata; a Store whose format has no place for the mark answers an Add that has it with ErrInvalid, and stores nothing."
	ruleLimits   = "What exceeds a limit of package naming is ErrInvalid, and nothing was stored; what is within all of them makes the round trip, or is ErrInvalid where the backend documents a limit of its own."
	ruleBad      = "10. An entry of another writer that cannot be understood is left out, and reported through the store's hook with its key; it hides no other entry, and a good value that it replaced is not kept."
	ruleTrip     = "11. Any service name, any ID, any JSON metadata, and IPv6 and unix addresses make the round trip unchanged; names that differ are different services."
	ruleCause    = "12. Errors wrap their cause, so that errors.Is and errors.As find the error of the client library."
	ruleKinds    = "12. ErrPermission means that the registry refused the credentials, and is told apart from a registry that is unavailable for now."
	ruleInvalid  = "12. An argument that can never work is ErrInvalid, and nothing was stored."
	ruleStored   = "Apply returns nil only when every change is in the registry."
	ruleAgain    = "Applying a change twice is the same as applying it once, and deleting what is not there is no error."
	ruleOwner    = "A Store does not keep the slice it was given, and does not read or write a batch's slices once it has yielded them."
	ruleContext  = "Every method that can block ends soon after its context does, with an error for which errors.Is(err, ctx.Err()) holds."
	ruleSlow     = "All methods may be called concurrently: a loop that takes its time holds up nobody else, and finds the present state when it goes on."
	ruleServices = "Services yields the names of the services that have endpoints, sorted and each once: the whole list at first, and the whole list again when it changed."
	ruleTTL      = "Grant rounds the time to live up, and down only to the longest that the registry knows. TTL says what it became: it is positive, and never changes."
)

// checks is the suite. What goes step by step comes first: a failure there is
// easy to read, and a storm may be lucky.
var checks = []check{
	{name: "FirstBatchIsSnapshot", rule: ruleSnapshot, run: firstBatchIsSnapshot},
	{name: "SnapshotIsWhole", rule: ruleWhole, run: snapshotIsWhole},
	{name: "ListIsOneRead", rule: ruleList, needs: []string{"Calls"}, run: listIsOneRead},

	{name: "ApplyIsStored", rule: ruleStored, run: applyIsStored},
	{name: "ApplyAgain", rule: ruleAgain, run: applyAgain},
	{name: "ApplyKeepsNothing", rule: ruleOwner, run: applyKeepsNothing},
	{name: "OneIDTwice", rule: ruleAtomic, run: oneIDTwice},
	{name: "DeleteOfNothing", rule: ruleAgain, run: deleteOfNothing},
	{name: "InvalidIsRefused", rule: ruleInvalid, run: invalidIsRefused},
	{name: "LimitsAreRefused", rule: ruleLimits, run: limitsAreRefused},
	{name: "AtTheLimits", rule: ruleLimits, run: atTheLimits},
	{name: "ForeignLeaseIsRefused", rule: ruleInvalid, run: foreignLeaseIsRefused},

	{name: "PutIsSeen", rule: ruleLasting, run: putIsSeen},
	{name: "EveryChangeArrives", rule: ruleLasting, run: everyChangeArrives},
	{name: "PutReplaces", rule: ruleLasting, run: putReplaces},
	{name: "AddressChange", rule: ruleLasting, run: addressChange},
	{name: "EqualAddresses", rule: ruleTrip, run: equalAddresses},
	{name: "DeleteRemoves", rule: ruleLasting, run: deleteRemoves},
	{name: "AtomicBatch", rule: ruleAtomic, run: atomicBatch},
	{name: "SnapshotIsNotOlder", rule: ruleOrder, run: snapshotIsNotOlder},
	{name: "SlowReader", rule: ruleSlow, run: slowReader},
	{name: "BatchIsTheReceivers", rule: ruleOwner, run: batchIsTheReceivers},

	{name: "ServicesAreApart", rule: ruleTrip, run: servicesAreApart},
	{name: "IDsRoundTrip", rule: ruleTrip, run: idsRoundTrip},
	{name: "AddressesRoundTrip", rule: ruleTrip, run: addressesRoundTrip},
	{name: "MetadataRoundTrip", rule: ruleTrip, run: metadataRoundTrip},
	{name: "DrainingRoundTrip", rule: ruleDrain, run: drainingRoundTrip},

	{name: "ServicesLists", rule: ruleServices, run: servicesLists},
	{name: "ServicesFollowLeases", rule: ruleServices, run: servicesFollowLeases},

	{name: "LeaseTellsTTL", rule: ruleTTL, run: leaseTellsTTL},
	{name: "RevokeRemoves", rule: ruleLease, run: revokeRemoves},
	{name: "RevokeAgain", rule: ruleRevoke, run: revokeAgain},
	{name: "LeaseExpires", rule: ruleLease, run: leaseExpires},
	{name: "RenewKeeps", rule: ruleLease, run: renewKeeps},
	{name: "RenewAfterEnd", rule: ruleRenew, run: renewAfterEnd},
	{name: "RenewBringsNothingBack", rule: ruleReplaced, run: renewBringsNothingBack},
	{name: "ReplacedLeaseIsRevoked", rule: ruleReplaced, run: replacedLeaseIsRevoked},
	{name: "ReplacedLeaseExpires", rule: ruleReplaced, run: replacedLeaseExpires},
	{name: "ApplyUnderLostLease", rule: ruleLost, run: applyUnderLostLease},
	{name: "SharedLease", rule: ruleLease, run: sharedLease},
	{name: "DeleteOnlyUnderLease", rule: ruleDelete, run: deleteOnlyUnderLease},
	{name: "PutOnlyIfFree", rule: ruleIfFree, run: putOnlyIfFree},
	{name: "Reclaim", rule: ruleReclaim, run: reclaim},
	{name: "RevokeCost", rule: ruleGrows, needs: []string{"Calls"}, run: revokeCost},

	{name: "CancelEnds", rule: ruleEnd, run: cancelEnds},
	{name: "ContextIsHonoured", rule: ruleContext, run: contextIsHonoured},
	{name: "BreakReleases", rule: ruleRange, run: breakReleases},
	{name: "RangedAgain", rule: ruleRange, run: rangedAgain},
	{name: "NothingBeforeRange", rule: ruleRange, needs: []string{"Calls"}, run: nothingBeforeRange},
	{name: "NothingIsLeft", rule: ruleRange, run: nothingIsLeft},
	{name: "Idle", rule: ruleIdle, run: idle},
	{name: "IdleAsksNothing", rule: ruleIdle, needs: []string{"Calls"}, run: idleAsksNothing},

	{name: "InterruptEnds", rule: ruleThin, needs: []string{"Interrupt"}, run: interruptEnds},
	{name: "Recovers", rule: ruleWhole, needs: []string{"Interrupt"}, run: recovers},
	{name: "SilenceEnds", rule: ruleSilence, needs: []string{"Silence"}, run: silenceEnds},
	{name: "ContextEndsSilence", rule: ruleContext, needs: []string{"Silence"}, run: contextEndsSilence},
	{name: "FailedReadIsAnError", rule: ruleWhole, needs: []string{"Down"}, run: failedReadIsAnError},
	{name: "UnavailableIsTold", rule: ruleKinds, needs: []string{"Down"}, run: unavailableIsTold},
	{name: "ShortOutage", rule: ruleOutlives, needs: []string{"Down"}, run: shortOutage},
	{name: "ExpiresWhileDown", rule: ruleGone, needs: []string{"Down"}, run: expiresWhileDown},
	{name: "VerdictAfterOutage", rule: ruleVerdict, needs: []string{"Down"}, run: verdictAfterOutage},
	{name: "ExpiresInSilence", rule: ruleGone, needs: []string{"Silence"}, run: expiresInSilence},
	{name: "VerdictAfterSilence", rule: ruleVerdict, needs: []string{"Silence"}, run: verdictAfterSilence},
	{name: "LostLease", rule: ruleRenew, needs: []string{"Lose"}, run: lostLease},
	{name: "PartialRead", rule: ruleWhole, needs: []string{"Interrupt"}, run: partialRead},
	{name: "PermissionIsTold", rule: ruleKinds, needs: []string{"Deny"}, run: permissionIsTold},
	{name: "ErrorsKeepCause", rule: ruleCause, needs: []string{"Deny", "Cause"}, run: errorsKeepCause},

	{name: "MalformedHidesNothing", rule: ruleBad, needs: []string{"Malformed"}, run: malformedHidesNothing},
	{name: "MalformedIsReported", rule: ruleBad, needs: []string{"Malformed"}, run: malformedIsReported},
	{name: "MalformedEndsGoodValue", rule: ruleBad, needs: []string{"Malformed"}, run: malformedEndsGoodValue},
	{name: "MalformedIsPutRight", rule: ruleBad, needs: []string{"Malformed"}, run: malformedIsPutRight},
	{name: "BeyondLimitsIsMalformed", rule: ruleBad, needs: []string{"Beyond"}, run: beyondLimitsIsMalformed},

	{name: "WithheldIsTold", rule: ruleWithheld, needs: []string{"Withhold"}, run: withheldIsTold},
	{name: "WithheldIsKept", rule: ruleLeftBe, needs: []string{"Withhold"}, run: withheldIsKept},
	{name: "WithheldOutlivesLease", rule: ruleOperator, needs: []string{"Withhold"}, run: withheldOutlivesLease},

	{name: "IfFreeRace", rule: ruleOneWins, run: ifFreeRace},
	{name: "LoserStaysAway", rule: ruleOneWins, run: loserStaysAway},
	{name: "RevokeRace", rule: ruleFence, run: revokeRace},

	{name: "AtomicStorm", rule: ruleAtomic, run: atomicStorm},
	{name: "NeverGoesBack", rule: ruleOrder, run: neverGoesBack},
	{name: "Converges", rule: ruleLasting, run: converges},
	{name: "AllAtOnce", rule: ruleSlow, run: allAtOnce},
	{name: "ManyEndpoints", rule: ruleWhole, run: manyEndpoints},
	{name: "ManyUnderOneLease", rule: ruleLease, run: manyUnderOneLease},
}
