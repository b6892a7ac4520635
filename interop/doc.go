// Package interop runs the libraries of other projects beside this one on real registries,
// each in a process of its own. It registers what they read, reads what they register, and
// makes real calls through both. Its test prints docs/interop.md.
package interop
