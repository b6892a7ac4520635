package steer

import (
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

// Status is the document of a migration.
type Status struct {
	// OldError and NewError are why a registry could not be read. They are empty if it was.
	OldError string `json:"oldError,omitempty"`
	NewError string `json:"newError,omitempty"`
	// All is the state of all services without a record of their own.
	All Position `json:"all"`
	// OldRecordsError and NewRecordsError are why the records of a registry could not be
	// read. The phases are those of the other registry then.
	OldRecordsError string `json:"oldRecordsError,omitempty"`
	NewRecordsError string `json:"newRecordsError,omitempty"`
	// Disagreement are the names of the records that differ in the two registries.
	Disagreement []string `json:"disagreement,omitempty"`
	// Malformed are the records that cannot be used, with the reason.
	Malformed map[string]string `json:"malformed,omitempty"`
	Services  []ServiceStatus   `json:"services"`
	Bridges   []Seat            `json:"bridges"`
	// BridgesError is why a registry's bridges could not be read. Bridges may lack some
	// then.
	BridgesError string `json:"bridgesError,omitempty"`
}

// ServiceStatus is the document of a service in a migration.
type ServiceStatus struct {
	Service string `json:"service"`
	Position
	// Record is "own", "all" or "none": which record the phase is from.
	Record string `json:"record"`
	Seq    uint64 `json:"seq,omitempty"`
	By     string `json:"by,omitempty"`
	// Old and New are the registries. RecordsDiffer says that they disagree about the phase.
	Old           SideStatus `json:"old"`
	New           SideStatus `json:"new"`
	RecordsDiffer bool       `json:"recordsDiffer"`
	// Joined is how many servers are in both registries by themselves. Missing, Extra and
	// Mismatch count the differences. They are 0 unless Compared is true.
	Compared bool `json:"compared"`
	Joined   int  `json:"joined"`
	Missing  int  `json:"missing"`
	Extra    int  `json:"extra"`
	Mismatch int  `json:"mismatch"`
	Refused  int  `json:"refused"` // endpoints that the new format refuses
	// Next is the next step, and whether its gate is open. It is nil at the end.
	Next *Gate `json:"next,omitempty"`
}

// SideStatus is the document of a service in one registry.
type SideStatus struct {
	Endpoints int       `json:"endpoints"` // that may be used
	Copies    int       `json:"copies"`    // of them, those of a bridge
	Withheld  int       `json:"withheld"`
	AsOf      time.Time `json:"asOf,omitzero"`
	Error     string    `json:"error,omitempty"`
	// Record is what the registry has for the service, or nil.
	Record *Position `json:"record,omitempty"`
	Seq    uint64    `json:"seq,omitempty"`
	// RecordError is why the record could not be read or used.
	RecordError string `json:"recordError,omitempty"`
}

// StatusOf returns the document of what was seen.
func (j Judge) StatusOf(w *World) *Status {
	all, known := w.Records.States()[AllServices]
	s := &Status{
		OldError: text(w.OldErr), NewError: text(w.NewErr), BridgesError: text(w.BridgesErr),
		OldRecordsError: text(w.Records.Old.Err), NewRecordsError: text(w.Records.New.Err), All: PositionOf(all, known),
		Disagreement: w.Records.Different(), Services: []ServiceStatus{}, Bridges: []Seat{},
	}
	for i, name := range s.Disagreement {
		s.Disagreement[i] = naming.SafeText(name)
	}
	for _, r := range []struct {
		registry string
		records  migrate.RegistryRecords
	}{{"old", w.Records.Old}, {"new", w.Records.New}} {
		for name, err := range r.records.Malformed {
			if s.Malformed == nil {
				s.Malformed = make(map[string]string)
			}
			s.Malformed[r.registry+"/"+naming.SafeText(name)] = text(err)
		}
	}
	s.Bridges = append(s.Bridges, w.Bridges...)
	for _, o := range w.Services {
		s.Services = append(s.Services, j.serviceStatus(o))
	}
	return s
}

func (j Judge) serviceStatus(o Observation) ServiceStatus {
	r := o.Report
	s := ServiceStatus{
		Service: o.Service, Position: PositionOf(o.State, o.Known), Record: "none",
		Old: sideStatus(&o.Old), New: sideStatus(&o.New), RecordsDiffer: o.RecordsDiffer(),
		Compared: r.Known, Refused: len(r.Unmappable),
	}
	if o.Known {
		s.Record, s.Seq, s.By = "all", o.State.Seq, o.State.By
		if o.Own {
			s.Record = "own"
		}
	}
	if r.Known {
		s.Joined, s.Missing, s.Extra, s.Mismatch = o.Joined(), len(r.Missing), len(r.Extra), len(r.Mismatch)
	}
	if to, ok := Next(o.State, o.Known); ok {
		g := j.Gate(o, to)
		s.Next = &g
	}
	return s
}

func sideStatus(s *Side) SideStatus {
	doc := SideStatus{Endpoints: len(s.View.Endpoints), Copies: copies(s.View.Endpoints), Withheld: len(s.View.Withheld), AsOf: s.View.AsOf, Error: text(s.Err), RecordError: text(s.RecordErr)}
	if s.Malformed != nil {
		doc.RecordError = text(s.Malformed)
	}
	if s.HasRecord {
		p := PositionOf(s.Record, true)
		doc.Record, doc.Seq = &p, s.Record.Seq
	}
	return doc
}

// text returns the text of an error that is safe to print, or the empty text.
func text(err error) string {
	if err == nil {
		return ""
	}
	return naming.SafeError(err).Error()
}
