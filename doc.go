// Package naming finds and announces the endpoints of gRPC services, whatever
// registry keeps them.
//
// A program holds a [Client] and asks it where a service is, or tells it
// where a server of its own is:
//
//	c := naming.New(store, nil)
//	defer c.Close()
//	for view, err := range c.Watch(ctx, "greeter") {
//		if err != nil {
//			return err // ctx is done or c was closed; nothing else ends the loop
//		}
//		use(view.Endpoints)
//	}
//
// The registry itself is a [Store]: etcd, Consul, memory, or a backend of one's
// own. A Store is small and does one thing at a time; everything that has to be
// right exactly once (sharing a watch, watching again after a failure, telling a
// failure from an empty set, fan-out to many readers) is in this package and
// behaves the same on every backend. Package conformance holds a Store to the
// contract.
//
// # Words
//
// A service is a non-empty UTF-8 name. Names that differ name different
// services: "a" is no part of "a/b" or of "ab".
//
// An [Endpoint] is one instance of a service. Its ID is unique within the
// service.
//
// A snapshot is the whole set of a service's endpoints at one moment. A
// [Batch] is a snapshot or the changes that took effect together after it.
//
// A [Lease] bounds the life of what was put under it: revoked, or not renewed
// for its time to live, it takes its endpoints along.
//
// A [View] is what a reader holds: the endpoints, when the registry last
// confirmed them, whether they are stale, and why.
//
// # What a reader is promised
//
// For each endpoint, the states that a reader is shown are a subsequence of the
// states the registry held: some may be left out, none comes twice in a row,
// none comes after a newer one. A state that lasts is never left out. A failure
// of the registry changes nothing in the set; it makes the set stale, which is
// visible in the View and in the log, and the set found afterwards replaces the
// old one in one step.
//
// # What is not promised
//
// No linearizable watch, and no mutual exclusion. No delivery time while the
// registry is down. Not every intermediate state. A dead process may stay
// listed for its time to live, and for an election of the registry more.
package naming
