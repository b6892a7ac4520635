// Package child is a process that has one peer and nothing else, so that heap,
// stacks, goroutines and processor time are that peer's alone. The parent asks
// and the child answers, one line of JSON each.
//
// Changes are made by the parent: the moment of a change and that of its arrival
// are compared by the clock of the machine, which the processes share.
package child

import (
	"time"

	"github.com/naming-go/naming/bench/peer"
)

// Request is what a parent asks for.
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
	// Arm. Those who are to have it are the consumers that Resolve will add if
	// there are Services, or else all but the first From.
	From  int      `json:",omitempty"`
	Want  int      `json:",omitempty"` // how many endpoints
	Addrs []string `json:",omitempty"` // which, if that is to be verified
	// Wait, Quiet, Dial, Register
	Timeout time.Duration `json:",omitempty"`
}

// Verb says what a parent asks for.
type Verb string

const (
	// Open opens the peer.
	Open Verb = "open"
	// Resolve adds consumers of services, and returns when the peer has
	// returned, not when the consumers have endpoints.
	Resolve Verb = "resolve"
	// Arm says what all consumers are to have next; it begins to count.
	Arm Verb = "arm"
	// Wait waits until all consumers had what Arm said.
	Wait Verb = "wait"
	// Measure collects garbage and says what the process has.
	Measure Verb = "measure"
	// Quiet waits until the process does nothing.
	Quiet Verb = "quiet"
	// Dial makes gRPC clients that connect to all endpoints of a service.
	Dial Verb = "dial"
	// Register registers an endpoint with the peer's registrar.
	Register Verb = "register"
	// Deregister undoes Register.
	Deregister Verb = "deregister"
)

// Reply is what a child answers.
type Reply struct {
	Err string `json:",omitempty"`
	// Unsupported says that the peer cannot do what was asked for.
	Unsupported bool `json:",omitempty"`
	// Began is when the child began to do what was asked for, and At when it
	// was so, both in nanoseconds of Unix time. Of Wait, At is when the last
	// consumer had what it was to have; of Quiet, when the process was last
	// seen at work.
	Began, At int64 `json:",omitempty"`
	// Have is how many of all consumers had what they were to have.
	Have, Of int `json:",omitempty"`
	// Wrong counts the sets of the wanted size that had the wrong addresses.
	Wrong int64 `json:",omitempty"`
	// Updates counts the sets given to consumers since Arm.
	Updates int64 `json:",omitempty"`
	Usage   Usage
}

// Usage is what a process uses.
type Usage struct {
	Memory     uint64        // bytes of live heap, and stacks; of Measure only
	Goroutines int           // of Measure only
	Conns      int           `json:",omitempty"` // TCP connections to the servers; of Measure only
	Mallocs    uint64        // allocations since the process began
	Allocated  uint64        // their bytes
	CPU        time.Duration // processor time since the process began
}
