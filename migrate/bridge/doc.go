// Package bridge copies the endpoints of one registry to another, for programs that cannot
// register in both, or read both, during a migration.
//
// A [Bridge] works in one direction, from a source to a target. Two Bridges in opposite
// directions work together: a Bridge never copies a copy. A program that uses package
// migrate needs no Bridge.
//
// # Copies
//
// The copy of an endpoint has the ID "~origin~id" (see [migrate.CopyID]) and, where the
// format of the target has room, a mark in its metadata (see [migrate.Mark]). All else is
// as in the source, the draining mark included. These endpoints of a source have no copy:
// copies, endpoints without an address, endpoints that the source withholds, and endpoints
// whose address the target has by itself. When an endpoint appears in the target by
// itself, the copy is removed after that.
//
// All copies are under leases of the Bridge, which outlive a restart. A Bridge that stops
// leaves its copies in place. The next Bridge puts them again, once, under its own leases.
// Without a next Bridge they lapse after [Options.TTL].
//
// # What a Bridge never does
//
// A Bridge adds under IDs of copies only, and every deletion is bound to a lease of its
// own. So it can neither overwrite nor delete an endpoint of another program. It deletes
// nothing while the source is stale, unread, or holds the endpoint as suspect (see
// [naming.Hold]), or while the target is stale or unread. It adds before it deletes.
//
// # The fuse
//
// A source that lost its data looks like a source whose servers have stopped. A Bridge counts the
// deletions that no known reason explains, against the copies that the target has. If they
// exceed [Fuse], the Bridge makes none of these deletions. The copies stay and remain
// leased, and [Hooks.FuseBlown] has a [Plan] with a digest. The fuse is whole again when the endpoints
// are back in the source, or when an operator approves exactly that plan: see
// [Bridge.Approve]. Additions go on.
//
// A Bridge that did not run while the servers of a service were replaced needs an approval,
// too. It has not seen that they left in order. Two Bridges, of which one stands by, avoid
// such a gap.
//
// # Several Bridges
//
// Of the Bridges of one migration and direction, one works and the others stand by. They
// elect that Bridge with an entry of the service [Service] in a registry whose Apply is
// atomic. A Bridge that was paused across another's work notices that before its next
// write.
//
// # Limits
//
// 50,000 copies in 10,000 services are supported with etcd as target. Consul takes about 80
// registrations in a second, and each of its copies costs a request per renewal: set
// [Options.TTL] to [ConsulTTL] and [Options.Rate] to [ConsulRate].
//
// Formats without metadata, such as those of go-zero and go-kit, have no room for the mark
// and no metadata of an endpoint. Copies work there by their IDs alone. [Bridge.Plan] says
// what is lost.
package bridge
