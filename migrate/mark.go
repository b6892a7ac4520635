package migrate

import (
	"bytes"
	"encoding/json"
)

// MarkKey is the member of a copy's metadata that is the bridge's mark. Metadata that is
// neither an object nor absent has no room for the mark.
const MarkKey = "naming-copy"

// Mark is what a bridge writes into the metadata of its copies, where the format has
// room.
type Mark struct {
	// Origin is the name of the registry that the endpoint comes from.
	Origin string `json:"origin"`
	// Bridge is the name of the migration that the bridge works for.
	Bridge string `json:"bridge"`
	// Epoch counts the bridges that were elected. A bridge that sees a higher epoch
	// than its own has been replaced.
	Epoch uint64 `json:"epoch"`
}

// storedMark is a Mark as the metadata has it, with what the mark has replaced.
type storedMark struct {
	Mark
	// Empty says that the metadata without the mark is an empty object. Without Empty,
	// metadata that consists of the mark stands for no metadata.
	Empty bool `json:"empty,omitempty"`
	// Was is the member MarkKey that the native endpoint itself had.
	Was json.RawMessage `json:"was,omitempty"`
}

// AddMark returns the metadata of a native endpoint with the mark. It returns the metadata
// unchanged, and false, if the metadata has no room for the mark. [Native] restores the
// metadata: the result is the same JSON value, whatever its members are.
func AddMark(metadata json.RawMessage, m Mark) (json.RawMessage, bool) {
	trimmed := bytes.TrimSpace(metadata)
	switch {
	case len(trimmed) == 0 || string(trimmed) == "null":
		return joinMembers(storedMark{Mark: m}, nil)
	case trimmed[0] != '{' || !json.Valid(trimmed):
		return metadata, false
	case mayHaveMark(trimmed):
		return replaceMember(metadata, m)
	}
	rest := bytes.TrimSpace(trimmed[1:])
	if rest[0] == '}' {
		return joinMembers(storedMark{Mark: m, Empty: true}, nil)
	}
	return joinMembers(storedMark{Mark: m}, rest)
}

// mayHaveMark reports false for most metadata that has no member MarkKey. A name may be
// spelled with escapes.
func mayHaveMark(metadata json.RawMessage) bool {
	return bytes.Contains(metadata, []byte(MarkKey)) || bytes.IndexByte(metadata, '\\') >= 0
}

// joinMembers returns an object of the mark and of the members in rest, which is empty or
// ends the object.
func joinMembers(m storedMark, rest []byte) (json.RawMessage, bool) {
	mark, err := json.Marshal(m)
	if err != nil {
		return rest, false
	}
	var b bytes.Buffer
	b.WriteString(`{"` + MarkKey + `":`)
	b.Write(mark)
	if len(rest) == 0 {
		b.WriteByte('}')
		return b.Bytes(), true
	}
	b.WriteByte(',')
	b.Write(rest)
	return b.Bytes(), true
}

// replaceMember is AddMark for metadata that may have a member MarkKey of its own.
func replaceMember(metadata json.RawMessage, m Mark) (json.RawMessage, bool) {
	var members map[string]json.RawMessage
	if json.Unmarshal(metadata, &members) != nil {
		return metadata, false
	}
	stored := storedMark{Mark: m, Was: members[MarkKey], Empty: len(members) == 0}
	mark, err := json.Marshal(stored)
	if err != nil {
		return metadata, false
	}
	members[MarkKey] = mark
	out, err := json.Marshal(members)
	if err != nil {
		return metadata, false
	}
	return out, true
}

// ReadMark returns the mark in metadata, and false if the metadata has no mark that can be
// read.
func ReadMark(metadata json.RawMessage) (Mark, bool) {
	_, m, ok := splitMark(metadata)
	return m, ok
}

// splitMark returns the metadata of the native endpoint and the mark. Metadata without a
// mark that can be read is returned unchanged, with false.
func splitMark(metadata json.RawMessage) (rest json.RawMessage, m Mark, ok bool) {
	if !bytes.Contains(metadata, []byte(`"`+MarkKey+`"`)) {
		return metadata, m, false
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(metadata, &members) != nil {
		return metadata, m, false
	}
	var stored storedMark
	raw := bytes.TrimSpace(members[MarkKey])
	if len(raw) == 0 || raw[0] != '{' || json.Unmarshal(raw, &stored) != nil {
		return metadata, m, false
	}
	delete(members, MarkKey)
	if stored.Was != nil {
		members[MarkKey] = stored.Was
	}
	if len(members) == 0 && !stored.Empty {
		return nil, stored.Mark, true
	}
	rest, err := json.Marshal(members)
	if err != nil {
		return metadata, m, false
	}
	return rest, stored.Mark, true
}
