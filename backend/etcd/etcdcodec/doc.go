// Package etcdcodec has the wire formats in which other frameworks keep endpoints in
// etcd.
//
// A program with such a format shares a registry with programs that still use the
// framework: each finds the other's endpoints. Package etcd has the format of etcd's
// own naming packages, which is the default.
//
//	store := etcd.New(client, &etcd.Options{Codec: etcdcodec.Kratos()})
//
// What a format has no place for is kept where that is possible, and refused with
// [naming.ErrInvalid] where it is not. The function of each format says which.
package etcdcodec

import "github.com/naming-go/naming"

// The formats of kratos, kitex and go-micro are JSON objects, and these frameworks ignore
// members that they do not know. An entry that a Store writes has one member more, the
// last in these lists: "draining", true or false. An entry without it was written by
// another program, which has no way to mark the endpoint.
var (
	kratosMembers  = []string{"id", "name", "version", "metadata", "endpoints", "draining"}
	kitexMembers   = []string{"network", "address", "weight", "tags", "draining"}
	goMicroMembers = []string{"name", "version", "metadata", "endpoints", "nodes", "draining"}
)

// written returns the names of the members of an entry of e. If the Store writes no
// marks (NoDrainingMark), "draining" is not among them.
func written(e naming.Endpoint, names []string) []string {
	if e.NoDrainingMark {
		return names[:len(names)-1]
	}
	return names
}
