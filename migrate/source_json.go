package migrate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/naming-go/naming"
)

// maxBy is the longest State.By from outside, in bytes.
const maxBy = 256

// parseStates returns the states in the content of a file. See [File] for its format.
func parseStates(data []byte) (map[string]State, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("it is not UTF-8")
	}
	d := newDecoder(data)
	var states map[string]State
	err := readObject(d, func(member string) error {
		if member != "services" {
			return unknownMember(member)
		}
		states = make(map[string]State)
		return readObject(d, func(service string) error {
			s, err := readFileState(d, service)
			states[service] = s
			return err
		})
	})
	switch {
	case err != nil:
		return nil, err
	case states == nil:
		return nil, errors.New(`the member "services" is missing`)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("it goes on after the object")
	}
	return states, nil
}

// readFileState reads the state of a service in a file.
func readFileState(d *json.Decoder, service string) (State, error) {
	if err := naming.CheckService(service); err != nil {
		return State{}, err
	}
	fields, err := readFields(d)
	if err == nil && len(fields.unknown) > 0 {
		err = unknownMember(fields.unknown[0])
	}
	if err == nil && (fields.seq != nil || fields.format != nil) {
		err = errors.New(`the members "seq" and "format" are in records only`)
	}
	var s State
	if err == nil {
		s, err = fields.state()
	}
	if err == nil && s.Phase == PreferNew && fields.share == nil {
		err = fmt.Errorf("the phase %v needs a share", PreferNew)
	}
	if err != nil {
		return State{}, fmt.Errorf("service %q: %w", service, err)
	}
	return s, nil
}

// fields are the members of a state in JSON, nil if they are missing.
type fields struct {
	phase, share, seq, by, format json.RawMessage
	unknown                       []string // the name of the first unknown member
}

// readFields reads the members of a state.
func readFields(d *json.Decoder) (f fields, err error) {
	known := map[string]*json.RawMessage{"phase": &f.phase, "share": &f.share, "seq": &f.seq, "by": &f.by, "format": &f.format}
	err = readObject(d, func(member string) error {
		at := known[member]
		if at == nil {
			at = new(json.RawMessage)
			if f.unknown == nil {
				f.unknown = []string{member}
			}
		}
		return d.Decode(at)
	})
	return f, err
}

// state returns the state that the members describe.
func (f *fields) state() (s State, err error) {
	if s.Phase, err = parsePhaseJSON(f.phase); err != nil {
		return State{}, err
	}
	if f.share != nil {
		if err := decodeAs(f.share, &s.Share); err != nil {
			return State{}, fmt.Errorf("the share is not a number: %s", some(f.share))
		}
	}
	if f.seq != nil {
		if err := decodeAs(f.seq, &s.Seq); err != nil || s.Seq > maxSeq {
			return State{}, fmt.Errorf("the seq is not a whole number from 0 to %d: %s", uint64(maxSeq), some(f.seq))
		}
	}
	if f.by != nil {
		if err := decodeAs(f.by, &s.By); err != nil || len(s.By) > maxBy {
			return State{}, fmt.Errorf("the member %q is not a text of at most %d bytes", "by", maxBy)
		}
		s.By = naming.SafeText(s.By)
	}
	return s, s.Valid()
}

// decodeAs decodes a value that is not null.
func decodeAs(raw json.RawMessage, v any) error {
	if string(raw) == "null" {
		return errors.New("null")
	}
	return json.Unmarshal(raw, v)
}

// parsePhaseJSON returns the phase that a JSON string or a JSON number names.
func parsePhaseJSON(raw json.RawMessage) (Phase, error) {
	if raw == nil {
		return 0, errors.New("the phase is missing")
	}
	text := string(raw)
	if raw[0] == '"' {
		if err := json.Unmarshal(raw, &text); err != nil {
			return 0, err
		}
	}
	return ParsePhase(text)
}

// some returns the start of a value, for an error.
func some(raw json.RawMessage) string { return naming.SafeText(string(raw[:min(len(raw), 64)])) }

func unknownMember(name string) error {
	return fmt.Errorf("unknown member %q", name[:min(len(name), 64)])
}

// readObject reads an object, and calls member for the name of each member. member reads
// the value. A member that occurs twice is an error, as package json would use the last
// one and readers of other languages the first.
func readObject(d *json.Decoder, member func(name string) error) error {
	if t, err := d.Token(); err != nil {
		return brokenJSON(err)
	} else if t != json.Delim('{') {
		return errors.New("a value is not an object")
	}
	seen := make(map[string]bool)
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return brokenJSON(err)
		}
		name := t.(string) // the decoder accepts nothing else here
		if seen[name] {
			return fmt.Errorf("the member %q occurs twice", name[:min(len(name), 64)])
		}
		seen[name] = true
		if err := member(name); err != nil {
			return brokenJSON(err)
		}
	}
	_, err := d.Token() // the end of the object
	return brokenJSON(err)
}

// brokenJSON returns an error of the decoder in words of its own if the JSON ends early.
func brokenJSON(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errors.New("the JSON ends too early")
	}
	return err
}

func newDecoder(data []byte) *json.Decoder { return json.NewDecoder(bytes.NewReader(data)) }
