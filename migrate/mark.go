package migrate

import (
	"bytes"
	"encoding/json"
)

// MarkKey is the member of a copy's metadata that is the bridge's mark. Metadata that is
// neither an object nor absent has no room for it.
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

// AddMark returns metadata with the mark, and false if the metadata have no room for it.
// A member of that name that exists is replaced.
func AddMark(metadata json.RawMessage, m Mark) (json.RawMessage, bool) {
	metadata, _ = splitMark(metadata)
	trimmed := bytes.TrimSpace(metadata)
	mark, err := json.Marshal(m)
	if err != nil {
		return metadata, false
	}
	var b bytes.Buffer
	switch {
	case len(trimmed) == 0 || string(trimmed) == "null":
		b.WriteString(`{"` + MarkKey + `":`)
		b.Write(mark)
		b.WriteString("}")
	case trimmed[0] == '{':
		b.WriteString(`{"` + MarkKey + `":`)
		b.Write(mark)
		if rest := bytes.TrimSpace(trimmed[1:]); len(rest) > 0 && rest[0] != '}' {
			b.WriteByte(',')
		}
		b.Write(trimmed[1:])
	default:
		return metadata, false
	}
	return b.Bytes(), true
}

// ReadMark returns the mark in metadata, and false if there is none that can be read.
func ReadMark(metadata json.RawMessage) (Mark, bool) {
	_, raw := splitMark(metadata)
	var m Mark
	if raw == nil || json.Unmarshal(raw, &m) != nil {
		return Mark{}, false
	}
	return m, true
}

// splitMark returns metadata without the mark, and the mark. Metadata that consist of the
// mark only become nil. Metadata without a mark are returned unchanged.
func splitMark(metadata json.RawMessage) (rest, mark json.RawMessage) {
	if !bytes.Contains(metadata, []byte(`"`+MarkKey+`"`)) {
		return metadata, nil
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(metadata, &members) != nil {
		return metadata, nil
	}
	mark, ok := members[MarkKey]
	if !ok {
		return metadata, nil
	}
	if len(members) == 1 {
		return nil, mark
	}
	delete(members, MarkKey)
	rest, err := json.Marshal(members)
	if err != nil {
		return metadata, nil
	}
	return rest, mark
}
