package migrate

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/naming-go/naming"
)

// RecordService is the name of the service whose endpoints are the records of phases:
// see [Records]. In the list of services it stands beside all others.
const RecordService = "naming/migration"

const (
	// recordFormat is the format of records that this package writes. It reads no
	// record of a higher format: what is left out could be what keeps calls safe.
	recordFormat = 1
	// maxRecord is the largest metadata of a record, in bytes.
	maxRecord = 4 << 10
	// maxSeq is the highest Seq of a record. Every JSON library reads it exactly.
	maxSeq = 1<<53 - 1
)

// errRecordFormat is the error of a record that a later version of this package wrote.
var errRecordFormat = errors.New("the record has a format that this version does not know")

// record is the metadata of a record.
type record struct {
	Phase  Phase   `json:"phase"`
	Share  float64 `json:"share"`
	Seq    uint64  `json:"seq"`
	By     string  `json:"by,omitempty"`
	Format int     `json:"format"`
}

// encodeRecord returns the endpoint that is the record of a service.
func encodeRecord(service string, s State) (naming.Endpoint, error) {
	metadata, err := json.Marshal(record{Phase: s.Phase, Share: s.Share, Seq: s.Seq, By: s.By, Format: recordFormat})
	return naming.Endpoint{ID: service, Metadata: metadata}, err
}

// isRecord reports whether an endpoint of the service of records may be a record. A copy
// that a bridge made of a record is not a record.
func isRecord(e *naming.Endpoint) bool {
	_, _, isCopy := ParseCopyID(e.ID)
	return !isCopy
}

// decodeRecord returns the state in a record. Any program may have written the endpoint.
func decodeRecord(e *naming.Endpoint) (State, error) {
	if err := naming.CheckService(e.ID); err != nil {
		return State{}, err
	}
	switch {
	case e.Addr != "":
		return State{}, errors.New("a record has no address")
	case len(e.Metadata) > maxRecord:
		return State{}, fmt.Errorf("a record of %d bytes; at most %d are allowed", len(e.Metadata), maxRecord)
	case !utf8.Valid(e.Metadata):
		return State{}, errors.New("it is not UTF-8")
	}
	return parseRecord(e.Metadata)
}

// parseRecord returns the state in the metadata of a record. Unknown members are ignored:
// a later version may add what earlier versions do not need.
func parseRecord(metadata json.RawMessage) (State, error) {
	fields, err := readFields(newDecoder(metadata))
	if err != nil {
		return State{}, err
	}
	if fields.format != nil {
		var format int
		if err := decodeAs(fields.format, &format); err != nil || format < 1 {
			return State{}, errors.New("the format is not a number of 1 or more")
		}
		if format > recordFormat {
			return State{}, fmt.Errorf("%w: format %d", errRecordFormat, format)
		}
	}
	return fields.state()
}
