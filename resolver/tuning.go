package resolver

import "time"

// Four values tune this package. All other times below are derived from them.

// quietTime collects changes that come close together. A change at least quietTime
// after the last publication is published at once. Any other change waits until no
// change came for quietTime, or until the oldest waiting change is maxDelay old:
//
//	delay of a lone change      = 0
//	delay of a change in a burst <= maxDelay
//	publications per second      <= 1 s / quietTime, and 1 s / maxDelay in steady churn
//
// A longer time gives gRPC fewer and larger updates, each of which costs a load
// balancing policy O(endpoints). A shorter time sends fewer calls to endpoints that
// left the registry during a burst.
const (
	quietTime = 5 * time.Millisecond
	maxDelay  = 10 * quietTime
)

// busyTime is how long ClientConns may wait in the queue before more deliverers start:
//
//	deliverers after n x busyTime <= min(2^n, GOMAXPROCS/2)
//
// A longer time delivers a state later to the last ClientConn if load balancing
// policies are slow. A shorter time starts goroutines that find the queue empty, and
// takes processors from calls.
//
// stallTime is how long no delivery may end before all deliverers count as stuck and
// are replaced. A slow policy is not stuck, so the time grows with the last delivery:
//
//	time = min(max(stallTime, 2 x last delivery), maxStall)
//
// A longer time keeps other ClientConns waiting for a policy that blocks. A shorter
// time takes slow policies for stuck ones, and so exceeds the number of deliverers.
const (
	busyTime  = time.Millisecond
	stallTime = 20 * busyTime
	maxStall  = 10 * stallTime
)

// restFactor spreads out a change that takes ClientConns long. A deliverer whose last
// two deliveries both took heavyTime or longer rests before the next delivery:
//
//	rest = min(restFactor x the shorter of the two, maxRest)
//	share of the time left to calls = restFactor / (restFactor + 1)
//
// A higher factor leaves more of the process to its calls, and spreads the connections
// to a new server over more time. A lower factor delivers sooner to the last ClientConn.
//
// heavyTime is about the time that a policy takes for hundreds of endpoints. Below it
// a rest would be shorter than a timer is precise.
const (
	restFactor = 3
	heavyTime  = busyTime / 5
)

// restLimit ends the rests: while a ClientConn has waited for restLimit, no deliverer
// rests.
//
//	delay by rests of the last ClientConn <= restLimit + maxRest
//
// A longer limit spreads a change over more time if there are many ClientConns. A
// shorter limit sends fewer calls to servers that are about to leave: the limit must
// stay well below the time for which a withdrawn server serves on
// (naming.RegisterOptions.DrainDelay). maxRest lets at least 50 ClientConns have a rest
// each.
const (
	restLimit = 500 * time.Millisecond
	maxRest   = restLimit / 50
)
