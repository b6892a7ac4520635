package wire

import (
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/naming-go/naming"
)

// Rules are the options of a Store that say how an entry is read.
type Rules struct {
	Format         *Format // nil: none
	PortName       string  // the port to choose of an entry of another writer
	NoDrainingMark bool    // entries without the mark are NoDrainingMark
}

// Ours reports whether a Store wrote the entry.
func (e *Entry) Ours() bool {
	_, ours := e.Service.Meta[MetaID]
	return ours
}

// EndpointID returns the ID of the entry's endpoint. The ID of another writer's
// endpoint has the address in it, since the ID of a service is unique on its node
// only.
func (e *Entry) EndpointID(portName string) string {
	if id, ours := joinPieces(e.Service.Meta, MetaID); ours {
		return id
	}
	if addr, _ := e.address(portName); addr != e.Service.ID {
		return e.Service.ID + "@" + addr
	}
	return e.Service.ID
}

// Number returns the number of the registration, 0 if the entry has none.
func (e *Entry) Number() uint64 {
	n, _ := strconv.ParseUint(e.Service.Meta[metaGen], 10, 64)
	return n
}

// Endpoint returns the endpoint of the entry. The ID is set also if there is an error.
func (e *Entry) Endpoint(r Rules) (naming.Endpoint, error) {
	id := e.EndpointID(r.PortName)
	ep := naming.Endpoint{ID: id}
	var err error
	if e.Ours() {
		ep.Unleased = e.Service.ID == ServiceID(NoLease, e.Service.Service, id)
		err = e.decodeOurs(&ep)
		ep.NoDrainingMark = r.NoDrainingMark && !ep.Draining
	} else {
		err = e.decodeForeign(&ep, r)
		ep.NoDrainingMark = true
	}
	if err == nil {
		err = naming.CheckEndpoint(ep)
	}
	return ep, err
}

// decodeForeign completes the endpoint of an entry of another writer.
func (e *Entry) decodeForeign(ep *naming.Endpoint, r Rules) error {
	addr, addrErr := e.address(r.PortName)
	ep.Addr = addr
	if r.Format == nil {
		ep.Metadata = e.Members().Metadata()
	} else if err := r.Format.Decode(e, ep); err != nil {
		return err
	}
	if ep.Addr == addr { // a Format may know a better address
		return addrErr
	}
	return naming.CheckAddress(ep.Addr)
}

// decodeOurs completes the endpoint of an entry that [Encode] made.
func (e *Entry) decodeOurs(ep *naming.Endpoint) error {
	meta := e.Service.Meta
	var there bool
	if ep.Addr, there = joinPieces(meta, metaAddr); !there {
		ep.Addr = net.JoinHostPort(e.Service.Address, strconv.Itoa(e.Service.Port))
		if _, _, ok := SplitAddr(ep.Addr); !ok {
			return fmt.Errorf("address %q and port %d are not host and port", naming.SafeText(e.Service.Address), e.Service.Port)
		}
	}
	ep.Draining = meta[metaDraining] == "true"
	rest, hasRest := joinPieces(meta, metaJSON)
	if hasRest && !json.Valid([]byte(rest)) {
		return fmt.Errorf("%s is not JSON", metaJSON)
	}
	tags, err := e.ownTags()
	if err != nil {
		return err
	}
	switch form, hasForm := meta[metaForm]; {
	case !hasForm:
		return nil
	case form == formValue:
		if !hasRest {
			return fmt.Errorf("%s is missing", metaJSON)
		}
		ep.Metadata = json.RawMessage(rest)
		return nil
	case form == formObject || form == formWeighted:
		members := make(map[string]json.RawMessage)
		if hasRest {
			var ok bool
			if members, ok = Object([]byte(rest)); !ok {
				return fmt.Errorf("%s is not an object", metaJSON)
			}
		}
		ep.Metadata = e.joinObject(members, tags)
		return nil
	default:
		return fmt.Errorf("%s is %q, which is unknown", metaForm, form)
	}
}

// ownTags returns the tags of the endpoint, without the tags before them that are for
// the readers of a [Format].
func (e *Entry) ownTags() ([]string, error) {
	tags := e.Service.Tags
	if n, ok := e.Service.Meta[metaPeer]; ok {
		n, err := strconv.Atoi(n)
		if err != nil || n < 0 || n > len(tags) {
			return nil, fmt.Errorf("%s is not a number of its %d tags", metaPeer, len(tags))
		}
		tags = tags[n:]
	}
	return tags, nil
}

// joinObject returns the metadata of which encodeObject put members into metaJSON.
func (e *Entry) joinObject(members map[string]json.RawMessage, tags []string) json.RawMessage {
	for key, value := range e.Service.Meta {
		// A member that is in both places is in Meta for the readers of a Format.
		if _, ok := members[key]; !ok && !strings.HasPrefix(key, reserved) {
			members[key] = raw(value)
		}
	}
	if len(tags) > 0 {
		members["tags"] = raw(tags)
	}
	if weight := e.Service.Weights.Passing; e.Service.Meta[metaForm] == formWeighted && weight > 0 {
		members["weight"] = json.RawMessage(strconv.Itoa(weight))
	}
	return raw(members)
}
