package wire

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// Object returns the members of b, and reports whether b is a JSON object.
func Object(b []byte) (members map[string]json.RawMessage, ok bool) {
	if json.Unmarshal(b, &members) != nil || members == nil {
		return nil, false
	}
	return members, true
}

// Tags returns the strings in value, and reports whether value is a list of strings
// that is not empty.
func Tags(value json.RawMessage) (tags []string, ok bool) {
	var list []*string
	if json.Unmarshal(value, &list) != nil || len(list) == 0 || slices.Contains(list, nil) {
		return nil, false
	}
	tags = make([]string, len(list))
	for i, s := range list {
		tags[i] = *s
	}
	return tags, true
}

// Compact returns JSON without insignificant space, and b as it is if b is not JSON.
func Compact(b []byte) string {
	var buf bytes.Buffer
	if json.Compact(&buf, b) != nil {
		return string(b)
	}
	return buf.String()
}

// Marshal returns v as JSON with as few escapes as possible. v consists of strings,
// numbers and valid JSON.
func Marshal(v any) string {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // strings, numbers and valid JSON always encode
	}
	return strings.TrimSuffix(buf.String(), "\n")
}

func raw(v any) json.RawMessage { return json.RawMessage(Marshal(v)) }
