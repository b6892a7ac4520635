package etcdcodec

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/internal/entry"
)

// Kitex returns the format of kitex's registry-etcd:
//
//	kitex/registry-etcd/greeter/127.0.0.1:9999 = {"network":"tcp","address":"127.0.0.1:9999","weight":10,"tags":{"zone":"a"}}
//
// The weight becomes the member "weight" of the endpoint's metadata, and is read from
// there if it is a positive integer. Without such a weight the entry's is 0, which means
// kitex's default. Tags are a map of strings, other members are kept, and an entry has
// the member "draining", as with [Kratos]. An endpoint without an address is refused.
func Kitex() *etcd.Codec {
	return &etcd.Codec{Root: "kitex/registry-etcd/", Encode: encodeKitex, Decode: decodeKitex}
}

func encodeKitex(_ string, e naming.Endpoint) ([]byte, error) {
	network, addr := "tcp", e.Addr
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	}
	if addr == "" {
		return nil, errNoAddress
	}
	metadata, extra := entry.RevealMembers(e.Metadata, func(rest json.RawMessage, name string, m json.RawMessage) bool {
		switch name {
		case "network":
			var came string
			return json.Unmarshal(m, &came) == nil && !slices.Contains([]string{"", "tcp", "unix"}, came) && network == "tcp"
		case weightMember:
			return isInt(m) && full(rest, name)
		}
		return !entry.IsOneOf(name, kitexMembers)
	})
	if m, ok := extra["network"]; ok {
		delete(extra, "network")
		_ = json.Unmarshal(m, &network) // fits has decoded it
	}
	var weight int
	metadata = pull(metadata, extra, weightMember, &weight, isInt)
	return encodeEntry(extra, written(e, kitexMembers), network, addr, weight, flatten(metadata, noWeights), e.Draining)
}

type kitexEntry struct {
	Network  string            `json:"network"`
	Address  string            `json:"address"`
	Weight   int               `json:"weight"`
	Tags     map[string]string `json:"tags"`
	Draining entry.Mark        `json:"draining"`
}

func decodeKitex(_, _ string, value []byte) (e naming.Endpoint, err error) {
	var was kitexEntry
	members, err := entry.DecodeObject(value, &was, &was.Draining, kitexMembers...)
	if err != nil {
		return e, err
	}
	if was.Address == "" {
		return e, errNoAddress
	}
	e.ID = "address"
	e.Addr = was.Address
	switch was.Network {
	case "", "tcp":
	case "unix":
		e.Addr = "unix:" + was.Address
	default:
		members["network"] = entry.AppendString(nil, was.Network)
	}
	e.Draining, e.NoDrainingMark = was.Draining.Draining, !was.Draining.Known
	e.Metadata = unflatten(was.Tags, noWeights)
	if was.Weight > 0 {
		e.Metadata = push(e.Metadata, weightMember, strconv.AppendInt(nil, int64(was.Weight), 10), members)
	}
	e.Metadata = entry.HideMembers(e.Metadata, members)
	return e, nil
}
