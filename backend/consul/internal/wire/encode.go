package wire

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
)

// Encode returns the registration of an endpoint, without its IDs, its check and its
// number, which [SetNumber] sets. f may be nil. An error says which limit of Consul
// the endpoint exceeds.
func Encode(e naming.Endpoint, f *Format) (*api.AgentServiceRegistration, error) {
	// The number has its place here, so that the pairs of Meta are counted with it.
	r := &api.AgentServiceRegistration{Meta: map[string]string{metaGen: "0"}}
	putPieces(r.Meta, MetaID, e.ID)
	if host, port, ok := SplitAddr(e.Addr); ok {
		r.Address, r.Port = host, port
	} else {
		putPieces(r.Meta, metaAddr, e.Addr)
	}
	if e.Draining {
		r.Meta[metaDraining] = "true"
	}
	var peer []string
	if f != nil {
		peer = f.Encode(e, r)
		r.Meta[metaPeer] = strconv.Itoa(len(peer))
	}
	if err := encodeMetadata(r, e.Metadata); err != nil {
		return nil, err
	}
	if n := len(r.Meta); n > MaxPairs {
		return nil, fmt.Errorf("an ID of %d bytes and an address of %d are too large for Consul: they take %d pairs of a service's Meta, of %d", len(e.ID), len(e.Addr), n, MaxPairs)
	}
	r.Tags = append(peer, r.Tags...)
	return r, nil
}

// SetNumber sets the number of a registration that [Encode] returned. Of several
// registrations of one endpoint, the one with the highest number counts.
func SetNumber(r *api.AgentServiceRegistration, number uint64) {
	r.Meta[metaGen] = strconv.FormatUint(number, 10)
}

// Renumber returns a copy of a registration with another number. The copy shares with
// r what neither of the two changes.
func Renumber(r *api.AgentServiceRegistration, number uint64) *api.AgentServiceRegistration {
	c := *r
	c.Meta = maps.Clone(r.Meta)
	SetNumber(&c, number)
	return &c
}

// encodeMetadata adds metadata to a registration that has everything else.
func encodeMetadata(r *api.AgentServiceRegistration, metadata json.RawMessage) error {
	if len(metadata) == 0 {
		return nil
	}
	fixed := len(r.Meta)
	members, isObject := Object(metadata)
	if !isObject {
		r.Meta[metaForm] = formValue
		putPieces(r.Meta, metaJSON, Compact(metadata))
	} else if encodeObject(r, members, true); len(r.Meta) > MaxPairs {
		// Many short members take fewer pairs together than one each.
		for key := range r.Meta {
			if !strings.HasPrefix(key, reserved) || strings.HasPrefix(key, metaJSON) {
				delete(r.Meta, key)
			}
		}
		encodeObject(r, members, false)
	}
	if n := len(r.Meta); n > MaxPairs {
		return fmt.Errorf("metadata of %d bytes is too large for Consul: it takes %d pairs of a service's Meta, and there is room for %d", len(metadata), n-fixed, MaxPairs-fixed)
	}
	return nil
}

// encodeObject adds the members of an object to a registration. spread says that
// members that are strings get a pair of Meta each.
func encodeObject(r *api.AgentServiceRegistration, members map[string]json.RawMessage, spread bool) {
	r.Meta[metaForm] = formObject
	rest := make(map[string]json.RawMessage)
	for key, value := range members {
		if key == "tags" {
			if tags, ok := Tags(value); ok {
				r.Tags = tags
				continue
			}
		}
		if key == "weight" {
			if w, ok := consulWeight(value); ok {
				r.Weights = &api.AgentWeights{Passing: w, Warning: 1}
				r.Meta[metaForm] = formWeighted
				continue
			}
		}
		var s string
		if spread && plainKey(key) && value[0] == '"' && json.Unmarshal(value, &s) == nil && len(s) <= MaxValue {
			r.Meta[key] = s
			continue
		}
		rest[key] = value
	}
	if len(rest) > 0 {
		putPieces(r.Meta, metaJSON, Marshal(rest))
	}
}

// plainKey reports whether the name of a member can be a key of Meta.
func plainKey(key string) bool {
	if key == "" || len(key) > MaxKey {
		return false
	}
	for i := range len(key) {
		if c := key[i]; !LetterOrDigit(c) && c != '-' && c != '_' {
			return false
		}
	}
	lower := strings.ToLower(key)
	return !strings.HasPrefix(lower, reserved) && !strings.HasPrefix(lower, "consul-")
}

const maxWeight = 65535

// consulWeight returns the weight that value is, and reports whether Consul accepts
// the weight and returns it in the same spelling.
func consulWeight(value json.RawMessage) (weight int, ok bool) {
	n, err := strconv.ParseUint(string(value), 10, 32)
	if err != nil || n == 0 || n > maxWeight || strconv.FormatUint(n, 10) != string(value) {
		return 0, false
	}
	return int(n), true
}
