package conformance

// The rules. Each sums up the doc comment of package naming that its first words name. A
// failure shows the rule that was broken.
const (
	ruleSnapshot = "Store.Watch: The first batch is a snapshot. It is empty for a service that has no endpoints: a service without endpoints and one that never existed are the same."
	ruleList     = "Store.Watch: A list is a watch that is left after its first batch. It costs at most the requests of one read of the set, whose number the backend documents."
	ruleWhole    = "Store.Watch: A snapshot that is not complete is not yielded. A read that failed, or failed in part, is an error and never a smaller set."
	ruleAtomic   = "Store.Watch and Store.Apply: Changes that the registry made at once are in one batch. Apply makes all of its changes or none where the registry can, in their order where it cannot. Of changes to one ID, the last counts."
	ruleOrder    = "Store.Watch: An older state of an endpoint never follows a newer one, also across two watches of one Store. A state may be repeated."
	ruleLasting  = "Store.Watch: A state that did not last may be left out. A state that lasts is yielded."
	ruleEnd      = "Store.Watch: The sequence always ends with an error, and with exactly one: the zero value and ctx.Err() if ctx is done, or else what went wrong."
	ruleRange    = "Store.Watch: Before the sequence is ranged over, nothing is asked, held or started. After the loop, nothing is left. Each range over the sequence is a new watch."
	ruleThin     = "Store: A Store does not retry what the registry failed to do, and has no goroutine beyond the sequences that are being ranged over. Its caller retries."
	ruleSilence  = "Store.Watch: The sequence ends with an error when the registry, or the link to it, falls silent without a reset or a close. The backend documents the bound within which it notices."
	ruleIdle     = "Store.Watch: While nothing changes, an idle watch yields nothing, and makes no request except those that it takes to notice a silence, which the backend documents."
	ruleLease    = "Lease: The registry removes an endpoint when the endpoint's lease is revoked, or not renewed for its time to live, and not before."
	ruleReplaced = "Change.Lease: An endpoint is under the lease of the last Add only. A lease that the endpoint was under before neither removes it nor brings it back."
	ruleRenew    = "Lease.Renew: Once the lease has ended, Renew either restores all that the lease held or returns ErrLeaseLost. It never returns nil while the endpoints are gone."
	ruleLost     = "Store.Apply: Apply returns ErrLeaseLost, and has stored nothing that outlives the lease, for an Add under a lease that has ended."
	ruleRevoke   = "Lease.Revoke: Revoke returns nil if the lease has ended afterwards, whatever ended it."
	ruleDelete   = "Change.Lease: A Delete with a lease deletes the endpoint only if it is still under that lease. Otherwise it stays, and that is not an error."
	ruleIfFree   = "Change.IfFree: The endpoint is put only if no endpoint has its ID, or if the one that has it is under that lease already. Otherwise that one stays, and that is not an error."
	ruleReclaim  = "Change.Reclaim: The condition of an Add with IfFree and of a Delete with a lease also holds for an endpoint that is under no lease, and for no other."
	ruleOneWins  = "Store.Apply: Of several Adds of one ID with IfFree at once, each under another lease, at most one puts."
	ruleFence    = "Store.Apply: No Apply stores an endpoint that outlives its lease, not even if it runs at the same time as the lease's Revoke."
	ruleVerdict  = "ErrLeaseLost and Lease.Renew: A Store that returns ErrLeaseLost vouches that no endpoint put under the lease is in the registry, nor will be. It never returns ErrLeaseLost when the registry could not be asked. After an outage of any length, Renew restores the lease or returns ErrLeaseLost as soon as the registry can be asked."
	ruleOutlives = "Lease.TTL: The lease outlives its TTL: a link that is down for less than TTL since the last Renew does not end the lease."
	ruleGone     = "Lease: A lease that was not renewed because the registry could not be asked may last until the registry can be asked again, and one renewal or removal longer."
	ruleGrows    = "Lease: The cost of a lease depends on the endpoints that are under it, and not on how often they were put."
	ruleWithheld = "Batch.Withheld: An endpoint that the registry has and says not to use is in Withheld, with the reason, and in no other list of the batch. It is not deleted, and its service is in the list of services. It is in Put when it may be used again."
	ruleLeftBe   = "Store: Apply, leases and IfFree treat a withheld endpoint as any other endpoint. It must not be used until it is in Put again."
	ruleOperator = "Store: An operator's decision stays when the endpoint is put again, even under another lease."
	ruleDrain    = "Store: Draining makes the round trip beside Metadata. A Store whose format has no place for the mark refuses an Add with the mark: it returns ErrInvalid and makes no request."
	ruleLimits   = "Store.Apply: Changes that exceed a limit of package naming are ErrInvalid, and nothing was stored. Changes within the limits make the round trip, or are ErrInvalid where the backend documents a limit of its own."
	ruleBad      = "Store: A Store leaves out an entry that it cannot understand, and passes a MalformedError with the entry's key to a function that the backend's options name. Such an entry hides no other entry, and the good value that it replaced is gone."
	ruleTrip     = "Store: Any valid service name, any ID, any JSON metadata, and IPv6 and unix addresses make the round trip unchanged. Different names are different services."
	ruleCause    = "Store: Errors wrap their cause, so that errors.Is and errors.As find the error of the client library."
	ruleKinds    = "Store: Credentials that the registry refuses are ErrPermission. An error that is neither ErrPermission, ErrInvalid nor ErrLeaseLost means that the registry is unavailable for now."
	ruleInvalid  = "Store: An argument that can never work is ErrInvalid, and nothing was stored."
	ruleStored   = "Store.Apply: Apply returns nil only when every change is in the registry, where watches that the same Store starts afterwards find it."
	ruleAgain    = "Store.Apply: To apply a change twice is the same as to apply it once. To delete an endpoint that does not exist is not an error."
	ruleOwner    = "Store.Apply and Batch: The Store does not keep the slice of changes. It does not read or write the slices of a batch that it has yielded."
	ruleContext  = "Store: Every method that can block returns soon after its context is done, with an error for which errors.Is(err, ctx.Err()) holds."
	ruleSlow     = "Store: All methods may be called concurrently. A slow loop delays no other call, and shows the present state when it continues."
	ruleServices = "Store.Services: Services returns the names of the services that have endpoints, sorted and without duplicates: the whole list first, and the whole list again after each change."
	ruleMap      = "Mapper.Map: Map returns an endpoint as a watch yields it after Apply had put it, or ErrInvalid if Apply would refuse it. It makes no request."
	ruleMark     = "Marker.Mark: The entry changes in place: it keeps its lease, its address, its metadata and every other member. Afterwards watches yield the endpoint with Draining set, or without; or in Withheld with the reason Maintenance, or in Put."
	ruleMarkNone = "Marker.Mark: The error is ErrNotFound if the registry has no entry with the ID. It is ErrInvalid for an entry that cannot be understood, and for a service or an ID that Apply refuses. With both errors nothing was stored."
	ruleMarkSame = "Marker.Mark: A Mark of an entry that is already so changes nothing, and returns nil."
	ruleMarkRace = "Marker.Mark: A Mark that runs at the same time as an Apply or a Revoke undoes neither: it never puts older content back, and an entry that was deleted does not return."
	ruleTTL      = "Store.Grant and Lease.TTL: Grant may round the time to live up, and down only to the longest that the registry supports. TTL returns the result. It is positive and never changes."
)

