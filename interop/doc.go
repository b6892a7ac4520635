// Package interop runs the libraries of other projects beside this one, each in a
// process of its own, on real registries: it registers what they read, reads what
// they register, and makes real calls through both. Its test prints the table in
// docs/interop.md.
package interop
