package etcdcodec

import (
	"encoding/json"
	"errors"
	"strings"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/internal/entry"
)

// GoMicro returns the format of go-micro's etcd registry:
//
//	/micro/registry/greeter/greeter-1 = {"name":"greeter","version":"v1","metadata":null,"endpoints":[],"nodes":[{"metadata":{"zone":"a"},"id":"greeter-1","address":"127.0.0.1:9000"}]}
//
// Each entry has one node, which has the address and the metadata. The metadata is a map
// of strings as with [Kratos], except that the weight may be any number. The version is
// the member "version" of the endpoint's metadata. The service's metadata and endpoints,
// and other members, are kept as with [etcd.Default]. An entry has the member "draining"
// as with Kratos. An endpoint without an address is refused. In keys, "-" replaces each
// slash in the name of a service: the services "a/b" and "a-b" share their keys.
func GoMicro() *etcd.Codec {
	return &etcd.Codec{
		Root:   "/micro/registry/",
		Name:   func(service string) string { return strings.ReplaceAll(service, "/", "-") },
		Encode: encodeGoMicro, Decode: decodeGoMicro,
	}
}

type goMicroNode struct {
	Metadata map[string]string `json:"metadata"`
	ID       string            `json:"id"`
	Address  string            `json:"address"`
}

// goMicroEntry is an entry without the service's metadata and endpoints, which are kept
// unchanged.
type goMicroEntry struct {
	Name     string        `json:"name"`
	Version  string        `json:"version"`
	Nodes    []goMicroNode `json:"nodes"`
	Draining entry.Mark    `json:"draining"`
}

// goMicroNothing reports whether m is what Encode writes for a member without a value.
func goMicroNothing(name string, m json.RawMessage) bool {
	return string(m) == "null" || name == "endpoints" && string(m) == "[]"
}

func encodeGoMicro(service string, e naming.Endpoint) ([]byte, error) {
	if e.Addr == "" {
		return nil, errNoAddress
	}
	metadata, extra := entry.RevealMembers(e.Metadata, func(rest json.RawMessage, name string, m json.RawMessage) bool {
		switch name {
		case "metadata", "endpoints":
			return !goMicroNothing(name, m)
		case "version":
			return isText(m) && full(rest, name)
		}
		return !entry.IsOneOf(name, goMicroMembers) && !goMicroNothing(name, m)
	})
	var version string
	metadata = pull(metadata, extra, "version", &version, isText)
	shared, endpoints := json.RawMessage("null"), json.RawMessage("[]")
	if m, ok := extra["metadata"]; ok {
		shared = m
		delete(extra, "metadata")
	}
	if m, ok := extra["endpoints"]; ok {
		endpoints = m
		delete(extra, "endpoints")
	}
	node := goMicroNode{flatten(metadata, anyWeights), e.ID, e.Addr}
	return encodeEntry(extra, written(e, goMicroMembers), service, version, shared, endpoints, []goMicroNode{node}, e.Draining)
}

func decodeGoMicro(_, _ string, value []byte) (e naming.Endpoint, err error) {
	var was goMicroEntry
	members, err := entry.DecodeObject(value, &was, &was.Draining, "name", "version", "nodes", "draining")
	if err != nil {
		return e, err
	}
	if len(was.Nodes) == 0 {
		return e, errors.New("no node")
	}
	node := was.Nodes[0]
	if node.Address == "" {
		return e, errNoAddress
	}
	for name, m := range members {
		if goMicroNothing(name, m) {
			delete(members, name)
		}
	}
	e.ID = "id"
	e.Addr = node.Address
	e.Draining, e.NoDrainingMark = was.Draining.Draining, !was.Draining.Known
	e.Metadata = unflatten(node.Metadata, anyWeights)
	if was.Version != "" {
		e.Metadata = push(e.Metadata, "version", entry.AppendString(nil, was.Version), members)
	}
	e.Metadata = entry.HideMembers(e.Metadata, members)
	return e, nil
}
