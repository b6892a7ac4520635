package etcdcodec

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"strconv"

	"github.com/naming-go/naming/backend/etcd/internal/entry"
)

// The formats of other frameworks have a map of strings where an endpoint has metadata
// of any kind. If the metadata is an object, its string members are members of the map,
// one to one. A weight is a number in an endpoint's metadata and its decimal text in the
// map, where the frameworks look for it. The rest of the metadata, or all of it if it is
// not an object, is the JSON value of the member "naming.metadata". A member of that
// value replaces the map's own member of the same name.
const (
	restMember   = "naming.metadata"
	weightMember = "weight"
)

// weights says which weights a format has in its map of strings.
type weights int

const (
	noWeights  weights = iota // none: the weight is elsewhere
	anyWeights                // any number
	intWeights                // an integer, and anything else counts as the default
)

// text returns the text for a weight, or "" if m is not a weight that the format can hold.
// The text is exact if number turns it back into the same weight.
func (w weights) text(m json.RawMessage) (text string, exact bool) {
	f, ok := weight(string(m))
	switch {
	case w == noWeights || !ok:
		return "", false
	case w == anyWeights || isInt(m):
		return string(m), true
	case f > 1<<53:
		return "", false
	}
	return strconv.FormatInt(int64(max(math.Round(f), 1)), 10), false
}

// number returns the JSON number for a member of the map, and whether the member is a
// weight.
func (w weights) number(name, s string) (json.RawMessage, bool) {
	if w == noWeights || name != weightMember {
		return nil, false
	}
	_, ok := weight(s)
	return json.RawMessage(s), ok
}

// weight returns the number that s is in JSON, and whether it is a weight: positive and
// finite.
func weight(s string) (float64, bool) {
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil && f > 0 && json.Valid([]byte(s))
}

// flatten returns the map of strings for metadata. See restMember.
func flatten(metadata json.RawMessage, w weights) map[string]string {
	if metadata == nil {
		return nil
	}
	flat := make(map[string]string)
	var members map[string]json.RawMessage
	if json.Unmarshal(metadata, &members) != nil || members == nil {
		flat[restMember] = string(entry.AppendJSON(nil, metadata))
		return flat
	}
	for name, m := range members {
		var s string
		exact := false
		switch {
		case name == restMember:
		case m[0] == '"' && json.Unmarshal(m, &s) == nil:
			flat[name] = s
			_, number := w.number(name, s)
			exact = !number // number would decode the string as a number
		case name == weightMember:
			if s, exact = w.text(m); s != "" {
				flat[name] = s
			}
		}
		if exact {
			delete(members, name)
		}
	}
	if len(members) > 0 || len(flat) == 0 {
		flat[restMember] = string(entry.EncodeObject(members))
	}
	return flat
}

// unflatten undoes flatten: it returns the metadata for a map of strings.
func unflatten(flat map[string]string, w weights) json.RawMessage {
	if len(flat) == 0 {
		return nil
	}
	members := make(map[string]json.RawMessage, len(flat))
	for name, s := range flat {
		if n, ok := w.number(name, s); ok {
			members[name] = n
		} else if name != restMember {
			members[name] = entry.AppendString(nil, s)
		}
	}
	if rest, ok := flat[restMember]; ok {
		var more map[string]json.RawMessage
		switch {
		case !json.Valid([]byte(rest)):
			members[restMember] = entry.AppendString(nil, rest) // another program wrote it
		case json.Unmarshal([]byte(rest), &more) == nil && more != nil:
			maps.Copy(members, more)
		case len(members) == 0:
			return entry.OmitNull(json.RawMessage(rest))
		default:
			members[restMember] = entry.AppendString(nil, rest)
		}
	}
	return entry.EncodeObject(members)
}

// pop removes a member from metadata, decodes it into v, and returns the rest. It returns
// metadata unchanged if metadata is not an object, if it has no such member, or if fits
// reports false.
func pop(metadata json.RawMessage, name string, v any, fits func(json.RawMessage) bool) json.RawMessage {
	if !bytes.Contains(metadata, []byte(name)) {
		return metadata
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(metadata, &members) != nil {
		return metadata
	}
	m, ok := members[name]
	if !ok || !fits(m) || json.Unmarshal(m, v) != nil {
		return metadata
	}
	delete(members, name)
	if len(members) == 0 {
		return nil
	}
	return entry.EncodeObject(members)
}

// push returns metadata with one more member. If metadata is not an object, or has a
// member of that name, push adds the member to members instead, which
// [entry.HideMembers] gets.
func push(metadata json.RawMessage, name string, value []byte, members map[string]json.RawMessage) json.RawMessage {
	if full(metadata, name) {
		members[name] = value
		return metadata
	}
	object := make(map[string]json.RawMessage)
	_ = json.Unmarshal(metadata, &object)
	object[name] = value
	return entry.EncodeObject(object)
}

// full reports whether push cannot add a member to metadata.
func full(metadata json.RawMessage, name string) bool {
	if metadata == nil {
		return false
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(metadata, &members) != nil || members == nil {
		return true
	}
	_, there := members[name]
	return there
}

// pull undoes push: it removes a member from extra, or else from metadata, and decodes
// the member into v.
func pull(metadata json.RawMessage, extra map[string]json.RawMessage, name string, v any, fits func(json.RawMessage) bool) json.RawMessage {
	if m, ok := extra[name]; ok {
		delete(extra, name)
		_ = json.Unmarshal(m, v) // fits has decoded it
		return metadata
	}
	return pop(metadata, name, v, fits)
}

var errNoAddress = errors.New("no address")

func isText(m json.RawMessage) bool { return m[0] == '"' && string(m) != `""` }

// isInt reports whether m is a number that strconv writes as m is written.
func isInt(m json.RawMessage) bool {
	i, err := strconv.Atoi(string(m))
	return err == nil && i > 0 && strconv.Itoa(i) == string(m)
}

// encodeEntry returns a JSON object of the named members, in their order, followed by
// extra, the members that the endpoint's metadata had kept.
func encodeEntry(extra map[string]json.RawMessage, names []string, values ...any) ([]byte, error) {
	var b []byte
	for i, name := range names {
		v, err := json.Marshal(values[i])
		if err != nil {
			return nil, err
		}
		b = append(entry.AppendString(append(b, ','), name), ':')
		b = append(b, v...)
	}
	b = entry.AppendMembers(b, extra)
	b[0] = '{'
	return append(b, '}'), nil
}