// checks is the suite. Checks that make one change after the other come first: their
// failures are easy to read. Checks that do much at once come last: whether they meet
// a fault depends on chance.
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

	{name: "MapAgrees", rule: ruleMap, run: mapAgrees},

	{name: "MarkIsInPlace", rule: ruleMark, run: markIsInPlace},
	{name: "MarkOfNothing", rule: ruleMarkNone, run: markOfNothing},
	{name: "MarkAgain", rule: ruleMarkSame, run: markAgain},
	{name: "MarkOfMalformed", rule: ruleMarkNone, needs: []string{"Malformed"}, run: markOfMalformed},

	{name: "ServicesLists", rule: ruleServices, run: servicesLists},
	{name: "ServicesFollowLeases", rule: ruleServices, run: servicesFollowLeases},

	{name: "LeaseReturnsTTL", rule: ruleTTL, run: leaseReturnsTTL},
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
	{name: "UnavailableIsAnError", rule: ruleKinds, needs: []string{"Down"}, run: unavailableIsAnError},
	{name: "ShortOutage", rule: ruleOutlives, needs: []string{"Down"}, run: shortOutage},
	{name: "ExpiresWhileDown", rule: ruleGone, needs: []string{"Down"}, run: expiresWhileDown},
	{name: "VerdictAfterOutage", rule: ruleVerdict, needs: []string{"Down"}, run: verdictAfterOutage},
	{name: "ExpiresInSilence", rule: ruleGone, needs: []string{"Silence"}, run: expiresInSilence},
	{name: "VerdictAfterSilence", rule: ruleVerdict, needs: []string{"Silence"}, run: verdictAfterSilence},
	{name: "LostLease", rule: ruleRenew, needs: []string{"Lose"}, run: lostLease},
	{name: "PartialRead", rule: ruleWhole, needs: []string{"Interrupt"}, run: partialRead},
	{name: "PermissionIsAnError", rule: ruleKinds, needs: []string{"Deny"}, run: permissionIsAnError},
	{name: "ErrorsKeepCause", rule: ruleCause, needs: []string{"Deny", "Cause"}, run: errorsKeepCause},

	{name: "MalformedHidesNothing", rule: ruleBad, needs: []string{"Malformed"}, run: malformedHidesNothing},
	{name: "MalformedIsReported", rule: ruleBad, needs: []string{"Malformed"}, run: malformedIsReported},
	{name: "MalformedEndsGoodValue", rule: ruleBad, needs: []string{"Malformed"}, run: malformedEndsGoodValue},
	{name: "MalformedIsPutRight", rule: ruleBad, needs: []string{"Malformed"}, run: malformedIsPutRight},
	{name: "BeyondLimitsIsMalformed", rule: ruleBad, needs: []string{"Beyond"}, run: beyondLimitsIsMalformed},

	{name: "WithheldIsShown", rule: ruleWithheld, needs: []string{"Withhold"}, run: withheldIsShown},
	{name: "WithheldIsKept", rule: ruleLeftBe, needs: []string{"Withhold"}, run: withheldIsKept},
	{name: "WithheldOutlivesLease", rule: ruleOperator, needs: []string{"Withhold"}, run: withheldOutlivesLease},

	{name: "IfFreeRace", rule: ruleOneWins, run: ifFreeRace},
	{name: "LoserStaysAway", rule: ruleOneWins, run: loserStaysAway},
	{name: "RevokeRace", rule: ruleFence, run: revokeRace},
	{name: "MarkRace", rule: ruleMarkRace, run: markRace},

	{name: "AtomicStorm", rule: ruleAtomic, run: atomicStorm},
	{name: "NeverGoesBack", rule: ruleOrder, run: neverGoesBack},
	{name: "Converges", rule: ruleLasting, run: converges},
	{name: "AllAtOnce", rule: ruleSlow, run: allAtOnce},
	{name: "ManyEndpoints", rule: ruleWhole, run: manyEndpoints},
	{name: "ManyUnderOneLease", rule: ruleLease, run: manyUnderOneLease},
}
