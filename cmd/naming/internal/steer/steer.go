// Package steer judges how far a migration may go. It reads both registries, and says for
// each service what the next phase needs, why its gate is closed, and what would open it.
//
// The gates are advice for a person. Package migrate is safe without them. Observe makes
// requests, and all else is a function of what Observe saw.
package steer

import (
	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

// AllServices is the record of all services without a record of their own.
const AllServices = "*"

// Registries are the two registries of a migration. The caller closes the stores.
type Registries struct {
	// Old and New have the endpoints.
	Old, New naming.Store
	// OldRecords and NewRecords have the records of phases. One of them is nil if its
	// registry cannot be written.
	OldRecords, NewRecords naming.Store
}

// Observation is what was seen of one service in both registries.
type Observation struct {
	// Service is the name of the service.
	Service string
	// Own says that the service has a record of its own. Otherwise the record of
	// AllServices counts, if Known is true.
	Own bool
	// Known says that a record counts. State is its state.
	Known bool
	State migrate.State
	// Old and New are the registries.
	Old, New Side
	// Report is the comparison. Its Known is false if a registry was not read.
	Report *migrate.Report
	// Losses are what the format of the new registry loses. LossErr is why that is not
	// known.
	Losses  []migrate.Loss
	LossErr error
	// Bridges are the bridges that work between the registries.
	Bridges []Seat
}

// Side is what one registry has of a service.
type Side struct {
	// Err is why the registry could not be read, or nil.
	Err error
	// View are the endpoints of the service. It is zero if Err is not nil.
	View naming.View
	// Record is the record that the registry has for the service: its own, or else that
	// of AllServices. HasRecord says whether it has one.
	Record    migrate.State
	HasRecord bool
	// Malformed is why the record of the service cannot be used, or nil.
	Malformed error
	// RecordErr is why the records could not be read, or nil.
	RecordErr error
	// NoRecords says that the registry cannot be written, and so has no records.
	NoRecords bool
}

// unread reports whether the endpoints or the records could not be read.
func (s *Side) unread() bool { return s.Err != nil || s.RecordErr != nil }

// RecordsDiffer reports whether both registries were read and have different records of
// the service. A program that reaches a single registry then has another phase.
func (o *Observation) RecordsDiffer() bool {
	if o.Old.NoRecords || o.New.NoRecords || o.Old.RecordErr != nil || o.New.RecordErr != nil {
		return false
	}
	return o.Old.HasRecord != o.New.HasRecord || o.Old.Record != o.New.Record
}

// Joined returns how many servers are registered in both registries by themselves, and not
// by a bridge. The number is 0 if a registry was not read.
func (o *Observation) Joined() int {
	if !o.Report.Known {
		return 0
	}
	r := o.Report
	return max(0, r.OldCount-len(r.OldCopies)-len(r.Copies)-len(r.Missing))
}
