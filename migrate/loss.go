package migrate

import (
	"errors"
	"fmt"
	"slices"

	"github.com/naming-go/naming"
)

// ErrNoMapper is the error of [Losses] for a Store that is not a [naming.Mapper]: what its
// format loses is not known.
var ErrNoMapper = errors.New("migrate: the store is not a naming.Mapper: what its format loses is not known")

// Loss is an endpoint that the format of a registry refuses, or keeps only in part.
type Loss struct {
	// Service is the name of the service.
	Service string
	// Endpoint is what would be put.
	Endpoint naming.Endpoint
	// Got is what readers would get. It is the zero Endpoint if Err is not nil.
	Got naming.Endpoint
	// Fields are the names of what is lost: see [Accept]. A format without the draining
	// mark loses "draining-mark" of an endpoint that is not draining, too.
	Fields []string
	// Err is why the format refuses the endpoint. It is [naming.ErrInvalid]. It is nil if
	// the format keeps the endpoint in part.
	Err error
}

// Accepted reports whether an operator accepts all that is lost. It is false for an
// endpoint that is refused.
func (l *Loss) Accepted(a Accept) bool { return l.Err == nil && a.Covers(l.Fields) }

// String returns the loss in one line that is safe to log.
func (l *Loss) String() string {
	what := fmt.Sprintf("endpoint %.200q of service %.200q", l.Endpoint.ID, l.Service)
	if l.Err != nil {
		return what + " is refused: " + naming.SafeText(l.Err.Error())
	}
	return fmt.Sprintf("%s loses %v", what, l.Fields)
}

// Losses returns what the format of a registry would lose of endpoints of a service. It
// makes no request. The error is [ErrNoMapper], or the first error of the Store that is
// about itself and not about an endpoint.
func Losses(target naming.Store, service string, endpoints []naming.Endpoint) ([]Loss, error) {
	m, ok := target.(naming.Mapper)
	if !ok {
		return nil, ErrNoMapper
	}
	var losses []Loss
	for _, e := range endpoints {
		l, err := lossOf(m, service, e)
		if err != nil {
			return nil, fmt.Errorf("migrate: map %.200q of service %.200q: %w", e.ID, service, err)
		}
		if l.Err != nil || len(l.Fields) > 0 {
			losses = append(losses, l)
		}
	}
	return losses, nil
}

// lossOf returns the loss of one endpoint. It has neither an error nor fields if nothing is
// lost. err is an error of the Store that is not ErrInvalid.
func lossOf(m naming.Mapper, service string, e naming.Endpoint) (l Loss, err error) {
	l = Loss{Service: service, Endpoint: e}
	if e.ID == "" {
		e.ID = e.Addr // as every Store does
	}
	l.Got, l.Err = m.Map(service, e)
	if l.Err != nil && e.Draining {
		// A format without the mark refuses the endpoint only while it is draining.
		unmarked := e
		unmarked.Draining = false
		if got, err := m.Map(service, unmarked); err == nil {
			l.Got, l.Err = got, nil
		}
	}
	if l.Err != nil {
		l.Got = naming.Endpoint{}
		if !errors.Is(l.Err, naming.ErrInvalid) {
			return l, l.Err
		}
		return l, nil
	}
	l.Fields = lostFields(e, l.Got)
	return l, nil
}

// lostFields returns the names of what differs between an endpoint and what readers get.
func lostFields(e, got naming.Endpoint) (fields []string) {
	noMark := got.NoDrainingMark && !e.NoDrainingMark || e.Draining != got.Draining
	if e.Addr != got.Addr {
		fields = append(fields, fieldAddress)
	}
	e.Draining, got.Draining = false, false // what remains is in the metadata
	fields = append(fields, differences(newParityEntry(e), newParityEntry(got))...)
	if noMark && !slices.Contains(fields, fieldDrainingMark) {
		fields = append(fields, fieldDrainingMark)
	}
	return fields
}

func newParityEntry(e naming.Endpoint) *parityEntry {
	return &parityEntry{Endpoint: e, draining: isDraining(&e)}
}
