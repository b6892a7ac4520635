// Package doctest compiles and runs the Go snippets of the project's Markdown files.
//
// A snippet is a block that begins with ```go. A comment on the line before the block
// says how the snippet is compiled:
//
//	(no comment)                          a fragment, in the package of the root module
//	<!-- path/of/file.go -->              the same; package examples compares the text. A file
//	                                      below contrib is of that module
//	<!-- snippet: NAME -->                testdata/wrappers/NAME.go, with the fragment in it
//	<!-- snippet: run -->                 a whole program, which is run
//	<!-- snippet: theirs -->              a fragment of another library, in module interop
//	<!-- snippet: theirs, in DIR -->      the same, in the module of another directory
//	<!-- snippet: theirs, not compiled: REASON -->
//
// A fragment is a list of statements, or of declarations. Packages and variables that
// the fragment does not declare come from the tables in names.go. A wrapper with a
// function Run is run as well: Run gives the fragment a memory store and checks what
// the fragment did.
//
// All fragments of one module are compiled by one go build, from an overlay: nothing
// is written into the source tree.
package doctest
