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
package migrate
