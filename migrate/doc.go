// Package migrate moves services from one registry to another while calls are made, one
// service at a time, with every step reversible.
//
// [Join] returns a Client on two registries. Programs use it as any other Client: for the
// gRPC resolver, for package serve, for registrations and watches. The phase of a service
// decides where its servers register and which endpoints its readers use. A [Source] says
// the phase, and changes it while programs run.
//
// Two rules make every step safe, in both directions and at any speed:
//
//   - A server leaves a registry only after its endpoint is in the registry that counts,
//     and readers had time to learn that. To leave is not to drain: no draining mark is
//     set.
//   - A reader leaves a registry only when the other one is fresh and has every live
//     address that the reader used.
//
// # A first look
//
//	phases, err := migrate.Records(old, next, nil) // two Stores
//	if err != nil {
//		return err
//	}
//	defer phases.Close()
//	c, err := migrate.Join(old, next, phases, nil)
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//
// A program that opens its registry with package open joins by a URL of the scheme migrate.
//
// # Which part is for whom
//
//   - A program that moves: [Join], with a [Source]: [Records], [File], [Settable] or
//     [Fixed].
//   - An operator: [WriteRecord] changes a phase and [ReadRecords] shows the phases.
//     [Losses] lists what a format loses, before anything is written. [Compare] and
//     [CompareStores] list what differs. [Joined.Status] and [Hooks] say what one program
//     does.
//   - A program that cannot be upgraded: package
//     [github.com/naming-go/naming/migrate/bridge] copies endpoints for it.
//
// docs/migrating.md in the repository is the guide: what each phase does, what to watch, how
// to go back, and what to do when an alarm fires.
package migrate
