package bridge

import "github.com/naming-go/naming/migrate"

// Hooks are functions that a [Bridge] calls when something happened that an operator may
// want to count. Each may be nil. A Bridge calls them concurrently, and without a lock
// held. A hook must not block, nor call methods of the Bridge.
type Hooks struct {
	// Elected is called when the Bridge began to work.
	Elected func(ElectedInfo)
	// Deposed is called when the Bridge ceased to work, because another one was elected
	// or because the election's registry could not be asked. The Bridge stands again.
	Deposed func(DeposedInfo)
	// Copied is called when copies were put into the target.
	Copied func(CopiedInfo)
	// Removed is called when copies were removed from the target.
	Removed func(RemovedInfo)
	// FuseBlown is called when deletions were stopped, when the plan of them changed,
	// and with an empty plan when the fuse is whole again. Changes within a second are
	// reported together.
	FuseBlown func(FuseBlownInfo)
	// Loss is called when an endpoint cannot be copied, and Err says why, or can be copied
	// only in part, and Err is nil.
	Loss func(migrate.Loss)
	// Failed is called when a call of a registry failed. The Bridge tries again.
	Failed func(FailedInfo)
}

// ElectedInfo is the argument of [Hooks.Elected].
type ElectedInfo struct {
	// Epoch is the number of the election.
	Epoch uint64
}

// DeposedInfo is the argument of [Hooks.Deposed].
type DeposedInfo struct {
	// Epoch is the number of the Bridge's election.
	Epoch uint64
	// Err is why the Bridge ceased to work.
	Err error
}

// CopiedInfo is the argument of [Hooks.Copied].
type CopiedInfo struct {
	// Service is the name of the service.
	Service string
	// Count is how many copies were put.
	Count int
}

// RemovedInfo is the argument of [Hooks.Removed].
type RemovedInfo struct {
	// Service is the name of the service.
	Service string
	// Count is how many copies were removed.
	Count int
}

// FuseBlownInfo is the argument of [Hooks.FuseBlown].
type FuseBlownInfo struct {
	// Plan has the deletions that were stopped.
	Plan *Plan
}

// FailedInfo is the argument of [Hooks.Failed].
type FailedInfo struct {
	// Service is the name of the service. It is empty for the leases of the copies.
	Service string
	// Err is the error, in the form of [naming.SafeError].
	Err error
}
