//go:build tools

package kitexnaming

// kitex requires a version of google.golang.org/genproto that still has the packages of
// google.golang.org/genproto/googleapis/rpc. A program that imports grpc as well would have
// these packages twice. The import keeps a later version in go.mod.
import _ "google.golang.org/genproto/googleapis/type/date"
