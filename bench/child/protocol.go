// Package child runs one peer in a process of its own. Heap, stacks, goroutines and
// processor time of the process belong to that peer alone. Requests of the parent and
// replies of the child are one line of JSON each.
//
// The parent makes the changes. The time of a change and the time of its arrival are
// compared by the machine's clock, which the processes share.
package child

import (
	"time"

	"github.com/naming-go/naming/bench/peer"
)

// Request is a request of the parent.
type Request struct {
	Do Verb
	// Open
	Peer    string       `json:",omitempty"`
	Servers peer.Servers `json:",omitzero"`
	// Resolve, Dial, Register, Deregister
	Services []string      `json:",omitempty"`
	Each     int           `json:",omitempty"` // consumers of each service
	Workers  int           `json:",omitempty"` // how many are added at a time
	Endpoint peer.Endpoint `json:",omitzero"`
	// Arm. With Services, the consumers that Resolve will add have to get the set.
	// Without, all consumers but the first From.
	From  int      `json:",omitempty"`
	Want  int      `json:",omitempty"` // how many endpoints
	Addrs []string `json:",omitempty"` // which endpoints; nil: not verified
	// Wait, Quiet, Dial, Register
	Timeout time.Duration `json:",omitempty"`
}

// Verb is the kind of a request.
type Verb string

const (
	// Open opens the peer.
	Open Verb = "open"
	// Resolve adds consumers of services. It returns when the peer has returned,
	// which may be before the consumers have endpoints.
	Resolve Verb = "resolve"
	// Arm sets the next set that the consumers have to get, and begins to count.
	Arm Verb = "arm"
	// Wait waits until all consumers got the set of Arm.
	Wait Verb = "wait"
	// Measure collects garbage, and returns what the process uses.
	Measure Verb = "measure"
	// Quiet waits until the process is idle.
	Quiet Verb = "quiet"
	// Dial makes gRPC clients that connect to all endpoints of a service.
	Dial Verb = "dial"
	// Register registers an endpoint with the peer's registrar.
	Register Verb = "register"
	// Deregister undoes Register.
	Deregister Verb = "deregister"
)

// Reply is the child's reply to a request.
type Reply struct {
	Err string `json:",omitempty"`
	// Unsupported says that the peer cannot do what the request asks.
	Unsupported bool `json:",omitempty"`
	// Began is when the child began with the request, and At when the request was
	// done, both in nanoseconds of Unix time. For Wait, At is when the last consumer
	// got the set. For Quiet, At is when the process was last busy.
	Began, At int64 `json:",omitempty"`
	// Have is how many of all consumers got the set.
	Have, Of int `json:",omitempty"`
	// Wrong counts the sets of the wanted size that had the wrong addresses.
	Wrong int64 `json:",omitempty"`
	// Updates counts the sets that consumers got since Arm.
	Updates int64 `json:",omitempty"`
	Usage   Usage
}

// Usage is what a process uses.
type Usage struct {
	Memory     uint64        // bytes of live heap and of stacks; only of Measure
	Goroutines int           // only of Measure
	Conns      int           `json:",omitempty"` // TCP connections to the servers; only of Measure
	Mallocs    uint64        // allocations since the process began
	Allocated  uint64        // their bytes
	CPU        time.Duration // processor time since the process began
}
